"""What callers hand in as a table, as numbers and strings column by column."""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array

_TEXT_TYPES = (nw.String, nw.Categorical, nw.Enum)
_MISSING_TYPES = ("NoneType", "NAType", "NaTType")
# float() takes some of them, and gives a count of days or drops the imaginary part.
_NOT_NUMBERS = (
    bytes,
    bytearray,
    complex,
    np.complexfloating,
    np.datetime64,
    np.timedelta64,
    datetime.date,
    datetime.timedelta,
)


@dataclass(frozen=True)
class Table:
    """A table as it was handed in.

    Attributes
    ----------
    numbers : ndarray of shape (n_rows, n_columns), float64
        Values of the columns of numbers, NaN where one is missing; columns of strings are all NaN.
    strings : dict of int to list
        Values of the columns of strings by their place, None where one is missing.
    names : tuple of str or None
        Names of the columns, where all of them have one.
    """

    numbers: np.ndarray
    strings: dict[int, list[str | None]]
    names: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.numbers.shape[1]

    def label(self, place: int) -> str:
        """Return what a column is called in messages."""
        return column_label(self.names, place)


def column_label(names: Sequence[str] | None, place: int) -> str:
    """Return what a column is called in messages."""
    return f"column {names[place]!r}" if names is not None else f"column {place}"


def refuse_masked(X: Any) -> None:
    """Refuse masked arrays: what lies under a mask is no value, and NumPy's functions would take it for one.

    Raises
    ------
    ValueError
        If `X` is a masked array in which something is masked.
    """
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            "X is a masked array with masked values. Say what is missing as NaN: X.filled(np.nan) for an array of floats."
        )


def read_table(X: Any) -> Table:
    """Take a table apart into numbers and strings.

    Parameters
    ----------
    X : array-like of shape (n_rows, n_columns), or DataFrame
        Columns of numbers or truth values, or of strings. It is not changed.

    Returns
    -------
    Table

    Raises
    ------
    TypeError
        If `X` is sparse, or a column holds something that is neither a number nor a string.
    ValueError
        If `X` is empty, not two-dimensional, or a column mixes numbers and strings.
    """
    refuse_masked(X)
    if hasattr(X, "detach"):  # a torch tensor, possibly with gradients or on a GPU
        X = X.detach().cpu().numpy()
    if hasattr(X, "columns") and hasattr(X, "shape") and not issparse(X):
        return _of_frame(X)
    if isinstance(X, list | tuple) and len(X) and any(isinstance(row, list | tuple) for row in X):
        # As objects, for NumPy would make strings of the numbers beside a string.
        X = _of_lists(X)
    array = check_array(X, dtype=None, ensure_all_finite=False)
    if array.dtype.kind in "biuf":
        with np.errstate(over="ignore"):  # of long doubles; infinity is refused later
            return Table(array.astype(np.float64), {}, None)
    if array.dtype.kind in "OUT":
        return _of_columns([column.tolist() for column in array.T], len(array), None)
    raise TypeError(
        f"X is an array of {array.dtype}, but a table's columns are numbers or strings. Turn dates into numbers (such "
        "as year, month and day), and bytes into str."
    )


def _of_lists(rows: Sequence[Any]) -> np.ndarray:
    try:
        array = np.asarray(rows)
        return array if array.dtype.kind in "biufc" else np.asarray(rows, dtype=object)
    except ValueError as error:
        raise ValueError(
            "The rows of X differ in length or depth, so they make no table: each row is a list of as many numbers or "
            f"strings. NumPy says: {error}"
        ) from error


def _of_frame(X: Any) -> Table:
    if nw.dependencies.is_pyarrow_table(X):
        labels = list(X.column_names)  # its columns are the values
    else:
        labels = list(X.columns if hasattr(X, "iloc") else nw.from_native(X, eager_only=True).columns)
    doubled = (
        sorted({str(label) for label in labels if labels.count(label) > 1}) if len(set(labels)) < len(labels) else []
    )
    if doubled:
        raise ValueError(f"X has more than one column of the name {doubled[0]!r}. Give each column a name of its own.")
    if 0 in X.shape:
        check_array(np.empty(X.shape), dtype=None)  # says what is missing: rows or columns
    names = tuple(labels) if all(isinstance(label, str) for label in labels) else None
    if not hasattr(X, "iloc"):
        columns = list(nw.from_native(X, eager_only=True).iter_columns())
    else:  # by place, since labels of pandas may be anything
        columns = [nw.from_native(X.iloc[:, place], series_only=True) for place in range(len(labels))]
    return _of_columns([_values(column, column_label(names, i)) for i, column in enumerate(columns)], len(X), names)


