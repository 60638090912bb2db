"""What is trained on which rows, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer.backbones.encoding import Run
from sktransfer.training.network import StageRates
from sktransfer.training.settings import Settings


@dataclass(frozen=True)
class Plan:
    """What is trained, and how.

    Attributes
    ----------
    depth : int
        Number of frozen stages.
    rates : StageRates
        Learning rates.
    settings : Settings
        Epochs, batches, optimizer, device.
    run : Run
        How the frozen stages are run.
    weight_decay, l2_sp : float
        Strength of the pull towards zero, of all weights, and towards where they started, of the network's.
    head : str, nn.Module or callable
        See `make_head`.
    head_init : {"probe", "random"}
        Where the head starts.
    tempered : bool
        Whether a head that starts as a probe is tempered before the stages under it are trained.
    pooling : str, tuple of str or None
        How embeddings are pooled; None for the backbone's own way.
    unfreeze_every : int or None
        Epochs after which one more stage opens; None opens all at once.
    augment : callable or None
        Changes a prepared image.
    stability_every : int or None
        Epochs between entries of the stability record; None keeps none.
    source : tuple or None
        Prepared rows and labels of the source, for the stability record.
    untrained : callable or None
        Makes the network with other random weights, where it is an untrained one; None for a pretrained one.
    fixed_norms : bool
        Whether batch norm keeps its statistics in the trained stages too.
    interpolation : float
        Coefficient of the trained weights where those that are kept are interpolated with the initial ones; 1 keeps
        the trained ones.
    new_head_rate : float
        Rate of a head that starts at random.
    """

    depth: int
    rates: StageRates
    settings: Settings
    run: Run
    weight_decay: float
    l2_sp: float
    head: Any
    head_init: str
    tempered: bool
    pooling: str | tuple[str, ...] | None
    unfreeze_every: int | None
    augment: Callable[[torch.Tensor], torch.Tensor] | None
    stability_every: int | None
    source: tuple[Sequence[Any], np.ndarray] | None
    untrained: Callable[[], nn.Module] | None = None
    fixed_norms: bool = False
    interpolation: float = 1.0
    new_head_rate: float = 1e-3
