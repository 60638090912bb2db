"""What callers hand in as X, brought into a container whose rows can be counted and picked by place."""

from __future__ import annotations

import collections
import io
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from PIL.Image import Image
from scipy.sparse import issparse

_SINGLE = (str, bytes, bytearray, collections.UserString, os.PathLike, Image)
_NUMPYS_FLOATS = ("torch.float16", "torch.float32", "torch.float64")
# Whichever of them a lazy frame has: of dask, Spark, ibis, DuckDB, polars.
_COLLECTING = ("compute", "toPandas", "to_pandas", "df", "collect")


def as_container(X: Any) -> Any:
    """Return rows as a list, an array, a column, a frame or a sparse matrix, all of which scikit-learn can index.

    Any other sequence becomes a list, tensors and whatever else turns into an array become one. What holds no rows in an
    order that can be read twice is refused. Rows themselves are not looked at, but that masked arrays among them are
    refused, and tensors become arrays.

    Parameters
    ----------
    X : object
        What the caller handed in; it is not changed, and returned itself where it will do.

    Returns
    -------
    list, ndarray, Series, DataFrame or sparse matrix
        Of pandas, polars or pyarrow the frames, and of the first two the columns.

    Raises
    ------
    TypeError
        If `X` is a single value, a mapping, a set, an iterator, a lazy frame, or no collection at all.
    ValueError
        If something in it is masked, or it is an array without dimensions.
    """
    X = nw.to_native(X, pass_through=True)
    if isinstance(X, list | tuple):
        return _plain_rows(X if type(X) is list else list(X))
    if isinstance(X, np.ndarray):
        return _plain_array(X)
    if issparse(X) or nw.dependencies.is_pandas_like_dataframe(X) or nw.dependencies.is_pandas_like_series(X):
        return X
    _refuse_no_rows(X)
    if hasattr(X, "detach") and hasattr(X, "cpu"):
        return _plain_array(array_of_tensor(X))
    pyarrow = nw.dependencies.get_pyarrow()
    if pyarrow is not None and isinstance(X, pyarrow.RecordBatch):
        X = pyarrow.Table.from_batches([X])
    if pyarrow is not None and isinstance(X, pyarrow.Array | pyarrow.ChunkedArray):
        return X.to_pylist()
    if isinstance(nw.from_native(X, eager_only=True, allow_series=True, pass_through=True), nw.DataFrame | nw.Series):
        return X
    names = getattr(X, "column_names", None)
    if isinstance(names, list) and hasattr(X, "__getitem__"):  # a datasets.Dataset
        return as_container(_only_column(X, names))
    if isinstance(X, memoryview | array):
        return _plain_array(np.asarray(X))
    if isinstance(X, Sequence):
        return _plain_rows(list(X))
    if hasattr(X, "__array__") or hasattr(X, "__array_interface__"):
        return _plain_array(np.asarray(X))
    raise TypeError(f"X must be a list, an array, a Series or a frame of rows. Got {type(X).__name__}.{_way_out(X)}")


def column(X: Any) -> list[Any] | np.ndarray:
    """Return the rows of one column: a list, or the array where `X` is one of numbers.

    Parameters
    ----------
    X : list, ndarray, Series, DataFrame of one column, or sparse matrix
        As `as_container` returns it.

    Raises
    ------
    TypeError
        If `X` is sparse, or an array of bytes.
    ValueError
        If there are several columns.
    """
    if issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but a pretrained network reads texts, images or dense arrays. "
            "Use .toarray() to convert to a dense array, or pass the raw texts or images."
        )
    if hasattr(X, "columns") and hasattr(X, "shape"):
        X = _column_of_frame(X)
    X = nw.from_native(X, allow_series=True, pass_through=True)
    if isinstance(X, nw.Series):
        if isinstance(X.dtype, nw.Array):  # rows of one shape, which polars stores as one array
            return X.to_numpy()
        return _plain_rows(X.to_list())
    if isinstance(X, list):
        return X
    X = np.asarray(X)
    if X.dtype.kind == "S":
        raise TypeError(
            f"X is an array of bytes ({X.dtype}). Texts are str: numpy.char.decode(X, 'utf-8'). Encoded images don't "
            "survive in such an array, which drops null bytes at their end: open them as PIL images, in a list."
        )
    if X.dtype.kind not in "OUT":
        return X
    if X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    if X.ndim == 1:
        return X.tolist()
    hint = " If they are pixels, make them numbers: numpy.array(X.tolist(), dtype='uint8')." if X.ndim > 2 else ""
    raise ValueError(
        f"X is an array of objects or strings of shape {X.shape}, but a pretrained network reads one column: "
        f"reshape it to (n_samples,) or (n_samples, 1), or use sklearn.compose.ColumnTransformer.{hint}"
    )


def _column_of_frame(X: Any) -> Any:
    if X.shape[1] != 1:
        # Not all frames call their columns by name: those of pyarrow's tables are the values.
        names = list(X.columns if hasattr(X, "iloc") else nw.from_native(X, eager_only=True).columns)
        raise ValueError(
            f"X is a frame of {X.shape[1]} columns ({', '.join(map(repr, names[:5]))}), but a pretrained "
            "network reads one column. Select it, X[['name']], or use sklearn.compose.ColumnTransformer."
        )
    # By place: a column of pandas may have any label, a number too.
    return X.iloc[:, 0] if hasattr(X, "iloc") else next(nw.from_native(X, eager_only=True).iter_columns())


