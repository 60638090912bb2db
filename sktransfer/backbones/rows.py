"""What callers hand in as X, turned into a list of rows of one kind.

The kinds are "text" (str), "image" (file paths, PIL images, pixel arrays), "table" (columns of numbers and
strings, see `table_rows`) and "series" (see `series_rows`). Texts and images are only looked at here, never decoded,
tokenised or copied.
"""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from PIL.Image import Image
from scipy.sparse import issparse

from sktransfer.backbones.series_rows import read_series
from sktransfer.backbones.table_rows import read_table

KINDS = ("text", "image", "table", "series")


@dataclass(frozen=True)
class Rows:
    """Rows of one kind.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    values : sequence
        One entry per row: a str, a path, a PIL image, a pixel array of shape (h, w) or (h, w, channels), or a series of
        shape (channels, time points). Tables come as a `Table` at first; a preparation's `read` makes rows of it.
    weights : ndarray of shape (n_rows,) or None
        What each row counts where something is learned from the rows; None where all count the same.
    """

    kind: str
    values: Any
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)


@contextmanager
def about(name: str) -> Iterator[None]:
    """Say which argument an error is about, where it is not X."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        # Some errors of these kinds can't be made from a text alone.
        kind = next(one for one in (FileNotFoundError, OSError, TypeError, ValueError) if isinstance(error, one))
        raise kind(f"{name}: {error}") from error


def read_rows(X: Any, kind: str | None) -> Rows:
    """Turn `X` into rows, checking every one of them.

    Parameters
    ----------
    X : list, tuple, ndarray, pandas or polars Series, or DataFrame
        What the caller handed in; it is not changed. Texts and images come in one column.
    kind : {"text", "image", "table", "series"} or None
        Kind of row that the backbone reads; None to tell it from `X`: str is text; pathlib.Path, PIL images
        and uint8 arrays of 3 or 4 dimensions are images; 2-D numbers are tables.

    Returns
    -------
    Rows
        The rows in the order of `X`.

    Raises
    ------
    TypeError
        If `X` or one of its rows is of a type that no backbone of this kind reads.
    ValueError
        If `X` is empty, has several columns, misses a value, or its kind cannot be told.
    FileNotFoundError
        If a path leads to no file.
    """
    if nw.dependencies.is_polars_lazyframe(X):
        raise TypeError("X is a LazyFrame, which holds no rows yet. Pass X.collect() instead.")
    if kind == "table":
        return Rows("table", read_table(X))
    if kind == "series":
        return Rows("series", read_series(X))
    values = _as_sequence(X)
    if len(values) == 0:
        raise ValueError(
            "Found array with 0 sample(s): X is empty, while a minimum of 1 is required. "
            "Give at least one text, image or row."
        )
    if kind is None:
        kind = _tell_kind(values)
    if kind == "text":
        return Rows("text", _check_texts(values))
    if kind == "image":
        return Rows("image", _check_images(values))
    return Rows("table", read_table(X))


def _as_sequence(X: Any) -> Sequence[Any] | np.ndarray:
    """Unpack columns and frames; arrays of numbers stay arrays."""
    if issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but a pretrained network reads texts, images or dense arrays. "
            "Use .toarray() to convert to a dense array, or pass the raw texts or images."
        )
    if isinstance(X, (str, bytes, os.PathLike, Image)):
        raise TypeError(
            f"X is a single {type(X).__name__}, not a collection. Put it into a list: [X]. "
            "Got a scalar where a 1-D list of rows was expected."
        )
    if hasattr(X, "detach"):  # a torch tensor, possibly with gradients or on a GPU
        X = X.detach().cpu().numpy()
    if hasattr(X, "columns") and hasattr(X, "shape"):
        if X.shape[1] != 1:
            raise ValueError(
                f"X is a frame of {X.shape[1]} columns ({', '.join(map(repr, list(X.columns)[:5]))}), but a pretrained "
                "network reads one column. Select it, X[['name']], or use sklearn.compose.ColumnTransformer."
            )
        # By place: a column of pandas may have any label, a number too.
        X = X.iloc[:, 0] if hasattr(X, "iloc") else next(nw.from_native(X, eager_only=True).iter_columns())
    X = nw.from_native(X, allow_series=True, pass_through=True)
    if isinstance(X, nw.Series):
        return X.to_list()
    if isinstance(X, (list, tuple)):
        return X
    if not isinstance(X, np.ndarray):
        if not hasattr(X, "__array__") and not hasattr(X, "__array_interface__"):
            raise TypeError(f"X must be a list, an array, a Series or a frame of one column. Got {type(X).__name__}.")
        X = np.asarray(X)
    if X.ndim == 0:
        raise ValueError("Expected an array of rows, got a scalar array instead. Put the value into a list: [value].")
    if X.dtype.kind in "OUT":
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim == 1:
            return X.tolist()
        raise ValueError(
            f"X is an array of objects or strings of shape {X.shape}, but a pretrained network reads one column: "
            "reshape it to (n_samples,) or (n_samples, 1), or use sklearn.compose.ColumnTransformer."
        )
    return X


def _tell_kind(values: Sequence[Any] | np.ndarray) -> str:
    if isinstance(values, np.ndarray):
        if values.ndim in (3, 4) and values.dtype == np.uint8:
            return "image"
        if values.ndim <= 2:
            return "table"
        raise ValueError(
            f"X is an array of {values.dtype} and shape {values.shape}: it could be images or series. Say which with "
            "modality='image' or modality='series', or name a backbone."
        )
    first = next((value for value in values if not _is_missing(value)), None)
    if isinstance(first, str):
        if _is_file(first):
            warnings.warn(
                f"The rows of X are read as texts, but the first, {textwrap.shorten(first, 80)!r}, is the name of a file. If "
                "the files are meant, pass pathlib.Path objects, or name a backbone that reads images.",
                UserWarning,
                stacklevel=2,
            )
        return "text"
    if isinstance(first, (os.PathLike, Image)) or (
        isinstance(first, np.ndarray) and first.ndim in (2, 3) and first.dtype == np.uint8
    ):
        return "image"
    if isinstance(first, np.ndarray) and first.ndim >= 2:
        raise ValueError(
            f"The rows of X are arrays of {first.dtype} and shape {first.shape}: they could be images or series. Say "
            "which with modality='image' or modality='series', or name a backbone."
        )
    if first is None:
        raise ValueError("Row 0 of X is missing (None), and so are all others. Fill or drop missing rows first.")
    if np.ndim(first) <= 1 and np.asarray(first).dtype.kind in "biuf":
        return "table"
    raise TypeError(
        f"Row 0 of X is of type {type(first).__name__}; backbone='auto' reads str as texts, and pathlib.Path, PIL images "
        "and uint8 arrays as images."
    )


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:  # no name at all, such as one with a null character
        return False


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _check_texts(values: Sequence[Any] | np.ndarray) -> list[str]:
    if isinstance(values, np.ndarray):
        raise TypeError(
            f"The backbone reads texts, but X is an array of {values.dtype} and shape {values.shape}. "
            "Pass a list or column of str."
        )
    if all(type(value) is str for value in values):
        return list(values)
    for row, value in enumerate(values):
        if _is_missing(value):
            raise ValueError(
                f"Row {row} of X is missing ({value!r}), not a text. Fill it first: X.fillna('') for a column, "
                "SimpleImputer(missing_values=None, strategy='constant', fill_value='') in a pipeline where it is None; an "
                "empty text is allowed."
            )
        if not isinstance(value, str):
            raise TypeError(
                f"Row {row} of X is of type {type(value).__name__}, not a text. The backbone reads str; convert the "
                "column with .astype(str) if its values are meant as texts."
            )
    return [str(value) for value in values]


def _check_images(values: Sequence[Any] | np.ndarray) -> Sequence[Any]:
    if isinstance(values, np.ndarray):
        return list(_images_of_array(values))
    checked = [_check_image(value, row) for row, value in enumerate(values)]
    # os.path, because it takes a name that can't be one, such as a whole text, for a file that isn't there.
    missing = [(row, values[row]) for row, path in enumerate(checked) if _is_path(path) and not os.path.isfile(path)]
    if missing:
        shown = "; ".join(f"row {row}: {textwrap.shorten(repr(str(path)), 80)}" for row, path in missing[:3])
        raise FileNotFoundError(
            f"{len(missing)} of {len(checked)} image files do not exist or are no files ({shown}). A backbone that reads "
            "images takes every str as the path of a file; for texts choose a backbone that reads texts."
        )
    return checked


def _is_path(value: Any) -> bool:
    return isinstance(value, Path)


def _check_image(value: Any, row: int) -> Any:
    if isinstance(value, str | os.PathLike):
        return Path(value)
    if isinstance(value, Image):
        return value
    if isinstance(value, np.ndarray):
        if value.ndim not in (2, 3) or 0 in value.shape:
            raise ValueError(
                f"Row {row} of X is an array of shape {value.shape}; an image is (height, width) or (height, width, channels)."
            )
        return next(_images_of_array(value[None], row))
    if _is_missing(value):
        raise ValueError(f"Row {row} of X is missing ({value!r}), not an image. Drop the row, or give a blank image.")
    raise TypeError(
        f"Row {row} of X is of type {type(value).__name__}, not an image. "
        "An image is a file path, a PIL image or an array (height, width[, channels])."
    )


def _images_of_array(values: np.ndarray, first_row: int = 0) -> Iterator[np.ndarray]:
    """Yield uint8 arrays (h, w) or (h, w, 1 | 3 | 4) from one array of images."""
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise ValueError(
            f"The backbone reads images, but X is an array of shape {values.shape}. Images are (n, height, width) or "
            "(n, height, width, channels): reshape flattened images, X.reshape(n, height, width). A network of your own that "
            "reads rows of numbers is ModuleBackbone(module, modality='table')."
        )
    if values.ndim == 4 and values.shape[3] not in (1, 3, 4):
        if values.shape[1] not in (1, 3):
            raise ValueError(
                f"X is an array of shape {values.shape}; images have 1, 3 or 4 channels, in the last dimension."
            )
        values = values.transpose(0, 2, 3, 1)
    if values.dtype == np.uint8:
        yield from values
        return
    if values.dtype == bool:
        yield from values.astype(np.uint8) * np.uint8(255)
        return
    if values.dtype.kind not in "iuf":
        raise TypeError(f"X is an array of {values.dtype}; pixels are uint8 in 0..255 or float in 0..1.")
    for row, pixels in enumerate(values, start=first_row):
        yield _to_uint8(pixels, row)


def _to_uint8(pixels: np.ndarray, row: int) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError(f"The image in row {row} of X contains NaN or infinity.")
    top = 1.0 if pixels.dtype.kind == "f" else 255
    if low < 0 or high > top:
        raise ValueError(
            f"The image in row {row} of X has {pixels.dtype} pixels from {low:g} to {high:g}; pixels are uint8 in 0..255 "
            "or float in 0..1. Rescale them, for example (X / X.max() * 255).astype('uint8')."
        )
    return np.rint(pixels * 255).astype(np.uint8) if pixels.dtype.kind == "f" else pixels.astype(np.uint8)
