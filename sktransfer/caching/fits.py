"""The last few fits that candidates of a search share."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any

# The folds of a search and its refit.
MOST = 12


class KeptFits:
    """Results of fits by key; the least recently used one goes first. Safe to use from threads.

    Parameters
    ----------
    most : int
        How many are kept.
    """

    def __init__(self, most: int = MOST):
        self._most = most
        self._lock = threading.Lock()
        self._fits: OrderedDict[bytes, Any] = OrderedDict()

    def get(self, key: bytes) -> Any:
        """Return what was put under a key, or None."""
        with self._lock:
            if key in self._fits:
                self._fits.move_to_end(key)
            return self._fits.get(key)

    def put(self, key: bytes, made: Any) -> None:
        """Keep a result."""
        with self._lock:
            self._fits[key] = made
            while len(self._fits) > self._most:
                self._fits.popitem(last=False)

    def renew_lock(self) -> None:
        """Forget who holds the lock."""
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all results."""
        with self._lock:
            self._fits.clear()


kept_fits = KeptFits()
# A forked process must not wait for a lock that a thread of its parent held.
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=kept_fits.renew_lock)
