"""What a network is, as a digest: its tensors, its settings and its code."""

from __future__ import annotations

import contextlib
import dis
import functools
import itertools
import json
import types
import uuid
import weakref
from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

# Objects that can't be described, by identity; the weak reference tells when an identity is used anew.
_tokens: dict[int, tuple[weakref.ref, str]] = {}
# Settings of a module that say nothing of what it computes.
_BOOKKEEPING = {"training", "_is_full_backward_hook", "_non_persistent_buffers_set", "_version"}


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


def describe(value: object) -> object:
    """Describe settings and code so that equal descriptions mean equal results.

    Parameters
    ----------
    value : object
        Numbers, strings, containers, arrays, functions, modules (without their tensors), or plain objects.

    Returns
    -------
    object
        Values that JSON can write. What can't be described (an open file, a compiled extension object) becomes
        a token that is unique in this process, so that it never matches anything else.
    """
    return _describe(value, ())


def _describe(value: object, above: tuple[int, ...]) -> object:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | complex):
        return repr(value)
    if isinstance(value, torch.dtype | torch.device | torch.Size | PurePath | slice | range | bytes | Enum | np.dtype):
        return repr(value)
    if isinstance(value, np.generic):
        return [str(value.dtype), repr(value.item())]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [str(value.dtype), value.shape, sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if torch.is_tensor(value):
        return ["tensor", fingerprint({"": value}, None)]
    if id(value) in above:
        return ["above", len(above) - above.index(id(value))]
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return [[_describe(k, above), _describe(v, above)] for k, v in value.items()]
    if isinstance(value, list | tuple):
        return [_describe(item, above) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_describe(item, above)) for item in value)
    if isinstance(value, functools.partial):
        return ["partial", *(_describe(part, above) for part in (value.func, value.args, value.keywords))]
    if isinstance(value, types.MethodType):
        return ["method", _describe(value.__func__, above), _describe(value.__self__, above)]
    if isinstance(value, types.FunctionType):
        return _describe_function(value, above)
    if isinstance(value, type):
        return _describe_class(value, above)
    if isinstance(value, types.BuiltinFunctionType | types.ModuleType):
        return ["builtin", getattr(value, "__module__", None), value.__name__]
    if isinstance(value, nn.Module):
        return _describe_module(value, above)
    if type(value).__getstate__ is object.__getstate__ and type(value).__reduce__ is object.__reduce__:
        return [_describe_class(type(value), above), _describe(object.__getstate__(value), above)]
    return ["token", _token_of(value)]


def _token_of(value: object) -> str:
    known = _tokens.get(id(value))
    if known is not None and known[0]() is value:
        return known[1]
    # Unique among processes too: fingerprints travel in pickles.
    token = uuid.uuid4().hex
    with contextlib.suppress(TypeError):  # an object that takes no weak reference gets a new token every time
        _tokens[id(value)] = weakref.ref(value), token
    return token


def _describe_module(module: nn.Module, above: tuple[int, ...]) -> object:
    left_out = {*_BOOKKEEPING, "_parameters", "_buffers", "_modules"}
    own = {name: value for name, value in module.__dict__.items() if name not in left_out}
    children = [[name, None if child is None else _describe(child, above)] for name, child in module._modules.items()]
    return [_describe_class(type(module), above), _describe(own, above), children]


def _describe_class(cls: type, above: tuple[int, ...]) -> object:
    """Name of a class; for classes outside the installed libraries, which can change under a name, its code too."""
    name = [cls.__module__, cls.__qualname__]
    if cls.__module__.split(".")[0] in _LIBRARIES:
        return name
    written = _written_by_forward(cls)
    code = [
        [key, _describe(_unwrapped(member), above)]
        for key, member in sorted(vars(cls).items())
        if not (key.startswith("__") and key.endswith("__") and not isinstance(member, types.FunctionType))
        and key not in written
    ]
    return [*name, code, [_describe_class(base, above) for base in cls.__bases__ if base is not object]]


_LIBRARIES = {"builtins", "torch", "torchvision", "transformers", "timm", "tokenizers", "sktransfer", "numpy", "PIL"}


def _unwrapped(member: object) -> object:
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    return [member.fget, member.fset] if isinstance(member, property) else member


def _written_by_forward(cls: type) -> set[str]:
    """Names of the attributes that a class's forward assigns: counters and the like, results rather than settings."""
    forward = getattr(cls, "forward", None)
    if not isinstance(forward, types.FunctionType):
        return set()
    return {step.argval for step in dis.get_instructions(forward.__code__) if step.opname == "STORE_ATTR"}


def _describe_function(function: types.FunctionType, above: tuple[int, ...]) -> object:
    if function.__module__ and function.__module__.split(".")[0] in _LIBRARIES:
        return [function.__module__, function.__qualname__]
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    captured = {name: cell.cell_contents for name, cell in cells if _has_value(cell)}
    used = {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
    reached = {name: value for name, value in used.items() if isinstance(value, _SETTINGS)} | captured
    return [
        "function",
        _describe_code(code, above),
        _describe(function.__defaults__, above),
        _describe(function.__kwdefaults__, above),
        # __class__, the cell behind super(), would lead back to the class that is being described.
        [
            [name, type(value).__name__ if _is_record(name, code) else _describe(value, above)]
            for name, value in sorted(reached.items())
            if not isinstance(value, type)
        ],
    ]


# Of the global variables that a function reads, those of these types are settings or helpers of its own.
_SETTINGS = (
    *(bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, type(None)),
    *(np.ndarray, np.generic, torch.Tensor, functools.partial, types.FunctionType),
)


def _names(code: types.CodeType) -> set[str]:
    """Global names that a function reads, those of functions inside it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*map(_names, inner))


def _is_record(name: str, code: types.CodeType) -> bool:
    """Whether a function writes to a name it reaches, as to a list of calls or a counter, rather than reading it."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "PRECALL", "PUSH_NULL")]
    for step, then, later in zip(steps, [*steps[1:], None], [*steps[2:], None, None], strict=True):
        if step.argval != name:
            continue
        if step.opname in ("STORE_DEREF", "STORE_GLOBAL"):
            return True
        if then is not None and then.opname in ("LOAD_METHOD", "LOAD_ATTR") and then.argval in _MUTATORS:
            return True
        # name[key] = value ends so; name[key] += value first copies name and key.
        if later is not None and later.opname in ("STORE_SUBSCR", "COPY"):
            return True
    return any(_is_record(name, constant) for constant in code.co_consts if isinstance(constant, types.CodeType))


_MUTATORS = {"append", "extend", "add", "update", "insert", "setdefault"}


def _has_value(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _describe_code(code: types.CodeType, above: tuple[int, ...]) -> object:
    constants = [
        _describe_code(constant, above) if isinstance(constant, types.CodeType) else _describe(constant, above)
        for constant in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, code.co_varnames, constants]