def _values(column: nw.Series, label: str) -> np.ndarray | list[Any]:
    """Return a column's numbers as an array, anything else as a list."""
    dtype = column.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        return column.cast(nw.Float64).to_numpy()
    if dtype in (nw.Categorical, nw.Enum):
        # Categories of pandas may be numbers; they are categories all the same.
        return _categories(column.to_list(), label)
    if dtype in (nw.String, nw.Object, nw.Unknown):
        values = column.to_list()
        if dtype != nw.Unknown or all(_is_missing(value) for value in values):
            return values
    shown = getattr(column.to_native(), "dtype", dtype)
    raise TypeError(
        f"{label[0].upper()}{label[1:]} of X is of type {shown}, but a table's columns are numbers or strings. Turn it into "
        "numbers (a date into year, month and day, say) or leave it out, for example with ColumnTransformer."
    )


def _categories(values: list[Any], label: str) -> list[str | None]:
    names = {value: _category(value) for value in set(values) if not _is_missing(value)}
    if len(set(names.values())) < len(names):
        name = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise ValueError(
            f"{label[0].upper()}{label[1:]} of X has categories of different types that are both written {name!r}. Convert "
            "the column with .astype(str) where they are the same, or give them different names."
        )
    return [names.get(value) for value in values]


def _category(value: Any) -> str:
    """Name a category by its value: whole numbers are the same as int and as float, which pandas makes of them."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _of_columns(columns: Sequence[np.ndarray | list[Any]], n_rows: int, names: tuple[str, ...] | None) -> Table:
    numbers = np.full((n_rows, len(columns)), np.nan)
    strings: dict[int, list[str | None]] = {}
    for place, column in enumerate(columns):
        values = column if isinstance(column, np.ndarray) else _of_objects(column, column_label(names, place))
        if isinstance(values, np.ndarray):
            numbers[:, place] = values
        else:
            strings[place] = values
    return Table(numbers, strings, names)


def _of_objects(values: list[Any], label: str) -> np.ndarray | list[str | None]:
    """Tell a column of strings from one of numbers, by the types of its values."""
    types = set(map(type, values))
    if types == {str}:
        return values
    if any(issubclass(one, str) for one in types):
        row, odd = next(
            ((row, v) for row, v in enumerate(values) if not isinstance(v, str) and not _is_missing(v)), (None, None)
        )
        if row is not None:
            raise ValueError(
                f"{label[0].upper()}{label[1:]} of X mixes strings and other values: row {row} holds {odd!r:.60} of type "
                f"{type(odd).__name__}. Make all of them numbers (.astype(float)) or all of them strings (.astype(str))."
            )
        # Not str(value): of an enumeration's member that would be its name.
        return [str.__str__(value) if isinstance(value, str) else None for value in values]
    if any(one.__name__ in _MISSING_TYPES for one in types):
        values = [np.nan if _is_missing(value) else value for value in values]
        types = set(map(type, values))
    if not any(issubclass(one, _NOT_NUMBERS) for one in types):
        try:
            numbers = np.array(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise _not_a_number(values, label) from None
        if numbers.ndim == 1:  # more where the values are lists of one length
            return numbers
    raise _not_a_number(values, label)


def _not_a_number(values: list[Any], label: str) -> Exception:
    """Say which value of a column is no number."""
    where = f"{label[0].upper()}{label[1:]} of X holds"
    for row, value in enumerate(values):
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            return ValueError(
                f"{where} an integer of {int(math.log10(abs(value))) + 1} digits in row {row}, more than a float can hold "
                "(1.8e308). Take its logarithm, or leave the column out."
            )
        if isinstance(value, datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64):
            return TypeError(
                f"{where} a {type(value).__name__} in row {row}, but a table's columns are numbers or strings. Turn a date "
                "into year, month and day, a time or duration into seconds, or leave the column out."
            )
        reason = f"float() argument must be a string or a real number, not {type(value).__name__}"
        try:
            if not isinstance(value, _NOT_NUMBERS):
                float(value)
                continue
        except (TypeError, ValueError, OverflowError) as error:
            reason = str(error)
        return TypeError(
            f"{where} a {type(value).__name__} in row {row}, but a table's columns are "
            f"numbers or strings: {reason}. Turn it into numbers, or leave the column out."
        )
    return TypeError(f"{label[0].upper()}{label[1:]} of X can't be read as numbers. Convert it with .astype(float).")


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))
