"""The process-wide memory cache of rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sktransfer._locks import ProcessLock
from sktransfer.caching.interface import CacheInfo

DEFAULT_MAX_BYTES = 1 << 30
# What an entry costs beside its values: key, array object, links of the dictionary (measured with tracemalloc).
ENTRY_OVERHEAD_BYTES = 330


class MemoryCache:
    """Rows by key, limited in bytes; the least recently used row goes first. Safe to use from threads.

    Parameters
    ----------
    max_bytes : int, default=1 GiB
        The limit.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES):
        self._lock = ProcessLock("rows of the memory cache", repair=self._count_anew)
        self._rows: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._n_bytes = self._hits = self._misses = self._evictions = 0
        self._max_bytes = max_bytes

    def get_many(
        self, keys: Sequence[bytes], fits: Callable[[np.ndarray], bool] | None = None
    ) -> list[np.ndarray | None]:
        """Return the stored row for each key, None where there is none; `fits` isn't asked of what this process wrote."""
        with self._lock:
            found = [self._rows.get(key) for key in keys]
            for key, row in zip(keys, found, strict=True):
                if row is not None:
                    self._rows.move_to_end(key)
            n_hits = sum(row is not None for row in found)
            self._hits += n_hits
            self._misses += len(keys) - n_hits
        return found

    def put_many(self, keys: Iterable[bytes], rows: Iterable[np.ndarray]) -> None:
        """Store each row, or a copy of one that is a view or can be written to; one larger than the limit is not kept."""
        with self._lock:
            size_before = len(self._rows)
            for key, row in zip(keys, rows, strict=True):
                if key not in self._rows:
                    if row.base is not None or row.flags.writeable:
                        # A view would keep its whole batch alive, uncounted.
                        row = row.copy()
                        row.flags.writeable = False
                    self._rows[key] = row
                    self._n_bytes += row.nbytes
            self._n_bytes += (len(self._rows) - size_before) * ENTRY_OVERHEAD_BYTES
            self._evict()

    def set_limit(self, max_bytes: int) -> None:
        """Change the limit; rows beyond it go at once."""
        with self._lock:
            self._max_bytes = max_bytes
            self._evict()

    def clear(self) -> None:
        """Forget all rows and counts."""
        with self._lock:
            self._rows.clear()
            self._n_bytes = self._hits = self._misses = self._evictions = 0

    def info(self) -> CacheInfo:
        """Return the present state."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, self._evictions, len(self._rows), self._n_bytes, self._max_bytes)

    def _count_anew(self) -> None:
        self._n_bytes = sum(row.nbytes + ENTRY_OVERHEAD_BYTES for row in self._rows.values())

    def _evict(self) -> None:
        while self._n_bytes > self._max_bytes:
            _, row = self._rows.popitem(last=False)
            self._n_bytes -= row.nbytes + ENTRY_OVERHEAD_BYTES
            self._evictions += 1


memory_cache = MemoryCache()
