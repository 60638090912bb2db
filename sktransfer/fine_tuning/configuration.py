"""From parameters, and what a fit starts from, to a plan of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.encoding import Run
from sktransfer.backbones.readout import pooling_modes
from sktransfer.inputs.augmentation import resolve_augment
from sktransfer.inputs.preparation import Preparation
from sktransfer.runtime.device import resolve_precision
from sktransfer.training.network import StageRates
from sktransfer.training.plan import Plan
from sktransfer.training.settings import Settings
from sktransfer.training.source_shift import LEARNED_NORMS, NEAR

# Trained from scratch, where no network is there that fits all rows of a modality.
UNTRAINED = {"table": "table-mlp", "series": "series-cnn"}
MANY_ROWS = 1000
_EPOCHS, _FEW_EPOCHS = 20, 6
# Of the top stage of a pretrained network: one that reads texts, or whose rows are near; and any other.
_LOW_RATE, _RATE = 1e-4, 3e-4
_UNTRAINED_RATE = 1e-3
_HALF = 0.5


@dataclass(frozen=True)
class Start:
    """What a fit starts from.

    Attributes
    ----------
    backbone : Backbone
        The network.
    preparation : Preparation
        Fitted to the training rows.
    values : sequence
        The training rows as the preparation takes them.
    columns : dict
        What is kept of the columns of `X`.
    named : object
        What the backbone was asked for by: the name of an architecture, or the fingerprint of a pretrained network.
    untrained : callable or None
        Makes the network anew with other random weights, where it is an architecture that was made for the rows.
    from_random : bool
        Whether weights are random, those of a pretrained network's architecture included.
    source_shift : float or None
        See `source_shift`.
    depth : int
        Number of frozen stages.
    """

    backbone: Backbone
    preparation: Preparation
    values: Sequence[Any]
    columns: dict[str, Any]
    named: Any
    untrained: Callable[[], nn.Module] | None
    from_random: bool
    source_shift: float | None
    depth: int

    @property
    def is_near(self) -> bool:
        """Whether rows are known to be near those that the network was pretrained on."""
        return self.source_shift is not None and self.source_shift <= NEAR


def depth_asked_for(freeze_depth: Any, shift: float | None) -> Any:
    """Return the depth to freeze to; with "auto" all stages are trained where rows are far from the source's."""
    if freeze_depth != "auto":
        return freeze_depth
    return 0 if shift is not None and shift > NEAR else _HALF


def learning_rates(own: Any, start: Start, head_init: str, *, all_frozen: bool) -> tuple[StageRates, float]:
    """Return the rates of stages and head, and the one of a head that starts at random.

    Parameters
    ----------
    own : namespace
        The estimator's parameters.
    start : Start
        What the fit starts from.
    head_init : {"probe", "random"}
        Where the head starts.
    all_frozen : bool
        Whether the head alone is trained.
    """
    rate = own.learning_rate
    if isinstance(rate, str):
        low = start.backbone.kind == "text" or start.is_near
        rate = _UNTRAINED_RATE if start.from_random else _LOW_RATE if low else _RATE
    of_new_head = rate if start.untrained else rate * own.head_lr_ratio
    # Where all is frozen there is nothing under the head that its steps could distort.
    of_head = rate if head_init == "probe" and not all_frozen else of_new_head
    return StageRates(of_head, rate, 1.0 if start.untrained else own.layer_decay), of_new_head


def training_settings(
    own: Any, start: Start, device: torch.device, seed: int, *, n_rows: int, validates: bool
) -> Settings:
    """Return how the network is trained.

    Parameters
    ----------
    own : namespace
        The estimator's parameters.
    start : Start
        What the fit starts from.
    device : torch.device
        Where to train.
    seed : int
        Of everything random.
    n_rows : int
        Training and validation samples that `X` holds.
    validates : bool
        Whether there are validation samples.
    """
    autocast = None
    if device.type == "cuda" and own.precision != "float32":
        dtype = resolve_precision(own.precision, device, start.backbone.kind)
        autocast = None if dtype == torch.float32 else dtype
    max_epochs = own.max_epochs
    if max_epochs == "auto":
        max_epochs = _FEW_EPOCHS if n_rows >= MANY_ROWS and not start.from_random else _EPOCHS
    return Settings(
        max_epochs=max_epochs,
        batch_size=own.batch_size,
        optimizer=own.optimizer,
        lr_scheduler=own.lr_scheduler,
        warmup_ratio=own.warmup_ratio,
        max_grad_norm=own.max_grad_norm,
        n_iter_no_change=own.n_iter_no_change if validates else None,
        seed=seed,
        device=device,
        dtype=torch.float64 if start.preparation.exact and device.type != "mps" else torch.float32,
        autocast=autocast,
    )


def make_plan(
    own: Any, start: Start, settings: Settings, run: Run, source: tuple[Sequence[Any], np.ndarray] | None
) -> Plan:
    """Return what is trained, and how.

    Parameters
    ----------
    own : namespace
        The estimator's parameters.
    start : Start
        What the fit starts from.
    settings : Settings
        How the network is trained.
    run : Run
        How its frozen stages are run.
    source : tuple or None
        Prepared rows and labels of the source, for the stability record.
    """
    untrained, shift = start.untrained is not None, start.source_shift
    head_init = "random" if untrained else own.head_init
    fixed_norms = own.freeze_batch_norm
    if isinstance(fixed_norms, str):
        fixed_norms = head_init == "probe" and (shift is None or shift <= LEARNED_NORMS)
    all_frozen = start.depth == len(start.backbone.find_stages(start.preparation))
    rates, new_head_rate = learning_rates(own, start, head_init, all_frozen=all_frozen)
    return Plan(
        depth=start.depth,
        rates=rates,
        new_head_rate=new_head_rate,
        settings=settings,
        run=run,
        weight_decay=own.weight_decay,
        l2_sp=own.l2_sp,
        head=own.head,
        head_init=head_init,
        tempered=not start.is_near,
        pooling=pooling_modes(own.pooling),
        unfreeze_every=None if untrained else own.unfreeze_every,
        augment=resolve_augment(own.augment, start.backbone.kind),
        stability_every=own.stability_every,
        source=source,
        untrained=start.untrained,
        fixed_norms=bool(fixed_norms),
        interpolation=1.0 if start.from_random else float(own.weight_interpolation),
    )
