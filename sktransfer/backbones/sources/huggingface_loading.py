"""Directories and hub names of Hugging Face: tell a text network from a vision network, and load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.sources.huggingface import hub_directory, quiet_transformers
from sktransfer.backbones.sources.huggingface_folder import check_folder
from sktransfer.backbones.sources.sentence_transformers_format import read_recipe


def load_huggingface(origin: Origin) -> Backbone:
    """Load a directory, or a name on the hub.

    Parameters
    ----------
    origin : Origin
        Path or name, and the kind of row for networks that read several.

    Returns
    -------
    Backbone

    Raises
    ------
    OSError
        If the files are not on disk and can't be downloaded.
    ValueError
        If the directory's model can't be used here.
    """
    if origin.weights is not None:
        raise ValueError(
            f"weights={origin.weights!r} goes with the name of a torchvision or timm network; {origin.name!r} is a "
            "directory or hub name that has its own weights."
        )
    path = Path(origin.name)
    directory = path if path.is_absolute() else hub_directory(origin.name)
    if not (directory / "config.json").is_file() and not (directory / "modules.json").is_file():
        raise ValueError(
            f"The directory {str(directory)!r} has neither config.json nor modules.json, so it is not a Hugging Face or "
            "sentence-transformers model. Save one with model.save_pretrained(directory) and "
            "tokenizer.save_pretrained(directory)."
        )
    # The text and the image half of transformers are imported only when they are needed.
    recipe = read_recipe(directory)
    network = recipe.network if recipe else directory
    check_folder(network)
    config = read_config(network)
    kinds = _kinds(config) if recipe is None else ("text",)
    kind = origin.kind if origin.kind in kinds else kinds[0]
    if origin.kind is not None and origin.kind not in kinds:
        raise ValueError(f"The backbone {origin.name!r} reads {' and '.join(kinds)} rows, not {origin.kind} rows.")
    if kind == "image":
        from sktransfer.backbones.sources.huggingface_vision import load_vision

        return load_vision(origin, directory, config)
    from sktransfer.backbones.sources.huggingface_text import load_text

    return load_text(origin, directory, config, recipe)


def read_config(directory: Path) -> Any:
    """Read a model's configuration.

    Raises
    ------
    ValueError
        If its architecture is not part of transformers, so that it would need code from the hub.
    """
    from transformers import AutoConfig

    with quiet_transformers():
        try:
            return AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        except MemoryError:
            raise
        except Exception as error:  # whatever a configuration class makes of values that it doesn't expect
            raise ValueError(
                f"The configuration in {str(directory)!r} can't be used ({type(error).__name__}): {error} Code that comes "
                "with a model is never run."
            ) from error


def _kinds(config: Any) -> tuple[str, ...]:
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

    if hasattr(config, "vision_config") or type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        return ("image",)
    return ("image",) if hasattr(config, "image_size") and not hasattr(config, "vocab_size") else ("text",)
