"""What all networks of transformers need: finding the files, quiet loading, weights that the checkpoint lacks."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from torch import nn
from transformers.utils import logging as transformers_logging

from sktransfer import _locks
from sktransfer.archive.tensors import check_stored
from sktransfer.backbones.checkpoints import check_finite
from sktransfer.backbones.sources.huggingface_folder import check_size
from sktransfer.runtime.seeding import preserved_generators

# Files whose presence or absence decides how a directory is read. A cache that other software filled may lack one
# of them only because nobody asked for it; one that was filled here knows of each whether it exists.
_DECISIVE = ("config.json", "modules.json", "tokenizer.json", "preprocessor_config.json")
_SETTINGS = {".json", ".txt", ".model", ".jinja"}
# Seconds until the hub counts as out of reach. Its own client would go on trying for half a minute per file.
_PATIENCE = 3.0


def hub_directory(name: str) -> Path:
    """Return a local directory with the files of a model on the hub.

    What is in the hub's cache is used without asking the network, so a name goes on meaning the same weights.

    Parameters
    ----------
    name : str
        ``"owner/model"``.

    Returns
    -------
    Path
        The snapshot in the cache, downloaded first where it is not complete.

    Raises
    ------
    OSError
        If the model is not in the cache and can't be downloaded.
    """
    cached = _cached_directory(name)
    if cached is not None and all(huggingface_hub.try_to_load_from_cache(name, file) is not None for file in _DECISIVE):
        return cached
    try:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        with _locks.loading.let_go():
            _probe()
            return _download(name)
    except Exception as error:
        # The client raises its HTTP library's errors, its own and OSErrors; none is of use to a person here.
        if cached is not None:
            return cached
        raise hub_error(name, error) from error


def _cached_directory(name: str) -> Path | None:
    try:
        directory = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except ValueError as error:  # not of the form owner/model
        raise ValueError(f"backbone={name!r} can't be the name of a model on the Hugging Face hub: {error}") from error
    files = [path.name for path in directory.iterdir()]
    return directory if "config.json" in files and _weights_among(files) else None


def _probe() -> None:
    """Raise if the hub can't be reached; one request, through whatever proxy the client is set up with."""
    huggingface_hub.utils.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=_PATIENCE)


def _download(name: str) -> Path:
    files = huggingface_hub.HfApi().list_repo_files(name)
    directory = huggingface_hub.snapshot_download(name, allow_patterns=_wanted(files))
    for file in set(_DECISIVE) - set(files):
        with contextlib.suppress(EntryNotFoundError):  # leaves a note in the cache that there is no such file
            huggingface_hub.hf_hub_download(name, file)
    return Path(directory)


def _wanted(files: Sequence[str]) -> list[str]:
    """Choose settings and one set of weights for each folder; not the copies for other software."""
    wanted = []
    for folder in {PurePosixPath(file).parent for file in files}:
        if folder.parts and folder.parts[0] in ("onnx", "openvino", "coreml", "original"):
            continue
        inside = [PurePosixPath(file).name for file in files if PurePosixPath(file).parent == folder]
        names = [file for file in inside if PurePosixPath(file).suffix in _SETTINGS] + _weights_among(inside)
        wanted += [str(folder / file) for file in names]
    return sorted(wanted)


def _weights_among(files: Sequence[str]) -> list[str]:
    """Weights in full precision (``model.fp16.safetensors`` is a variant), safetensors where there are both."""
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        shards = [file for file in files if file.startswith(f"{stem}-0") and file.endswith(suffix)]
        found = shards + [file for file in files if file == stem + suffix]
        if found:
            return found
    return []


