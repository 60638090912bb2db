"""Model objects of other libraries, given as `backbone=`, with the preparation that belongs to them.

A `SentenceTransformer` and a `Pipeline` of transformers hold a network and what it needs to read raw rows. They are saved to
a temporary directory in their own format and loaded from there, so that an object and its directory are the same
backbone. Their libraries are not imported here: whoever hands over such an object has done so.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.card import Card
from sktransfer.backbones.identity.fingerprint import fingerprint, module_tensors

_Loadable = tuple[str, Callable[[], Backbone]]


def model_kind(model: Any) -> str | None:
    """Return the kind of rows that a model object reads; None where it is no such object."""
    if _is_a(model, "sentence_transformers", "SentenceTransformer"):
        return "text"
    if not _is_a(model, "transformers", "Pipeline"):
        return None
    if model.tokenizer is not None and model.image_processor is None:
        return "text"
    return "image" if model.image_processor is not None and model.tokenizer is None else None


def is_model_object(model: Any) -> bool:
    """Whether a model is an object of another library that knows its own preparation."""
    return _is_a(model, "sentence_transformers", "SentenceTransformer") or _is_a(model, "transformers", "Pipeline")


def load_model_object(model: Any) -> _Loadable:
    """Look at a model object as it is now.

    Parameters
    ----------
    model : SentenceTransformer or transformers.Pipeline
        It is not changed.

    Returns
    -------
    identity : str
        Digest of its weights and settings.
    make : callable
        Makes the handle, from a copy.

    Raises
    ------
    ValueError
        If it holds parts that can't be used here.
    """
    if _is_a(model, "sentence_transformers", "SentenceTransformer"):
        return _of_sentence_transformer(model)
    return _of_pipeline(model)


def check_complete(module: nn.Module) -> None:
    """Refuse modules of other libraries that can't read raw rows without a tokenizer or an image processor.

    Raises
    ------
    TypeError
        With what to give instead.
    """
    name = type(module).__name__
    if _is_a(module, "sentence_transformers", "BaseModel"):
        raise TypeError(
            f"backbone={name}(...) does not give one embedding for each text. Give a SentenceTransformer, or the name or "
            "directory of a text encoder."
        )
    if not _is_a(module, "transformers", "PreTrainedModel"):
        return
    config: Any = module.config
    origin = getattr(config, "_name_or_path", "") or "name or directory"
    if _reads_images(config):
        what, given = "image processor", f"preparation=AutoImageProcessor.from_pretrained({origin!r})"
    else:
        what, given = "tokenizer", f"modality='text', preparation=AutoTokenizer.from_pretrained({origin!r})"
    raise TypeError(
        f"backbone={name}(...) is a network of transformers without its {what}, so it can't read raw rows. Give the name "
        f"or directory that it comes from, backbone={origin!r}, or both of them as ModuleBackbone(model, {given})."
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside wrappers that change how it runs, not what it computes."""
    compiled = getattr(module, "_orig_mod", None)  # what torch.compile has wrapped
    if isinstance(compiled, nn.Module):
        return unwrapped(compiled)
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(module.module)
    return module


def is_image_processor(preparation: Any) -> bool:
    """Whether something is an image processor of transformers."""
    return _is_a(preparation, "transformers", "BaseImageProcessor") or _is_a(
        preparation, "transformers", "ImageProcessingMixin"
    )


def _is_a(thing: Any, package: str, name: str) -> bool:
    """Whether an object is of a class of a package, which is not imported for the question."""
    return any(cls.__name__ == name and cls.__module__.split(".")[0] == package for cls in type(thing).__mro__)


def _reads_images(config: Any) -> bool:
    return hasattr(config, "vision_config") or (hasattr(config, "image_size") and not hasattr(config, "vocab_size"))


def _of_sentence_transformer(model: Any) -> _Loadable:
    if getattr(model, "truncate_dim", None) is not None:
        raise ValueError(
            f"backbone=SentenceTransformer(...) has truncate_dim={model.truncate_dim}. Give truncate_dim to "
            "PretrainedFeatureExtractor instead, and a SentenceTransformer without it."
        )
    settings = [
        repr(model), model.max_seq_length, model.prompts, model.default_prompt_name, _tokenizer_state(model.tokenizer),
    ]  # fmt: skip
    name = _name_of(model[0].auto_model if hasattr(model[0], "auto_model") else model, "SentenceTransformer")

    def save(directory: Path) -> None:
        copy.deepcopy(model).save(str(directory), create_model_card=False)

    identity = fingerprint(module_tensors(model), ["SentenceTransformer", settings])
    return identity, lambda: _loaded_from(save, name, "text", "SentenceTransformer")


def _of_pipeline(pipeline: Any) -> _Loadable:
    kind = model_kind(pipeline)
    called = type(pipeline).__name__
    if kind is None:
        raise TypeError(
            f"backbone={called}(...) has neither a tokenizer alone nor an image processor alone, so it does not say "
            "which rows it reads. Give the name or directory of a text or an image network."
        )
    model, processor = pipeline.model, pipeline.tokenizer or pipeline.image_processor
    settings: list[Any] = [type(model).__name__, model.config.to_dict()]
    settings.append(_tokenizer_state(processor) if kind == "text" else processor.to_dict())

    def save(directory: Path) -> None:
        copy.deepcopy(model).save_pretrained(directory)
        copy.deepcopy(processor).save_pretrained(directory)

    identity = fingerprint(module_tensors(model), ["Pipeline", repr(settings)])
    return identity, lambda: _loaded_from(save, _name_of(model, called), kind, called)


def _tokenizer_state(tokenizer: Any) -> str:
    fast = getattr(tokenizer, "backend_tokenizer", None)
    return repr(tokenizer) + ("" if fast is None else fast.to_str())


def _name_of(model: Any, otherwise: str) -> str:
    """Return where a model came from, as its configuration has it."""
    return getattr(getattr(model, "config", None), "_name_or_path", "") or otherwise


def _loaded_from(save: Callable[[Path], None], name: str, kind: str, called: str) -> Backbone:
    from sktransfer.backbones.sources.huggingface import quiet_transformers
    from sktransfer.backbones.sources.huggingface_loading import load_huggingface

    with tempfile.TemporaryDirectory() as folder, _named(called, folder):
        with quiet_transformers():
            save(Path(folder))
        loaded = load_huggingface(Origin(folder, None, kind))
    # It can't be loaded from there again: its weights travel in the pickle.
    return loaded.renamed(_card(loaded, name), None)


def _card(loaded: Backbone, name: str) -> Card:
    return replace(loaded.card, name=name)


@contextmanager
def _named(called: str, folder: str) -> Iterator[None]:
    """Say of which object an error is, and not of which temporary directory."""
    try:
        yield
    except (ValueError, OSError, TypeError) as error:
        text = str(error).replace(repr(folder), f"the saved {called}").replace(folder, f"the saved {called}")
        raise ValueError(f"backbone={called}(...) can't be used: {text}") from error
