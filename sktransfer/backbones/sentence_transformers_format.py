"""The directory format of sentence-transformers: which modules follow the network, and how they are set."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sktransfer.archive import read_tensors

# Poolings by their names in current and older directories.
_POOLING = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}


@dataclass
class Recipe:
    """What a sentence-transformers directory says beside its network.

    Attributes
    ----------
    network : Path
        Directory of the transformers model and its tokenizer.
    max_length : int or None
        Tokens kept of a text.
    lower_case : bool
        Whether texts are lower-cased first.
    pooling : tuple of str
        Poolings, concatenated.
    readout : list of nn.Module
        Applied to the pooled vector in turn.
    normalize : bool
        Whether the result is scaled to unit length.
    prompts : dict of str to str
        Prompts by name.
    default_prompt : str
        Put in front of every text.
    """

    network: Path
    max_length: int | None = None
    lower_case: bool = False
    pooling: tuple[str, ...] = ("mean",)
    readout: list[nn.Module] = field(default_factory=list)
    normalize: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    include_prompt: bool = True


def read_recipe(directory: Path) -> Recipe | None:
    """Read ``modules.json`` and what it points to.

    Parameters
    ----------
    directory : Path
        A model directory.

    Returns
    -------
    Recipe or None
        None where the directory is not of sentence-transformers.

    Raises
    ------
    ValueError
        If it holds a module that is not supported here.
    """
    listing = directory / "modules.json"
    if not listing.is_file():
        return None
    recipe = Recipe(directory)
    for entry in sorted(_read_json(listing), key=lambda entry: entry["idx"]):
        kind = entry["type"].rsplit(".", 1)[-1]
        if kind not in _READERS:
            raise ValueError(
                f"The sentence-transformers directory {str(directory)!r} holds a module of type {entry['type']!r}. "
                f"Supported are {', '.join(_READERS)}."
            )
        if recipe.normalize and kind != "Normalize":
            raise ValueError(f"{str(directory)!r} has a {kind} module behind its Normalize module: not supported.")
        _READERS[kind](recipe, directory / entry["path"])
    settings = directory / "config_sentence_transformers.json"
    if settings.is_file():
        content = _read_json(settings)
        recipe.prompts = {name: text for name, text in (content.get("prompts") or {}).items() if text}
        recipe.default_prompt = recipe.prompts.get(content.get("default_prompt_name") or "", "")
    if recipe.default_prompt and not recipe.include_prompt:
        raise ValueError(f"{str(directory)!r} leaves its prompt out of the pooling: not supported.")
    return recipe


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_transformer(recipe: Recipe, folder: Path) -> None:
    recipe.network = folder
    for path in sorted(folder.glob("sentence_*_config.json")):
        content = _read_json(path)
        arguments = content.get("processor_kwargs") or content.get("tokenizer_args") or {}
        recipe.max_length = content.get("max_seq_length") or arguments.get("model_max_length")
        recipe.lower_case = bool(content.get("do_lower_case", False))


def _read_pooling(recipe: Recipe, folder: Path) -> None:
    content = _read_json(folder / "config.json")
    modes = content.get("pooling_mode")
    if modes is None:
        recipe.pooling = tuple(name for key, name in _OLD_POOLING.items() if content.get(key)) or ("mean",)
    else:
        recipe.pooling = tuple(_POOLING[mode] for mode in ([modes] if isinstance(modes, str) else modes))
    recipe.include_prompt = bool(content.get("include_prompt", True))


def _read_dense(recipe: Recipe, folder: Path) -> None:
    content = _read_json(folder / "config.json")
    linear = nn.Linear(content["in_features"], content["out_features"], bias=content.get("bias", True))
    tensors = _weights_in(folder)
    linear.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})
    recipe.readout += [linear, _activation(content.get("activation_function", "torch.nn.modules.activation.Tanh"))]


def _activation(path: str) -> nn.Module:
    """Make the activation that a class path names; only torch's own classes are made."""
    name = path.rsplit(".", 1)[-1]
    if not path.startswith("torch.nn.") or not hasattr(nn, name):
        raise ValueError(f"The dense layer's activation {path!r} is not a module of torch.nn, so it is not loaded.")
    return getattr(nn, name)()


def _read_layer_norm(recipe: Recipe, folder: Path) -> None:
    norm = nn.LayerNorm(_read_json(folder / "config.json")["dimension"])
    norm.load_state_dict({name.removeprefix("norm."): tensor for name, tensor in _weights_in(folder).items()})
    recipe.readout.append(norm)


def _weights_in(folder: Path) -> dict[str, torch.Tensor]:
    safe = folder / "model.safetensors"
    tensors = read_tensors(safe if safe.is_file() else folder / "pytorch_model.bin")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _read_normalize(recipe: Recipe, folder: Path) -> None:
    recipe.normalize = True


def _read_nothing(recipe: Recipe, folder: Path) -> None:
    """Dropout does nothing in a frozen network."""


_READERS = {
    "Transformer": _read_transformer,
    "Pooling": _read_pooling,
    "Dense": _read_dense,
    "LayerNorm": _read_layer_norm,
    "Normalize": _read_normalize,
    "Dropout": _read_nothing,
}
