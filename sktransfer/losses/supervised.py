"""Losses against targets, one value a row."""

from __future__ import annotations

import torch
from torch.nn import functional


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of class scores.

    Parameters
    ----------
    outputs : torch.Tensor of shape (n, n_classes)
        Scores before the softmax.
    targets : torch.Tensor of shape (n,), int64
        Class of each row.

    Returns
    -------
    torch.Tensor of shape (n,)
    """
    return functional.cross_entropy(outputs, targets, reduction="none")


def binary_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of yes-or-no scores, averaged over the labels of a row.

    Parameters
    ----------
    outputs : torch.Tensor of shape (n, n_labels)
        Scores before the sigmoid.
    targets : torch.Tensor of shape (n, n_labels)
        1 where the label holds, else 0.

    Returns
    -------
    torch.Tensor of shape (n,)
    """
    return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean(1)


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared error, averaged over the outputs of a row.

    Parameters
    ----------
    outputs, targets : torch.Tensor of shape (n, n_outputs)

    Returns
    -------
    torch.Tensor of shape (n,)
    """
    return (outputs - targets).square().mean(1)
