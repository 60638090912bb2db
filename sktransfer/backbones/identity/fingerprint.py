"""What a network is, as a digest: its tensors, its settings and its code."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import nn

from sktransfer.backbones.identity.description import Walk
from sktransfer.backbones.identity.objects import token_of


def fingerprint(tensors: Mapping[str, torch.Tensor], description: object) -> str:
    """Digest of a network's tensors and of everything else that decides its output.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        Parameters and buffers by name.
    description : object
        Values that JSON can write, see :func:`describe`.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    state = sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        state.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        state.update(content)
    return state.hexdigest()[:32]


def module_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return all parameters and buffers of a module by name, those that are not saved included."""
    return dict(itertools.chain(module.named_parameters(), module.named_buffers()))


def describe(value: object, *, tensors: bool = True) -> object:
    """Describe settings and code; in doubt, descriptions differ.

    Code of the user's is followed: the functions, classes, modules and settings that it reads, as they are in this
    process now. What belongs to an installed library is told by its name and version.

    Parameters
    ----------
    value : object
        Numbers, strings, containers, arrays, functions, modules, or plain objects.
    tensors : bool, default=True
        Whether the parameters and buffers of `value`, a module, are described too; False where they are hashed
        apart.

    Returns
    -------
    object
        Values that JSON can write. What can't be described (an open file, a compiled extension object, code that reads
        a file) becomes a token that is unique to the object, so that it never matches anything else.
    """
    known = set() if tensors or not isinstance(value, nn.Module) else {id(module) for module in value.modules()}
    try:
        return Walk(known).of(value)
    except RecursionError:
        return ["token", token_of(value)]


@dataclass(frozen=True)
class Code:
    """Code of the user's as it is now.

    Attributes
    ----------
    digest : str
        Differs where the code does, or what it reads.
    unknown : tuple of str
        What could not be looked at, in words.
    """

    digest: str
    unknown: tuple[str, ...] = ()

    def joined(self, other: Code) -> Code:
        """Return this code and another as one."""
        both = sha256((self.digest + other.digest).encode()).hexdigest()[:32]
        return Code(both, (*self.unknown, *other.unknown))


def code_of(*values: object) -> Code:
    """Look at code, and at what it reads.

    Parameters
    ----------
    *values : object
        Functions, classes or objects. Their state counts too.
    """
    walk = Walk()
    try:
        found = [walk.of(value) for value in values]
    except RecursionError:
        return Code(token_of(values[0]), ("an object that is nested too deeply",))
    return Code(sha256(json.dumps(found).encode()).hexdigest()[:32], tuple(walk.unknown))