def array_of(value: Any) -> Any:
    """Return a row as an array where it is something like one, such as another library's array; else the row itself."""
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        return array_of_tensor(value)
    if isinstance(value, Image | np.generic) or not hasattr(value, "__array__"):
        return value
    return np.asarray(value)


def array_of_tensor(tensor: Any) -> np.ndarray:
    """Return a torch tensor, possibly with gradients or on a GPU, as an array."""
    if str(tensor.layout) != "torch.strided":
        raise TypeError(
            f"Sparse data was passed for X: a tensor of layout {tensor.layout}. Use .to_dense() to convert it to a dense "
            "one."
        )
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and str(tensor.dtype) not in _NUMPYS_FLOATS:  # bfloat16, which NumPy has not
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().numpy()


def refuse_masked(value: Any, subject: str) -> None:
    """Refuse a masked array: what lies under a mask is no value, and NumPy's functions would take it for one.

    Parameters
    ----------
    value : object
        Anything.
    subject : str
        What it is, for the message.

    Raises
    ------
    ValueError
        If it is a masked array in which something is masked.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{subject} is a masked array with masked values, and what lies under a mask is no value. Leave those rows out, or "
            "say what they are: .filled(value); where rows may miss numbers (tables), NaN: .filled(np.nan) for an array of "
            "floats."
        )


def is_missing(value: Any) -> bool:
    """Whether a row is None, NaN, pandas.NA, NaT or NumPy's `masked`."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value is np.ma.masked:
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _plain_rows(rows: list[Any]) -> list[Any]:
    kinds = set(map(type, rows))
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        for place, row in enumerate(rows):
            refuse_masked(row, f"Row {place} of X")
    if any(hasattr(kind, "detach") and hasattr(kind, "cpu") for kind in kinds):
        return [array_of(row) for row in rows]
    return rows


def _plain_array(X: np.ndarray) -> np.ndarray:
    refuse_masked(X, "X")
    if isinstance(X, np.ma.MaskedArray):
        X = np.asarray(X)
    if X.ndim == 0:
        raise ValueError("Expected an array of rows, got a scalar array instead. Put the value into a list: [value].")
    if X.dtype.names is not None:
        raise TypeError(
            f"X is a structured array with the fields {', '.join(X.dtype.names[:10])}. For a table pass pandas.DataFrame(X); "
            f"for one column a field of it, such as X[{X.dtype.names[0]!r}]."
        )
    if X.dtype == object and X.ndim <= 2:
        rows = X.ravel().tolist()
        cleaned = _plain_rows(rows)
        if cleaned is not rows:
            made = np.empty(len(rows), dtype=object)
            for place, row in enumerate(cleaned):
                made[place] = row
            return made.reshape(X.shape)
    return X


def _refuse_no_rows(X: Any) -> None:
    """Refuse single values, and collections without rows in an order that can be read twice."""
    shown = type(X).__name__
    if isinstance(X, _SINGLE):
        way = "Put it into a list: [X]."
        if isinstance(X, bytes | bytearray):
            way = "Decode a text, [X.decode('utf-8')]; open an image, [PIL.Image.open(io.BytesIO(X))]."
        elif isinstance(X, collections.UserString):
            way = "Put it into a list: [str(X)]."
        raise TypeError(
            f"X is a single {shown}, not a collection. {way} Got a scalar where a 1-D list of rows was expected."
        )
    if isinstance(X, Mapping):
        raise TypeError(
            f"X is a {shown}, which has names and no rows: it must be a list, an array, a Series or a frame. Pass one of "
            "its values, X['name'], or pandas.DataFrame(X) where its values are the columns of a table."
        )
    if isinstance(X, Set):
        raise TypeError(
            f"X is a {shown}, which has no order, so its rows belong to no labels. Pass sorted(X) or list(X)."
        )
    if isinstance(X, io.IOBase):
        raise TypeError(
            f"X is an open file ({shown}), not a collection of rows. Read it first, or pass its path in a list."
        )
    if isinstance(X, Iterator):
        raise TypeError(
            f"X is an iterator ({shown}), which can be read only once, while rows are counted, split and read again. Pass "
            "list(X)."
        )
    # Narwhals warns when it is shown a frame of dask.
    if nw.dependencies.is_dask_dataframe(X) or isinstance(nw.from_native(X, pass_through=True), nw.LazyFrame):
        method = next((name for name in _COLLECTING if hasattr(X, name)), "collect")
        raise TypeError(
            f"X is a {shown} of {type(X).__module__.partition('.')[0]}, which holds no rows yet. Pass X.{method}() instead."
        )


def _only_column(X: Any, names: list[str]) -> Any:
    if len(names) != 1:
        raise ValueError(
            f"X is a {type(X).__name__} of {len(names)} columns ({', '.join(map(repr, names[:5]))}). Pass one of them, "
            "X['name'], for texts or images, and X.to_pandas() for a table."
        )
    return X[names[0]]


def _way_out(X: Any) -> str:
    if isinstance(X, type):
        return ""
    if isinstance(X, Iterable):
        return " Pass list(X)."
    if hasattr(X, "__getitem__") and hasattr(X, "__len__"):
        return " Pass a list of its rows: [X[i] for i in range(len(X))]."
    return ""
