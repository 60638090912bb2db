"""A Hugging Face folder is looked at before transformers reads it: its files, the paths in them, sizes, settings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sktransfer._nearest import did_you_mean
from sktransfer.archive.json_files import Fields, check_file, read_object

# All but tokenizer.json, which is large and which its library checks by itself.
_SETTINGS = (
    "config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "preprocessor_config.json",
    "processor_config.json", "generation_config.json",
)  # fmt: skip
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_READ_BY_SUFFIX = {".json", ".txt", ".model", ".jinja", ".safetensors", ".bin"}
# Names of whole numbers that size a network, with the most that each may be. The largest networks there are stay
# far below. The decoder, which is not read, and types of tokens may be none.
_MOST = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "depth"), 1_000),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers", "num_hidden_groups", "inner_group_num"), 1_000),
    **dict.fromkeys(("num_experts", "num_local_experts", "depths", "block_sizes"), 10_000),
    **dict.fromkeys(
        ("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
         "decoder_attention_heads", "head_dim", "d_kv", "d_head", "patch_size", "num_channels", "image_size"),
        100_000,
    ),
    **dict.fromkeys(
        ("hidden_size", "hidden_sizes", "d_model", "dim", "n_embd", "embed_dim", "embedding_size", "intermediate_size",
         "d_ff", "d_inner", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "projection_dim",
         "num_labels", "type_vocab_size"),
        1_000_000,
    ),
    "vocab_size": 100_000_000,
    "max_position_embeddings": 100_000_000,
}  # fmt: skip
_MAY_BE_NONE = {"decoder_layers", "num_decoder_layers", "num_labels", "type_vocab_size", "num_experts",
                "num_local_experts", "projection_dim"}  # fmt: skip
_LARGEST = 10**12
_NO_CODE = "Code that comes with a model is never run here."


def check_folder(directory: Path) -> None:
    """Refuse a folder whose settings are damaged or reach outside, before anything is built.

    Parameters
    ----------
    directory : Path
        Folder of a network, with ``config.json``.

    Raises
    ------
    OSError
        If a file is missing or is no regular file.
    ValueError
        If a file is damaged or says what can't be. The message names the file and the field.
    """
    for path in sorted(directory.iterdir()):
        if path.suffix in _READ_BY_SUFFIX and path.exists() and not path.is_dir():
            check_file(path)
    check_file(directory / "config.json")
    if (directory / "adapter_config.json").exists():
        raise ValueError(
            f"{str(directory / 'adapter_config.json')!r} belongs to an adapter, whose network is elsewhere; nothing outside "
            "a folder is read. Put both together with model.merge_and_unload() of peft, and save that."
        )
    read = {name: read_object(directory / name) for name in _SETTINGS if (directory / name).exists()}
    _check_config(read["config.json"])
    for name in _INDEXES:
        if (directory / name).exists():
            _check_index(read_object(directory / name))
    if "tokenizer_config.json" in read:
        _check_tokenizer_config(read["tokenizer_config.json"])
    if "preprocessor_config.json" in read:
        _check_processor(read["preprocessor_config.json"])
    if "processor_config.json" in read:
        _check_processor(read["processor_config.json"].part("image_processor"))


def check_size(directory: Path, parameters: int) -> None:
    """Refuse a network that is far larger than its weights files.

    Parameters
    ----------
    directory : Path
        Folder of the network.
    parameters : int
        Numbers in the network that its configuration describes.

    Raises
    ------
    ValueError
        If the weights files can't hold it.
    """
    stored = sum(path.stat().st_size for path in directory.iterdir() if path.suffix in (".safetensors", ".bin"))
    # Half a byte each is the most that anybody packs; a half of the network may be missing, or shared.
    if parameters > 16 * stored + (1 << 24):
        raise ValueError(
            f"{str(directory / 'config.json')!r} describes a network of {parameters:,} parameters, but its weights files "
            f"have {stored:,} bytes. Look at its sizes ('hidden_size', 'vocab_size', 'num_hidden_layers' and the like), or "
            "bring the two files of one model together."
        )


def _check_config(config: Fields) -> None:
    from transformers import CONFIG_MAPPING

    # Networks of timm say their architecture instead.
    if not ("model_type" not in config and "architecture" in config):
        kind = config.text("model_type", required=True) or ""
        if kind not in CONFIG_MAPPING:
            own = " The folder has code of its own for it ('auto_map')." if config.content.get("auto_map") else ""
            config.refuse(
                "model_type",
                f"a network that this version of transformers has.{did_you_mean(kind, list(CONFIG_MAPPING))}{own} {_NO_CODE} "
                "A newer transformers may have it",
            )
    config.texts("architectures")
    if "transformers_weights" in config:
        config.path_inside("transformers_weights")
    for part in _parts(config):
        for name, value in part.content.items():
            values = value if isinstance(value, list) else [value]
            if any(isinstance(one, int) and abs(one) > _LARGEST for one in values):
                part.refuse(name, f"at most {_LARGEST:,}")
            if name in _MOST and value is not None and not isinstance(value, dict):
                least = 0 if name in _MAY_BE_NONE else 1
                if not values or not all(type(one) is int and least <= one <= _MOST[name] for one in values):
                    part.refuse(name, f"a whole number of at least {least} and at most {_MOST[name]:,}")


def _parts(config: Fields) -> Iterator[Fields]:
    """Yield a configuration and those inside it (``text_config``, ``vision_config``, ``encoder``)."""
    yield config
    for name, value in config.content.items():
        if name.endswith("_config") or name in ("encoder", "decoder"):
            yield from _parts(config.part(name))
        elif isinstance(value, dict) and name in ("auto_map", "id2label", "label2id"):
            continue


def _check_index(index: Fields) -> None:
    index.part("metadata")
    names = index.part("weight_map")
    if not names.content:
        index.refuse("weight_map", "an object of tensors and the files that they are in")
    for tensor in names.content:
        file = index.path.parent / names.path_inside(tensor)
        if not file.is_file():
            names.refuse(tensor, "a file in the same folder")


def _check_tokenizer_config(settings: Fields) -> None:
    settings.length("model_max_length")
    settings.text("tokenizer_class")
    settings.part("added_tokens_decoder")
    for name, value in settings.content.items():
        if name.endswith("_file") and value is not None:
            settings.path_inside(name)
    for name in settings.texts("fast_tokenizer_files") or []:
        Fields({"fast_tokenizer_files": name}, settings.path).path_inside("fast_tokenizer_files")


def _check_processor(settings: Fields) -> None:
    for name in ("size", "crop_size", "pad_size"):
        value = settings.content.get(name)
        part = settings.part(name) if isinstance(value, dict) else settings
        for key in part.content if isinstance(value, dict) else [name] * (value is not None):
            sizes = part.content[key] if isinstance(part.content[key], list) else [part.content[key]]
            if not sizes or not all(type(one) is int and 1 <= one <= _MOST["image_size"] for one in sizes):
                part.refuse(key, f"a whole number of at least 1 and at most {_MOST['image_size']:,}")
    for name in ("image_mean", "image_std"):
        value = settings.content.get(name)
        numbers = value if isinstance(value, list) else [value]
        if value is not None and (len(numbers) not in (1, 3, 4) or not all(map(_is_finite, numbers))):
            settings.refuse(name, "a finite number for each channel")
        if name == "image_std" and value is not None and min(numbers) <= 0:
            settings.refuse(name, "above 0 for each channel")
    factor = settings.content.get("rescale_factor")
    if factor is not None and not (_is_finite(factor) and factor > 0):
        settings.refuse("rescale_factor", "a finite number above 0")
    for name in ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb"):
        settings.flag(name, False)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
