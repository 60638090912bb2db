"""What a network is, as a digest: its tensors, its settings and its code."""

from __future__ import annotations

import contextlib
import dis
import functools
import itertools
import json
import sys
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


def describe(value: object, *, tensors: bool = True) -> object:
    """Describe settings and code; in doubt, descriptions differ.

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
        Values that JSON can write. What can't be described (an open file, a compiled extension object) becomes
        a token that is unique to the object, so that it never matches anything else.
    """
    known = set() if tensors or not isinstance(value, nn.Module) else {id(module) for module in value.modules()}
    try:
        return _Description(known).of(value)
    except RecursionError:
        return ["token", _token_of(value)]


class _Description:
    """One walk over everything that a value reaches; what is met again is only referred to."""

    def __init__(self, without_tensors: set[int]) -> None:
        self.without_tensors = without_tensors
        self.seen: dict[int, int] = {}
        self.alive: list[object] = []  # an identity must not be used anew during the walk

    def of(self, value: object) -> object:
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float | complex):
            return repr(value)
        if isinstance(
            value, torch.dtype | torch.device | torch.Size | PurePath | slice | range | bytes | Enum | np.dtype
        ):
            return repr(value)
        if isinstance(value, np.generic):
            return [str(value.dtype), repr(value.item())]
        if isinstance(value, np.ndarray) and value.dtype != object:
            return [str(value.dtype), value.shape, sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, tuple):
            return [self.of(item) for item in value]
        if id(value) in self.seen:
            return ["seen", self.seen[id(value)]]
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        return self._compound(value)

    def _compound(self, value: object) -> object:
        if isinstance(value, Mapping):
            return [[self.of(k), self.of(v)] for k, v in value.items()]
        if isinstance(value, list):
            return [self.of(item) for item in value]
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.of(item)) for item in value)
        if isinstance(value, functools.partial):
            return ["partial", *(self.of(part) for part in (value.func, value.args, value.keywords))]
        if isinstance(value, types.MethodType):
            return ["method", self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.BuiltinFunctionType | types.ModuleType):
            return ["builtin", getattr(value, "__module__", None), value.__name__]
        if isinstance(value, nn.Module):
            return self._module(value)
        if type(value).__getstate__ is object.__getstate__ and type(value).__reduce__ is object.__reduce__:
            return [self.of(type(value)), self.of(object.__getstate__(value))]
        return ["token", _token_of(value)]

    def _tensor(self, value: torch.Tensor) -> object:
        try:
            return ["tensor", fingerprint({"": value}, None)]
        except (RuntimeError, NotImplementedError):  # sparse, conjugated, without storage
            return ["token", _token_of(value)]

    def _module(self, module: nn.Module) -> object:
        left_out = {*_BOOKKEEPING, "_parameters", "_buffers", "_modules"}
        own = {name: value for name, value in module.__dict__.items() if name not in left_out}
        tensors = [] if id(module) in self.without_tensors else [self.of(module._parameters), self.of(module._buffers)]
        children = [[name, self.of(child)] for name, child in module._modules.items()]
        return [self.of(type(module)), self.of(own), tensors, children]

    def _class(self, cls: type) -> object:
        """Name of a class; for classes outside the installed libraries, which can change under a name, its code too."""
        name = [cls.__module__, cls.__qualname__]
        if _is_of_a_library(cls):
            return name
        members = {key: _unwrapped(member) for key, member in sorted(vars(cls).items())}
        functions = [member for key, member in members.items() if isinstance(member, types.FunctionType)]
        # Class attributes that a method assigns are counters and the like, results rather than settings.
        written = set().union(
            *(_assigned(function.__code__) for function in functions if function.__name__ != "__init__")
        )
        code = [
            [key, self.of(member)]
            for key, member in members.items()
            if key not in written and (not _is_special(key) or isinstance(member, types.FunctionType))
        ]
        return [*name, code, [self.of(base) for base in cls.__bases__ if base is not object]]

    def _function(self, function: types.FunctionType) -> object:
        if _is_of_a_library(function):
            return [function.__module__, function.__qualname__]
        code = function.__code__
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        captured = {name: cell.cell_contents for name, cell in cells if _has_value(cell)}
        used = {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
        written = _assigned(code)
        reached = [
            [name, type(value).__name__ if _is_record(value, name, code) else self._reached(value, written)]
            for name, value in sorted((used | captured).items())
        ]
        return [
            "function",
            _describe_code(code, self),
            self.of(function.__defaults__),
            self.of(function.__kwdefaults__),
            reached,
        ]

    def _reached(self, value: object, written: set[str]) -> object:
        """Describe what a function reaches by name, without the attributes that the function itself assigns there."""
        if isinstance(value, type) and written & set(vars(value)) and not _is_of_a_library(value):
            kept = {key: _unwrapped(member) for key, member in vars(value).items() if not _is_special(key)}
            return [value.__qualname__, [[key, self.of(kept[key])] for key in sorted(kept) if key not in written]]
        return self.of(value)


def _token_of(value: object) -> str:
    known = _tokens.get(id(value))
    if known is not None and known[0]() is value:
        return known[1]
    # Unique among processes too: fingerprints travel in pickles.
    token = uuid.uuid4().hex
    with contextlib.suppress(TypeError):  # an object that takes no weak reference gets a new token every time
        _tokens[id(value)] = weakref.ref(value), token
    return token


_LIBRARIES = {"builtins", "torch", "torchvision", "transformers", "timm", "tokenizers", "sktransfer", "numpy", "PIL"}


def _is_of_a_library(value: type | types.FunctionType) -> bool:
    """Whether a class or function is one of an installed library, really found there under its name."""
    module = value.__module__ or ""
    home = sys.modules.get(module)
    return module.split(".")[0] in _LIBRARIES and hasattr(home, value.__qualname__.split(".")[0])


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _unwrapped(member: object) -> object:
    if isinstance(member, staticmethod | classmethod):
        return member.__func__
    return [member.fget, member.fset] if isinstance(member, property) else member


def _code_in(code: types.CodeType) -> list[types.CodeType]:
    """Return the code and that of the functions inside it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [code, *itertools.chain.from_iterable(map(_code_in, inner))]


def _assigned(code: types.CodeType) -> set[str]:
    """Names of the attributes that code assigns, of whatever object."""
    return {step.argval for one in _code_in(code) for step in dis.get_instructions(one) if step.opname == "STORE_ATTR"}


def _names(code: types.CodeType) -> set[str]:
    """Global names that code reads."""
    loads = ("LOAD_GLOBAL", "LOAD_NAME")
    return {step.argval for one in _code_in(code) for step in dis.get_instructions(one) if step.opname in loads}


def _is_record(value: object, name: str, code: types.CodeType) -> bool:
    """Whether code only ever writes to a name it reaches, as to a list of calls or a counter."""
    uses = [use for one in _code_in(code) for use in _uses(value, name, one)]
    return bool(uses) and all(uses)


def _uses(value: object, name: str, code: types.CodeType) -> list[bool]:
    """For each use of a name in code, whether it is a writing one."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "PRECALL", "PUSH_NULL")]
    rebound = any(step.opname in ("STORE_DEREF", "STORE_GLOBAL") and step.argval == name for step in steps)
    found = []
    for i, step in enumerate(steps):
        if step.argval != name or step.opname not in ("LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME"):
            continue
        following = [later.opname for later in steps[i + 1 : i + 4]]
        mutated = following[:1] in (["LOAD_METHOD"], ["LOAD_ATTR"]) and steps[i + 1].argval in _MUTATORS
        # name[key] = value ends with the store; name[key] += value first copies name and key.
        stored = following[1:2] == ["STORE_SUBSCR"] or following[1:3] == ["COPY", "COPY"]
        container = isinstance(value, list | dict | set | np.ndarray)
        found.append(rebound or (container and (mutated or stored)))
    return found


_MUTATORS = {"append", "extend", "add", "update", "insert", "setdefault"}


def _has_value(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _describe_code(code: types.CodeType, description: _Description) -> object:
    constants = [
        _describe_code(constant, description) if isinstance(constant, types.CodeType) else description.of(constant)
        for constant in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, code.co_varnames, constants]
