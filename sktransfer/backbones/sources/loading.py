"""From whatever `backbone=` names to a handle, loaded once per process."""

from __future__ import annotations

import copyreg
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from sklearn.exceptions import NotFittedError
from torch import nn

from sktransfer import _locks
from sktransfer._nearest import did_you_mean
from sktransfer._paths import is_path
from sktransfer.archive.content import state_of
from sktransfer.backbones.backbone import Backbone, Origin
from sktransfer.backbones.sklearn_models.fitted_models import find_model
from sktransfer.backbones.sources import architectures, catalogue, shipped
from sktransfer.backbones.sources.model_objects import (
    check_complete,
    is_model_object,
    load_model_object,
    model_kind,
    unwrapped,
)
from sktransfer.backbones.sources.modules import ModuleBackbone
from sktransfer.inputs.rows import Rows
from sktransfer.inputs.table import TablePreparation
from sktransfer.runtime.global_settings import known_settings, without_inference_tensors
from sktransfer.runtime.seeding import preserved_generators

# Handles that stay loaded although no estimator holds them: the folds of a search come and go.
_KEPT_LOADED = 4
_lock = _locks.ProcessLock("networks that are loaded")
_recent: OrderedDict[Hashable, Backbone] = OrderedDict()
_alive: weakref.WeakValueDictionary[Hashable, Backbone] = weakref.WeakValueDictionary()


def known_kind(backbone: Any) -> str | None:
    """Return the kind of rows that a backbone reads, as far as that is known without loading anything."""
    if isinstance(backbone, ModuleBackbone):
        return backbone.modality
    if is_model_object(backbone):
        return model_kind(backbone)
    handle = _loaded(backbone)
    return architectures.kind_of(backbone) if handle is None else handle.kind


def reads_missing(backbone: Any) -> bool:
    """Whether a backbone for tables accepts missing values."""
    handle = _loaded(backbone)
    if handle is None:
        return architectures.kind_of(backbone) == "table"
    return isinstance(handle.preparation, TablePreparation)


def _loaded(backbone: Any) -> Backbone | None:
    """Return the handle that was given, itself or by a fitted estimator."""
    if isinstance(backbone, Backbone):
        return backbone
    if not hasattr(backbone, "__sktransfer_backbone__") or isinstance(backbone, type):
        return None
    try:
        handle = backbone.__sktransfer_backbone__()
    except NotFittedError:
        return None
    return handle if isinstance(handle, Backbone) else None


def load_backbone(
    backbone: Any, *, weights: str | os.PathLike | None = None, kind: str | None = None, rows: Rows | None = None
) -> Backbone:
    """Load a backbone, or return the handle that this process has of it.

    Parameters
    ----------
    backbone : str, Path, nn.Module, ModuleBackbone, model object, Backbone or fitted estimator
        What to load, see :class:`sktransfer.PretrainedFeatureExtractor`.
    weights : str, Path or None, default=None
        Name of a set of weights or path of a weights file, for names of architectures.
    kind : str or None, default=None
        Kind of row to read; decides what ``"auto"`` is and which half of a two-tower network is taken.
    rows : Rows or None, default=None
        The rows of a fit. The untrained networks for tables and series are made to measure for them.

    Returns
    -------
    Backbone

    Raises
    ------
    ValueError
        If the name is unknown, the weights don't fit, or the network reads another kind of row.
    TypeError
        If `backbone` is of a type that can't be one.
    OSError
        If the weights are not on disk and can't be downloaded.
    """
    check_backbone(backbone)
    given = backbone
    if hasattr(backbone, "__sktransfer_backbone__") and not isinstance(backbone, type):
        try:
            backbone = backbone.__sktransfer_backbone__()
        except NotFittedError as error:
            raise NotFittedError(
                f"backbone={type(backbone).__name__}(...) is not fitted, so it has no network to share. Fit it first; in a "
                "grid of backbones wrap it as sklearn.frozen.FrozenEstimator(fitted), so that clones stay fitted."
            ) from error
    has_weights = isinstance(backbone, Backbone | nn.Module | ModuleBackbone) or is_model_object(backbone)
    if has_weights and weights is not None:
        raise ValueError(
            f"weights={os.fspath(weights)!r} was given beside a {type(given).__name__}, which has weights already. "
            "Load them into the module yourself, or name an architecture."
        )
    if is_model_object(backbone):
        handle = _once(*load_model_object(backbone))
    elif isinstance(backbone, nn.Module):
        handle = _load_module(unwrapped(backbone), kind)
    elif isinstance(backbone, ModuleBackbone):
        handle = _once(*backbone.load())
    elif isinstance(backbone, Backbone):
        handle = backbone
    elif isinstance(backbone, str | os.PathLike):
        handle = _load_named(backbone, weights, kind, rows)
    else:
        raise TypeError(
            f"The backbone is a scikit-learn model, {type(given).__name__}, and no network that can be tuned. "
            "PretrainedFeatureExtractor(backbone=model) turns what it gives into features; where it holds a torch.nn.Module "
            "(a skorch net's module_), give that."
        )
    if kind is not None and handle.kind != kind:
        raise ValueError(
            f"The backbone {handle.name!r} reads {handle.kind} rows, but X holds {kind} rows. "
            f"Choose another backbone, see sktransfer.list_backbones({kind!r})."
        )
    return handle


