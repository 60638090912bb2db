"""Descriptions of settings and live code, as values that JSON can write; in doubt, descriptions differ."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import importlib
import json
import logging
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import torch
from torch import nn

from sktransfer.backbones.identity.bytecode import Chain, Import, Reads, is_record, reads_of
from sktransfer.backbones.identity.objects import (
    Constructed,
    home_of,
    is_plain,
    is_written_in_python,
    named,
    state_of,
    token_of,
)
from sktransfer.backbones.identity.outside import BUILTINS, METHODS, reads_outside
from sktransfer.backbones.identity.provenance import found_as, is_compiled, library_of
from sktransfer.caching.seen_rows import see_rows

# Settings of a module that say nothing of what it computes.
_BOOKKEEPING = {"training", "_is_full_backward_hook", "_non_persistent_buffers_set", "_version"}
_HELD_APART = {"_parameters", "_buffers", "_modules"}
_VALUES = (torch.dtype, torch.device, torch.Size, PurePath, slice, range, bytes, bytearray, np.dtype)
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
_C_METHODS = (
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_LRU_CACHED = type(functools.lru_cache(lambda: None))


class Walk:
    """One walk over everything that a value reaches; what is met again is only referred to.

    Parameters
    ----------
    without_tensors : set of int
        Identities of modules whose parameters and buffers are hashed apart.

    Attributes
    ----------
    unknown : dict of str to None
        What could not be looked at, in words, each once.
    """

    def __init__(self, without_tensors: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.without_tensors = without_tensors
        self.seen: dict[int, int] = {}
        self.types: dict[int, int] = {}
        self.alive: list[object] = []  # an identity must not be used anew during the walk
        self.unknown: dict[str, None] = {}

    def of(self, value: Any) -> Any:
        """Describe a value and what it reaches."""
        if value is None or type(value) in (bool, int, str):
            return value
        try:
            return self._plain(value)
        except RecursionError:
            raise
        except Exception as error:  # objects of the user's may raise anything when they are looked at
            return self.token(value, f"{named(value)} raised {type(error).__name__} when it was looked at")

    def _plain(self, value: Any) -> Any:
        if type(value) in (float, complex):
            return repr(value)
        if type(value) is Constructed:
            return self._constructed(value.cls)
        if isinstance(value, _VALUES):
            return repr(value)
        if isinstance(value, Enum):
            return [repr(value), self.of(type(value))] if library_of(type(value).__module__) is None else repr(value)
        if isinstance(value, np.generic) and not isinstance(value, np.void):
            return [str(value.dtype), repr(value.item())]
        if type(value) is tuple:
            return [self.of(item) for item in value]
        if id(value) in self.seen:
            return ["seen", self.seen[id(value)]]
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        return self._compound(value)

    def token(self, value: object, why: str) -> Any:
        """Describe a value that can't be looked into, by something that matches nothing else."""
        self.unknown[why] = None
        return ["token", token_of(value)]

    def _compound(self, value: Any) -> Any:
        for kinds, describe in self._KINDS:
            if isinstance(value, kinds):
                return describe(self, value)
        known = found_as(value)
        library = library_of(known[0]) if known else None
        if known is not None and library is not None:
            return self._named_of_library(*known, library, value)
        if isinstance(value, np.ufunc) and any(
            getattr(sys.modules.get(home), value.__name__, None) is value for home in ("numpy", "scipy.special")
        ):
            return ["builtin", value.__name__]
        table: Any = nw.from_native(value, eager_only=True, allow_series=True, pass_through=True)
        if isinstance(table, nw.DataFrame | nw.Series):
            rows = see_rows(value).digests
            return [self.of(type(value)), sha256(b"".join(rows)).hexdigest(), *_empty(table)]
        if is_plain(value):
            written = self._written_by(type(value)) if library is None else set()
            state = {name: held for name, held in state_of(value).items() if name not in written}
            self.alive.append(state)
            return [self._type_of(value), self.of(state)]
        return self._reduced(value)

    # Data

    def _tensor(self, value: torch.Tensor) -> Any:
        try:
            held = value.detach().cpu().contiguous()
            content: Any = held.reshape(-1).view(torch.uint8).numpy()
            return ["tensor", str(held.dtype), list(held.shape), sha256(content).hexdigest()]
        except (RuntimeError, NotImplementedError):  # sparse, conjugated, without storage
            return self.token(value, f"a tensor of layout {value.layout}")

    def _array(self, value: np.ndarray) -> Any:
        if type(value) is not np.ndarray:
            return self._reduced(value)
        if value.dtype.hasobject:
            return [str(value.dtype), value.shape, [self.of(item) for item in value.ravel().tolist()]]
        return [str(value.dtype), value.shape, sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]

    def _mapping(self, value: Mapping) -> Any:
        if value is os.environ:
            return self._outside(value, "os.environ")
        items = [[self.of(k), self.of(v)] for k, v in value.items()]
        return items if type(value) is dict else [items, *self._subclass(value)]

    def _list(self, value: list) -> Any:
        items = [self.of(item) for item in list.__iter__(value)]
        return items if type(value) is list else [items, *self._subclass(value)]

    def _tuple(self, value: tuple) -> Any:
        return [[self.of(item) for item in tuple.__iter__(value)], *self._subclass(value)]

    def _set(self, value: set | frozenset) -> Any:
        return [*sorted(json.dumps(self.of(item)) for item in value), *self._subclass(value)]

    def _scalar(self, value: Any) -> Any:
        plain = next(kind for kind in (int, float, complex, str) if isinstance(value, kind))
        return [repr(plain(value)), *self._subclass(value)]

    def _subclass(self, value: Any) -> list[Any]:
        if library_of(type(value).__module__) == library_of("builtins"):
            return []
        return [self.of(type(value)), self.of(getattr(value, "__dict__", None))]

    # Code

    def _partial(self, value: functools.partial) -> Any:
        return ["partial", *(self.of(part) for part in (value.func, value.args, value.keywords))]

    def _method(self, value: types.MethodType) -> Any:
        return ["method", self.of(value.__func__), self.of(value.__self__)]

    def _builtin(self, value: Any) -> Any:
        holder = value.__self__
        if isinstance(holder, types.ModuleType | type) or holder is None:
            home = holder.__name__ if isinstance(holder, types.ModuleType) else getattr(holder, "__module__", None)
            if home is None and getattr(torch, value.__name__, None) is value:
                home = "torch"
            library = library_of(home)
            if library is None:
                return self.token(value, f"{home}.{value.__name__}, which is compiled")
            return self._named_of_library(str(home), value.__qualname__, library, value)
        return ["method", value.__name__, self.of(holder)]

    def _descriptor(self, value: Any) -> Any:
        return ["descriptor", getattr(value.__objclass__, "__qualname__", ""), value.__name__]

    def _unwrapped(self, value: Any) -> Any:
        if isinstance(value, property):
            return [self.of(part) for part in (value.fget, value.fset)]
        return self.of(value.__wrapped__ if isinstance(value, _LRU_CACHED) else value.__func__)

    def _named_of_library(self, module: str, name: str, library: str, value: object) -> Any:
        """Name what belongs to a library; what reads from outside can't be known by its name."""
        last = name.rpartition(".")[2]
        if not isinstance(value, type) and reads_outside(module, (last,)):
            return ["outside", module, name, self._outside(value, f"{module}.{name}")]
        return ["library", module, name, library]

    def _outside(self, value: object, what: str) -> Any:
        found = [self.token(value, f"{what}, which reads from outside of the process or runs code that is made there")]
        if "env" in what:
            found.append(sha256(repr(sorted(os.environ.items())).encode("utf-8", "replace")).hexdigest())
        return found

    def _module(self, module: nn.Module) -> Any:
        own = {name: value for name, value in module.__dict__.items() if name not in _BOOKKEEPING | _HELD_APART}
        tensors = [] if id(module) in self.without_tensors else [self.of(module._parameters), self.of(module._buffers)]
        children = [[name, self.of(child)] for name, child in module._modules.items()]
        return [self._type_of(module), self.of(own), tensors, children]

    def _type_of(self, value: Any) -> Any:
        return self._constructed(type(value))

    def _constructed(self, cls: type) -> Any:
        """Describe the class of an object, whose constructor has run: the object's state tells what that has read."""
        if id(cls) in self.types:
            return ["type", self.types[id(cls)]]
        self.types[id(cls)] = len(self.types)
        self.alive.append(cls)
        return self._class(cls, constructed=True)

    def _class(self, cls: type, *, constructed: bool = False) -> Any:
        """Name of a class; for classes outside the installed libraries, which can change under a name, its code too."""
        name = [cls.__module__, cls.__qualname__]
        library = library_of(cls.__module__)
        if library is not None and found_as(cls) is not None:
            return [*name, library]
        if library is None and not is_written_in_python(cls):
            return self.token(cls, f"the class {named(cls)}, which is compiled")
        written = self._written_by(cls)
        members = [
            [key, self.of_code(member.__code__) if _is_run(key, member, constructed) else self.of(member)]
            for key, member in sorted(vars(cls).items())
            if key not in written and _counts(key, member)
        ]
        bases = [base for base in cls.__bases__ if base is not object]
        told = [self._class(base, constructed=True) if constructed else self.of(base) for base in bases]
        return [*name, members, told, self.of(type(cls))]

    def _written_by(self, cls: type) -> set[str]:
        # Attributes that methods only count on are results rather than settings.
        mine = [base for base in cls.__mro__ if library_of(base.__module__) is None]
        functions = [inner for base in mine for member in vars(base).values() for inner in _functions_of(member)]
        reads = [reads_of(function.__code__) for function in functions]
        # What another method reads is a setting.
        return {
            name
            for name in set[str]().union(*(one.counted for one in reads))
            if all(name in one.counted or name not in one.attributes for one in reads)
        }

    def _function(self, function: types.FunctionType) -> Any:
        known, library = found_as(function), library_of(function.__module__)
        if known is not None and library is not None:
            return self._named_of_library(*known, library, function)
        code = function.__code__
        if code.co_filename == functools.__file__ and hasattr(function, "registry"):
            return ["singledispatch", self.of(function.registry)]  # and a record of the types that came by
        reads = reads_of(code)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        reached = {name: cell.cell_contents for name, cell in cells if _has_value(cell)}
        reached |= {name: function.__globals__[name] for name in reads.global_names if name in function.__globals__}
        found = [[name, self._reached(name, value, code, reads)] for name, value in sorted(reached.items(), key=_first)]
        imported = [self._imported(one, function) for one in reads.imports]
        missing = [self._missing(name, function) for name in sorted(reads.global_names - set(function.__globals__))]
        outside = [
            self._outside(function, f"{named(function)} calls {name}") for name in sorted(METHODS & reads.attributes)
        ]
        own = {key: value for key, value in function.__dict__.items() if key not in reads.counted}
        return [
            "function",
            self.of_code(code),
            self.of(function.__defaults__),
            self.of(function.__kwdefaults__),
            self.of(own),
            found,
            imported,
            [one for one in missing if one is not None],
            outside,
        ]

    def _missing(self, name: str, function: types.FunctionType) -> Any:
        if name in BUILTINS:
            return self._outside(function, f"{named(function)} calls {name}")
        builtins = function.__builtins__ if hasattr(function, "__builtins__") else {}
        return None if name in builtins else ["absent", name]

    def _reached(self, name: str, value: Any, code: types.CodeType, reads: Reads) -> Any:
        """Describe what a function reaches by a name, without what the function only writes to."""
        if is_record(name, code, container=isinstance(value, list | dict | set | np.ndarray)):
            return type(value).__name__
        if isinstance(value, types.ModuleType):
            return self._of_module(value, reads.names.get(name, frozenset([()])), reads)
        written = reads.counted
        if isinstance(value, type) and written & set(vars(value)) and library_of(value.__module__) is None:
            kept = {key: member for key, member in vars(value).items() if key not in written and _counts(key, member)}
            return [value.__qualname__, [[key, self.of(kept[key])] for key in sorted(kept)]]
        return self.of(value)

    def _imported(self, one: Import, function: types.FunctionType) -> Any:
        """Describe what an import inside a function gives; the function would do the import itself."""
        name = one.module
        try:
            if one.level:
                package = function.__globals__.get("__package__") or function.__module__.rpartition(".")[0]
                name = importlib.util.resolve_name("." * one.level + name, package)
            top = name.partition(".")[0]
            if (library_of(name) or library_of(top)) and name not in sys.modules:
                # Big libraries are not imported for the sake of their name.
                told = [name] if one.attribute is None else [name, one.attribute]
                return self._of_library(".".join(told[:-1]) or top, (told[-1],), library_of(top) or "", function)
            value: Any = importlib.import_module(name)
        except Exception as error:  # whatever the code of a module raises; where it is optional, the function goes on
            return ["absent", name, type(error).__name__]
        if one.attribute is not None:
            return self._of_attribute(value, one.attribute, one.chains, None)
        return self._of_module(sys.modules[top] if one.whole else value, one.chains, None)

    def _of_module(self, module: types.ModuleType, chains: frozenset[Chain], reads: Reads | None) -> Any:
        """Describe what is read of a Python module."""
        if () in chains and library_of(module.__name__) is None:
            return self.of(module)
        written = reads.counted if reads is not None else frozenset()
        by_attribute: dict[str, set[Chain]] = {}
        for chain in chains:
            if chain and chain[0] not in written:
                by_attribute.setdefault(chain[0], set()).add(chain[1:])
        return [
            module.__name__,
            library_of(module.__name__),
            [self._of_attribute(module, name, frozenset(by_attribute[name]), reads) for name in sorted(by_attribute)],
        ]

    def _of_attribute(self, module: types.ModuleType, name: str, chains: frozenset[Chain], reads: Reads | None) -> Any:
        library = library_of(module.__name__)
        if library is not None and (reads_outside(module.__name__, (name, *(part for one in chains for part in one)))):
            return self._outside(vars(module).get(name, module), f"{module.__name__}.{name}")
        missing = object()
        value = vars(module).get(name, missing)
        if value is missing:
            value = sys.modules.get(f"{module.__name__}.{name}", missing)
        if value is missing and library is None and "__getattr__" in vars(module):
            return [name, self.of(vars(module)["__getattr__"]), self.of(getattr(module, name, None))]
        if value is missing and library is None:
            with contextlib.suppress(Exception):  # a part of the package that has not been imported, or nothing
                value = importlib.import_module(f"{module.__name__}.{name}")
        if value is missing:
            return [name, "absent" if library is None else "lazy"]
        if isinstance(value, types.ModuleType):
            return [name, self._of_module(value, chains, reads)]
        if library is None:
            return [name, self.of(value)]
        # Of a library's own only switches are settings; but a function of the user's may have been put there.
        if isinstance(value, bool | int | float | str | None):
            return [name, self.of(value)]
        mine = isinstance(value, types.FunctionType | type | nn.Module) and library_of(home_of(value)) is None
        return [name, self.of(value)] if mine else name

    def _of_library(self, module: str, names: Chain, library: str, function: types.FunctionType) -> Any:
        if reads_outside(module, names):
            return self._outside(function, f"{module}.{'.'.join(names)}")
        return ["library", module, *names, library]

    def _python_module(self, module: types.ModuleType) -> Any:
        """Describe a module that is handed on as it is: all of it, where it is the user's."""
        library = library_of(module.__name__)
        if library is not None:
            if reads_outside(module.__name__, ()):
                return self._outside(module, module.__name__)
            return ["module", module.__name__, library]
        if is_compiled(module):
            return self.token(module, f"the module {module.__name__}, which is compiled")
        names = sorted(name for name in vars(module) if not _is_special(name) or name == "__getattr__")
        return ["module", module.__name__, [[name, self.of(vars(module)[name])] for name in names]]

    def of_code(self, code: types.CodeType) -> Any:
        """Describe compiled code by what the interpreter runs."""
        constants = [
            self.of_code(constant) if isinstance(constant, types.CodeType) else self.of(constant)
            for constant in code.co_consts
        ]
        return [
            code.co_code.hex(),
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags],
            code.co_exceptiontable.hex(),
            constants,
        ]

    # Everything else

    def _says_nothing(self, value: Any) -> Any:
        """Name the type of a lock or a logger, which decide no result."""
        return type(value).__name__

    def _reduced(self, value: Any) -> Any:
        """Describe an object that is not written in Python by what its pickle would be made of."""
        if isinstance(value, torch.Generator | Iterator) or library_of(type(value).__module__) is None:
            return self.token(value, named(value))
        reducer = copyreg.dispatch_table.get(type(value))
        made: Any = None
        with contextlib.suppress(TypeError, NotImplementedError, AttributeError, RuntimeError):  # it has no pickle
            made = reducer(value) if reducer is not None else value.__reduce_ex__(4)
        if not isinstance(made, tuple):
            return self.token(value, named(value))
        parts = [list(part) if isinstance(part, Iterator) else part for part in made[1:]]
        self.alive.append(parts)
        return [self.of(type(value)), *(self.of(part) for part in parts)]

    _KINDS: tuple[tuple[Any, Callable[[Walk, Any], Any]], ...] = (
        (torch.Tensor, _tensor),
        (nn.Module, _module),
        (np.ndarray, _array),
        (type, _class),
        (types.FunctionType, _function),
        (types.MethodType, _method),
        ((types.BuiltinFunctionType, types.MethodWrapperType), _builtin),
        (_C_METHODS, _descriptor),
        (types.ModuleType, _python_module),
        (types.CodeType, of_code),
        (functools.partial, _partial),
        ((property, staticmethod, classmethod, _LRU_CACHED), _unwrapped),
        ((logging.Logger, logging.LoggerAdapter, *_LOCKS), _says_nothing),
        (Mapping, _mapping),
        (list, _list),
        (tuple, _tuple),
        ((set, frozenset), _set),
        ((int, float, complex, str), _scalar),
    )


def _empty(table: Any) -> list[str]:
    """Say what a table without rows is."""
    if len(table):
        return []
    return [str(table.schema) if isinstance(table, nw.DataFrame) else str(table.dtype)]


def _first(item: tuple[str, Any]) -> str:
    return item[0]


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _counts(name: str, member: Any) -> bool:
    """Whether a member of a class says what the class does."""
    if name == "_abc_impl":
        return False
    return not _is_special(name) or bool(_functions_of(member)) or callable(member)


def _is_run(name: str, member: Any, constructed: bool) -> bool:
    """Whether a member of a class is a constructor that has run already."""
    return constructed and name in ("__init__", "__new__", "__post_init__") and isinstance(member, types.FunctionType)


def _functions_of(member: Any) -> list[types.FunctionType]:
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    parts = [member.fget, member.fset] if isinstance(member, property) else [member]
    return [part for part in parts if isinstance(part, types.FunctionType)]


def _has_value(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
