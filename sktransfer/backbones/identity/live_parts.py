"""What can change in a network that nobody else has: the code that it shares with everyone."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer.backbones.identity.objects import Constructed, home_of, is_plain, state_of
from sktransfer.backbones.identity.provenance import found_as, library_of

_CODE = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)
_DATA = (bool, int, float, complex, str, bytes, Enum, torch.Tensor, torch.dtype, torch.device, np.ndarray, np.generic)


def live_parts(value: Any) -> list[Any]:
    """Return the code that an object reaches, which stays that of the user when the object is copied.

    Parameters
    ----------
    value : object
        A network, or several in a list. Its own settings are left out: they change by its own doing alone.

    Returns
    -------
    list
        Functions, classes, Python modules and what could not be looked into, each once, and the names and versions of the
        libraries that the rest belongs to.
    """
    found: list[Any] = []
    libraries: set[str] = set()
    seen: set[tuple[bool, int]] = set()
    held: list[Any] = []  # an identity must not be used anew meanwhile
    stack = [value]
    while stack:
        one = stack.pop()
        is_class = type(one) is Constructed
        key = (is_class, id(one.cls if is_class else one))
        if key in seen:
            continue
        seen.add(key)
        held.append(one)
        try:
            inner = None if is_class else _inside(one)
        except Exception:  # objects of the user's may raise anything when they are looked at
            inner = None
        if inner is not None:
            stack.extend(reversed(inner))
            continue
        is_module = issubclass(type(one), types.ModuleType)
        code = one.cls if is_class else one
        library = library_of(one.__name__ if is_module else home_of(code))
        # Compiled functions say themselves whose they are.
        if library is not None and type(one) is not types.BuiltinFunctionType and (is_module or found_as(code)):
            libraries.add(library)
        else:
            found.append(one)
    return [*found, *sorted(libraries)]


def _inside(value: Any) -> list[Any] | None:
    """Return what is inside a value, None where it is code, or can't be looked into."""
    if isinstance(value, _CODE):
        return None
    if value is None or isinstance(value, _DATA):
        return []
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, nn.Module):
        return [Constructed(type(value)), *value.__dict__.values()]
    if isinstance(value, Mapping):
        return [Constructed(type(value)), *value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [Constructed(type(value)), *value]
    return [Constructed(type(value)), *state_of(value).values()] if is_plain(value) else None
