"""What a pickle tells of an object without being kept: its digest and its length."""

from __future__ import annotations

import hashlib
import pickle
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_NO_PICKLE = (RuntimeError, TypeError, AttributeError, ValueError, pickle.PicklingError)


@dataclass(frozen=True)
class PickledState:
    """Digest and length of a pickle.

    Attributes
    ----------
    digest : str
        Differs where the object differs, or the classes and functions that this process knows by the names in the pickle.
    n_bytes : int
        Length of the pickle.
    """

    digest: str
    n_bytes: int


class _Sink:
    """A file that only remembers the digest and length of what is written to it."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b()
        self.n_bytes = 0

    def write(self, data: Any) -> int:
        n_bytes = memoryview(data).nbytes
        self.hash.update(data)
        self.n_bytes += n_bytes
        return n_bytes


class _StatePickler(pickle.Pickler):
    """Tells functions and classes by what they are: pickles have their names only, and may be of others by now."""

    def __init__(self, sink: _Sink, code_of: Callable[[object], str] | None):
        super().__init__(sink, protocol=5)
        self.sink = sink
        self.code_of = code_of

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | types.FunctionType):
            self.sink.hash.update(id(obj).to_bytes(8, "little"))
            if self.code_of is not None:
                self.sink.hash.update(self.code_of(obj).encode())
        return NotImplemented


class _SizePickler(pickle.Pickler):
    """Leaves code out: functions without a name have no pickle, and their size is next to nothing."""

    def reducer_override(self, obj: Any) -> Any:
        return (str, ()) if isinstance(obj, types.FunctionType) else NotImplemented


def pickled_state(model: Any, *, code_of: Callable[[object], str] | None = None) -> PickledState | None:
    """Return what tells the state of an object in this process, None where it has no pickle.

    The same object with the same state was not changed. The reverse does not hold: some pickles change without a change.

    Parameters
    ----------
    model : object
        Any.
    code_of : callable, optional
        From a class or function to a digest of its code and of what that reads.
    """
    sink = _Sink()
    try:
        _StatePickler(sink, code_of).dump(model)
    except _NO_PICKLE:
        return None
    return PickledState(sink.hash.hexdigest(), sink.n_bytes)


def pickled_size(model: Any) -> int:
    """Return the length of an object's pickle, without the code of functions."""
    sink = _Sink()
    _SizePickler(sink, protocol=5).dump(model)
    return sink.n_bytes
