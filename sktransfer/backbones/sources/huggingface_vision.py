"""Vision networks of transformers, the image halves of CLIP and SigLIP among them."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import nn

from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.card import Card
from sktransfer.backbones.identity.fingerprint import describe, fingerprint
from sktransfer.backbones.sources.catalogue import card_of
from sktransfer.backbones.sources.huggingface import drop_unused, load_pretrained, quiet_transformers, settings_of
from sktransfer.inputs.image import ImagePreparation
from sktransfer.inputs.preparation import Inputs
from sktransfer.runtime.seeding import preserved_generators

# The class that reads the image half of a network of two halves, by the model type of the whole.
_IMAGE_HALVES = {
    "clip": "CLIPVisionModelWithProjection",
    "metaclip_2": "MetaClip2VisionModelWithProjection",
    "siglip": "SiglipVisionModel",
}
# Outputs that can be the embedding, the best first. The last needs pooling.
_OUTPUTS = ("image_embeds", "pooler_output", "last_hidden_state")


def load_vision(origin: Origin, directory: Path, config: Any) -> Backbone:
    """Load a vision network and its image processor.

    The embedding is the network's pooled output where the checkpoint has all weights for it, else the class token,
    else the mean over the positions of the last layer.

    Parameters
    ----------
    origin : Origin
        What the user named.
    directory : Path
        Where its files are.
    config : transformers.PreTrainedConfig
        The network's configuration; it is not changed.

    Returns
    -------
    Backbone

    Raises
    ------
    ValueError
        If there is no image processor, tensors that the output needs are missing, or the network is of a kind that
        can't be read.
    """
    model_class, config = _class_and_config(origin.name, config)
    preparation = _load_preparation(directory, getattr(config, "num_channels", 3))
    example = preparation.examples()[0]  # first, for it may refuse the settings
    network, missing = load_pretrained(model_class, directory, config)
    output, tensors = _choose_output(network, missing, example)
    _check_repeatable(origin.name, network, example)
    has_class_token = any(name.split(".")[-1] in ("cls_token", "class_embedding") for name in tensors)
    pooling = "cls" if output == "last_hidden_state" and has_class_token else "mean"
    description = [type(network).__name__, describe(settings_of(config)), preparation.describe(), output, pooling]
    return Backbone(
        card=card_of(origin.name) or _card(origin.name, network, output, example),
        network=network,
        preparation=preparation,
        fingerprint=fingerprint(tensors, description),
        origin=origin,
        pooling=pooling,
        read_output=functools.partial(read_named, name=output),
    )


def read_named(output: Any, *, name: str) -> torch.Tensor:
    """Take one tensor out of what a network of transformers returns."""
    return getattr(output, name)


class ProcessorTransform:
    """An image processor of transformers as a function from an image to a tensor.

    Parameters
    ----------
    processor : transformers.BaseImageProcessor
        Resizes, crops and scales as its settings say.
    """

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Prepare one image."""
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]

    def describe(self) -> dict[str, object]:
        """Return the processor's class and settings, for fingerprints."""
        return {"processor": type(self.processor).__name__, **json.loads(self.processor.to_json_string())}


def processor_preparation(processor: Any, channels: int) -> ImagePreparation:
    """Make a preparation of an image processor of transformers, for a network that reads so many channels."""
    transform = ProcessorTransform(processor)
    return ImagePreparation(
        transform, description=transform.describe(), keyword="pixel_values", channels=1 if channels == 1 else 3
    )


def _class_and_config(name: str, config: Any) -> tuple[Any, Any]:
    """Class that reads the network, and its configuration: of a network of two halves, those of the image half."""
    model_class = transformers.AutoModel
    config = copy.deepcopy(config)
    if hasattr(config, "vision_config"):
        if config.model_type not in _IMAGE_HALVES:
            raise ValueError(
                f"backbone={name!r} is a network of several parts of type {config.model_type!r}, whose image part "
                f"can't be taken out here. This is possible for {', '.join(_IMAGE_HALVES)}."
            )
        model_class = getattr(transformers, _IMAGE_HALVES[config.model_type])
        width = getattr(config, "projection_dim", None)
        config = config.vision_config
        if width is not None:
            config.projection_dim = width
    elif any("VisionModelWithProjection" in architecture for architecture in config.architectures or ()):
        model_class = getattr(transformers, config.architectures[0])
    # A saved configuration may ask for outputs that nobody reads here, or for bare tuples.
    config.output_hidden_states = config.output_attentions = False
    config.return_dict = True
    return model_class, config


def _load_preparation(directory: Path, channels: int) -> ImagePreparation:
    try:
        with quiet_transformers():
            processor = transformers.AutoImageProcessor.from_pretrained(
                directory, trust_remote_code=False, local_files_only=True
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever a processor makes of settings that it doesn't expect
        raise ValueError(
            f"There is no usable image processor in {str(directory)!r}: {error} Save it beside the network with "
            "processor.save_pretrained(directory); without it nobody knows how images were scaled in training."
        ) from error
    return processor_preparation(processor, channels)


def _choose_output(network: nn.Module, missing: set[str], example: Inputs) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the best output that depends on no random tensor, and the tensors that came from the checkpoint."""
    with torch.no_grad():
        given = network(**example.kwargs)
    present = [name for name in _OUTPUTS if getattr(given, name, None) is not None]
    if not present:
        raise ValueError(
            f"{type(network).__name__} returns none of {', '.join(_OUTPUTS)}, so no output can be the embedding."
        )
    for name in present[:-1]:
        try:
            return name, drop_unused(network, missing, lambda network: getattr(network(**example.kwargs), name))  # noqa: B023
        except ValueError:
            continue  # this output is computed with random tensors: the next one
    name = present[-1]
    return name, drop_unused(network, missing, lambda network: getattr(network(**example.kwargs), name))


def _check_repeatable(name: str, network: nn.Module, example: Inputs) -> None:
    """Refuse networks that draw random numbers even in eval mode, as masked autoencoders do."""
    with torch.no_grad(), preserved_generators(0):
        before = torch.get_rng_state()
        network(**example.kwargs)
        drawn = not torch.equal(before, torch.get_rng_state())
    if drawn:
        raise ValueError(
            f"backbone={name!r}: {type(network).__name__} draws random numbers when it is run, so the same image gets "
            "another embedding each time. Use a network without masking, such as the plain encoder of this one."
        )


def _card(name: str, network: nn.Module, output: str, example: Inputs) -> Card:
    with torch.no_grad():
        shape = getattr(network(**example.kwargs), output).shape
    return Card(
        name,
        "image",
        dimension=shape[-1] if len(shape) != 4 else shape[1],
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        source=f"{type(network).__name__} of transformers",
    )
