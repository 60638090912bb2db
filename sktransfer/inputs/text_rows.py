"""What callers hand in as texts, as a list of str that any tokenizer can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from sktransfer._containers import is_missing


def read_texts(values: Sequence[Any] | np.ndarray, X: Any) -> list[str]:
    """Check that all rows are texts.

    Parameters
    ----------
    values : list or ndarray
        The rows of one column.
    X : object
        What the caller handed in, for advice that fits it.

    Returns
    -------
    list of str
        The rows; of surrogates, which are no characters, pairs are joined and single ones replaced by U+FFFD.

    Raises
    ------
    TypeError
        If a row is no text.
    ValueError
        If one is missing.
    """
    if isinstance(values, np.ndarray):
        raise TypeError(
            f"The backbone reads texts, but X is an array of {values.dtype} and shape {values.shape}. "
            "Pass a list or column of str."
        )
    if not all(type(value) is str for value in values):
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise _no_text(value, row, X)
        # Not str(value): of an enumeration's member that would be its name.
        values = [str.__str__(value) for value in values]
    return [_of_characters(value) for value in values]


def _of_characters(text: str) -> str:
    """Join pairs of surrogates and replace single ones, as broken files and cut emojis bring them."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _no_text(value: Any, row: int, X: Any) -> Exception:
    if is_missing(value):
        # Arrow arrays arrive here as lists.
        arrow = " (of an Arrow array: X.fill_null(''))" if isinstance(X, list) and value is None else ""
        return ValueError(
            f"Row {row} of X is missing ({value!r}), not a text. Fill it first, an empty text will do: {_filling(X)}{arrow}. "
            f"In a pipeline over a column of a frame: {_imputer(value)}."
        )
    if isinstance(value, bytes | bytearray | memoryview):
        way = "Decode it, row.decode('utf-8') or what the encoding is."
    elif isinstance(value, list | tuple) and len(value) == 1:
        way = "Take the texts out of their lists: [row[0] for row in X]."
    else:
        way = "The backbone reads str; convert the column with .astype(str) if its values are meant as texts."
    return TypeError(f"Row {row} of X is of type {type(value).__name__}, not a text. {way}")


def _filling(X: Any) -> str:
    """Return an expression that fills missing texts in what the caller has, whatever its type."""
    if (
        nw.dependencies.is_pandas_dataframe(X)
        or nw.dependencies.is_pandas_series(X)
        or nw.dependencies.is_pandas_index(X)
    ):
        return "X.astype(object).fillna('')"  # categories and numbers take no text
    if nw.dependencies.is_polars_dataframe(X) or nw.dependencies.is_polars_series(X):
        return "X.cast(polars.String).fill_null('')"
    if nw.dependencies.is_pyarrow_table(X):
        return "['' if row is None else row for row in X.column(0).to_pylist()]"
    if getattr(X, "ndim", 1) == 2:
        return "[row if isinstance(row, str) else '' for row in X[:, 0]]"
    return "[row if isinstance(row, str) else '' for row in X]"


def _imputer(value: Any) -> str:
    missing = {"NoneType": "missing_values=None, ", "NAType": "missing_values=pandas.NA, "}.get(
        type(value).__name__, ""
    )
    return f"SimpleImputer({missing}strategy='constant', fill_value='')"
