"""What is read out of a backbone: which layers, pooled and scaled how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sktransfer._parameters import is_int
from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.pooling import POOLINGS
from sktransfer.inputs.preparation import Preparation


@dataclass(frozen=True)
class Readout:
    """What is read out of a backbone.

    Attributes
    ----------
    layers : tuple of int or None
        Stages whose pooled outputs are concatenated; None for the backbone's default embedding.
    pooling : str, tuple of str or None
        How to pool; None for the backbone's own way.
    normalize : bool
        Whether vectors are scaled to unit length.
    truncate_dim : int or None
        Number of leading values kept.
    window_pooling : str or None
        "mean" or "max" over the windows of a long text; None for rows that are one piece.
    """

    layers: tuple[int, ...] | None = None
    pooling: str | tuple[str, ...] | None = None
    normalize: bool = False
    truncate_dim: int | None = None
    window_pooling: str | None = None


def make_readout(
    backbone: Backbone,
    preparation: Preparation,
    *,
    layer: Any,
    pooling: Any,
    normalize: Any,
    truncate_dim: int | None,
    window_pooling: str | None,
) -> Readout:
    """Check an estimator's parameters against what a backbone has to give.

    Parameters
    ----------
    backbone : Backbone
        The network.
    preparation : Preparation
        Makes rows that it can read.
    layer, pooling, normalize, truncate_dim, window_pooling
        As in :class:`sktransfer.PretrainedFeatureExtractor`.

    Returns
    -------
    Readout

    Raises
    ------
    ValueError
        If the network has no such stage, a way of pooling has no such name, or windows are asked for of rows that have
        none.
    """
    layers = _find_layers(backbone, preparation, layer)
    modes = pooling_modes(pooling)
    if window_pooling is not None and backbone.kind != "text":
        raise ValueError(
            f"window_pooling={window_pooling!r} is for texts, but this backbone reads {backbone.kind} rows. Leave it at None."
        )
    if normalize == "auto":
        normalize = backbone.normalize and layers is None
    return Readout(layers, modes, bool(normalize), truncate_dim, window_pooling)


def pooling_modes(pooling: Any) -> str | tuple[str, ...] | None:
    """Turn the parameter `pooling` into names of ways to pool, None for the backbone's own.

    Raises
    ------
    ValueError
        If there is no such way.
    """
    if isinstance(pooling, str):
        return None if pooling == "auto" else pooling
    if not pooling or not all(isinstance(mode, str) and mode in POOLINGS for mode in pooling):
        raise ValueError(f"pooling must be 'auto' or among {', '.join(POOLINGS)}. Got {pooling!r}.")
    return tuple(pooling)


def check_layer(layer: Any) -> None:
    """Refuse what is a `layer` of no network.

    Raises
    ------
    ValueError
        If it is neither a place nor a name nor some of these.
    """
    asked = list(layer) if isinstance(layer, list | tuple) else [layer]
    if layer is not None and (
        not asked or not all(bool(one) if isinstance(one, str) else is_int(one) for one in asked)
    ):
        raise ValueError(f"layer must be the place or name of a stage, or a list of those. Got {layer!r}.")


def _find_layers(backbone: Backbone, preparation: Preparation, layer: Any) -> tuple[int, ...] | None:
    """Turn the parameter `layer` into places among the stages."""
    check_layer(layer)
    if layer is None:
        return None
    asked = list(layer) if isinstance(layer, list | tuple) else [layer]
    return tuple(backbone.find_layer(one, preparation) for one in asked)