def check_backbone(backbone: Any) -> None:
    """Refuse what names or holds no network, before anything is read.

    Raises
    ------
    ValueError
        If it is a name that can't be one.
    TypeError
        If it is of a type that can't be a backbone.
    """
    if isinstance(backbone, type):
        raise TypeError(
            f"backbone must be an instance, not the class {backbone.__name__}: write backbone={backbone.__name__}(...)."
        )
    if isinstance(backbone, str | os.PathLike) and not is_path(backbone):
        raise ValueError(
            f"backbone={backbone!r} can't name a network: it is empty, holds a NUL, or is too long for a name or a path."
        )
    if not names_or_holds_network(backbone) and find_model(backbone) is None:
        raise TypeError(
            "backbone must be a name, a directory, a torch.nn.Module, a ModuleBackbone, a SentenceTransformer, a pipeline "
            f"of transformers, or a fitted estimator of sktransfer or scikit-learn. Got {type(backbone).__name__}. A "
            "network and its tokenizer or image transform go together as ModuleBackbone(module, preparation=...)."
        )


def names_or_holds_network(backbone: Any) -> bool:
    """Whether a value is of a type that can be a backbone, models of scikit-learn apart."""
    if isinstance(backbone, str | os.PathLike):
        return is_path(backbone)
    known = isinstance(backbone, nn.Module | ModuleBackbone | Backbone) or is_model_object(backbone)
    return known or hasattr(backbone, "__sktransfer_backbone__")


def unload_backbones() -> None:
    """Forget the networks that no estimator holds."""
    with _lock:
        _recent.clear()


def _once(key: Hashable, make: Callable[[], Backbone]) -> Backbone:
    with _lock, _locks.loading:
        handle = _alive.get(key)
        if handle is None:
            # Building a network draws random weights before the real ones come in.
            with known_settings(), preserved_generators():
                handle = make()
            handle.check_finite()
            # Two ways of naming the same network share one copy of its weights.
            known = _alive.setdefault(handle.fingerprint, handle)
            handle = known if known.is_named_like(handle) else known.renamed(handle.card, handle.origin)
            _alive[key] = handle
        _recent[key] = handle
        _recent.move_to_end(key)
        while len(_recent) > _KEPT_LOADED:
            _recent.popitem(last=False)
        return handle


