"""Rows through a tuned network."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import torch

from sktransfer.runtime.device import free_memory, frozen_pass
from sktransfer.runtime.kernels import training_kernels_for
from sktransfer.training.loop import run_in_parts
from sktransfer.training.rows import NetworkRows, PartOfRows
from sktransfer.training.tunable import TunableNetwork

_lending = threading.RLock()


def run_network(
    network: TunableNetwork, rows: NetworkRows | PartOfRows, device: torch.device, part: str = "answer"
) -> np.ndarray:
    """Run rows through a tuned network.

    Parameters
    ----------
    network : TunableNetwork
        In eval mode.
    rows : NetworkRows or PartOfRows
        The rows.
    device : torch.device
        Where to run.
    part : {"answer", "embed"}, default="answer"
        Outputs, or embeddings.

    Returns
    -------
    ndarray of shape (n_rows, n_values), float64
    """
    home = next(network.parameters()).device
    training = network.training
    outputs: np.ndarray | None = None
    # While it is on another device, or in another mode, it is lent to one thread.
    with _lending if home != device or training else nullcontext():
        network.to(device).eval()
        try:
            dtype = next(network.parameters()).dtype
            with frozen_pass(device), training_kernels_for(device, dtype) or nullcontext():
                for places, given in run_in_parts(getattr(network, part), rows, device, dtype):
                    made = given.double().cpu().numpy()
                    if outputs is None:
                        outputs = np.empty((len(rows), made.shape[1]))
                    outputs[places] = made
        finally:
            network.to(home).train(training)
            if home != device:
                free_memory(device)
    assert outputs is not None  # rows are never empty
    return outputs
