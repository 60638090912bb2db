"""What can be told of any object: a token, its name, its attributes."""

from __future__ import annotations

import contextlib
import types
import uuid
import weakref
from dataclasses import dataclass
from typing import Any

# Objects that can't be described, by identity; the weak reference tells when an identity is used anew.
_tokens: dict[int, tuple[weakref.ref, str]] = {}
# Py_TPFLAGS_HEAPTYPE: the class was made at run time.
_HEAP_TYPE = 1 << 9


@dataclass(frozen=True)
class Constructed:
    """The class of an object that exists: its constructor has run."""

    cls: type


def token_of(value: object) -> str:
    """Return a text that belongs to this object alone, among processes too: fingerprints travel in pickles."""
    known = _tokens.get(id(value))
    if known is not None and known[0]() is value:
        return known[1]
    token = uuid.uuid4().hex
    with contextlib.suppress(TypeError):  # an object that takes no weak reference gets a new token every time
        _tokens[id(value)] = weakref.ref(value), token
    return token


def home_of(value: Any) -> str | None:
    """Return the module that a function, a class or the class of an object belongs to."""
    is_code = issubclass(type(value), types.FunctionType | type)
    return getattr(value if is_code else type(value), "__module__", None)


def named(value: Any) -> str:
    """Return what an object is called in messages."""
    of = value if issubclass(type(value), type | types.FunctionType) else type(value)
    what = {types.FunctionType: "the function ", type: "the class "}.get(type(value), "an object of the type ")
    return f"{what}{of.__module__}.{of.__qualname__}"


def is_written_in_python(cls: type) -> bool:
    """Whether a class comes from a class statement, or was made by calling `type`."""
    return isinstance(vars(cls).get("__module__"), str) and bool(cls.__flags__ & _HEAP_TYPE)


def is_plain(value: Any) -> bool:
    """Whether all of an object's state is in its attributes: there is no room for any that compiled code keeps."""
    cls = type(value)
    room = object.__basicsize__ + 8 * (len(_slots(cls)) + (cls.__weakrefoffset__ > 0) + (cls.__dictoffset__ > 0))
    return cls.__itemsize__ == 0 and cls.__basicsize__ <= room


def _slots(cls: type) -> list[types.MemberDescriptorType]:
    # Compiled classes have such members too, but no __slots__.
    bases = [base for base in cls.__mro__ if "__slots__" in vars(base)]
    return [
        member for base in bases for member in vars(base).values() if isinstance(member, types.MemberDescriptorType)
    ]


def state_of(value: Any) -> dict[str, Any]:
    """Return an object's attributes by name, those in slots too."""
    state = {}
    for slot in _slots(type(value)):
        with contextlib.suppress(AttributeError):  # it holds nothing
            state[f"{slot.__objclass__.__name__}.{slot.__name__}"] = slot.__get__(value)
    # The instance's own table, whatever its class makes of __dict__ and __getstate__.
    with contextlib.suppress(AttributeError):
        state.update(object.__getattribute__(value, "__dict__"))
    return state
