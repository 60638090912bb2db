"""Rows through a network in eval mode, in parts where memory is short."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from sktransfer._locks import ProcessLock
from sktransfer.runtime.device import free_memory, frozen_pass, is_out_of_memory
from sktransfer.runtime.kernels import training_kernels_for
from sktransfer.training.network import TunableNetwork
from sktransfer.training.objective import Objective, Outputs
from sktransfer.training.rows import NetworkRows
from sktransfer.training.settings import Settings

Made = TypeVar("Made")

_away = ProcessLock("networks on another device")


class BatchSource(Protocol):
    """Rows that a module can be called with."""

    def __len__(self) -> int: ...

    def chunks(self, places: Sequence[int]) -> list[tuple[list[int], Any]]:
        """Return rows as the module takes them: positions within `places`, and the rows there."""

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[list[tuple[list[int], Any]]]:
        """Yield the chunks of each batch."""

    def in_order(self) -> Iterator[tuple[list[int], Any]]:
        """Yield all rows once: places, and the rows there."""


def run_in_parts(
    call: Callable[[Any], Made], rows: BatchSource, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[list[int], Made]]:
    """Run all rows through a module, in smaller parts where memory does not suffice.

    Parameters
    ----------
    call : callable
        From what `rows` gives to outputs, a row for each.
    rows : BatchSource
        The rows.
    device, dtype
        Where the module is, and the type of its weights.

    Yields
    ------
    places : list of int
        Places of rows.
    outputs : torch.Tensor or Outputs
        What the module gives for them.
    """
    most_rows = sys.maxsize
    for everything, chunk in rows.in_order():
        parts: list[tuple[list[int], Any]] = [(everything, chunk)]
        while parts:
            places, one = parts.pop(0)
            if len(places) <= most_rows:
                try:
                    outputs = call(one.to(device, dtype))
                except Exception as error:
                    if not is_out_of_memory(error) or len(places) == 1:
                        raise
                else:
                    yield places, outputs
                    continue
                # Out of the handler, which would hold on to what did not fit.
                most_rows = len(places) // 2
                free_memory(device)
            halves = [places[start : start + most_rows] for start in range(0, len(places), most_rows)]
            parts = [
                ([half[i] for i in inner], smaller) for half in halves for inner, smaller in rows.chunks(half)
            ] + parts


@contextmanager
def _evaluating(module: nn.Module, settings: Settings) -> Iterator[None]:
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), training_kernels_for(settings.device, settings.dtype) or nullcontext():
            yield
    finally:
        module.train(training)


def evaluate(module: nn.Module, rows: BatchSource, objective: Objective, settings: Settings) -> float:
    """Return the validation loss of a module in eval mode.

    Parameters
    ----------
    module : nn.Module
        From the chunks of `rows` to `Outputs`.
    rows : BatchSource
        All validation samples.
    objective : Objective
        What the loss is.
    settings : Settings
        Where the module is.

    Returns
    -------
    float
    """
    with _evaluating(module, settings), _evaluating(objective.modules, settings):
        parts = list(run_in_parts(module, rows, settings.device, settings.dtype))
        return float(objective.validation_loss(Outputs.joined(parts)))


def is_finite(module: nn.Module, rows: BatchSource, settings: Settings) -> bool:
    """Return whether a module in eval mode gives finite scores."""
    with _evaluating(module, settings):
        parts = run_in_parts(module, rows, settings.device, settings.dtype)
        return all(bool(torch.isfinite(outputs.scores).all()) for _, outputs in parts)


def run_network(network: TunableNetwork, rows: NetworkRows, device: torch.device, part: str = "scores") -> np.ndarray:
    """Run rows through a tuned network.

    Parameters
    ----------
    network : TunableNetwork
        In any mode, which it keeps.
    rows : NetworkRows
        The rows.
    device : torch.device
        Where to run.
    part : {"scores", "embed"}, default="scores"
        What to return: the head's scores, or embeddings.

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
