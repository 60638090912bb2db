"""Reading the tensors of a weights file, without ever running code from it."""

from __future__ import annotations

import errno
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from sktransfer.archive.content import state_of

_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
# As the headers of safetensors have them.
_FLOAT_NAMES = {"F64", "F32", "F16", "BF16"}


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a file of named tensors.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` file, or a file written with :func:`torch.save` that holds a dictionary of tensors,
        read with ``weights_only=True``. A dictionary with the one entry ``state_dict`` (or ``model``) that is
        such a dictionary is unwrapped.

    Returns
    -------
    dict of str to torch.Tensor
        Tensors on the processor, in memory of their own: what happens to the file later doesn't change them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If the file can't be read, or is written to meanwhile.
    MemoryError
        If there is not enough memory for it.
    ValueError
        If the file is damaged, holds something else than tensors, or is a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file at {str(path)!r}.")
    before = state_of(path)
    try:
        if path.suffix == ".safetensors":
            # Not load_file, whose tensors stay mapped to the file: who shortens it later would end the process.
            tensors = dict(sorted(_only_tensors(load(path.read_bytes()), path).items()))
        else:
            # Mapping may be torch's default by a setting of the user's.
            tensors = _only_tensors(torch.load(path, map_location="cpu", weights_only=True, mmap=False), path)
    except Exception as error:
        if state_of(path) != before:
            raise _changed(path) from error
        raise _explained(error, path) from error
    if state_of(path) != before:
        raise _changed(path)
    return tensors


def check_stored(path: Path) -> None:
    """Check names and types of the tensors in a weights file that a library is going to read.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it is damaged, or its tensors are no weights.
    """
    if path.suffix != ".safetensors":
        read_tensors(path)
        return
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file at {str(path)!r}.")
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                dtype = file.get_slice(name).get_dtype()
                if _must_be_float(name, complex_=dtype.startswith("C")) and dtype not in _FLOAT_NAMES:
                    raise _no_weights(path, name, f"of type {dtype}")
    except SafetensorError as error:
        raise _explained(error, path) from error


def _changed(path: Path) -> OSError:
    return OSError(
        f"The weights file {str(path)!r} was changed while it was read. Try again when whatever writes it has finished; "
        "writing a new file and renaming it to this name (os.replace) never shows half of it."
    )


def _explained(error: Exception, path: Path) -> Exception:
    """Return the error that says what was found, and no more than that."""
    file, reason = (
        f"The weights file {str(path)!r}",
        (str(error).strip().splitlines() or ["no reason given"])[0].rstrip("."),
    )
    if isinstance(error, _NoWeights | MemoryError) or (
        isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)  # which torch gives for a cut archive
    ):
        return error
    if isinstance(error, RuntimeError) and "memory" in str(error):  # torch has no error of its own for it
        return MemoryError(f"There is not enough memory for {file[0].lower() + file[1:]}: {reason}.")
    if isinstance(error, SafetensorError):
        return ValueError(f"{file} is damaged, and not a whole safetensors file: {reason}. Download or copy it again.")
    if isinstance(error, pickle.UnpicklingError):
        return ValueError(
            f"{file} cannot be read as plain tensors: {reason}. It is damaged, or a pickle that holds more than tensors and "
            "could run code, which is never loaded here. Save the weights alone, with "
            "safetensors.torch.save_file(module.state_dict(), 'weights.safetensors')."
        )
    known = (EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile)
    if isinstance(error, known):
        return ValueError(
            f"{file} cannot be read as plain tensors ({type(error).__name__}: {reason}). It is damaged, or not what torch.save "
            "writes. Download or copy it again; weights in the safetensors format need a name that ends in '.safetensors'."
        )
    return error


class _NoWeights(ValueError):
    """A file that could be read and does not hold weights."""


def _no_weights(path: Path, name: str, problem: str) -> _NoWeights:
    return _NoWeights(
        f"The weights file {str(path)!r}: {name!r} is {problem}. Save module.state_dict() of a network whose weights are "
        "float32, float16 or bfloat16."
    )


def _only_tensors(content: object, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(content, dict):
        for wrapper in ("state_dict", "model"):
            if isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not isinstance(content, dict) or not content or not any(torch.is_tensor(value) for value in content.values()):
        raise _NoWeights(
            f"The weights file {str(path)!r} holds no dictionary of tensors. Save module.state_dict(), not the module."
        )
    size = path.stat().st_size
    for name, value in content.items():
        if not isinstance(name, str):
            raise _NoWeights(
                f"The weights file {str(path)!r}: the name of a tensor must be a string. Got {name!r}, "
                f"a {type(name).__name__}. Save module.state_dict()."
            )
        problem = _problem(name, value, size)
        if problem:
            raise _no_weights(path, name, problem)
    return {name: value.detach() for name, value in content.items()}


def _problem(name: str, value: object, size: int) -> str | None:
    """Say why a value of a state dictionary can't be used, None where it can."""
    if not isinstance(value, torch.Tensor):
        return f"no tensor but a {type(value).__name__}"
    if value.is_quantized or value.layout is not torch.strided or value.is_nested:
        return f"quantized, of type {value.dtype}" if value.is_quantized else f"of the layout {value.layout}"
    if value.device.type != "cpu":
        return f"a tensor without values, on the device {value.device.type!r}"
    if value.numel() * value.element_size() > size:
        return f"of shape {tuple(value.shape)}, more than the file can hold"
    if _must_be_float(name, complex_=value.is_complex()) and value.dtype not in _FLOATS:
        return f"of type {value.dtype}"
    return None


def _must_be_float(name: str, *, complex_: bool) -> bool:
    """Whether a tensor computes: positions and counters are integers, and masks truth values, by right."""
    return complex_ or name.rpartition(".")[2] in ("weight", "bias", "running_mean", "running_var")
