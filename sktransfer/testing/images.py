"""Images for the checks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sktransfer.testing.samples import ArrayProtocol, Container, Sample, objects, pandas, polars

_SIDE = 24


def make_images(folder: Path) -> Sample:
    """Make images of three textures; files go into `folder`."""
    topics = np.arange(24) % 3
    rows = [_texture(int(topic), seed) for seed, topic in enumerate(topics)]
    files = _writer(folder)
    numbers = np.arange(12.0).reshape(6, 2)
    return Sample(
        kind="image",
        rows=rows,
        topics=topics,
        containers=[
            Container("tuple", tuple),
            Container("array", np.stack),
            Container("array in Fortran order", lambda rows: np.asfortranarray(np.stack(rows))),
            Container("array with negative strides", lambda rows: np.stack(rows[::-1])[::-1]),
            Container("array of objects", objects),
            Container("array protocol", lambda rows: ArrayProtocol(np.stack(rows))),
            Container("float array", lambda rows: np.stack(rows) / 255, tells_kind=False),
            Container("float32 array", lambda rows: np.stack(rows).astype(np.float32) / 255, tells_kind=False),
            Container("integer array", lambda rows: np.stack(rows).astype(np.int64), tells_kind=False),
            Container("PIL images", lambda rows: [Image.fromarray(row) for row in rows]),
            Container("paths", files),
            Container("file names", lambda rows: [str(path) for path in files(rows)], tells_kind=False),
            Container("array of file names", lambda rows: np.array([str(p) for p in files(rows)]), tells_kind=False),
            Container("pandas Series of paths", lambda rows: pandas().Series(files(rows))),
            Container("pandas DataFrame of paths", lambda rows: _pandas_frame(files(rows)), is_frame=True),
            Container("pandas Series of arrays", lambda rows: pandas().Series(rows)),
            Container(
                "polars Series of file names",
                lambda rows: polars().Series("image", [str(path) for path in files(rows)]),
                tells_kind=False,
            ),
        ],
        odd_rows=_odd_images(folder),
        missing=[None, float("nan")],
        wrong_rows=[3, 2.5, b"bytes", {"a": "dict"}, np.arange(4.0), np.zeros((0, 3, 3), np.uint8)],
        wrong_inputs={
            "an array of numbers": numbers,
            "a list of numbers": [1, 2, 3, 4, 5, 6],
            "an array of complex numbers": np.zeros((6, 8, 8, 3), complex),
            "pixels that are not finite": np.full((6, 8, 8, 3), np.nan),
            "pixels that are infinite": np.full((6, 8, 8, 3), np.inf),
        },
        bare_rows=[Image.fromarray(rows[0]), files(rows[:1])[0]],
    )


def _texture(topic: int, seed: int) -> np.ndarray:
    """Stripes, a chequerboard or noise, in a colour and a phase of the image's own."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:_SIDE, :_SIDE]
    shift = rng.integers(6)
    if topic == 0:
        pattern = ((across + shift) // 3) % 2
    elif topic == 1:
        pattern = ((across + shift) // 6 + (down + shift) // 6) % 2
    else:
        pattern = rng.random((_SIDE, _SIDE))
    colour = 150 + rng.integers(0, 80, size=3)
    return (20 + pattern[..., None] * colour).clip(0, 255).astype(np.uint8)


def _writer(folder: Path) -> Callable[[list[Any]], list[Any]]:
    """Return a function that writes rows to PNG files, which lose nothing; a missing row stays missing."""
    numbers = count()

    def write(rows: list[Any]) -> list[Any]:
        paths = [None if row is None else folder / f"row {next(numbers)}.png" for row in rows]
        for path, row in zip(paths, rows, strict=True):
            if path is not None:
                Image.fromarray(row).save(path)
        return paths

    return write


def _odd_images(folder: Path) -> list[Any]:
    """Return images of other sizes, colour modes and formats."""
    plain = Image.fromarray(_texture(0, 50)).resize((40, 28))
    jpeg, grey_png, sideways = folder / "photo ü.JPG", folder / "sixteen bits.png", folder / "sideways.jpg"
    plain.save(jpeg, quality=90)
    Image.fromarray(np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)).save(grey_png)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain.save(sideways, exif=exif)
    return [
        *(plain.convert(mode) for mode in ("L", "RGB", "RGBA", "P", "1", "LA", "CMYK")),
        Image.new("RGB", (1, 1), "red"),
        Image.new("L", (200, 3), 90),
        np.asarray(plain.convert("L")),
        np.asarray(plain.convert("L"))[..., None],
        np.asarray(plain.convert("RGBA")),
        np.zeros((8, 8, 3), np.uint8),
        jpeg,
        grey_png,
        sideways,
    ]


def _pandas_frame(paths: list[Path]) -> Any:
    # An index of its own: results must not be aligned on it.
    return pandas().DataFrame({"image": paths}, index=range(100, 100 + len(paths)))