def hub_error(name: str, error: BaseException) -> OSError:
    """Put into words that a model can't be had from the hub, and what to do.

    Parameters
    ----------
    name : str
        Name on the hub.
    error : Exception
        What the hub's client raised.

    Returns
    -------
    OSError
        To be raised from `error`.
    """
    if isinstance(error, GatedRepoError):
        return OSError(
            f"backbone={name!r}: its publisher asks you to accept terms first. Do so on "
            f"https://huggingface.co/{name}, then log in with `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError):
        return OSError(
            f"backbone={name!r}: the Hugging Face hub has no model of this name that you may read. Check the spelling; "
            "for a private model, log in with `hf auth login`."
        )
    directory = name.split("/")[-1]
    return OSError(
        f"backbone={name!r} is not on this machine, and the Hugging Face hub can't be reached "
        f"({type(error).__name__}: {error}). On a machine with a connection run `hf download {name} --local-dir "
        f"{directory}`, bring the directory here, and use backbone='path/to/{directory}'."
    )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence what transformers prints and logs while it loads, and keep the caller's random generators.

    Progress bars of downloads, which are the hub client's, stay.
    """
    transformers_logging.get_verbosity()  # sets the logger up, so that what is restored is what was
    logger = logging.getLogger("transformers")
    level = logger.level
    hook = transformers_logging.set_tqdm_hook(_no_bar)
    logger.setLevel(logging.ERROR)
    try:
        with preserved_generators():
            yield
    finally:
        logger.setLevel(level)
        transformers_logging.set_tqdm_hook(hook)


def _no_bar(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return transformers_logging.EmptyTqdm(*args, **kwargs)


def load_pretrained(
    model_class: Any, directory: str | Path, config: transformers.PreTrainedConfig
) -> tuple[transformers.PreTrainedModel, set[str]]:
    """Load a network in float32 from local files, without running code that comes with them.

    Parameters
    ----------
    model_class : class
        A model class of transformers, or an ``AutoModel``.
    directory : str or Path
        Directory with ``config.json`` and weights.
    config : PreTrainedConfig
        The configuration of `model_class`.

    Returns
    -------
    model : PreTrainedModel
        In eval mode.
    missing : set of str
        Names of the parameters and buffers that the checkpoint doesn't have. They hold random values: give them to
        :func:`drop_unused`.

    Raises
    ------
    OSError
        If there are no weights in the directory.
    ValueError
        If the weights are damaged, don't fit the configuration, or are a pickle that holds more than tensors.
    """
    directory = Path(directory)
    for name in _weights_among([path.name for path in directory.iterdir()]):
        check_stored(directory / name)
    check_size(directory, _count_parameters(model_class, directory, config))
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                directory,
                config=config,
                dtype=torch.float32,
                trust_remote_code=False,
                weights_only=True,
                local_files_only=True,
                output_loading_info=True,
                # Shapes that differ are an error here, with their names.
                ignore_mismatched_sizes=True,
            )
    except (ImportError, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None or not _weights_among([path.name for path in directory.iterdir()]):
            raise
        raise _unreadable(directory, error) from error
    except Exception as error:
        # Damaged files show as errors of safetensors, zipfile, pickle or torch.
        raise _unreadable(directory, error) from error
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, found, expected = mismatched[0]
        raise ValueError(
            f"The weights in {str(directory)!r} don't fit its config.json: {len(mismatched)} tensors differ in shape, "
            f"among them {name!r}, {tuple(found)} in the weights and {tuple(expected)} by the configuration. Bring the "
            "two files of one model together."
        )
    _refuse_more_blocks(model, report["unexpected_keys"], directory)
    _unmap(model)
    missing = set(report["missing_keys"])
    present = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in missing}
    check_finite(present, repr(str(directory)))
    return model, missing


def _count_parameters(model_class: Any, directory: Path, config: transformers.PreTrainedConfig) -> int:
    """Count the parameters of a network without making them."""
    build = getattr(model_class, "from_config", None) or model_class._from_config
    try:
        with quiet_transformers(), torch.device("meta"):
            model = build(copy.deepcopy(config))
    except ImportError:
        raise
    except Exception as error:  # whatever a network makes of sizes that don't go together
        raise ValueError(
            f"{str(directory / 'config.json')!r} describes a network that can't be built ({type(error).__name__}: {error})."
        ) from error
    return sum(parameter.numel() for parameter in model.parameters())


def _refuse_more_blocks(model: transformers.PreTrainedModel, unexpected: Iterable[str], directory: Path) -> None:
    """Refuse weights of more layers than the configuration has, of which transformers would leave some out."""
    blocks: dict[str, set[str]] = {}
    for name in model.state_dict():
        for pattern, number in _numbered(name):
            blocks.setdefault(pattern, set()).add(number)
    for name in sorted(unexpected):
        for pattern, number in _numbered(name.removeprefix(f"{model.base_model_prefix}.")):
            if pattern in blocks and number not in blocks[pattern]:
                raise ValueError(
                    f"The weights in {str(directory)!r} don't fit its config.json: {name!r} belongs to block {number}, and the "
                    f"network of the configuration has {len(blocks[pattern])} of these blocks. Bring the two files of one "
                    "model together."
                )


def _numbered(name: str) -> Iterator[tuple[str, str]]:
    """Yield a tensor's name without each of its numbers, and that number."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal():
            yield ".".join([*parts[:i], "#", *parts[i + 1 :]]), part


def _unmap(model: nn.Module) -> None:
    """Copy tensors out of the file to which they are mapped: who writes to it later would change them."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    copies: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            # In place in the table, which knows what is saved.
            module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())


def _unreadable(directory: Path, error: Exception) -> ValueError:
    return ValueError(
        f"The weights in {str(directory)!r} can't be read as plain tensors ({type(error).__name__}: {error}). Download them "
        "again, or save them with model.save_pretrained(directory); a pickle that holds more than tensors is never loaded."
    )


def drop_unused(
    model: nn.Module, missing: set[str], run: Callable[[nn.Module], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Make sure that nothing random reaches the output, and set what is missing but unused to zero.

    Parameters
    ----------
    model : nn.Module
        The network; changed in place.
    missing : set of str
        Names of the tensors that the checkpoint doesn't have.
    run : callable
        Runs the network on an example and returns the output that is read.

    Returns
    -------
    dict of str to torch.Tensor
        The tensors that came from the checkpoint, for the fingerprint.

    Raises
    ------
    ValueError
        If a missing tensor is used.
    """
    tensors = model.state_dict()
    absent = {name: tensors[name] for name in missing if name in tensors}
    if absent:
        # NaN spreads through arithmetic, but attention may hide it; numbers change what is computed with them.
        _fill(absent, float("nan"))
        reached = not is_finite(run, model)
        outputs = []
        for value in (1.0, 0.0):
            _fill(absent, value)
            with torch.no_grad():
                outputs.append(run(model))
        reached = reached or not torch.equal(*outputs)
        if reached:
            names = sorted(absent)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ValueError(
                f"The weights lack tensors that the network computes with: {', '.join(names[:5])}{more}. An embedding "
                "would depend on random numbers. Use the complete weights of this network; a checkpoint of another "
                "architecture or task often lacks some."
            )
    return {name: tensor for name, tensor in tensors.items() if name not in absent}


def _fill(tensors: dict[str, torch.Tensor], value: float) -> None:
    for tensor in tensors.values():
        # Counters of batch norm and the like are whole numbers, and of no influence in eval mode.
        tensor.fill_(value if tensor.is_floating_point() else 0)


def is_finite(run: Callable[[nn.Module], torch.Tensor], model: nn.Module) -> bool:
    """Whether the output that `run` reads is free of NaN and infinity."""
    with torch.no_grad():
        return bool(torch.isfinite(run(model)).all())


# Entries of a configuration that say where it came from or name classes, not what the network computes.
_NOT_OF_THE_NETWORK = {"_name_or_path", "transformers_version", "architectures", "dtype", "id2label", "label2id"}


def settings_of(config: transformers.PreTrainedConfig) -> dict[str, Any]:
    """Return the entries of a configuration that decide what the network computes, for fingerprints."""
    return {key: value for key, value in config.to_dict().items() if key not in _NOT_OF_THE_NETWORK}
