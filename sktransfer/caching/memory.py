"""The process-wide memory cache of rows."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

DEFAULT_MAX_BYTES = 1 << 30
# What an entry costs beside its values: key, array object, links of the dictionary (measured with tracemalloc).
_OVERHEAD_BYTES = 330


@dataclass(frozen=True)
class CacheInfo:
    """State of the memory cache.

    Attributes
    ----------
    hits : int
        Rows that were asked for and found, since the last :func:`cache_clear`.
    misses : int
        Rows that were asked for and not found, so had to be encoded.
    evictions : int
        Rows that had to make room for others.
    rows : int
        Rows held now.
    n_bytes : int
        Bytes held now, the bookkeeping included.
    max_bytes : int
        The limit.
    """

    hits: int
    misses: int
    evictions: int
    rows: int
    n_bytes: int
    max_bytes: int


class MemoryCache:
    """Rows by key, limited in bytes; the least recently used row goes first. Safe to use from threads.

    Parameters
    ----------
    max_bytes : int, default=1 GiB
        The limit.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES):
        self._lock = threading.Lock()
        self._rows: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._n_bytes = self._hits = self._misses = self._evictions = 0
        self._max_bytes = max_bytes

    def get_many(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return the stored row for each key, None where there is none. The rows are read-only."""
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
        """Store a copy of each row; rows larger than the whole limit are not kept."""
        with self._lock:
            size_before = len(self._rows)
            for key, row in zip(keys, rows, strict=True):
                if key not in self._rows:
                    # Copies, because views would keep their whole batch alive, uncounted.
                    self._rows[key] = row = row.copy()
                    row.flags.writeable = False
                    self._n_bytes += row.nbytes
            self._n_bytes += (len(self._rows) - size_before) * _OVERHEAD_BYTES
            self._evict()

    def set_limit(self, max_bytes: int) -> None:
        """Change the limit; rows beyond it go at once."""
        with self._lock:
            self._max_bytes = max_bytes
            self._evict()

    def renew_lock(self) -> None:
        """Forget who holds the lock."""
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all rows and counts."""
        with self._lock:
            self._rows.clear()
            self._n_bytes = self._hits = self._misses = self._evictions = 0

    def info(self) -> CacheInfo:
        """Return the present state."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, self._evictions, len(self._rows), self._n_bytes, self._max_bytes)

    def _evict(self) -> None:
        while self._n_bytes > self._max_bytes:
            _, row = self._rows.popitem(last=False)
            self._n_bytes -= row.nbytes + _OVERHEAD_BYTES
            self._evictions += 1


memory_cache = MemoryCache()
# A forked process must not wait for a lock that a thread of its parent held.
os.register_at_fork(after_in_child=memory_cache.renew_lock)


def cache_info() -> CacheInfo:
    """Return the state of the memory cache that all estimators of this process share.

    Returns
    -------
    CacheInfo
        Hits, misses, evictions, rows, bytes and the byte limit.

    See Also
    --------
    cache_clear : Forget all rows.
    set_cache_limit : Change the byte limit.

    Examples
    --------
    >>> from sktransfer import cache_clear, cache_info
    >>> cache_clear()
    >>> cache_info().rows
    0
    """
    return memory_cache.info()


def cache_clear() -> None:
    """Forget all rows of the memory cache and set its counts to zero.

    See Also
    --------
    cache_info : State of the cache.

    Examples
    --------
    >>> from sktransfer import cache_clear
    >>> cache_clear()
    """
    memory_cache.clear()


def set_cache_limit(max_bytes: int) -> None:
    """Change the byte limit of the memory cache.

    Parameters
    ----------
    max_bytes : int
        Bytes that the cache may hold, at least 0; 1 GiB at the start of a process. Rows beyond the limit are
        forgotten at once, least recently used first.

    Raises
    ------
    ValueError
        If `max_bytes` is not a whole number of at least 0.

    See Also
    --------
    cache_info : State of the cache.

    Examples
    --------
    >>> from sktransfer import cache_info, set_cache_limit
    >>> set_cache_limit(256 * 2**20)
    >>> cache_info().max_bytes
    268435456
    >>> set_cache_limit(2**30)
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, Integral) or max_bytes < 0:
        raise ValueError(f"max_bytes must be a whole number of bytes, at least 0. Got {max_bytes!r} instead.")
    memory_cache.set_limit(int(max_bytes))
