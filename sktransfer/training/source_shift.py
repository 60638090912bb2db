"""How far rows are from those that a network was pretrained on, by the statistics that its batch norms have stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from sktransfer.backbones.backbone import Backbone, explained
from sktransfer.backbones.keyed import keyed
from sktransfer.caching import memory_cache
from sktransfer.caching.fits import kept_fits
from sktransfer.caching.keys import digest
from sktransfer.inputs.preparation import Preparation
from sktransfer.runtime.seeding import preserved_generators

# Measured on images (docs/benchmarks.rst). Up to the first rows are near, and less training is better; above it all stages
# are worth training, above the second batch norm's statistics too.
NEAR, LEARNED_NORMS = 0.1, 0.35
_ROWS = 64
_BYTES_OF_A_RESULT = 200
_SMALLEST_VARIANCE = 1e-12


def source_shift(
    backbone: Backbone, preparation: Preparation, values: Sequence[Any], *, keep: bool = True
) -> float | None:
    """Measure how far rows are from the source's.

    Candidates of a search have the same rows, fold by fold, so the last results are kept.

    Parameters
    ----------
    backbone : Backbone
        The pretrained network.
    preparation : Preparation
        Fitted to the rows.
    values : sequence
        Rows as the preparation takes them; 64 different ones are run.
    keep : bool, default=True
        Whether to keep the result for other fits.

    Returns
    -------
    float or None
        The divergence of Kullback and Leibler of two normal distributions, that of what enters a channel of a batch
        norm now and that of the stored statistics: the median over channels, the mean over layers, in nats. None for
        networks without stored statistics.
    """
    network = backbone.network_to_read()
    norms = [one for one in network.modules() if isinstance(one, _BatchNorm) and one.running_mean is not None]
    if not norms:
        return None
    # Whatever the order of the rows, and however many copies there are of one, which a weight may stand for.
    digests = preparation.digests(values)
    chosen = np.unique(digests, return_index=True)[1][:_ROWS]
    _, context = keyed(memory_cache if keep else None, {}, backbone=backbone, preparation=preparation)
    key = digest(context + b"".join(digests[index] for index in chosen), domain=b"source shift")
    shift = kept_fits.get(key) if keep else None
    if shift is None:
        moments = _moments(backbone, norms, preparation, [values[index] for index in sorted(chosen)])
        shift = float(np.mean([_divergence(norm, *moments[id(norm)]) for norm in norms if id(norm) in moments]))
    if keep:
        kept_fits.put(key, shift, _BYTES_OF_A_RESULT)
    return shift


def _moments(
    backbone: Backbone, norms: Sequence[_BatchNorm], preparation: Preparation, values: Sequence[Any]
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and variance of each channel of what enters each layer that runs."""
    sums: dict[int, list[Any]] = {}

    def add(norm: _BatchNorm, inputs: tuple[torch.Tensor, ...]) -> None:
        entering = inputs[0].double()
        others = [axis for axis in range(entering.ndim) if axis != 1]
        made = entering.sum(others), entering.square().sum(others), entering.numel() // entering.shape[1]
        sums[id(norm)] = [then + now for then, now in zip(sums.get(id(norm), (0, 0, 0)), made, strict=True)]

    groups: dict[Any, list[Any]] = {}
    for item in preparation.prepare(values, 0):
        groups.setdefault(preparation.group(item), []).append(item)
    with backbone.lock, torch.no_grad(), preserved_generators():
        hooks = [norm.register_forward_pre_hook(add) for norm in norms]
        try:
            for items in groups.values():
                most = max(1, preparation.budget // max(1, preparation.size(items[0])))
                for start in range(0, len(items), most):
                    inputs = preparation.collate(items[start : start + most])
                    inputs = inputs.to(torch.device("cpu"), torch.float32)
                    with explained(backbone.name, inputs):
                        backbone.network_to_read()(*inputs.args, **inputs.kwargs)
        finally:
            for hook in hooks:
                hook.remove()
    means = {key: (total / n, squares / n) for key, (total, squares, n) in sums.items()}
    return {key: (mean, square - mean**2) for key, (mean, square) in means.items()}


def _divergence(norm: _BatchNorm, mean: torch.Tensor, variance: torch.Tensor) -> float:
    """Return the median over channels of KL(N(now) || N(stored))."""
    assert norm.running_mean is not None and norm.running_var is not None
    stored = norm.running_var.double().clamp_min(_SMALLEST_VARIANCE)
    now = variance.clamp_min(_SMALLEST_VARIANCE)
    moved = (mean - norm.running_mean.double()).square()
    return float((0.5 * (torch.log(stored / now) + (now + moved) / stored - 1)).median())
