"""Digests of rows as an estimator sees them: their content, and the container that holds them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy.sparse import issparse

from sktransfer.caching.keys import digest


@dataclass(frozen=True)
class SeenRows:
    """What tells rows from others.

    Attributes
    ----------
    digests : list of bytes
        One for each row. Rows that differ in anything that an estimator can see of them have others: type of the
        container, dtypes, categories and their order, names of columns, label in the index.
    with_files : bool
        Whether some of them name files, whose content counts and may change.
    """

    digests: list[bytes]
    with_files: bool = False

    def at(self, places: Sequence[int] | np.ndarray) -> SeenRows:
        """Return those of some of the rows."""
        return SeenRows([self.digests[place] for place in places], self.with_files)

    def hold(self, X: Any) -> bool:
        """Whether the same rows have the same content still."""
        return not self.with_files or see_rows(X).digests == self.digests


def see_rows(X: Any) -> SeenRows:
    """Look at rows.

    Parameters
    ----------
    X : array, frame, column, list or sparse matrix
        The rows.
    """
    content = _Content()
    if issparse(X):
        container = _told(X, X.format, X.dtype, X.shape[1:])
        X = X.tocsr()
        rows = [X.indices[a:b].tobytes() + X.data[a:b].tobytes() for a, b in zip(X.indptr, X.indptr[1:], strict=False)]
        return SeenRows([digest(container + repr(row).encode(), domain=b"sparse row") for row in rows])
    frame: Any = nw.from_native(X, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        columns = frame.columns
        held = [[kind, *_dtype(kind, content)] for kind in _dtypes(X, frame)]
        container = _told(X, [(type(name).__qualname__, name) for name in columns], held, *_of_labels(X, content))
        rows = [content.of(row) for row in frame.iter_rows()]
    elif isinstance(frame, nw.Series):
        container = _told(X, frame.name, _dtype(X.dtype, content), *_of_labels(X, content))
        rows = [content.of(row) for row in frame.to_list()]
    else:
        container = _told(X, repr(getattr(X, "dtype", None)), getattr(X, "shape", ())[1:])
        rows = [content.of(row) for row in X]
    beside = [b""] * len(rows)
    for column in _labels_of(X, frame):
        beside = [before + content.of(label) for before, label in zip(beside, column, strict=True)]
    digests = [digest(container + row + label, domain=b"row") for row, label in zip(rows, beside, strict=True)]
    return SeenRows(digests, bool(content.files))


def content_of(values: np.ndarray) -> bytes:
    """Return what tells an array from others: its type, shape and values."""
    return repr((values.dtype.str, values.shape)).encode() + _Content().of(values)


def _told(X: Any, *parts: Any) -> bytes:
    told = repr((type(X).__module__, type(X).__qualname__, *parts)).encode("utf-8", "surrogatepass")
    return len(told).to_bytes(8, "little") + told


def _dtypes(X: Any, frame: Any) -> list[Any]:
    found = getattr(X, "dtypes", None)
    return list(frame.schema.values()) if found is None else list(found)


def _dtype(dtype: Any, content: _Content) -> list[Any]:
    """Say what its name leaves out of a type of values."""
    told: list[Any] = [type(dtype).__qualname__, str(dtype)]
    told += [repr(getattr(dtype, name, None)) for name in ("storage", "na_value", "ordered", "ordering")]
    categories = getattr(dtype, "categories", None)
    if categories is not None and hasattr(categories, "dtype"):
        told += [_dtype(categories.dtype, content), content.of(list(categories))]
    return told


def _of_labels(X: Any, content: _Content) -> list[Any]:
    """Say what a pandas index is; whether it is stored as a range depends on the rows that were picked."""
    index: Any = getattr(X, "index", None)
    if not hasattr(index, "names"):
        return [None]
    levels = getattr(index, "levels", [index])
    columns: Any = getattr(X, "columns", None)
    return [
        list(index.names),
        [_dtype(level.dtype, content) for level in levels],
        None if columns is None else [list(columns.names), _dtype(columns.dtype, content)],
    ]


def _labels_of(X: Any, frame: Any) -> list[Any]:
    """Return what stands beside the values of rows: labels of a pandas index, codes of categories of polars."""
    index: Any = getattr(X, "index", None)
    if hasattr(index, "names"):
        return [index]
    if isinstance(frame, nw.Series):
        return [X.to_physical()] if frame.dtype == nw.Categorical and hasattr(X, "to_physical") else []
    if not isinstance(frame, nw.DataFrame) or not hasattr(X, "get_column"):
        return []
    return [X.get_column(name).to_physical() for name, dtype in frame.schema.items() if dtype == nw.Categorical]


# A folder before it, or an ending behind.
_LIKE_A_FILE = re.compile(r"[/\\]|\.\w{2,5}$")


class _Content:
    """Turns values into bytes that differ where the values or their types do; files are read once."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def of(self, value: Any) -> bytes:
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return repr((value.shape, str(value.dtype), value.dtype.str)).encode() + value.tobytes()
        if isinstance(value, list | tuple | np.ndarray):
            parts = [type(value).__qualname__.encode(), *map(self.of, value)]
            return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
        if isinstance(value, str | PurePath):
            named = str(value)
            return repr((type(value).__name__, named, self._file(named))).encode("utf-8", "surrogatepass")
        if isinstance(value, int | float | bytes | bool | np.generic | None):
            return repr((type(value).__name__, value)).encode()
        return pickle.dumps(value, protocol=5)  # an image, a date, ...

    def _file(self, named: str) -> str | None:
        """Return the digest of a file, None where there is none of that name."""
        if len(named) >= 1024 or not _LIKE_A_FILE.search(named) or "\0" in named:
            return None
        if named not in self.files:
            with contextlib.suppress(OSError, UnicodeEncodeError):
                if os.path.isfile(named):
                    with open(named, "rb") as file:
                        self.files[named] = hashlib.file_digest(file, "blake2b").hexdigest()
        return self.files.get(named)
