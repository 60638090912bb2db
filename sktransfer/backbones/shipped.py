"""The networks that come with the package."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sktransfer.archive import read_tensors
from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.card import Card
from sktransfer.backbones.fingerprint import fingerprint
from sktransfer.backbones.image import ImagePreparation, ImageTransform
from sktransfer.backbones.small_resnet import SmallResNet
from sktransfer.backbones.static_embedding import load_static_embedding
from sktransfer.backbones.text import TextPreparation

# What "auto" is for each kind of row that has a network for all.
DEFAULTS = {"text": "text-static", "image": "image-resnet"}


def names() -> list[str]:
    """Return the names of the shipped networks."""
    return sorted(DEFAULTS.values())


def load_shipped(name: str) -> Backbone:
    """Load a network from the package's own files.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    Backbone
    """
    with resources.as_file(resources.files("sktransfer.weights") / name) as folder:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        return _LOADERS[name](card, folder)


def _card(card: dict[str, Any]) -> Card:
    fields = ("name", "modality", "dimension", "parameters", "licence", "source", "summary")
    return Card(**{field: card[field] for field in fields})


def _load_text(card: dict[str, Any], folder: Path) -> Backbone:
    from tokenizers import Tokenizer

    tensors = read_tensors(folder / "model.safetensors")
    preparation = TextPreparation(
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        max_length=card["max_length"],
        limit=None,
        ragged=True,
        special_tokens=False,
    )
    # A table look-up needs no small batches.
    preparation.budget, preparation.most_rows = 1 << 20, preparation.chunk_rows
    return Backbone(
        card=_card(card),
        network=load_static_embedding(tensors),
        preparation=preparation,
        fingerprint=fingerprint(tensors, [card["name"], preparation.describe()]),
        origin=Origin(card["name"], kind="text"),
        normalize=card["normalize"],
        stage_names=tuple(card["stages"]),
    )


def _load_image(card: dict[str, Any], folder: Path) -> Backbone:
    tensors = {name: tensor.float() for name, tensor in read_tensors(folder / "model.safetensors").items()}
    readout = Standardize(tensors.pop("readout.mean"), tensors.pop("readout.scale"))
    network = SmallResNet(tuple(card["architecture"]["widths"]), tuple(card["architecture"]["blocks"]))
    network.load_state_dict(tensors)
    settings = card["preparation"]
    size = settings["size"]
    transform = ImageTransform(
        resize=(size, size) if settings["resize"] == "squash" else size,
        crop=None if settings["resize"] == "squash" else size,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"],
    )
    preparation = ImagePreparation(transform, description=transform.describe())
    return Backbone(
        card=_card(card),
        network=network,
        preparation=preparation,
        fingerprint=fingerprint(
            {**network.state_dict(), "mean": readout.mean, "scale": readout.scale},
            [card["name"], card["default_layers"], preparation.describe()],
        ),
        origin=Origin(card["name"], kind="image"),
        default_layers=tuple(card["default_layers"]),
        stage_names=tuple(card["stages"]),
        readout=readout,
    )


class Standardize(nn.Module):
    """Subtract a mean from each feature and multiply by a scale.

    Parameters
    ----------
    mean, scale : torch.Tensor of shape (d,)
        Constants, measured on the training images.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: torch.Tensor, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Standardise vectors of shape (n, d)."""
        return (vectors - self.mean) * self.scale


_LOADERS = {"text-static": _load_text, "image-resnet": _load_image}
