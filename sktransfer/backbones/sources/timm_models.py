"""The networks of timm (PyTorch Image Models), an optional package."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from sktransfer._nearest import did_you_mean
from sktransfer._optional import import_optional
from sktransfer.archive.tensors import read_tensors
from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.card import Card
from sktransfer.backbones.checkpoints import checkpoint_tensors, load_tensors
from sktransfer.backbones.identity.fingerprint import describe, fingerprint, module_tensors
from sktransfer.backbones.sources.modules import snapshot
from sktransfer.inputs.image import ImagePreparation, ImageTransform
from sktransfer.runtime.seeding import preserved_generators

_SEED = 0


def timm_names() -> list[str]:
    """Return timm's names, with and without the tag of a set of weights; none where timm isn't installed."""
    if importlib.util.find_spec("timm") is None:
        return []
    timm = _timm()
    return sorted({*timm.list_models(), *timm.list_models(pretrained=True)})


def load_timm(name: str, weights: str | Path | None) -> Backbone:
    """Load a network of timm without its classification layer.

    Parameters
    ----------
    name : str
        One of :func:`timm_names`, with or without ``timm/`` in front.
    weights : str, Path or None
        None for the weights of the name's tag, from the Hugging Face hub; ``"random"`` for an untrained network, always
        the same; or the path of a weights file.

    Returns
    -------
    Backbone
        Its embedding is the vector before the classification layer, pooled as timm does it.

    Raises
    ------
    ImportError
        If timm is not installed.
    FileNotFoundError
        If there is no such weights file.
    OSError
        If the weights are not on disk and can't be downloaded.
    ValueError
        If timm has no such network, or the weights don't fit.
    """
    timm = _timm()
    short = name.removeprefix("timm/")
    if not timm.is_model(short.split(".")[0]):
        raise ValueError(
            f"backbone={name!r}: timm {timm.__version__} has no such network.{did_you_mean(short, timm_names())}"
        )
    with preserved_generators(_SEED):
        network = timm.create_model(short, pretrained=False, num_classes=0)
    settings = network.pretrained_cfg
    if weights is None:
        _load(network, short, _download(short, settings))
    elif weights != "random":
        _load(network, short, Path(weights))
    preparation = _preparation_of(timm, network)
    given = weights if weights is None or weights == "random" else str(Path(weights).resolve())
    return Backbone(
        card=Card(
            name,
            "image",
            dimension=network.head_hidden_size if hasattr(network, "head_hidden_size") else network.num_features,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            licence=settings.get("license") or "not stated",
            source=settings.get("origin_url") or "timm",
        ),
        network=network,
        preparation=preparation,
        fingerprint=fingerprint(
            checkpoint_tensors(network), [f"timm.{settings['architecture']}", preparation.describe()]
        ),
        origin=Origin(name, given, "image"),
        channels_last=getattr(network, "output_fmt", None) == "NHWC",
    )


def is_timm(module: nn.Module) -> bool:
    """Whether a module is a network of timm's own, not of a class derived from one."""
    return type(module).__module__.startswith("timm.models.") and hasattr(module, "pretrained_cfg")


def load_timm_module(module: Any) -> tuple[str, Callable[[], Backbone]]:
    """Read an instance of one of timm's classes as the networks that are named are read.

    The classification layer is left off, and images are prepared as the module's own configuration says.

    Parameters
    ----------
    module : nn.Module
        A module for which :func:`is_timm` holds; it is not changed.

    Returns
    -------
    identity : str
        The fingerprint.
    make : callable
        Makes the handle from a copy of the module.
    """
    preparation = _preparation_of(_timm(), module)
    heads = module.pretrained_cfg["classifier"] or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    tensors = {
        key: value for key, value in module_tensors(module).items() if not key.startswith(tuple(f"{h}." for h in heads))
    }
    identity = fingerprint(tensors, [describe(module, tensors=False), preparation.describe()])

    def make() -> Backbone:
        network: Any = snapshot(module)
        network.reset_classifier(0)
        return Backbone(
            card=Card(
                module.pretrained_cfg["architecture"],
                "image",
                dimension=getattr(network, "head_hidden_size", network.num_features),
                parameters=sum(parameter.numel() for parameter in network.parameters()),
            ),
            network=network,
            preparation=preparation,
            fingerprint=identity,
            channels_last=getattr(network, "output_fmt", None) == "NHWC",
        )

    return identity, make


def _timm() -> Any:
    return import_optional("timm", extra="timm", purpose="Loading a network by its name in timm")


def _load(network: nn.Module, name: str, path: Path) -> None:
    tensors = read_tensors(path)
    # What timm does to read checkpoints of other software and of its own past.
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        tensors = convert(tensors, network)
    settings: Any = network.pretrained_cfg
    head = settings["classifier"] or ()
    load_tensors(
        network,
        tensors,
        ignored=(head,) if isinstance(head, str) else head,
        architecture=f"timm/{name}",
        source=f"the weights file {str(path)!r}",
    )


def _download(name: str, settings: dict[str, Any]) -> Path:
    from sktransfer.backbones.sources.huggingface import hub_directory

    place = settings.get("hf_hub_id")
    if not place:
        told = f"Download {settings['url']} and pass" if settings.get("url") else "Pass"
        raise OSError(
            f"timm has no weights on the Hugging Face hub for {name!r}. {told} weights='path/to/file', choose a name "
            "with a tag, see timm.list_models(pretrained=True), or weights='random' for an untrained network."
        )
    try:
        directory = hub_directory(place)
    except OSError as error:
        raise OSError(
            f"The weights of {name!r} are not on this machine and can't be downloaded ({error.__cause__ or error}). "
            f"On a machine with a connection run `hf download {place} model.safetensors --local-dir {name}`, bring the "
            "file here, and pass weights='path/to/model.safetensors'."
        ) from error
    files = [directory / file for file in ("model.safetensors", "pytorch_model.bin")]
    return next((file for file in files if file.is_file()), files[0])


def _preparation_of(timm: Any, network: nn.Module) -> ImagePreparation:
    config = timm.data.resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    if config["crop_mode"] == "border" or height != width:
        # Padding and oblong targets, which few networks have: timm's own transform.
        transform = timm.data.create_transform(**config)
        description = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
        return ImagePreparation(transform, description={"timm": description}, channels=channels)
    scaled = math.floor(height / config["crop_pct"])
    ours = ImageTransform(
        resize=(scaled, scaled) if config["crop_mode"] == "squash" else scaled,
        crop=height,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        channels=channels,
    )
    return ImagePreparation(ours, description=ours.describe(), channels=channels)
