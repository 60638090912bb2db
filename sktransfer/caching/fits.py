"""The last few fits that candidates of a search share."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from sktransfer._locks import ProcessLock

MAX_BYTES = 1 << 30


class KeptFits:
    """Results of fits by key, limited in bytes; the least recently used one goes first. Safe to use from threads.

    Parameters
    ----------
    max_bytes : int, default=1 GiB
        The limit.
    """

    def __init__(self, max_bytes: int = MAX_BYTES):
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._lock = ProcessLock("fits that candidates share", repair=self._count_anew)
        self._fits: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()

    def get(self, key: bytes) -> Any:
        """Return what was put under a key, or None."""
        with self._lock:
            if key in self._fits:
                self._fits.move_to_end(key)
            return self._fits.get(key, (None, 0))[0]

    def put(self, key: bytes, made: Any, n_bytes: int) -> None:
        """Keep a result of so many bytes."""
        with self._lock:
            self._n_bytes += n_bytes - self._fits.get(key, (None, 0))[1]
            self._fits[key] = made, n_bytes
            while self._n_bytes > self._max_bytes:
                _, (_, freed) = self._fits.popitem(last=False)
                self._n_bytes -= freed

    def clear(self) -> None:
        """Forget all results."""
        with self._lock:
            self._fits.clear()
            self._n_bytes = 0

    def _count_anew(self) -> None:
        self._n_bytes = sum(n_bytes for _, n_bytes in self._fits.values())


kept_fits = KeptFits()
