"""Pictures opened: formats that may be read, damage, orientation, colour modes."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from sktransfer.caching.keys import digest
from sktransfer.inputs.exif import upright, without_descriptions

# No others: some start programs (EPS: Ghostscript), or take almost any file for theirs (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000", "ICO", "DIB", "MPO")
# Greatest value of 12 bits: in 16 bits, nearly black.
_TWELVE_BITS = 4095


def named(row: Any, place: int) -> str:
    """Name an image within a sentence."""
    return f"the image in row {place} of X" + (f" ({str(row)!r})" if isinstance(row, Path) else "")


def sentence(row: Any, place: int) -> str:
    """Name an image at the beginning of a sentence."""
    return "T" + named(row, place)[1:]


def content_digest(content: bytes) -> bytes:
    """Return the digest of a file's content."""
    return digest(content, domain=b"image file")


class ImagePath(type(Path())):  # type: ignore[misc]
    """The path of an image file that is read more than once in one call, and has to stay the same meanwhile."""

    seen: bytes | None = None


def read_file(row: Path, place: int) -> bytes:
    """Read an image file; an error where an `ImagePath` holds something else than when it was read first.

    Parameters
    ----------
    row : Path
        The path.
    place : int
        Its row in X.

    Returns
    -------
    bytes
        The content.
    """
    try:
        content = row.read_bytes()
    except OSError as error:
        raise OSError(f"{sentence(row, place)} can't be read: {error.strerror}.") from error
    if not content:
        raise ValueError(f"{sentence(row, place)} is not a readable image: the file is empty, 0 bytes.")
    if isinstance(row, ImagePath):
        found = content_digest(content)
        if row.seen is not None and row.seen != found:
            raise ValueError(
                f"{sentence(row, place)} was changed while it was read: it holds something else than at first. Nothing was "
                "kept of it. Try again when nobody writes to the file."
            )
        row.seen = found
    return content


def open_content(content: bytes, row: Path, place: int) -> Image.Image:
    """Open the content of an image file, without decoding it."""
    limit = Image.MAX_IMAGE_PIXELS
    try:
        picture = Image.open(io.BytesIO(without_descriptions(content)), formats=_formats())
        # Pillow only warns of pictures up to twice its limit; here the limit is the limit.
        if limit and picture.width * picture.height > limit:
            raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels, more than {limit}")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{sentence(row, place)} is refused as a decompression bomb: {error}. If you trust the file, raise "
            "PIL.Image.MAX_IMAGE_PIXELS, or shrink it first."
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{sentence(row, place)} is not a readable image, of none of the formats {', '.join(FORMATS)}."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken header makes of them
        raise ValueError(f"{sentence(row, place)} is not a readable image: {error}.") from error
    return picture


def open_image(row: Any, place: int, mode: str) -> Image.Image:
    """Read and decode an image.

    Parameters
    ----------
    row : Path, PIL.Image.Image or ndarray
        One row as `read_images` gives it.
    place : int
        Its row in X.
    mode : {"RGB", "L"}
        Pillow's mode of the result.

    Returns
    -------
    PIL.Image.Image
        Upright, without transparency.

    Raises
    ------
    ValueError
        If it can't be read, or its values have no agreed range.
    """
    if isinstance(row, np.ndarray):
        pixels = row[..., 0] if row.ndim == 3 and row.shape[2] == 1 else row
        return _in_mode(Image.fromarray(np.ascontiguousarray(pixels)), mode, row, place)
    if isinstance(row, Path):
        picture = open_content(read_file(row, place), row, place)
    else:
        picture = row
        refuse_format(picture, place)
    return _in_mode(upright(_load(picture, row, place)), mode, row, place)


def refuse_format(picture: Image.Image, place: int) -> None:
    """Refuse an opened picture of a format that is not in the list: to load it may start a program."""
    # The class, for anybody can set the attribute of a picture.
    found = type(picture).format
    if isinstance(picture, ImageFile.ImageFile) and found not in FORMATS:
        raise ValueError(
            f"Row {place} of X is a picture opened from a file of the format {found}. Read are {', '.join(FORMATS)}. If you "
            "trust the file, give a copy, which holds pixels alone: picture.copy()."
        )


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _load(picture: Image.Image, row: Any, place: int) -> Image.Image:
    # How values are stored is forgotten once they are loaded.
    deep = any(";16" in str(tile.args) for tile in getattr(picture, "tile", ()))
    try:
        picture.load()
        _ = picture.im  # noqa: F841  a closed picture raises only here
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damage makes of them
        closed = not isinstance(row, Path) and getattr(picture, "fp", None) is None
        why = "was closed, or can't be decoded" if closed else "is damaged"
        raise ValueError(
            f"{sentence(row, place)} {why}: {error or type(error).__name__}. Replace or drop it."
            + (" Close pictures only afterwards, or give their paths." if closed else "")
        ) from error
    if 0 in picture.size:
        raise ValueError(f"{sentence(row, place)} is of {picture.width} x {picture.height} pixels. Replace or drop it.")
    if picture.mode.startswith("I;16"):
        _refuse_dark(int(np.asarray(picture).max()), row, place)
    elif deep and picture.mode in ("RGB", "RGBA", "RGBX", "LA"):
        colours = picture.getextrema()[: 1 if picture.mode == "LA" else 3]
        _refuse_dark(max(high for _, high in colours) * 256, row, place)  # type: ignore[misc]
    return picture


def _refuse_dark(highest: int, row: Any, place: int) -> None:
    if 0 < highest <= _TWELVE_BITS:
        raise ValueError(
            f"{sentence(row, place)} has 16 bits, in which white is 65535, but its greatest value is about {highest}, as of a "
            "camera of 12 bits or fewer: it would be nearly black. Scale it to 8 bits by what white is, such as "
            "(values / 4095 * 255).round().astype('uint8')."
        )


def _in_mode(picture: Image.Image, mode: str, row: Any, place: int) -> Image.Image:
    if picture.mode == mode and "transparency" not in picture.info:
        return picture
    if picture.mode in ("RGBa", "La"):  # with colours multiplied by their opacity
        picture = picture.convert(picture.mode.upper())
    if picture.mode.startswith("I;16"):
        # Pillow clips 16-bit grey to 8 bits; the upper byte is what one sees.
        picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"{sentence(row, place)} has Pillow's mode {picture.mode!r}, whose values have no agreed range. Convert it to "
            "8 bits ('L' or 'RGB') first."
        )
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        # What is transparent is seen as white paper, not as whatever colour lies hidden below.
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    try:
        return picture.convert(mode)
    except ValueError as error:
        raise ValueError(f"{sentence(row, place)} can't be converted from Pillow's mode {picture.mode!r}.") from error
