"""Forms in which rows may be handed in as X: each holds the rows of a list, and is read as that list is."""

from __future__ import annotations

import array
import collections
import io
import operator
from collections.abc import Sequence

import narwhals
import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import torch
from PIL import Image


class Lazy(Sequence):
    """A sequence that is read row by row, as a column of the datasets package is; arrays of places it does not take."""

    def __init__(self, rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, place):
        return self._rows[place if isinstance(place, slice) else operator.index(place)]


class LazyList(list):
    """A list that holds nothing and gives its rows when asked, as some make of a column."""

    def __init__(self, rows):
        super().__init__()
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, place):
        return self._rows[place]

    def __iter__(self):
        return iter(self._rows)


class Columns:
    """Columns by name, as a Dataset of the datasets package: no sequence, no frame."""

    def __init__(self, **columns):
        self._columns = columns
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name):
        return Lazy(self._columns[name])


class ArrayProtocol:
    """Turns into an array, as those of other libraries do."""

    def __init__(self, values):
        self._values = values

    def __len__(self):
        return len(self._values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self._values, dtype=dtype)


def objects(rows):
    made = np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows):
        made[place] = row
    return made


SEQUENCES = {
    "tuple": tuple,
    "deque": collections.deque,
    "UserList": collections.UserList,
    "lazy sequence": Lazy,
    "lazy list": LazyList,
    "array of objects": objects,
    "column of objects": lambda rows: objects(rows).reshape(-1, 1),
    "array protocol": lambda rows: ArrayProtocol(objects(rows)),
    "unmasked array": lambda rows: np.ma.MaskedArray(objects(rows)),
    "pandas Series": lambda rows: pd.Series(rows, index=range(10, 10 + len(rows))),
    "pandas Series of objects": lambda rows: pd.Series(objects(rows), dtype=object),
    "pandas frame": lambda rows: pd.DataFrame({"rows": rows}, index=range(10, 10 + len(rows))),
    "narwhals frame": lambda rows: narwhals.from_native(pd.DataFrame({"rows": rows})),
    "dataset": lambda rows: Columns(rows=rows),
}

TEXTS = {
    **SEQUENCES,
    "str array": np.array,
    "numpy strings": lambda rows: np.array(rows, dtype=np.dtypes.StringDType()),
    "numpy.str_": lambda rows: [np.str_(row) for row in rows],
    "pandas Index": pd.Index,
    "pandas array": pd.array,
    "pandas string[pyarrow]": lambda rows: pd.Series(rows, dtype="string[pyarrow]"),
    "pandas Arrow": lambda rows: pd.DataFrame({"rows": pd.Series(rows, dtype=pd.ArrowDtype(pa.string()))}),
    "pandas category": lambda rows: pd.DataFrame({"rows": pd.Series(rows, dtype="category")}),
    "pandas Categorical": pd.Categorical,
    "polars Series": pl.Series,
    "polars category": lambda rows: pl.Series(rows, dtype=pl.Categorical),
    "polars frame": lambda rows: pl.DataFrame({"rows": rows}),
    "narwhals Series": lambda rows: nw.from_native(pl.Series(rows), series_only=True),
    "Arrow array": pa.array,
    "Arrow chunks": lambda rows: pa.chunked_array([rows[:2], rows[2:]]),
    "Arrow dictionary": lambda rows: pa.array(rows).dictionary_encode(),
    "Arrow table": lambda rows: pa.table({"rows": rows}),
    "Arrow batch": lambda rows: pa.record_batch({"rows": rows}),
}

IMAGES = {
    **SEQUENCES,
    "array": np.stack,
    "channels first": lambda rows: np.stack(rows).transpose(0, 3, 1, 2),
    "tensor": lambda rows: torch.tensor(np.stack(rows)),
    "tensors": lambda rows: [torch.tensor(row) for row in rows],
    "tensors, channels first": lambda rows: [torch.tensor(row).permute(2, 0, 1) for row in rows],
    "tensors of floats": lambda rows: [(torch.tensor(row) / 255).requires_grad_() for row in rows],
    "deque of tensors": lambda rows: collections.deque(torch.tensor(row) for row in rows),
    "pandas Series of tensors": lambda rows: pd.Series(objects([torch.tensor(row) for row in rows])),
    "array protocols": lambda rows: [ArrayProtocol(row) for row in rows],
    "unmasked arrays": lambda rows: [np.ma.MaskedArray(row) for row in rows],
    "PIL images": lambda rows: [Image.fromarray(row) for row in rows],
    "PIL images and arrays": lambda rows: [*map(Image.fromarray, rows[:2]), *rows[2:]],
    "memory view": lambda rows: memoryview(np.stack(rows)),
    "polars arrays": lambda rows: pl.Series(np.stack(rows)),
}