def _load_module(module: nn.Module, kind: str | None) -> Backbone:
    with _locks.loading:
        from sktransfer.backbones.sources.timm_models import is_timm, load_timm_module
        from sktransfer.backbones.sources.torchvision_models import is_torchvision, load_torchvision_module

    if kind not in ("table", "series"):
        check_complete(module)
    if kind == "text":
        raise ValueError(
            f"The module {type(module).__name__} can't read texts without its tokenizer: "
            "backbone=ModuleBackbone(module, modality='text', preparation=tokenizer)."
        )
    if kind in ("table", "series"):
        return _once(*ModuleBackbone(module, modality=kind).load())
    if is_torchvision(module):
        return _once(*load_torchvision_module(module))
    if is_timm(module):
        return _once(*load_timm_module(module))
    return _once(*ModuleBackbone(module).load())


def _load_named(
    name: str | os.PathLike, weights: str | os.PathLike | None, kind: str | None, rows: Rows | None
) -> Backbone:
    text = os.path.expanduser(os.fspath(name))
    if text == "auto":
        text = _default_name(kind)
    if isinstance(name, str) and architectures.kind_of(text) is not None:
        return _build_architecture(text, weights, kind, rows)
    files: list[Path] = []
    if weights not in (None, "random") and (isinstance(weights, os.PathLike) or Path(weights).exists()):
        weights = str(Path(weights).resolve())
        _check_file(Path(weights))
        files = [Path(weights)]
    weights = None if weights is None else os.fspath(weights)
    loader = _loader_of(text, is_path=isinstance(name, os.PathLike))
    if loader is _load_huggingface and Path(text).is_dir():
        text = str(Path(text).resolve())
        files = sorted(path for path in Path(text).rglob("*") if path.is_file())
    origin = Origin(text, weights, kind)
    version = _version(files)

    def make() -> Backbone:
        handle = loader(origin)
        if _version(files) != version:
            raise OSError(
                f"Files of backbone={text!r} were changed while they were read. Try again when that has ended."
            )
        return handle

    return _once((origin, version), make)


def _build_architecture(name: str, weights: str | os.PathLike | None, kind: str | None, rows: Rows | None) -> Backbone:
    if weights not in (None, "random"):
        raise ValueError(
            f"weights={os.fspath(weights)!r}: {name!r} is an untrained network, made to measure for the rows of a fit, with "
            "random weights. Leave weights at None; for trained weights give the fitted estimator that holds them as backbone."
        )
    reads = architectures.kind_of(name)
    if rows is None or rows.kind != reads:
        raise ValueError(
            f"The backbone {name!r} reads {reads} rows, but X holds {rows.kind if rows else kind} rows. "
            f"Choose another backbone, see sktransfer.list_backbones({kind!r})."
        )
    return _once(*architectures.build(name, rows))


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file at {str(path)!r}{', but a directory' * path.is_dir()}.")


def _version(files: Sequence[Path]) -> tuple[Hashable, ...]:
    """Return what is different when one of the files has changed, whatever its size and time stamp say."""
    return tuple((str(path), *state_of(path)) for path in files)


_OTHER_WAYS = {
    "table": " For tables give backbone= a fitted estimator that has learnt from such rows (a source), a network of yours as "
    "ModuleBackbone(module, modality='table'), or 'table-mlp' for random features.",
    "series": " For series give backbone= a fitted estimator that has learnt from such rows (a source), a network of yours as "
    "ModuleBackbone(module, modality='series'), or 'series-cnn' for random features.",
}


def _default_name(kind: str | None) -> str:
    if kind in catalogue.SHIPPED:
        return catalogue.SHIPPED[kind]
    raise ValueError(
        f"There is no pretrained network that fits all {kind or 'kinds of'} rows, so backbone='auto' can't choose one. "
        f"'auto' reads texts and images.{_OTHER_WAYS.get(kind or '', ' For other rows give backbone= a network of yours.')}"
    )


