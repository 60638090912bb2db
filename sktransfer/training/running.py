"""Rows through a tuned network."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import torch

from sktransfer._locks import ProcessLock
from sktransfer.runtime.device import free_memory, frozen_pass
from sktransfer.runtime.kernels import training_kernels_for
from sktransfer.training.loop import run_in_parts
from sktransfer.training.rows import NetworkRows
from sktransfer.training.tunable import TunableNetwork

_away = ProcessLock("networks on another device")


def run_network(network: TunableNetwork, rows: NetworkRows, device: torch.device, part: str = "answer") -> np.ndarray:
    """Run rows through a tuned network.

    Parameters
    ----------
    network : TunableNetwork
        In any mode, which it keeps.
    rows : NetworkRows
        The rows.
    device : torch.device
        Where to run.
    part : {"answer", "embed"}, default="answer"
        Outputs, or embeddings.

    Returns
    -------
    ndarray of shape (n_rows, n_values), float64
    """
    if network.training:  # while it is trained, which one thread does with a network of its own
        network.eval()
        try:
            return _run(network, rows, device, part)
        finally:
            network.train()
    if next(network.parameters()).device == device:
        return _run(network, rows, device, part)
    with _away:  # one after the other, since there may be room for one only
        try:
            # A copy, since other threads may be running it where it is.
            return _run(copy.deepcopy(network, {id(network.cut): network.cut}).to(device), rows, device, part)
        finally:
            free_memory(device)


def _run(network: TunableNetwork, rows: NetworkRows, device: torch.device, part: str) -> np.ndarray:
    outputs: np.ndarray | None = None
    dtype = next(network.parameters()).dtype
    with frozen_pass(device), training_kernels_for(device, dtype) or nullcontext():
        for places, given in run_in_parts(getattr(network, part), rows, device, dtype):
            made = given.double().cpu().numpy()
            if outputs is None:
                outputs = np.empty((len(rows), made.shape[1]))
            outputs[places] = made
    assert outputs is not None  # rows are never empty
    return outputs
