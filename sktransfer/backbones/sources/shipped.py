"""The networks that come with the package."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from sktransfer.archive import read_tensors
from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.card import Card
from sktransfer.backbones.checkpoints import load_tensors
from sktransfer.backbones.identity.fingerprint import fingerprint
from sktransfer.backbones.networks.small_resnet import SmallResNet
from sktransfer.backbones.networks.static_embedding import load_static_embedding
from sktransfer.backbones.sources.catalogue import SHIPPED
from sktransfer.inputs.image import ImagePreparation, ImageTransform
from sktransfer.inputs.text import TextPreparation
from sktransfer.runtime.seeding import preserved_generators


def names() -> list[str]:
    """Return the names of the shipped networks."""
    return sorted(SHIPPED.values())


def load_shipped(name: str, *, random: bool = False) -> Backbone:
    """Load a network from the package's own files.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    random : bool, default=False
        Draw the weights at random, from a fixed seed, to see what training gave.

    Returns
    -------
    Backbone
    """
    with resources.as_file(resources.files("sktransfer.weights") / name) as folder:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        return _LOADERS[name](card, folder, random)


def _card(card: dict[str, Any]) -> Card:
    fields = ("name", "modality", "dimension", "parameters", "licence", "source", "summary")
    return Card(**{field: card[field] for field in fields})


def _origin(card: dict[str, Any], random: bool) -> Origin:
    return Origin(card["name"], "random" if random else None, card["modality"])


def _load_text(card: dict[str, Any], folder: Path, random: bool) -> Backbone:
    preparation = TextPreparation(
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        max_length=card["max_length"],
        limit=None,
        ragged=True,
        special_tokens=False,
    )
    # A table look-up needs no small batches, and with few of them its threads don't meet those of the tokenizer.
    preparation.budget, preparation.most_rows, preparation.chunk_rows = 1 << 20, 16384, 16384
    network = load_static_embedding(read_tensors(folder / "model.safetensors"))
    if random:
        with preserved_generators(seed=0):
            nn.init.normal_(network.embedding.weight)
    return Backbone(
        card=_card(card),
        network=network,
        preparation=preparation,
        fingerprint=fingerprint(network.state_dict(), [card["name"], preparation.describe()]),
        origin=_origin(card, random),
        normalize=card["normalize"],
        stage_names=tuple(card["stages"]),
    )


def _load_image(card: dict[str, Any], folder: Path, random: bool) -> Backbone:
    tensors = {name: tensor.float() for name, tensor in read_tensors(folder / "model.safetensors").items()}
    readout = Standardize(tensors.pop("readout.mean"), tensors.pop("readout.scale"))
    with preserved_generators(seed=0):
        network = SmallResNet(tuple(card["architecture"]["widths"]), tuple(card["architecture"]["blocks"]))
    if not random:
        load_tensors(network, tensors, ignored=(), architecture=card["name"], source="the package's own file")
    preparation = _image_preparation(card["preparation"])
    return Backbone(
        card=_card(card),
        network=network,
        preparation=preparation,
        fingerprint=fingerprint(
            {**network.state_dict(), "mean": readout.mean, "scale": readout.scale},
            [card["name"], random, card["default_layers"], preparation.describe()],
        ),
        origin=_origin(card, random),
        default_layers=tuple(card["default_layers"]),
        stage_names=tuple(card["stages"]),
        # The constants are those of the trained network's features.
        readout=None if random else readout,
    )


def _image_preparation(settings: dict[str, Any]) -> ImagePreparation:
    size, squash = settings["size"], settings["resize"] == "squash"
    transform = ImageTransform(
        resize=(size, size) if squash else size,
        crop=None if squash else size,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        interpolation=settings["interpolation"],
    )
    return ImagePreparation(transform, description=transform.describe())


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