SERIES = {
    **SEQUENCES,
    "array": np.stack,
    "tensor": lambda rows: torch.tensor(np.stack(rows)),
    "tensors": lambda rows: [torch.tensor(row, requires_grad=True) for row in rows],
    "lists": lambda rows: [row.tolist() for row in rows],
    "unmasked arrays": lambda rows: [np.ma.MaskedArray(row) for row in rows],
    "polars lists": lambda rows: pl.Series([row.tolist() for row in rows]),
    "polars arrays": lambda rows: pl.Series(np.stack(rows)),
    "Arrow lists": lambda rows: pa.array([row.tolist() for row in rows]),
}

# Rows are lists of numbers here.
TABLES = {
    "tuple": tuple,
    "deque": collections.deque,
    "lazy sequence": Lazy,
    "array": np.array,
    "array protocol": lambda rows: ArrayProtocol(np.array(rows)),
    "memory view": lambda rows: memoryview(np.array(rows)),
    "tensor": torch.tensor,
    "tensors": lambda rows: [torch.tensor(row, requires_grad=True) for row in rows],
    "arrays": lambda rows: [np.array(row) for row in rows],
}

# How each is refused, whatever the rows are: an expression that stands in the message.
REFUSED = {
    "generator": (lambda rows: (row for row in rows), r"list\(X\)"),
    "iterator": (iter, r"list\(X\)"),
    "map": (lambda rows: map(lambda row: row, rows), r"list\(X\)"),
    "zip": (lambda rows: zip(rows, rows, strict=True), r"list\(X\)"),
    "reversed": (reversed, r"list\(X\)"),
    "set": (lambda rows: set(range(len(rows))), "no order"),
    "keys": (lambda rows: dict.fromkeys(range(len(rows))).keys(), "no order"),
    "values": (lambda rows: dict(enumerate(rows)).values(), r"list\(X\)"),
    "dict": (lambda rows: {"rows": rows}, r"X\['name'\]"),
    "UserDict": (lambda rows: collections.UserDict(rows=rows), r"X\['name'\]"),
    "dataset of two columns": (lambda rows: Columns(first=rows, second=rows), "2 columns"),
    "lazy frame": (lambda rows: pl.LazyFrame({"rows": range(len(rows))}), r"X\.collect\(\)"),
    "narwhals lazy frame": (
        lambda rows: narwhals.from_native(pl.LazyFrame({"rows": range(len(rows))})),
        r"X\.collect\(\)",
    ),
    "bytes": (lambda rows: b"rows", "single bytes"),
    "bytearray": (lambda rows: bytearray(b"rows"), "single bytearray"),
    "UserString": (lambda rows: collections.UserString("rows"), r"str\(X\)"),
    "file": (lambda rows: io.StringIO("rows"), "open file"),
    "number": (lambda rows: 3, "must be a list"),
    "scalar array": (lambda rows: np.array("row"), "scalar array"),
    "scalar tensor": (lambda rows: torch.tensor(1.0), "scalar array"),
    "sparse tensor": (lambda rows: torch.eye(len(rows)).to_sparse(), r"to_dense\(\)"),
    "structured array": (
        lambda rows: np.zeros(len(rows), dtype=[("a", int), ("b", "U2")]),
        r"pandas.DataFrame\(X\).*X\['a'\]",
    ),
    "numbers": (lambda rows: array.array("d", range(len(rows))), "array of|shape|2D array"),
    "dates": (lambda rows: np.arange(len(rows)).astype("datetime64[D]"), "datetime64|shape|2D array"),
    "masked array": (
        lambda rows: np.ma.MaskedArray(objects(rows), mask=[True] + [False] * (len(rows) - 1)),
        "masked values",
    ),
    "masked row": (lambda rows: [*rows[1:], np.ma.masked], f"Row {5} of X is a masked"),
}
