"""What callers hand in as images, as a list of paths, PIL images and arrays of uint8."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from sktransfer._containers import array_of, is_missing
from sktransfer.inputs.image_files import ImagePath, refuse_format

_CHANNELS = (1, 3, 4)
# A picture of grey and transparency has two; it is known as one picture, and refused.
_CHANNELS_OF_ONE = (1, 2, 3, 4)
# Three or four grey images smaller than this are a set of small ones; larger, they are one colour image, channels first.
_LEAST_SIDE = 32
# What no file system takes for a path is no path, but a text.
_LONGEST_PATH = 4096
_SHOWN_OF_TEXT = 300


def read_images(values: Sequence[Any] | np.ndarray) -> list[Any]:
    """Check that all rows are images.

    Parameters
    ----------
    values : list or ndarray
        The rows of one column, or one array of all of them.

    Returns
    -------
    list
        Paths, PIL images, and arrays of uint8 of shape (h, w) or (h, w, 1 | 3 | 4).

    Raises
    ------
    TypeError
        If a row is no image.
    ValueError
        If a row is missing, its shape or its pixels are not those of an image, or `values` is one image.
    FileNotFoundError
        If a path leads to no file.
    """
    _refuse_lines(values)
    if isinstance(values, np.ndarray):
        return list(_images_of(values))
    checked = [_read_image(value, row) for row, value in enumerate(values)]
    # os.path, because it takes a name that can't be one, such as a whole text, for a file that isn't there.
    missing = [row for row, path in enumerate(checked) if isinstance(path, Path) and not os.path.isfile(path)]
    if missing:
        shown = "; ".join(f"row {row}: {_shown_path(str(values[row]))}" for row in missing[:3])
        raise FileNotFoundError(
            f"{len(missing)} of {len(checked)} image files do not exist or are no files ({shown}). A backbone that reads "
            "images takes every str as the path of a file; for texts choose a backbone that reads texts."
        )
    return checked


def refuse_one_image(X: Any, seen: tuple[int, ...] | None) -> None:
    """Refuse one array that is one image, and not a set of them.

    Parameters
    ----------
    X : object
        All rows, before they are split.
    seen : tuple of int or None
        Shape of an image in the fit, channels last, if it was an array; None if it was not, or in the fit itself.

    Raises
    ------
    ValueError
        If `X` is of shape (height, width) or (height, width, 1 | 2 | 3 | 4); or (3 | 4, height, width), unless images are
        grey, as those of the fit were or as some with a side below 32 pixels are held to be; or of the shape of one image
        of the fit. Four grey images are a set where those of the fit were arrays without transparency.
    """
    _refuse_lines(X)
    if not isinstance(X, np.ndarray) or X.ndim != 3 or X.dtype.kind not in "biufc":
        return
    if seen == X.shape:
        raise _one_image(X.shape)
    if X.shape[0] not in (3, 4):
        return
    channels = seen[2] if seen is not None and len(seen) == 3 else 1
    colour = channels == 4 or (channels == 3 and X.shape[0] == 3)
    if colour or (seen is None and min(X.shape[1:]) >= _LEAST_SIDE):
        raise _one_image(X.shape)


def is_lines_of_one(shape: tuple[int, ...]) -> bool:
    """Whether a shape of three dimensions is that of one image, channels last, rather than of very narrow grey ones."""
    return len(shape) == 3 and shape[2] in _CHANNELS_OF_ONE and shape[1] != shape[2]


def _refuse_lines(X: Any) -> None:
    """Refuse what is one image for any number of rows: its lines, in an array or a list."""
    if isinstance(X, np.ndarray) and X.dtype.kind in "biufc":
        if X.ndim == 2:
            raise ValueError(
                f"The backbone reads images, but X is an array of shape {X.shape}. One grey image is X[None]. Flattened "
                "images, one in each row, have to be reshaped: X.reshape(n, height, width). A network of your own that reads "
                "rows of numbers is ModuleBackbone(module, modality='table')."
            )
        if is_lines_of_one(X.shape):
            raise _one_image(X.shape)
    elif isinstance(X, list) and len(X) > 1 and isinstance(X[0], np.ndarray) and X[0].ndim == 2:
        shapes = {row.shape if isinstance(row, np.ndarray) else () for row in X}
        if len(shapes) == 1 and is_lines_of_one(shape := (len(X), *shapes.pop())):
            raise _one_image(shape, "a list of arrays, together")


def _one_image(shape: tuple[int, ...], form: str = "an array") -> ValueError:
    one, several = "X[None]", "X[..., None]"
    if shape[2] == 2:
        one = "X[None, ..., :1], without transparency"
    if form != "an array":
        one, several = "[numpy.array(X)]", "[row[..., None] for row in X]"
    return ValueError(
        f"X is {form} of shape {shape}, which would be read as {shape[0]} grey images of {shape[1]} x {shape[2]} pixels, but "
        f"looks like one image. For one image pass {one}; if it is a set of grey ones, {several}."
    )


def _shown_path(path: str) -> str:
    """Show a path in full, and of a text that can't be one its beginning."""
    if "\0" in path:
        return f"{_beginning(path)}, with a null character, which no path has"
    if len(path) > _LONGEST_PATH:
        return f"{_beginning(path)}, {len(path)} characters, too many for a path"
    return f"{path!r}, a directory" if os.path.isdir(path) else repr(path)