def _loader_of(name: str, *, is_path: bool) -> Callable[[Origin], Backbone]:
    with _locks.loading:
        from sktransfer.backbones.sources import timm_models, torchvision_models

    if not is_path:
        if name in shipped.names():
            return _load_shipped
        if name in torchvision_models.torchvision_names():
            return _load_torchvision
        # Asking timm for its names imports it, which names of the hub need not wait for.
        with _locks.loading:
            is_timm = name.startswith("timm/") or ("/" not in name and name in timm_models.timm_names())
        if is_timm:
            return _load_timm
    # os.path, because it takes a string that can't be a name for one that isn't there.
    if name and os.path.isdir(name):
        return _load_huggingface
    if os.path.isfile(name):
        raise ValueError(
            f"backbone={name!r} is a file. A weights file doesn't say which network it belongs to: name the network "
            f"and give the file as weights, for example backbone='resnet18', weights={name!r}."
        )
    if is_path or name.startswith((".", "/", "~")) or "\\" in name:
        raise FileNotFoundError(f"backbone={name!r}: there is no such directory.")
    if "/" in name or catalogue.card_of(name) is not None:
        return _load_huggingface
    raise ValueError(
        f"backbone={name!r} is not a name that sktransfer knows, and no directory.{_suggestion(name)} "
        "See sktransfer.list_backbones(); names on the Hugging Face hub have an owner, as in "
        "'sentence-transformers/all-MiniLM-L6-v2'."
    )


def _suggestion(name: str) -> str:
    names = [*catalogue.known_names(), "auto"]
    # A hub name without its owner is the commonest slip.
    owned = [known for known in names if known.lower().endswith("/" + name.lower())]
    return did_you_mean(owned[0], names, most=1) if owned else did_you_mean(name, names)


def _load_shipped(origin: Origin) -> Backbone:
    if origin.weights not in (None, "random"):
        raise ValueError(
            f"weights={origin.weights!r}: the shipped network {origin.name!r} has its own weights, or weights='random'."
        )
    return shipped.load_shipped(origin.name, random=origin.weights == "random")


def _load_torchvision(origin: Origin) -> Backbone:
    from sktransfer.backbones.sources.torchvision_models import load_torchvision

    return load_torchvision(origin.name, origin.weights)


def _load_timm(origin: Origin) -> Backbone:
    from sktransfer.backbones.sources.timm_models import load_timm

    return load_timm(origin.name, origin.weights)


def _load_huggingface(origin: Origin) -> Backbone:
    from sktransfer.backbones.sources.huggingface_loading import load_huggingface

    return load_huggingface(origin)


def load_again(origin: Origin, expected: str) -> Backbone:
    """Load a backbone that a pickle names, and check that it is still the same.

    Raises
    ------
    ValueError
        If the weights or settings at its origin are not those of the pickle.
    OSError
        If the origin is gone.
    """
    try:
        handle = load_backbone(_as_given(origin), weights=origin.weights, kind=origin.kind)
    except (OSError, ValueError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(
            f"This pickle holds the name of its backbone, {origin.name!r}, not its weights, and it can't be loaded here: "
            f"{error}"
        ) from error
    if handle.fingerprint != expected:
        raise ValueError(
            f"The backbone {origin.name!r} has changed since this estimator was pickled: its fingerprint is "
            f"{handle.fingerprint}, the pickle's is {expected}. Its weights or settings are others, or the libraries that "
            "read them (transformers, tokenizers) are of other versions. Bring the old ones back, or fit the estimator "
            "again."
        )
    return handle


def _as_given(origin: Origin) -> str | Path:
    return Path(origin.name) if os.path.isabs(origin.name) else origin.name


def take_in(state: dict[str, Any]) -> Backbone:
    """Rebuild a handle whose weights travelled in the pickle, or return the equal one this process has."""

    def make() -> Backbone:
        for name in ("_network", "readout"):
            if state[name] is not None:
                without_inference_tensors(state[name])  # where it was unpickled in inference mode
        return Backbone.restored(state)

    return _once(state["fingerprint"], make)


def _reduced(backbone: Backbone) -> tuple[Any, ...]:
    """Say how a backbone is pickled: by its name where it has one, else with its weights."""
    if backbone.origin is not None:
        return load_again, (backbone.origin, backbone.fingerprint)
    return take_in, (backbone.state_for_pickle(),)


copyreg.pickle(Backbone, _reduced)
