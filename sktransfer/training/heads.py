"""Heads: what is put on top of an embedding."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from sktransfer.training.probe import LinearProbe


def make_head(head: Any, n_features: int, n_outputs: int) -> nn.Module:
    """Make a head with random weights.

    Parameters
    ----------
    head : {"linear", "mlp"}, nn.Module or callable
        A module is copied; a callable gets `n_features` and `n_outputs`, and returns a module.
    n_features : int
        Length of an embedding.
    n_outputs : int
        Number of outputs.

    Returns
    -------
    nn.Module
        From (n, n_features) to (n, n_outputs).

    Raises
    ------
    ValueError
        If the module gives another number of outputs, or can't read embeddings of this length.
    """
    if head == "linear":
        layer = nn.Linear(n_features, n_outputs)
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
        return layer
    if head == "mlp":
        # No dropout: rows are few, and weight decay and early stopping are there.
        return nn.Sequential(nn.Linear(n_features, 256), nn.GELU(), nn.Linear(256, n_outputs))
    made = copy.deepcopy(head if isinstance(head, nn.Module) else _called(head, n_features, n_outputs))
    if not isinstance(made, nn.Module):
        raise TypeError(f"head made a {type(made).__name__}; it has to return a torch.nn.Module.")
    if any(isinstance(part, torch.jit.ScriptModule) for part in made.modules()):
        raise TypeError(
            f"head made a {type(made).__name__} of TorchScript, which can't be trained. Give the module itself."
        )
    made.eval()
    reference = next(made.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            given = made(torch.zeros(2, n_features, dtype=reference.dtype))
        shape = tuple(given.shape)
    except Exception as error:  # whatever a user's forward raises
        raise ValueError(
            f"The head {type(made).__name__} can't read embeddings of shape (2, {n_features}): {type(error).__name__}: {error}"
        ) from error
    made.requires_grad_(True)  # after the pass, which makes the weights of lazy layers
    if shape != (2, n_outputs):
        raise ValueError(
            f"The head {type(made).__name__} gives an output of shape {shape} for 2 rows; (2, {n_outputs}) is needed, one "
            "value for each class (one in all for two classes), label or target."
        )
    return made


def _called(head: Any, n_features: int, n_outputs: int) -> Any:
    """Call what makes a head, and say so where it does not take the two lengths."""
    try:
        return head(n_features, n_outputs)
    except TypeError as error:
        raise TypeError(
            f"head={head!r:.80} was called with the length of an embedding, {n_features}, and the number of outputs, "
            f"{n_outputs}, and failed: {error}"
        ) from error


def start_from_probe(head: nn.Linear, probe: LinearProbe) -> None:
    """Give a linear head the weights of a probe."""
    assert probe.weight.shape == head.weight.shape, "a probe of other classes than the head's"
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(probe.weight))
        head.bias.copy_(torch.from_numpy(probe.bias))
