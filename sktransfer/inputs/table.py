"""Tables: rows as the network's numbers and codes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sktransfer.caching.keys import digest
from sktransfer.inputs.preparation import Inputs
from sktransfer.inputs.table_schema import (
    CategoricalColumn,
    NumericColumn,
    TableSchema,
    check_complete,
    check_infinite,
)


class _TableRows:
    """What both ways of preparing tables share."""

    kind = "table"
    padded = False
    budget = 1 << 12
    most_rows = 1 << 16
    chunk_rows = 1 << 16
    threads = 1
    exact = False

    def with_options(self, *, max_length: int | None, prompt: str | None) -> Any:
        """Return this preparation: tables have no options."""
        if max_length is not None or prompt is not None:
            name = "prompt" if max_length is None else "max_length"
            raise ValueError(f"{name} is for texts, but this backbone reads tables. Leave {name} at None.")
        return self

    def fitted_to(self, rows: Sequence[Any]) -> Any:
        """Return this preparation: it leaves nothing open."""
        return self

    def changes(self) -> dict[str, Any]:
        """Return nothing: it is always the backbone's own."""
        return {}

    def digests(self, rows: Sequence[Any]) -> list[bytes]:
        """Return a digest of each row's content."""
        return [digest(row.tobytes(), domain=b"table") for row in np.asarray(rows)]

    def size(self, item: Any) -> int:
        """Return 1: all rows are of one size."""
        return 1

    def group(self, item: Any) -> Hashable:
        """Return the same for all."""
        return None


class TablePreparation(_TableRows):
    """Rows of a table to standardised numbers and codes of categories, for the networks of this package.

    The network gets two tensors: ``numbers`` (n, n_numeric + n_indicators), in which a missing number is 0 (the
    mean) and has an indicator behind the numbers; and ``codes`` (n, n_categorical), which count on from column to
    column, so that one table of embeddings holds them all.

    Parameters
    ----------
    schema : TableSchema
        What is known of the columns.
    """

    # The order of float32 sums depends on the batch, and people compare tables closely. The networks are small.
    exact = True

    def __init__(self, schema: TableSchema):
        self.schema = schema
        self._numeric = schema.places(NumericColumn)
        self._categorical = schema.places(CategoricalColumn)
        numeric: list[Any] = [schema.columns[place] for place in self._numeric]
        categorical: list[Any] = [schema.columns[place] for place in self._categorical]
        self._mean = np.array([column.mean for column in numeric])
        self._scale = np.array([column.scale for column in numeric])
        self._indicators = [i for i, column in enumerate(numeric) if column.missing]
        sizes = [column.codes for column in categorical]
        self._offsets = np.cumsum([0, *sizes])[:-1]
        self.n_numbers = len(numeric) + len(self._indicators)
        self.n_columns = len(categorical)
        self.n_codes = sum(sizes)
        # Codes that the rows of the fit don't have; nothing can be learnt for them.
        self.idle_codes = tuple(
            int(offset) + code
            for offset, column in zip(self._offsets, categorical, strict=True)
            for code in ([column.codes - 2] if column.missing else [column.codes - 2, column.codes - 1])
        )

    def read(self, values: Any) -> Any:
        """Turn a table into rows of numbers and codes, after checking it against the schema."""
        return self.schema.read(values)

    def describe(self) -> Mapping[str, object]:
        """Return everything that decides what a row becomes."""
        return self.schema.describe()

    def prepare(self, rows: Sequence[Any], first_row: int) -> list[Any]:
        """Standardise numbers, and put codes behind them."""
        matrix = np.asarray(rows, dtype=np.float64)
        numbers = matrix[:, self._numeric]
        with np.errstate(over="ignore"):  # beyond what a double holds: the network's result names the row
            # Halves, since the difference of two huge numbers would overflow.
            scaled = (numbers * 0.5 - self._mean * 0.5) / (self._scale * 0.5)
        missing = np.isnan(numbers)
        scaled[missing] = 0.0
        return list(np.hstack([scaled, missing[:, self._indicators], matrix[:, self._categorical] + self._offsets]))

    def collate(self, items: Sequence[Any]) -> Inputs:
        """Stack rows: numbers, and codes."""
        matrix = torch.from_numpy(np.stack(items))
        return Inputs(args=(matrix[:, : self.n_numbers], matrix[:, self.n_numbers :].long()))

    def examples(self) -> list[Inputs]:
        """Return two small batches of made-up rows."""
        random = np.random.default_rng(0)
        numbers = random.normal(size=(2, 3, self.n_numbers)).astype(np.float32)
        sizes = np.diff([*self._offsets, self.n_codes]) if self.n_columns else np.empty(0, np.int64)
        codes = (random.random((2, 3, self.n_columns)) * sizes + self._offsets).astype(np.int64)
        return [Inputs(args=(torch.from_numpy(n), torch.from_numpy(c))) for n, c in zip(numbers, codes, strict=True)]


