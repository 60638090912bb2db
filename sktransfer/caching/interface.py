"""What every cache of rows can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class CacheInfo:
    """State of a cache.

    Attributes
    ----------
    hits : int
        Rows that this process asked for and found, since the last :func:`cache_clear`.
    misses : int
        Rows that this process asked for and did not find, so had to encode.
    evictions : int
        Rows that this process removed to make room for others.
    rows : int
        Rows held now.
    n_bytes : int
        Bytes held now, the bookkeeping included: in memory, or on disk for a directory.
    max_bytes : int
        The limit.
    """

    hits: int
    misses: int
    evictions: int
    rows: int
    n_bytes: int
    max_bytes: int


class RowCache(Protocol):
    """Rows by key. Safe to use from threads."""

    def get_many(
        self, keys: Sequence[bytes], fits: Callable[[np.ndarray], bool] | None = None
    ) -> list[np.ndarray | None]:
        """Return the stored row for each key, None where there is none. The rows are read-only.

        Where others may have written to the cache, a row for which `fits` is false is removed, and counts as not there.
        """
        ...

    def put_many(self, keys: Iterable[bytes], rows: Iterable[np.ndarray]) -> None:
        """Store each row, as it is or as a copy: what the caller does to it later must not reach what is stored."""
        ...

    def set_limit(self, max_bytes: int) -> None:
        """Change the limit; rows beyond it go at once."""
        ...

    def clear(self) -> None:
        """Forget all rows and counts."""
        ...

    def info(self) -> CacheInfo:
        """Return the present state."""
        ...
