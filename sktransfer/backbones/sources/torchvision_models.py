"""The classification networks of torchvision, by name or as a module of the user's."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from sktransfer import _locks
from sktransfer._nearest import did_you_mean
from sktransfer.archive.tensors import read_tensors
from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.card import Card
from sktransfer.backbones.checkpoints import checkpoint_tensors, load_tensors
from sktransfer.backbones.identity.fingerprint import describe, fingerprint, module_tensors
from sktransfer.backbones.sources.catalogue import card_of
from sktransfer.backbones.sources.modules import snapshot
from sktransfer.inputs.image import IMAGENET_MEAN, IMAGENET_STD, ImagePreparation, ImageTransform
from sktransfer.runtime.seeding import preserved_generators

# The classification layer of each class of network.
_HEADS = {
    "AlexNet": "classifier.6",
    "ConvNeXt": "classifier.2",
    "DenseNet": "classifier",
    "EfficientNet": "classifier.1",
    "GoogLeNet": "fc",
    "Inception3": "fc",
    "MNASNet": "classifier.1",
    "MaxVit": "classifier.5",
    "MobileNetV2": "classifier.1",
    "MobileNetV3": "classifier.3",
    "RegNet": "fc",
    "ResNet": "fc",
    "ShuffleNetV2": "fc",
    "SqueezeNet": "classifier.1",
    "SwinTransformer": "head",
    "VGG": "classifier.6",
    "VisionTransformer": "heads.head",
}
# Classifiers on the way, which only training uses.
_AUXILIARY = ("aux1", "aux2", "AuxLogits")
# The averages of ImageNet's over the colours, for networks whose first layer was exchanged for a grey one.
_GREY_MEAN, _GREY_STD = (sum(IMAGENET_MEAN) / 3,), (sum(IMAGENET_STD) / 3,)
_SEED = 0
# Seconds until the server counts as out of reach.
_PATIENCE = 5.0


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def load_torchvision(name: str, weights: str | Path | None) -> Backbone:
    """Load a classification network of torchvision without its classification layer.

    Parameters
    ----------
    name : str
        One of :func:`torchvision_names`.
    weights : str, Path or None
        None for torchvision's default weights; the name of one of its sets of weights, such as
        ``"IMAGENET1K_V1"``; ``"random"`` for an untrained network, always the same; or the path of a weights file.
        The first two are downloaded where they are not yet on disk.

    Returns
    -------
    Backbone
        Its embedding is what the classification layer reads.

    Raises
    ------
    FileNotFoundError
        If there is no such weights file.
    OSError
        If the weights are not on disk and can't be downloaded.
    ValueError
        If there are no such weights, or they don't fit.
    """
    known = torchvision.models.get_model_weights(name)
    chosen = _choose_weights(name, weights)
    random = chosen == "random"
    with preserved_generators(_SEED):
        network = _build(name)
    network = _without_head(network)
    if isinstance(chosen, Path):
        _load(network, name, chosen)
        origin = Origin(name, str(chosen.resolve()), "image")
    else:
        if not random:
            _load(network, name, _download(name, known[chosen]))
        origin = Origin(name, None if weights is None else chosen, "image")
    transform = _transform_of(known[chosen] if chosen in known.__members__ else known.DEFAULT)
    preparation = ImagePreparation(transform, description=transform.describe())
    return Backbone(
        card=card_of(name) or Card(name, "image"),
        network=network,
        preparation=preparation,
        fingerprint=fingerprint(checkpoint_tensors(network), [f"torchvision.{name}", preparation.describe()]),
        origin=origin,
        channels_last=_is_channels_last(network),
    )


def is_torchvision(module: nn.Module) -> bool:
    """Whether a module is a classification network of torchvision's own, not of a class derived from one."""
    cls = type(module)
    # Of the submodules only the direct ones: quantised and detection networks live further down.
    return cls.__module__.rpartition(".")[0] == "torchvision.models" and cls.__name__ in _HEADS


