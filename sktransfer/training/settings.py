"""How a network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
LR_SCHEDULERS = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    Attributes
    ----------
    max_epochs : int
        Passes over the training rows.
    batch_size : int
        Rows that one step of the optimizer is computed from.
    optimizer : str
        One of `OPTIMIZERS`. "sgd" has a momentum of 0.9.
    lr_scheduler : str
        One of `LR_SCHEDULERS`: how rates fall after the warm-up, to zero at the end but for "constant".
    warmup_ratio : float
        Share of all steps in which rates rise from zero.
    max_grad_norm : float or None
        Norm that the gradient of all weights together is cut to.
    n_iter_no_change : int or None
        Epochs without a better validation loss after which training ends; None trains all.
    seed : int
        Of everything random.
    device : torch.device
        Where to train.
    dtype : torch.dtype
        Type of the weights.
    autocast : torch.dtype or None
        Type that products are computed in, on a GPU.
    """

    max_epochs: int
    batch_size: int
    optimizer: str = "adamw"
    lr_scheduler: str = "cosine"
    warmup_ratio: float = 0.1
    max_grad_norm: float | None = 1.0
    n_iter_no_change: int | None = None
    seed: int = 0
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None

    def make_optimizer(self, groups: list[dict]) -> torch.optim.Optimizer:
        """Make the optimizer of groups of weights, which bring their rates and weight decay."""
        options = {"momentum": 0.9} if self.optimizer == "sgd" else {}
        # One pass over the weights in place of a dozen.
        fused = self.device.type in ("cpu", "cuda")
        return OPTIMIZERS[self.optimizer](groups, **options, fused=fused)

    def rate_factor(self, step: int, n_steps: int) -> float:
        """Return what rates are multiplied by at one step, of `n_steps` in all."""
        warmup = math.ceil(self.warmup_ratio * n_steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.lr_scheduler == "constant":
            return 1.0
        progress = (step - warmup) / max(1, n_steps - warmup)
        return 1.0 - progress if self.lr_scheduler == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
