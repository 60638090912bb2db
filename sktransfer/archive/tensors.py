"""Named tensors from a weights file: safetensors, or a torch file read without its pickle's freedom."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file


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
        Tensors on the processor.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, holds something else than tensors, or is a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file at {str(path)!r}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"The weights file {str(path)!r} is not a whole safetensors file: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"The weights file {str(path)!r} cannot be read as plain tensors. It is damaged, or a pickle that holds "
            "more than tensors and could run code, which is never loaded here. Save the weights alone, with "
            "safetensors.torch.save_file(module.state_dict(), 'weights.safetensors')."
        ) from error
    return _only_tensors(content, path)


def _only_tensors(content: object, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(content, dict):
        for wrapper in ("state_dict", "model"):
            if isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise ValueError(
            f"The weights file {str(path)!r} holds no dictionary of tensors. Save module.state_dict(), not the module."
        )
    return dict(content)
