"""A network of the user's as a backbone."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn.parameter import is_lazy

from sktransfer._parameters import is_int
from sktransfer.backbones.backbone import Backbone
from sktransfer.backbones.card import Card
from sktransfer.backbones.identity.fingerprint import describe, fingerprint, module_tensors
from sktransfer.backbones.pooling import POOLINGS
from sktransfer.backbones.sources.model_objects import is_image_processor
from sktransfer.backbones.splitting.stages import resolve_stages
from sktransfer.inputs.image import ImagePreparation, ImageTransform
from sktransfer.inputs.preparation import Preparation
from sktransfer.inputs.series import PlainSeriesPreparation
from sktransfer.inputs.table import PlainTablePreparation
from sktransfer.inputs.text import TextPreparation, tokenizer_of

_MODULE_KINDS = ("image", "text", "table", "series")


def refuse_without_weights(module: nn.Module, name: str) -> None:
    """Refuse a module whose weights can't be copied: there are none yet, or TorchScript holds them.

    Parameters
    ----------
    module : torch.nn.Module
        What was handed in.
    name : str
        As what.

    Raises
    ------
    TypeError
        If a part of it with weights is a TorchScript module.
    ValueError
        If a part of it waits for its first input, or is on the device "meta".
    """
    for part in module.modules():
        told = f"{name}={type(module).__name__}(...) holds a {type(part).__name__}"
        tensors = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        if tensors and isinstance(part, torch.jit.ScriptModule):
            raise TypeError(
                f"{told} of TorchScript, which can't be copied and frozen. Give the module that it was made from."
            )
        if any(map(is_lazy, tensors)):
            raise ValueError(
                f"{told} whose weights wait for a first input. Run it on a batch of rows once, or give it sizes."
            )
        if any(tensor.is_meta for tensor in tensors):
            raise ValueError(f"{told} on the device 'meta', which holds no values. Load its weights first.")


class ModuleBackbone:
    """An ``nn.Module`` of yours as a backbone, with what it takes to read raw rows.

    Use it where the module alone doesn't say enough: what kind of rows it reads, how images are resized and scaled, which
    tokenizer belongs to it, where its stages are. The module is copied when an estimator is fitted, and never changed.

    Parameters
    ----------
    module : torch.nn.Module
        Gives, for a batch of n rows, a tensor of shape (n, values), (n, tokens, values) or
        (n, channels, height, width), or a tuple or dictionary that begins with one. For series, three dimensions are
        (n, values, time points).
    modality : {"image", "text", "table", "series"}, default="image"
        Kind of row that it reads. Tables come as a float32 tensor (n, columns), series as one of shape
        (n, channels, time points), series of one length to a batch.
    preparation : callable or tokenizer, default=None
        Images: a callable from a PIL image (RGB, or grey where the first convolution has one input channel) to a
        float tensor of shape (channels, height, width), such as a torchvision transform, or an image processor of
        transformers. By default pixels are
        brought to [0, 1] and nothing else. If all images that an estimator is fitted on have one size, that is the size
        of the network's input, and later images of other sizes are resized to it; otherwise the shorter side becomes
        256 pixels and the middle 224 x 224 are cut out.
        Texts: the ``tokenizers.Tokenizer``, or a fast tokenizer of transformers. There is no default.
        Tables: a callable from a float64 array (n, columns) to an array or tensor with as many rows; rows must not depend
        on each other. Series: a callable from an array (channels, time points) to one of two dimensions. By default
        neither is changed: scale the values as those that the module was trained on, here or in a step before.
    stages : sequence of str, default=None
        Names of the modules that are the network's blocks, in forward order; found automatically by default.
    pooling : str or sequence of str, default="mean"
        How an output that is not one vector a row becomes one; see :class:`PretrainedFeatureExtractor`.
    max_length : int, default=512
        Tokens kept of a text.
    name : str, default=None
        How it is called in messages; the class's name by default. Modules of different names never share a copy or a
        cached row.

    See Also
    --------
    PretrainedFeatureExtractor : Takes it as ``backbone``.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
    >>> module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> backbone = ModuleBackbone(module, name="tiny")
    >>> images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    >>> PretrainedFeatureExtractor(backbone).fit_transform(images).shape
    (2, 4)
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        modality: str = "image",
        preparation: Callable[..., torch.Tensor] | Any = None,
        stages: Sequence[str] | None = None,
        pooling: str | Sequence[str] = "mean",
        max_length: Integral | int = 512,
        name: str | None = None,
    ):
        if not isinstance(module, nn.Module):
            raise TypeError(f"ModuleBackbone takes a torch.nn.Module. Got {type(module).__name__}.")
        if not isinstance(modality, str) or modality not in _MODULE_KINDS:
            raise ValueError(f"modality must be one of {', '.join(map(repr, _MODULE_KINDS))}. Got {modality!r}.")
        modes = tuple(pooling) if isinstance(pooling, list | tuple) else (pooling,)
        if not modes or not all(isinstance(mode, str) and mode in POOLINGS for mode in modes):
            raise ValueError(f"pooling must be among {', '.join(POOLINGS)}. Got {pooling!r}.")
        if modality != "text" and preparation is not None and not callable(preparation):
            taken = "a PIL image" if modality == "image" else "an array"
            raise TypeError(
                f"preparation must be a callable from {taken} to a tensor. Got {type(preparation).__name__}."
            )
        if not is_int(max_length) or max_length < 1:
            raise ValueError(f"max_length must be a whole number of tokens, at least 1. Got {max_length!r}.")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str or None. Got {name!r}.")
        if stages is not None and not isinstance(stages, Sequence | np.ndarray):
            raise TypeError(f"stages must be a list of module names, such as ['layer1', 'layer2']. Got {stages!r}.")
        if stages is not None:
            resolve_stages(module, stages)
        if modality == "text" and preparation is None:
            raise ValueError("A text module needs its tokenizer: ModuleBackbone(module, preparation=tokenizer, ...).")
        if modality == "text" and not isinstance(getattr(preparation, "backend_tokenizer", preparation), Tokenizer):
            raise TypeError(
                "preparation of a text module must be a tokenizers.Tokenizer or a fast tokenizer of transformers. Got "
                f"{type(preparation).__name__}, which has no fast core."
            )
        self.module = module
        self.modality = modality
        self.preparation = preparation
        self.stages = None if stages is None else tuple(stages)
        self.pooling = modes[0] if len(modes) == 1 else modes
        self.max_length = int(max_length)
        self.name = name or type(module).__name__

    def __repr__(self) -> str:
        return f"ModuleBackbone({self.name}, modality={self.modality!r})"

    def __sklearn_clone__(self) -> ModuleBackbone:
        # Clones of an estimator share it: a copy of the weights per candidate and fold would serve nobody.
        return self

    def load(self) -> tuple[str, Callable[[], Backbone]]:
        """Look at the module as it is now.

        Returns
        -------
        fingerprint : str
            Digest of its tensors, settings, code and preparation.
        make : callable
            Makes the handle, from a copy of the module.
        """
        refuse_without_weights(self.module, "backbone")
        preparation = self._make_preparation()
        description = {
            "module": describe(self.module, tensors=False),
            "preparation": preparation.describe(),
            "stages": self.stages,
            "pooling": self.pooling,
            "name": self.name,
        }
        tensors = module_tensors(self.module)
        identity = fingerprint(tensors, description)

        def make() -> Backbone:
            parameters = sum(parameter.numel() for parameter in self.module.parameters())
            return Backbone(
                card=Card(self.name, self.modality, parameters=parameters),
                network=snapshot(self.module),
                preparation=preparation,
                fingerprint=identity,
                pooling=self.pooling,
                layer_pooling=self.pooling,
                stage_names=self.stages,
                time_last=self.modality == "series",
                own_code=True,
            )

        return identity, make

    def _make_preparation(self) -> Preparation:
        if self.modality == "text":
            tokenizer = tokenizer_of(self.preparation)
            pad_id = getattr(self.preparation, "pad_token_id", None)
            limit = _positions(self.module)
            return TextPreparation(
                tokenizer,
                max_length=self.max_length if limit is None else min(self.max_length, limit),
                limit=limit,
                pad_id=pad_id or 0,
                accepts=accepted_arguments(self.module, ("input_ids", "attention_mask")),
            )
        own = {"callable": None if self.preparation is None else describe(self.preparation)}
        if self.modality == "table":
            width = _first(self.module, nn.Linear, "in_features", 1)
            return PlainTablePreparation(self.preparation, description=own, shape=(width,))
        if self.modality == "series":
            width = _first(self.module, nn.Conv1d, "in_channels", 1)
            return PlainSeriesPreparation(self.preparation, description=own, channels=width)
        channels = _input_channels(self.module)
        if is_image_processor(self.preparation):
            from sktransfer.backbones.sources.huggingface_vision import processor_preparation

            return processor_preparation(self.preparation, channels)
        if self.preparation is not None:
            return ImagePreparation(
                self.preparation, description={"callable": describe(self.preparation)}, channels=channels
            )
        transform = ImageTransform(mean=(0.0,) * channels, std=(1.0,) * channels)
        return ImagePreparation(transform, description=transform.describe(), channels=channels, size_from_rows=True)


