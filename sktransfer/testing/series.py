"""Time series for the checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sktransfer.testing.samples import ArrayProtocol, Container, Sample, objects, pandas, polars

_LENGTH = 40


def make_series(folder: Path) -> Sample:
    """Make series of two channels and three rhythms; nothing is written to `folder`."""
    topics = np.arange(24) % 3
    rows = [_rhythm(int(topic), seed) for seed, topic in enumerate(topics)]
    return Sample(
        kind="series",
        rows=rows,
        topics=topics,
        containers=_containers(),
        odd_rows=[
            rows[0][:, :1],
            rows[0][:, :2],
            rows[1][:, :23],
            np.hstack(rows),
            np.zeros((2, 7)),
            np.full((2, 30), 1e4),
            (100 * rows[2]).astype(np.int16),
            rows[2] > 0,
            rows[2].astype(np.float16),
            np.asfortranarray(rows[4]),
            rows[5][:, ::-2],
        ],
        missing=[None, float("nan")],
        wrong_rows=[
            3,
            2.5,
            "a text",
            b"bytes",
            {"a": "dict"},
            np.zeros((2, 0)),
            np.zeros((3, _LENGTH)),
            np.zeros((2, 3, 4)),
            np.zeros((2, 5), complex),
            np.where(np.arange(10) == 4, np.nan, 1.0) * np.ones((2, 1)),
            np.where(np.arange(10) == 4, -np.inf, 1.0) * np.ones((2, 1)),
            [[1.0, 2.0], [3.0]],
            [["a", "b"], ["c", "d"]],
        ],
        wrong_inputs={
            "a list of texts": ["one", "two", "three"],
            "a list of numbers": [1, 2, 3, 4, 5, 6],
            "series of one channel": np.zeros((6, 1, 8)),
            "series of three channels": np.zeros((6, 3, 8)),
            "an array of images": np.zeros((6, 8, 8, 3), np.uint8),
            "an array of complex numbers": np.zeros((6, 2, 8), complex),
            "series with missing values": np.full((6, 2, 8), np.nan),
            "series that are infinite": np.full((6, 2, 8), np.inf),
        },
        bare_rows=[rows[0][0], rows[0][0].tolist()],
    )


def _containers() -> list[Container]:
    # An estimator has to be told that an array holds series: it could hold images.
    return [
        Container("tuple", tuple),
        Container("array", np.stack),
        Container("array in Fortran order", lambda rows: np.asfortranarray(np.stack(rows))),
        Container("array with negative strides", lambda rows: np.stack(rows[::-1])[::-1]),
        Container("float32 array", lambda rows: np.stack(rows).astype(np.float32)),
        Container("array of objects", objects),
        Container("array of one column", lambda rows: objects(rows).reshape(-1, 1)),
        Container("array protocol", lambda rows: ArrayProtocol(np.stack(rows))),
        Container("lists", lambda rows: [row.tolist() for row in rows]),
        Container("pandas Series of arrays", lambda rows: pandas().Series(rows)),
        Container("pandas DataFrame of arrays", _pandas_frame, is_frame=True),
        Container("polars Series of lists", lambda rows: polars().Series("series", _lists(rows))),
        Container(
            "polars DataFrame of lists", lambda rows: polars().DataFrame({"series": _lists(rows)}), is_frame=True
        ),
    ]


def _rhythm(topic: int, seed: int) -> np.ndarray:
    """A slow wave, a fast square wave or noise, of a phase and a level of the series' own."""
    random = np.random.default_rng(seed)
    time = np.arange(_LENGTH) + random.integers(12)
    shape = [np.sin(time / 4), np.sign(np.sin(time * 1.3)), random.normal(size=_LENGTH)][topic]
    made = np.stack([shape, np.roll(shape, 3) * 0.5 + topic]) + random.normal(scale=0.1, size=(2, _LENGTH))
    # Values that float32 holds exactly: what is learned from an array of them is not to differ by their rounding.
    return made.astype(np.float32).astype(np.float64)


def _lists(rows: list[Any]) -> list[Any]:
    return [None if row is None else np.asarray(row).tolist() for row in rows]


def _pandas_frame(rows: list[Any]) -> Any:
    # An index of its own: results must not be aligned on it.
    return pandas().DataFrame({"series": rows}, index=range(100, 100 + len(rows)))
