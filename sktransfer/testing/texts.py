"""Texts for the checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sktransfer.testing.samples import ArrayProtocol, Container, Sample, objects, pandas, polars

_SEA = [
    "The tide lifted the small boat off the sand.",
    "Gulls followed the boat back to the harbour.",
    "A sailor mended his net on the harbour wall.",
    "Salt water ran over the deck in every wave.",
    "The lighthouse warned the boat of rocks and waves.",
    "At low tide the harbour smelled of salt and weed.",
    "The captain steered the boat through high waves.",
    "Fog lay on the water and hid the lighthouse.",
]
_KITCHEN = [
    "Chop the onion and fry it slowly in butter.",
    "The soup needs more pepper and a little salt.",
    "Bake the bread until the crust is brown.",
    "She stirred the sauce in a heavy iron pan.",
    "Knead the dough and let the bread rise in the pan.",
    "Fry the garlic with the onion, then add the sauce.",
    "A pinch of pepper makes the butter sauce better.",
    "The oven is hot, so bake the dough now.",
]
_MUSIC = [
    "The violin played the melody above the choir.",
    "He tuned the guitar before the concert.",
    "The drummer counted in the next song.",
    "A choir sang the old melody without a piano.",
    "The orchestra stopped, and the violin went on alone.",
    "Her song began with a soft chord on the piano.",
    "The concert ended with drums and a loud guitar.",
    "The conductor raised his hand and the orchestra played.",
]


def make_texts(folder: Path) -> Sample:
    """Make texts of three topics; nothing is written to `folder`."""
    rows = [text for trio in zip(_SEA, _KITCHEN, _MUSIC, strict=True) for text in trio]
    numbers = np.arange(12.0).reshape(6, 2)
    return Sample(
        kind="text",
        rows=rows,
        topics=np.arange(len(rows)) % 3,
        containers=[
            Container("tuple", tuple),
            Container("array of str", lambda rows: np.array(rows)),
            Container("array of objects", objects),
            Container("array of one column", lambda rows: objects(rows).reshape(-1, 1)),
            Container("array of numpy.str_", lambda rows: objects([np.str_(row) for row in rows])),
            Container("array protocol", lambda rows: ArrayProtocol(objects(rows))),
            Container("pandas Series", lambda rows: pandas().Series(rows)),
            Container("pandas Series of objects", lambda rows: pandas().Series(rows, dtype=object)),
            Container("pandas Series of categories", lambda rows: pandas().Series(rows, dtype="category")),
            Container("pandas DataFrame", _pandas_frame, is_frame=True),
            Container("polars Series", lambda rows: polars().Series("text", rows)),
            Container("polars DataFrame", lambda rows: polars().DataFrame({"text": rows}), is_frame=True),
        ],
        odd_rows=[
            "",
            " \t\n ",
            "Grüße aus Köln – naïve façade, Ελλάδα, Москва",
            "今日は海で泳ぎました。",
            "مرحبا بالعالم",
            "🙂🎻🌊 👩‍👩‍👧‍👦",
            "e\u0301 and é",
            "a zero\x00byte and a line\r\nbreak",
            "half a surrogate \ud83d",
            "x" * 5000,
            "The waves rolled in, one behind the other. " * 400,
        ],
        missing=[None, float("nan"), *_missing_of_pandas()],
        wrong_rows=[3, 2.5, 1j, b"bytes", ["a", "list"], {"a": "dict"}, True],
        wrong_inputs={
            "an array of numbers": numbers,
            "an array of images": np.zeros((6, 8, 8, 3), np.uint8),
            "a list of numbers": [1, 2, 3, 4, 5, 6],
            "an array of complex numbers": numbers[:, 0] + 1j,
        },
        bare_rows=[rows[0], np.array(rows[0], dtype=object)],
    )


def _pandas_frame(rows: list[Any]) -> Any:
    # An index of its own: results must not be aligned on it.
    return pandas().DataFrame({"text": rows}, index=range(100, 100 + len(rows)))


def _missing_of_pandas() -> list[Any]:
    try:
        import pandas
    except ImportError:
        return []
    return [pandas.NA, pandas.NaT]
