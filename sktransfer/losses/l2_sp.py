"""L2-SP: a pull towards the weights that training started from."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def l2_sp_penalty(weights: Sequence[torch.Tensor], start: Sequence[torch.Tensor]) -> torch.Tensor:
    """Half the squared distance of weights to where they started.

    Parameters
    ----------
    weights : sequence of torch.Tensor
        The weights, with gradients.
    start : sequence of torch.Tensor
        Where they started, in the same order.

    Returns
    -------
    torch.Tensor
        A scalar.

    Notes
    -----
    Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning with convolutional networks",
    arXiv:1802.01483, without their term for the head, which ordinary weight decay takes care of.
    """
    terms = [(now - then).square().sum() for now, then in zip(weights, start, strict=True)]
    return 0.5 * torch.stack(terms).sum()
