"""Stream 100,000 texts and 5,000 image files through a network, and see how far resident memory grows.

    python -m benchmarks.compare_memory --data ../shared/data

Each side runs in a process of its own, for what a process has once taken it rarely gives back. Counted is the peak over
what was resident when the network was loaded and had seen a few rows; the result is subtracted.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import compare_image_encoding, compare_text_encoding
from benchmarks.report import Check, Comparison, begin, finish, make_parser

ASKED_MB = 500.0
SIDES = ("sktransfer", "peer")
PEERS = {"texts": compare_text_encoding.PEER, "images": compare_image_encoding.PEER}
# Enough for each side to set up what it keeps: threads, packed weights, buffers.
N_WARM_UP = 64


class Peak:
    """The highest resident memory of this process seen so far, in bytes."""

    def __init__(self) -> None:
        self.value = 0
        self._process = psutil.Process()

    def note(self) -> None:
        """Look once."""
        self.value = max(self.value, self._process.memory_info().rss)


@contextmanager
def watched(interval: float = 0.01) -> Iterator[Peak]:
    """Watch the resident memory of this process from a thread."""
    peak, done = Peak(), threading.Event()
    peak.note()

    def look() -> None:
        while not done.wait(interval):
            peak.note()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.note()


def make_texts(data: Path, n_rows: int) -> list[str]:
    """Return so many distinct short texts: Banking77's over and over, with a number behind."""
    texts = compare_text_encoding.load_texts(data)
    return [f"{text} {number}" for number, text in enumerate(islice(cycle(texts), n_rows))]


def make_files(data: Path, n_rows: int, folder: Path) -> list[Path]:
    """Write so many distinct JPEG files: the photographs over and over, with a number behind the end of the picture."""
    paths = []
    for number, source in enumerate(islice(cycle(compare_image_encoding.find_files(data)), n_rows)):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(source.read_bytes() + str(number).encode())
    return paths


def make_encoder(kind: str, side: str, rows: Sequence[Any], precision: str) -> Callable[[Sequence[Any]], np.ndarray]:
    """Return a side's function from rows to vectors, with the network loaded."""
    comparison = compare_text_encoding if kind == "texts" else compare_image_encoding
    if side == "sktransfer":
        return comparison.make_extractor("cpu", precision).fit(rows[:1]).transform
    if kind == "texts":
        return compare_text_encoding.make_peer("cpu")
    network = compare_image_encoding.make_network("cpu", rows)
    return partial(compare_image_encoding.loop, network, device="cpu", n_workers=0)


def growth(kind: str, side: str, data: Path, n_rows: int, precision: str) -> float:
    """Return how many MB the resident memory of this process grows by while rows stream through."""
    with tempfile.TemporaryDirectory() as folder:
        rows = make_texts(data, n_rows) if kind == "texts" else make_files(data, n_rows, Path(folder))
        encode = make_encoder(kind, side, rows, precision)
        encode(rows[:N_WARM_UP])
        before = psutil.Process().memory_info().rss
        with watched() as peak:
            result = encode(rows)
        assert len(result) == n_rows
        return (peak.value - before - result.nbytes) / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=0, device=False)
    parser.add_argument("--texts", type=int, default=100_000, help="0 leaves them out")
    parser.add_argument("--images", type=int, default=5_000, help="0 leaves them out")
    parser.add_argument("--precision", default="float32", help="of our side")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    options = parser.parse_args(arguments)
    machine = begin("Streaming rows", [compare_text_encoding.PEER, "torchvision"], "cpu")
    checks = []
    for kind, n_rows in (("texts", options.texts), ("images", options.images)):
        for side in options.sides if n_rows else ():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                found = process.submit(growth, kind, side, options.data, n_rows, options.precision).result()
            name, asked = (side, ASKED_MB) if side == "sktransfer" else (PEERS[kind], None)
            checks.append(Check(f"MB of growth over {n_rows} {kind}, {name}", found, "at most", asked))
    settings = {"precision": options.precision, "rows before": N_WARM_UP}
    return finish(Comparison("Memory while rows stream through", checks=checks, settings=settings), options, machine)


if __name__ == "__main__":
    raise SystemExit(main())