def _positions(module: nn.Module) -> int | None:
    """Return how many tokens a network of transformers has positions for; None for other modules."""
    config = getattr(module, "config", None)
    if not hasattr(config, "model_type"):
        return None
    from sktransfer.backbones.sources.huggingface_text import position_limit

    return position_limit(config)


def snapshot(module: nn.Module) -> nn.Module:
    """Copy a user's module.

    Raises
    ------
    ValueError
        If it can't be copied.
    """
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The module {type(module).__name__} can't be copied ({error}). sktransfer works on a copy, so that your "
            "module stays as it is: make copy.deepcopy(module) work, for example by dropping tensors that are not "
            "parameters or buffers."
        ) from error


def _first(module: nn.Module, layer: type, attribute: str, otherwise: int) -> int:
    """Return an attribute of the first layer of a type."""
    return next((getattr(child, attribute) for child in module.modules() if isinstance(child, layer)), otherwise)


def _input_channels(module: nn.Module) -> int:
    """Channels of the images a module reads, taken from its first convolution."""
    first = next((child for child in module.modules() if isinstance(child, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3


def accepted_arguments(module: nn.Module, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return which of the keyword arguments a module's forward takes; None if it has none of them."""
    parameters = inspect.signature(module.forward).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return tuple(names)
    return tuple(name for name in names if name in parameters) or None
