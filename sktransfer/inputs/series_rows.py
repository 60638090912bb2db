"""What callers hand in as time series, as one array of channels and time points for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from PIL.Image import Image
from scipy.sparse import issparse

from sktransfer._containers import array_of, as_container, is_missing, refuse_masked

_FORMS = (
    "Series are an array (n, channels, time points), an array or frame (n, time points) of one channel, or a list of arrays "
    "(channels, time points) or (time points,), which may differ in length."
)


def read_series(X: Any) -> list[np.ndarray]:
    """Turn `X` into one array of shape (channels, time points) for each row, checking every one of them.

    Parameters
    ----------
    X : array-like or DataFrame
        What the caller handed in; it is not changed.

    Returns
    -------
    list of ndarray
        Floating-point numbers, in the precision of `X`.

    Raises
    ------
    TypeError
        If `X` or one of its rows is not made of numbers.
    ValueError
        If `X` is empty, or a row is missing, of another number of dimensions, without time points, or holds NaN or
        infinity.
    """
    X = as_container(X)
    values = _unpack(X)
    if len(values) == 0:
        raise ValueError(f"Found array with 0 sample(s): X is empty, while a minimum of 1 is required. {_FORMS}")
    if isinstance(values, np.ndarray):
        return _of_array(values)
    return [_of_row(value, row) for row, value in enumerate(values)]


def _unpack(X: Any) -> np.ndarray | Sequence[Any]:
    """Return an array of numbers, or a sequence of rows."""
    if issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but series are dense. Use .toarray() to convert to a dense array."
        )
    if hasattr(X, "columns") and hasattr(X, "shape"):
        return _of_frame(X)
    X = nw.from_native(X, allow_series=True, pass_through=True)
    if isinstance(X, nw.Series):
        return X.to_numpy() if isinstance(X.dtype, nw.Array) else as_container(X.to_list())
    if isinstance(X, list):
        return X
    if X.dtype == object:
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim == 2 and any(np.ndim(value) for value in X.flat):
            raise ValueError(
                f"X is an array of objects of shape {X.shape}, but series are read from one column: select it, or use "
                "sklearn.compose.ColumnTransformer."
            )
        return list(X)
    return X


def _of_frame(X: Any) -> np.ndarray | Sequence[Any]:
    """Read a frame: a column for each time point, or one column that holds whole series."""
    frame = nw.from_native(X, eager_only=True)
    held = [dtype.is_numeric() or dtype == nw.Boolean for dtype in frame.schema.values()]
    if all(held) and held:
        missing = [column for column in frame.iter_columns() if column.is_null().any()]
        if missing:
            row = missing[0].is_null().arg_true()[0]
            raise ValueError(f"Row {row} of X misses a value in column {missing[0].name!r}. {_FILL}")
        return frame.select(nw.all().cast(nw.Float64)).to_numpy()
    if len(held) == 1:
        return _unpack(frame[frame.columns[0]].to_native())
    raise ValueError(
        f"X is a frame of {len(held)} columns that are not all numbers. Series are read from a frame with one number for each "
        "time point, or from one column of arrays: select it, X[['name']], or use sklearn.compose.ColumnTransformer."
    )


_FILL = "Fill gaps first (with the last value, say, or by interpolation): a network would only pass them on."


def _of_array(values: np.ndarray) -> list[np.ndarray]:
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(f"Expected 2D or 3D array of series, got an array of shape {values.shape}. {_FORMS}")
    values = _as_float(values if values.ndim == 3 else values[:, None], "X is an array")
    bad = ~np.isfinite(values)
    if bad.any():
        row, channel, point = (int(i) for i in np.argwhere(bad)[0])
        raise _not_finite(values[row, channel, point], row, channel, point)
    return list(values)


def _of_row(value: Any, row: int) -> np.ndarray:
    if is_missing(value):
        raise ValueError(f"Row {row} of X is missing ({value!r}), not a series. Drop the row.")
    if isinstance(value, str | bytes | bytearray | dict | set | Image):
        raise TypeError(f"Row {row} of X is of type {type(value).__name__}, not a series. {_FORMS}")
    for channel in value if isinstance(value, list | tuple) else (value,):
        refuse_masked(channel, f"Row {row} of X")
    try:
        array = np.asarray(array_of(value))
        if array.dtype == object:  # an array of arrays, as one gets back from a frame's column
            array = np.array([np.asarray(channel, dtype=np.float64) for channel in array], dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Row {row} of X is a {type(value).__name__} that makes no array of numbers (channels, time points), for its "
            f"channels differ in length, or hold something else: {error}"
        ) from error
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise ValueError(
            f"Row {row} of X has the shape {array.shape}: a series has a channel or more, and time points. {_FORMS}"
        )
    array = _as_float(array if array.ndim == 2 else array[None], f"Row {row} of X is an array")
    if not np.isfinite(array).all():
        channel, point = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise _not_finite(array[channel, point], row, channel, point)
    return array


def _as_float(array: np.ndarray, subject: str) -> np.ndarray:
    if array.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported. {subject} of {array.dtype}: give real and imaginary part as channels."
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{subject} of {array.dtype}, but series are numbers. {_FORMS}")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _not_finite(value: Any, row: int, channel: int, point: int) -> ValueError:
    what = "NaN, a missing value," if np.isnan(value) else "infinity"
    return ValueError(f"Row {row} of X has {what} in channel {channel}, at time point {point}. {_FILL}")
