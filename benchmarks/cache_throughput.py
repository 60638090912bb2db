"""Store and read embeddings: the directory cache against `joblib.Memory`, the memory cache against a bare dictionary.

    python -m benchmarks.cache_throughput --data ../shared/data

Rows are kept one by one on all sides, since only that lets another fold or candidate find them. No data set is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from benchmarks.pairs import time_in_turn
from benchmarks.report import Check, Comparison, Contest, begin, finish, make_parser
from sktransfer.caching import DirectoryCache, MemoryCache, RowCache
from sktransfer.caching.keys import context_digest, digest

WIDTH = 384  # that of all-MiniLM-L6-v2


def make_keys(n_rows: int) -> list[bytes]:
    """Return keys as the encoder makes them."""
    context = context_digest({"benchmark": "cache"})
    return [context + digest(str(number).encode(), domain=b"text") for number in range(n_rows)]


def take_row(number: int, rows: np.ndarray) -> np.ndarray:
    """Compute, for `joblib.Memory`, what is remembered: in no time."""
    return rows[number]


class Rows:
    """Rows under keys, and each side's way to store and read them."""

    def __init__(self, folder: Path, n_rows: int, batch_size: int) -> None:
        self.folder = folder
        self.keys = make_keys(n_rows)
        self.values = np.random.default_rng(0).standard_normal((n_rows, WIDTH)).astype(np.float32)
        self.batch_size = batch_size
        self.caches: dict[str, Any] = {}

    def store(self, name: str, cache: RowCache) -> None:
        """Store all rows, in batches, as they come from a network."""
        self.caches[name] = cache
        for start in range(0, len(self.keys), self.batch_size):
            batch = slice(start, start + self.batch_size)
            cache.put_many(self.keys[batch], self.values[batch])

    def store_in_directory(self) -> None:
        """Store in a new directory."""
        cache = DirectoryCache(tempfile.mkdtemp(dir=self.folder))
        cache.check()
        self.store("directory", cache)

    def store_in_memory(self) -> None:
        """Store in a new memory cache."""
        self.store("memory", MemoryCache())

    def store_in_joblib(self) -> None:
        """Store in a new directory of joblib's."""
        memory = joblib.Memory(tempfile.mkdtemp(dir=self.folder), verbose=0)
        self.caches["joblib.Memory"] = remembered = memory.cache(take_row, ignore=["rows"])
        for number in range(len(self.keys)):
            remembered(number, self.values)

    def store_in_dict(self) -> None:
        """Store copies in a new dictionary: the least that a memory cache can do."""
        self.caches["dict"] = {key: row.copy() for key, row in zip(self.keys, self.values, strict=True)}

    def read(self, name: str) -> Callable[[], list[np.ndarray]]:
        """Return what reads all rows from where they were last stored."""
        cache = self.caches[name]
        if name == "joblib.Memory":
            return lambda: [cache(number, self.values) for number in range(len(self.keys))]
        if name == "dict":
            return lambda: [cache[key] for key in self.keys]
        return lambda: cache.get_many(self.keys)


def compare(rows: Rows, n_pairs: int) -> Comparison:
    """Time storing, then reading, and check what was read."""
    storing = {
        "joblib.Memory": rows.store_in_joblib,
        "directory": rows.store_in_directory,
        "dict": rows.store_in_dict,
        "memory": rows.store_in_memory,
    }
    for store in storing.values():
        store()
    seconds = {f"store, {name}": found for name, found in time_in_turn(storing, n_rounds=n_pairs).items()}
    reading = {name: rows.read(name) for name in storing}
    wrong = 0
    for read in reading.values():
        found = read()
        wrong += sum(
            row is None or not np.array_equal(row, value) for row, value in zip(found, rows.values, strict=True)
        )
    seconds |= {f"read, {name}": found for name, found in time_in_turn(reading, n_rounds=n_pairs).items()}
    contests = [("directory", "joblib.Memory"), ("memory", "dict")]
    return Comparison(
        title="Storing and reading embeddings",
        n_units=len(rows.keys),
        seconds=seconds,
        contests=[
            Contest(f"{work}, {ours}", f"{work}, {peer}") for ours, peer in contests for work in ("store", "read")
        ],
        checks=[Check("rows read that are not what was stored", wrong, "at most", 0)],
        settings={"rows": len(rows.keys), "values a row": WIDTH, "rows a batch when stored": rows.batch_size},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=7, device=False)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128, help="rows stored at a time")
    parser.add_argument("--folder", type=Path, help="where to store; by default the system's temporary directory")
    options = parser.parse_args(arguments)
    machine = begin("Storing and reading rows", ["joblib"], "cpu")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        comparison = compare(Rows(Path(folder), options.rows, options.batch), options.pairs)
    return finish(comparison, options, machine)


if __name__ == "__main__":
    raise SystemExit(main())
