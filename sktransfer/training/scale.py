"""How sure a head is: one factor for all of its scores, which decides no prediction of a class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.optimize import minimize_scalar

_SMALLEST, _LARGEST = -3.0, 3.5  # logarithms


def best_scale(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    outputs: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    n_scores: int,
    penalty: float = 0.0,
) -> tuple[float, float]:
    """Find the factor of scores at which their mean loss is lowest.

    Parameters
    ----------
    loss : callable
        From outputs and targets to one value a row.
    outputs : torch.Tensor of shape (n, n_outputs)
        What a network gives.
    targets : torch.Tensor of shape (n, ...)
        What the loss compares it with.
    weights : torch.Tensor of shape (n,)
        Weights of rows.
    n_scores : int
        How many of the outputs, from the first on, are scores.
    penalty : float, default=0
        Times the squared factor, it is added to the loss.

    Returns
    -------
    scale : float
        The factor, between 0.05 and 33.
    loss : float
        The weighted mean loss with it, without the penalty.

    Notes
    -----
    Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599.
    """
    outputs = outputs.double()
    shares = weights.double() / weights.double().sum()

    def mean_loss(scale: float) -> float:
        scaled = torch.cat([outputs[:, :n_scores] * scale, outputs[:, n_scores:]], dim=1)
        return float((loss(scaled, targets) * shares).sum())

    def total(logarithm: float) -> float:
        scale = float(torch.tensor(logarithm).exp())
        return mean_loss(scale) + penalty * scale**2

    if not torch.isfinite(outputs).all():
        return 1.0, mean_loss(1.0)
    found = minimize_scalar(total, bounds=(_SMALLEST, _LARGEST), method="bounded", options={"xatol": 1e-3})
    scale = float(torch.tensor(found.x).exp())
    return scale, mean_loss(scale)
