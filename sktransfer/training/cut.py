"""Where a network is cut for training, and what its frozen part gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sktransfer.backbones.activations import Activations
from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.encoding import Run, encode
from sktransfer.backbones.readout import Readout
from sktransfer.backbones.splitting.split import Split
from sktransfer.inputs.preparation import Inputs, Preparation
from sktransfer.inputs.rows import Rows
from sktransfer.runtime.device import frozen_pass


@dataclass(frozen=True)
class Cut:
    """A backbone that is frozen up to a depth.

    Attributes
    ----------
    backbone : Backbone
        The whole network.
    depth : int
        Number of frozen stages.
    pooling : str, tuple of str or None
        How the embedding is pooled; None for the backbone's own way.
    layers : tuple of int or None
        Stages whose pooled outputs make the embedding; None where the network's own output does.
    split : Split or None
        Prefix and suffix; None where all is frozen. One that has no frozen stages though the depth is not 0 is of a
        network that can't be cut there: it runs whole.
    has_tokens : bool
        Whether dimension 1 of the activation is the tokens of a text.
    """

    backbone: Backbone
    depth: int
    pooling: str | tuple[str, ...] | None
    layers: tuple[int, ...] | None
    split: Split | None
    has_tokens: bool

    @property
    def all_frozen(self) -> bool:
        """Whether no stage is trained."""
        return self.split is None

    @property
    def prefix_depth(self) -> int:
        """Number of stages that are run once for each row."""
        return 0 if self.split is None else len(self.split.stages)

    @property
    def frozen_layers(self) -> tuple[int, ...]:
        """Those of `layers` that the part behind the cut can't give."""
        return tuple(layer for layer in self.layers or () if layer < self.prefix_depth)

    def readout(self, layers: Sequence[int] | None = None) -> Readout:
        """Say what the frozen network gives: the embedding, or the pooled outputs of some stages."""
        if layers is not None:
            return Readout(tuple(layers), self.pooling)
        return Readout(None, self.pooling, normalize=self.backbone.normalize)

    def embed(
        self, preparation: Preparation, values: Sequence[Any], run: Run, *, layers: Sequence[int] | None = None
    ) -> np.ndarray:
        """Embed rows with the frozen network, as the extractor does and in the same cache."""
        return encode(self.backbone, preparation, self.readout(layers), Rows(self.backbone.kind, values), run)

    def embed_inputs(self, inputs: Inputs, run: Run, *, layers: Sequence[int] | None = None) -> torch.Tensor:
        """Embed one batch with the frozen network, without a cache."""
        with self.backbone.lock, frozen_pass(run.device):
            made = self.backbone.embed(
                inputs, layers=layers, pooling=self.pooling, device=run.device, dtype=run.dtype
            ).float()
            if layers is None and self.backbone.normalize:
                made = torch.nn.functional.normalize(made, dim=1)
            return made.cpu()

    def activations(self, preparation: Preparation, run: Run) -> Activations:
        """Return what computes the outputs of the last frozen stage."""
        return Activations(self.backbone, preparation, self.prefix_depth, self.has_tokens, run)


def cut_at(
    backbone: Backbone, preparation: Preparation, depth: int, *, pooling: str | tuple[str, ...] | None = None
) -> Cut:
    """Cut a backbone.

    Parameters
    ----------
    backbone : Backbone
        The network.
    preparation : Preparation
        Makes rows that it can read.
    depth : int
        Number of frozen stages.
    pooling : str, tuple of str or None, default=None
        How the embedding is pooled; None for the backbone's own way.

    Returns
    -------
    Cut

    Warns
    -----
    UserWarning
        If the network can't be cut here, and so runs whole.
    """
    stages = backbone.find_stages(preparation)
    layers = None
    if backbone.default_layers is not None:
        layers = tuple(backbone.find_layer(name, preparation) for name in backbone.default_layers)
    if depth == len(stages):
        return Cut(backbone, depth, pooling, layers, None, False)
    split = backbone.split(depth, preparation)
    has_tokens = bool(split.stages) and backbone.has_tokens(depth)
    return Cut(backbone, depth, pooling, layers, split, has_tokens)