def load_torchvision_module(module: nn.Module) -> tuple[str, Callable[[], Backbone]]:
    """Read an instance of one of torchvision's classes as the catalogue's networks are read.

    Whatever stands in the place of the classification layer is left off, and images are prepared as for torchvision's
    weights of the same network.

    Parameters
    ----------
    module : nn.Module
        A module for which :func:`is_torchvision` holds; it is not changed.

    Returns
    -------
    identity : str
        The fingerprint.
    make : callable
        Makes the handle from a copy of the module.
    """
    head = _head_of(module)
    name = _recognise(module)
    transform = ImageTransform() if name is None else _transform_of(torchvision.models.get_model_weights(name).DEFAULT)
    size = getattr(module, "image_size", None)
    if isinstance(size, int):  # vision transformers read one size only
        # The margin that torchvision leaves around its crop goes with its size, so it is scaled along.
        margin = transform.resize / transform.crop if isinstance(transform.resize, int) and transform.crop else 1
        transform = replace(transform, resize=round(size * margin), crop=size)
    first = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
    if first.in_channels == 1:
        transform = replace(transform, mean=_GREY_MEAN, std=_GREY_STD, channels=1)
    preparation = ImagePreparation(transform, description=transform.describe(), channels=transform.channels)
    tensors = {
        key: value for key, value in module_tensors(module).items() if head is None or not key.startswith(f"{head}.")
    }
    identity = fingerprint(tensors, [describe(module, tensors=False), preparation.describe()])

    def make() -> Backbone:
        network = _without_head(snapshot(module))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return Backbone(
            card=Card(name or type(module).__name__, "image", parameters=parameters),
            network=network,
            preparation=preparation,
            fingerprint=identity,
            channels_last=_is_channels_last(network),
            own_code=True,
        )

    return identity, make


def _choose_weights(name: str, weights: str | Path | None) -> str | Path:
    """Tell names of sets of weights from paths; a set is returned by its name, the default one too."""
    known = torchvision.models.get_model_weights(name)
    if weights is None:
        return known.DEFAULT.name
    if isinstance(weights, str):
        short = weights.removeprefix(f"{known.__name__}.")
        if short == "DEFAULT":
            return known.DEFAULT.name
        if short == "random" or short in known.__members__:
            return short
        if not Path(weights).suffix and not Path(weights).exists():
            names = [*(member.name for member in known), "random"]
            raise ValueError(
                f"weights={weights!r} is not a set of weights of {name!r} and no file.{did_you_mean(weights, names)} "
                f"Choose among {', '.join(map(repr, names))}, or give the path of a weights file."
            )
    return Path(weights)


def _build(name: str) -> nn.Module:
    settings: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # As torchvision sets them for its own weights, which were trained on differently scaled pixels. Their own way
        # of drawing random weights takes seconds.
        settings = {"aux_logits": False, "transform_input": True, "init_weights": False}
    return torchvision.models.get_model(name, weights=None, **settings)


def _load(network: nn.Module, name: str, path: Path) -> None:
    tensors = {_modern_name(key): tensor for key, tensor in read_tensors(path).items()}
    head = _HEADS[type(network).__name__]
    source = f"the weights file {str(path)!r}"
    load_tensors(network, tensors, ignored=(head, *_AUXILIARY), architecture=name, source=source)


def _modern_name(key: str) -> str:
    """DenseNets were saved with a dot inside the names of layers, which torch has forbidden since."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key)


def _download(name: str, weights: torchvision.models.WeightsEnum) -> Path:
    """Return the file of a set of weights in torch.hub's cache, downloaded if it isn't there."""
    url = weights.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if path.is_file():
        return path
    hash_in_name = re.search(r"-([a-f0-9]{8,})\.", path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The download itself has no time limit.
        with _locks.loading.let_go():
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE).close()
            torch.hub.download_url_to_file(url, str(path), hash_in_name.group(1) if hash_in_name else None)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"The weights {weights.name!r} of {name!r} are not on this machine and can't be downloaded ({error}). "
            f"Download {url} elsewhere, then put it at {str(path)!r}, or pass weights='path/to/{path.name}'."
        ) from error
    return path


def _transform_of(weights: torchvision.models.WeightsEnum) -> ImageTransform:
    preset = weights.transforms()
    return ImageTransform(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def _head_of(network: nn.Module) -> str | None:
    """Name of the module in the place of the classification layer."""
    usual = _HEADS[type(network).__name__]
    modules = dict(network.named_modules())
    if usual in modules:
        return usual
    # The user has rebuilt the classifier: its last layer is the classification layer.
    place = usual.split(".")[0]
    linear = [name for name, part in modules.items() if name.split(".")[0] == place and isinstance(part, nn.Linear)]
    return linear[-1] if linear else None


def _without_head(network: nn.Module) -> nn.Module:
    head = _head_of(network)
    if head is not None:
        network.set_submodule(head, nn.Identity())
    return network


def _is_channels_last(network: nn.Module) -> bool:
    return type(network).__name__ == "SwinTransformer"


def _recognise(module: nn.Module) -> str | None:
    """Name of the network that a module is an instance of, told by its file and its number of parameters."""
    home = type(module).__module__
    names = [name for name in torchvision_names() if torchvision.models.get_model_builder(name).__module__ == home]
    if len(names) == 1:
        return names[0]
    head = _head_of(module)
    count = sum(
        parameter.numel()
        for key, parameter in module.named_parameters()
        if head is None or not key.startswith(f"{head}.")
    )
    cards = {name: card_of(name) for name in names}
    return next((name for name, card in cards.items() if card is not None and card.parameters == count), None)