def _beginning(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN_OF_TEXT else f"{text[:_SHOWN_OF_TEXT]!r}..."


def _read_image(value: Any, row: int) -> Any:
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        if isinstance(path, str):
            return ImagePath(path)
        raise TypeError(f"Row {row} of X is a path of bytes. Decode it: os.fsdecode(row).")
    if isinstance(value, Image):
        if 0 in value.size:
            raise ValueError(
                f"Row {row} of X is a picture of {value.width} x {value.height} pixels; an image has a pixel or more."
            )
        refuse_format(value, row)
        return value
    value = array_of(value)
    if isinstance(value, np.ndarray):
        return _read_array(value, row)
    if is_missing(value):
        raise ValueError(f"Row {row} of X is missing ({value!r}), not an image. Drop the row, or give a blank image.")
    way = "An image is a file path, a PIL image or an array (height, width[, channels])."
    if isinstance(value, bytes | bytearray | memoryview):
        way = "Open an image that is encoded in memory first: PIL.Image.open(io.BytesIO(row))."
    elif isinstance(value, list | tuple):
        way = "Pixels in lists are made an array by numpy.array(row, dtype='uint8')."
    raise TypeError(f"Row {row} of X is of type {type(value).__name__}, not an image. {way}")


def _read_array(pixels: np.ndarray, row: int) -> np.ndarray:
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        hint = " A batch of one image is row[0]." if pixels.ndim == 4 and pixels.shape[0] == 1 else ""
        raise ValueError(
            f"Row {row} of X is an array of shape {pixels.shape}; an image is (height, width) or (height, width, channels), "
            f"of a pixel or more.{hint}"
        )
    return next(_images_of(pixels[None], row))


def _images_of(values: np.ndarray, first_row: int | None = None) -> Iterator[np.ndarray]:
    """Yield uint8 arrays (h, w) or (h, w, 1 | 3 | 4) from one array of images; `first_row` where it is one row's."""
    subject = "X is an array" if first_row is None else f"Row {first_row} of X is an array"
    shape = values.shape if first_row is None else values.shape[1:]
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise ValueError(
            f"The backbone reads images, but {subject} of shape {shape}. Images are (n, height, width) or "
            "(n, height, width, channels), of a pixel or more."
        )
    if values.ndim == 4 and values.shape[3] not in _CHANNELS:
        first = values.shape[1] in (1, 3) or (values.shape[1] == 4 and min(values.shape[2:]) >= _LEAST_SIDE)
        if not first:
            raise ValueError(f"{subject} of shape {shape}; images have 1, 3 or 4 channels, in the last dimension.")
        values = values.transpose(0, 2, 3, 1)
    if values.dtype == np.uint8:
        yield from values
        return
    if values.dtype == bool:
        yield from values.astype(np.uint8) * np.uint8(255)
        return
    if values.dtype.kind not in "iuf":
        raise TypeError(
            f"{subject} of {values.dtype} and shape {shape}; pixels are uint8 in 0..255 or float in 0..1."
            + (" numpy.array(X.tolist(), dtype='uint8') makes numbers of them." if values.dtype == object else "")
        )
    for row, pixels in enumerate(values, start=first_row or 0):
        yield _to_uint8(pixels, row)


def _to_uint8(pixels: np.ndarray, row: int) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError(f"The image in row {row} of X contains NaN or infinity.")
    top = 1.0 if pixels.dtype.kind == "f" else 255
    if low < 0 or high > top:
        scaled = "(X - X.min()) / (X.max() - X.min())" if low < 0 else "X / X.max()"
        raise ValueError(
            f"The image in row {row} of X has {pixels.dtype} pixels from {low:g} to {high:g}; pixels are uint8 in 0..255 "
            f"or float in 0..1. Rescale them, for example ({scaled} * 255).astype('uint8')."
        )
    return np.rint(pixels * 255).astype(np.uint8) if pixels.dtype.kind == "f" else pixels.astype(np.uint8)
