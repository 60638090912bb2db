"""The directory format of sentence-transformers: which modules follow the network, and how they are set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from sktransfer.archive import read_tensors
from sktransfer.archive.json_files import Fields, read_object, read_objects
from sktransfer.backbones.checkpoints import load_tensors

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
_DENSE_SIZES = ("in_features", "out_features")
_WIDEST = 1_000_000


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
    if not listing.exists():
        return None
    recipe = Recipe(directory)
    done: list[str] = []
    for position, entry in enumerate(read_objects(listing)):
        name = entry.text("type", required=True) or ""
        kind = name.rsplit(".", 1)[-1]
        if kind not in _READERS:
            raise ValueError(
                f"The sentence-transformers directory {str(directory)!r} holds a module of type {name!r}. "
                f"Supported are {', '.join(_READERS)}."
            )
        if entry.content.get("idx", position) != position:
            entry.refuse("idx", f"{position}, its position in the list")
        if recipe.normalize and kind != "Normalize":
            raise ValueError(f"{str(directory)!r} has a {kind} module behind its Normalize module: not supported.")
        if (kind == "Transformer") != (not done) or (kind == "Pooling" and set(done) - {"Transformer", "Dropout"}):
            entry.refuse("type", "a Transformer first, then at most one Pooling, then what follows it")
        folder = directory / entry.path_inside("path")
        if kind not in ("Normalize", "Dropout") and not folder.is_dir():
            entry.refuse("path", f"a folder in {str(directory)!r}")
        _READERS[kind](recipe, folder)
        done.append(kind)
    if not done:
        raise ValueError(f"{str(listing)!r} lists no modules. The first must be a Transformer.")
    settings = directory / "config_sentence_transformers.json"
    if settings.exists():
        _read_prompts(recipe, read_object(settings))
    if recipe.default_prompt and not recipe.include_prompt:
        raise ValueError(f"{str(directory)!r} leaves its prompt out of the pooling: not supported.")
    return recipe


def check_widths(recipe: Recipe, hidden_size: int) -> None:
    """Refuse layers behind the network that don't take what the one before gives.

    Parameters
    ----------
    recipe : Recipe
        What follows the network.
    hidden_size : int
        Length of the network's vector of a token.

    Raises
    ------
    ValueError
        If a layer takes another number of features.
    """
    width = len(recipe.pooling) * hidden_size
    for layer in recipe.readout:
        takes = layer.in_features if isinstance(layer, nn.Linear) else getattr(layer, "normalized_shape", (width,))[0]
        if takes != width:
            raise ValueError(
                f"A {type(layer).__name__} module that modules.json lists takes {takes} features, but gets {width} from "
                f"what is before it (network: {str(recipe.network)!r}). Bring the folders of one model together."
            )
        width = layer.out_features if isinstance(layer, nn.Linear) else width


def _read_prompts(recipe: Recipe, settings: Fields) -> None:
    prompts = settings.part("prompts")
    recipe.prompts = {name: text for name in prompts.content if (text := prompts.text(name))}
    default = settings.text("default_prompt_name")
    if default is not None and default not in prompts:
        settings.refuse("default_prompt_name", f"one of the prompts, {sorted(prompts.content)}")
    recipe.default_prompt = recipe.prompts.get(default or "", "")


def _read_transformer(recipe: Recipe, folder: Path) -> None:
    recipe.network = folder
    for path in sorted(folder.glob("sentence_*_config.json")):
        content = read_object(path)
        arguments = [content.part(name) for name in ("processor_kwargs", "tokenizer_args")]
        lengths = [content.length("max_seq_length"), *(part.length("model_max_length") for part in arguments)]
        recipe.max_length = next((length for length in lengths if length is not None), None)
        recipe.lower_case = content.flag("do_lower_case", False)


def _read_pooling(recipe: Recipe, folder: Path) -> None:
    content = read_object(folder / "config.json")
    modes = content.texts("pooling_mode")
    if modes is None:
        recipe.pooling = tuple(name for key, name in _OLD_POOLING.items() if content.flag(key, False)) or ("mean",)
    elif not modes or not set(modes) <= _POOLING.keys() or len(set(modes)) < len(modes):
        content.refuse("pooling_mode", f"one or several of {', '.join(_POOLING)}")
    else:
        recipe.pooling = tuple(_POOLING[mode] for mode in modes)
    recipe.include_prompt = content.flag("include_prompt", True)


def _read_dense(recipe: Recipe, folder: Path) -> None:
    content = read_object(folder / "config.json")
    sizes = {name: content.whole_number(name, most=_WIDEST, required=True) or 0 for name in _DENSE_SIZES}
    for name in ("module_input_name", "module_output_name"):
        if content.text(name, "sentence_embedding") != "sentence_embedding":
            content.refuse(name, "'sentence_embedding'; others are not supported")
    if content.flag("use_residual", False):
        content.refuse("use_residual", "false; a residual connection is not supported")
    activation = _activation(content)
    tensors = _weights_in(folder)
    _check_shape(tensors, "linear.weight", (sizes["out_features"], sizes["in_features"]), folder)
    linear = nn.Linear(sizes["in_features"], sizes["out_features"], bias=content.flag("bias", True))
    _load_layer(linear, "linear.", tensors, folder)
    recipe.readout += [linear, activation]


def _activation(content: Fields) -> nn.Module:
    """Make the activation that a class path names; only torch's own classes of no parameters are made."""
    path = content.text("activation_function", "torch.nn.modules.activation.Tanh") or ""
    name = path.rsplit(".", 1)[-1]
    made = getattr(nn, name, None) if path.startswith("torch.nn.") else None
    known = isinstance(made, type) and (made is nn.Identity or made.__module__ == "torch.nn.modules.activation")
    if made is None or not known:
        raise ValueError(
            f"{str(content.path)!r}: the field 'activation_function' must name an activation of torch.nn. {path!r} is "
            "not a module of torch.nn that is one, so it is not loaded."
        )
    try:
        return made()
    except TypeError:  # nn.Threshold and nn.MultiheadAttention can't do without arguments
        content.refuse("activation_function", "an activation of torch.nn that needs no arguments")


def _read_layer_norm(recipe: Recipe, folder: Path) -> None:
    dimension = read_object(folder / "config.json").whole_number("dimension", most=_WIDEST, required=True) or 0
    tensors = _weights_in(folder)
    _check_shape(tensors, "norm.weight", (dimension,), folder)
    norm = nn.LayerNorm(dimension)
    _load_layer(norm, "norm.", tensors, folder)
    recipe.readout.append(norm)


def _check_shape(tensors: dict[str, torch.Tensor], name: str, expected: tuple[int, ...], folder: Path) -> None:
    """Compare a size in a configuration with the weights, before anything of that size is made."""
    found = tensors.get(name)
    if found is None or tuple(found.shape) != expected:
        raise ValueError(
            f"The weights in {str(folder)!r} don't fit its config.json, by which {name!r} has the shape {expected}. "
            f"{'It is missing' if found is None else f'It has {tuple(found.shape)}'}."
        )


def _load_layer(layer: nn.Module, prefix: str, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    load_tensors(layer, named, ignored=(), architecture=type(layer).__name__, source=str(folder))


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