class PlainTablePreparation(_TableRows):
    """Rows of a table of numbers as they are, or as a function of the user's makes them.

    Parameters
    ----------
    transform : callable or None
        From a float64 array of shape (n_rows, n_columns) to an array or tensor with as many rows; None leaves the values.
    description : dict
        What decides the result of `transform`, as values that JSON can write.
    shape : tuple of int
        Shape of one row as the module gets it, until rows show it.
    """

    def __init__(
        self,
        transform: Callable[[np.ndarray], Any] | None,
        *,
        description: dict[str, object],
        shape: tuple[int, ...],
    ):
        self.transform = transform
        self.description = description
        self.shape = shape

    def read(self, values: Any) -> Any:
        """Take the numbers of a table, all of which must be there."""
        for place in values.strings:
            raise ValueError(
                f"X holds strings in {values.label(place)}, but a module of yours reads numbers. Encode the column first, for "
                "example with sklearn.preprocessing.OneHotEncoder in a ColumnTransformer."
            )
        check_infinite(values)
        check_complete(values, "Fill them first, for example with sklearn.impute.SimpleImputer.")
        return values.numbers

    def fitted_to(self, rows: Sequence[Any]) -> PlainTablePreparation:
        """Return this preparation, with the shape that the rows have for the module."""
        other = copy.copy(self)
        other.shape = tuple(self.prepare(rows[:1], 0)[0].shape)
        return other

    def changes(self) -> dict[str, Any]:
        """Return what `fitted_to` changes."""
        return {"shape": self.shape}

    def describe(self) -> Mapping[str, object]:
        """Return everything that decides what a row becomes."""
        return self.description

    def prepare(self, rows: Sequence[Any], first_row: int) -> list[Any]:
        """Apply the user's function to rows."""
        matrix = np.array(rows, dtype=np.float64)
        if self.transform is None:
            return list(torch.from_numpy(matrix))
        try:
            made = torch.as_tensor(self.transform(matrix.copy()))
        except Exception as error:  # whatever the user's function raises
            raise ValueError(
                f"The preparation failed on rows of X from row {first_row} on: {type(error).__name__}: {error}"
            ) from error
        if made.ndim < 2 or len(made) != len(matrix):
            raise ValueError(
                f"The preparation made a result of shape {tuple(made.shape)} of a table of shape {matrix.shape}; it has to "
                "give as many rows, each with its values."
            )
        return list(made)

    def collate(self, items: Sequence[Any]) -> Inputs:
        """Stack rows."""
        return Inputs(args=(torch.stack(list(items)),))

    def examples(self) -> list[Inputs]:
        """Return two small batches of made-up rows."""
        random = np.random.default_rng(0)
        return [Inputs(args=(torch.from_numpy(random.normal(size=(3, *self.shape)).astype(np.float32)),)) for _ in "ab"]
