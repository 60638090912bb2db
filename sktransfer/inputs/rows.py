"""What callers hand in as X, turned into a list of rows of one kind.

The kinds are "text" (str, see `text_rows`), "image" (file paths, PIL images, pixel arrays, see `image_rows`), "table"
(columns of numbers and strings, see `table_rows`) and "series" (see `series_rows`). Texts and images are only looked at here,
never decoded, tokenised or copied.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
from PIL.Image import Image

from sktransfer._containers import array_of, as_container, column, is_missing
from sktransfer.inputs.image_rows import is_lines_of_one, read_images
from sktransfer.inputs.series_rows import read_series
from sktransfer.inputs.table_rows import read_table
from sktransfer.inputs.text_rows import read_texts

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
    except (TypeError, ValueError, OSError, OverflowError) as error:
        # Some errors of these kinds can't be made from a text alone; a number that is too large is a wrong value.
        kinds = (FileNotFoundError, OSError, TypeError)
        kind = next((one for one in kinds if isinstance(error, one)), ValueError)
        raise kind(f"{name}: {error}") from error


def read_rows(X: Any, kind: str | None) -> Rows:
    """Turn `X` into rows, checking every one of them.

    Parameters
    ----------
    X : list or other sequence, ndarray, tensor, Series, DataFrame
        What the caller handed in; it is not changed. Texts and images come in one column. The guide on rows lists all
        forms.
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
    X = as_container(X)
    if kind == "table":
        return Rows("table", read_table(X))
    if kind == "series":
        return Rows("series", read_series(X))
    values = column(X)
    if len(values) == 0:
        raise ValueError(
            "Found array with 0 sample(s): X is empty, while a minimum of 1 is required. "
            "Give at least one text, image or row."
        )
    if kind is None:
        kind = _tell_kind(values)
    if kind == "text":
        return Rows("text", read_texts(values, X))
    if kind == "image":
        return Rows("image", read_images(values))
    return Rows("table", read_table(X))


def _tell_kind(values: list[Any] | np.ndarray) -> str:
    if isinstance(values, np.ndarray):
        if values.ndim in (3, 4) and values.dtype == np.uint8:
            return "image"
        if values.ndim <= 2:
            return "table"
        hint = " One image is X[None]." if is_lines_of_one(values.shape) else ""
        raise ValueError(
            f"X is an array of {values.dtype} and shape {values.shape}: it could be images or series. Say which with "
            f"modality='image' or modality='series', or name a backbone.{hint}"
        )
    place, first = next(((place, row) for place, row in enumerate(values) if not is_missing(row)), (0, None))
    first = array_of(first)
    if isinstance(first, str):
        if _is_file(first):
            warnings.warn(
                f"The rows of X are read as texts, but the first, {str(first)!r}, is the name of a file. If "
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
    if _is_table_row(first):
        return "table"
    way = ""
    if isinstance(first, bytes | bytearray | memoryview):
        way = " Decode texts, row.decode('utf-8'); open images, PIL.Image.open(io.BytesIO(row))."
    raise TypeError(
        f"Row {place} of X is of type {type(first).__name__}; backbone='auto' reads str as texts, and pathlib.Path, PIL images "
        f"and uint8 arrays as images.{way}"
    )


def _is_table_row(row: Any) -> bool:
    """Whether a row is a number, or a list of numbers, or one of numbers and strings."""
    if isinstance(row, list | tuple) and len(row) > 1 and any(isinstance(value, str) for value in row):
        return all(value is None or isinstance(value, str | Number | np.generic) for value in row)
    try:
        array = np.asarray(row)
    except ValueError:  # lists of different lengths
        return False
    return array.ndim <= 1 and array.dtype.kind in "biuf"


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:  # no name at all, such as one with a null character
        return False
