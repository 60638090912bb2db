"""Losses against a teacher, one value a row."""

from __future__ import annotations

import torch
from torch.nn import functional


def soft_target_loss(outputs: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divergence of the student's softened probabilities from the teacher's, times the squared temperature.

    Parameters
    ----------
    outputs : torch.Tensor of shape (n, n_classes)
        The student's scores before the softmax.
    teacher : torch.Tensor of shape (n, n_classes)
        The teacher's scores before the softmax, or logarithms of its probabilities; finite.
    temperature : float
        What both are divided by before the softmax, above 0.

    Returns
    -------
    torch.Tensor of shape (n,)
        ``temperature**2 * KL(teacher || student)``, 0 where they agree.

    Notes
    -----
    Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531. Gradients of softened
    probabilities shrink with the square of the temperature, which the factor makes up for.
    """
    told = functional.log_softmax(teacher / temperature, dim=1)
    said = functional.log_softmax(outputs / temperature, dim=1)
    return temperature**2 * (told.exp() * (told - said)).sum(1)


def two_sided(outputs: torch.Tensor) -> torch.Tensor:
    """Turn scores of the second of two classes into scores of both.

    Parameters
    ----------
    outputs : torch.Tensor of shape (n, 1)
        Log-odds of the second class.

    Returns
    -------
    torch.Tensor of shape (n, 2)
        With the same softmax.
    """
    return torch.cat([torch.zeros_like(outputs), outputs], dim=1)


def hint_loss(projected: torch.Tensor, hints: torch.Tensor) -> torch.Tensor:
    """Squared distance of the student's features, projected, to the teacher's, averaged over features.

    Parameters
    ----------
    projected : torch.Tensor of shape (n, n_features)
        The student's features after the learned projection.
    hints : torch.Tensor of shape (n, n_features)
        The teacher's features.

    Returns
    -------
    torch.Tensor of shape (n,)

    Notes
    -----
    Romero et al. 2015, "FitNets: hints for thin deep nets", arXiv:1412.6550.
    """
    return (projected - hints).square().mean(1)
