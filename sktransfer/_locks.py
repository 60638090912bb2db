"""Every lock of the package, and the one place that says what becomes of them in a fork.

A fork copies locks as they are, but only the thread that forks: what another thread held, nobody would ever release.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Any

# Called in a forked process when the locks are free again.
_in_child: list[Callable[[], None]] = []


class ProcessLock:
    """A lock that the same thread may take several times, and that is free in a forked process.

    Where the thread that forks holds it itself, it goes on holding it on both sides. Used with ``with``.

    Parameters
    ----------
    name : str
        What it protects.
    repair : callable, optional
        Called in a forked process if another thread was holding the lock: brings what may be half changed into order.
    fork_waits : bool, default=False
        Whether a fork waits until the lock is free. For what takes a moment only, and must not be cut in two.
    """

    def __init__(self, name: str, *, repair: Callable[[], None] | None = None, fork_waits: bool = False):
        self.name = name
        self.fork_waits = fork_waits
        self._repair = repair
        self._lock = threading.RLock()
        _locks.add(self)

    # The lock's own methods: a function here could be interrupted (Ctrl-C) as it begins, before it releases.
    __enter__: Any = property(attrgetter("_lock.__enter__"))
    __exit__: Any = property(attrgetter("_lock.__exit__"))

    @contextmanager
    def let_go(self) -> Iterator[None]:
        """Let others have the lock while the body runs, if this thread holds it."""
        depth = 0
        with suppress(RuntimeError):  # not held any more
            while True:
                self._lock.release()
                depth += 1
        try:
            yield
        finally:
            for _ in range(depth):
                self._lock.acquire()

    def __repr__(self) -> str:
        return f"<ProcessLock {self.name!r}>"

    def _free(self) -> None:
        """Forget a holder that there is not in this process."""
        if self._lock.acquire(blocking=False):
            # Nobody's, or that of the thread that goes on here and will release it.
            self._lock.release()
            return
        self._lock = threading.RLock()
        if self._repair is not None:
            self._repair()


_locks: weakref.WeakSet[ProcessLock] = weakref.WeakSet()


def process_locks() -> list[ProcessLock]:
    """Return the locks that there are now."""
    return list(_locks)


def after_fork_in_child(work: Callable[[], None]) -> None:
    """Call something in every forked process, when the locks are free again."""
    _in_child.append(work)


# Held while a network is loaded. That imports modules, and a module that a thread was importing when another one forked can
# never be imported in the child: Python's locks of imports are not renewed. Downloads let go of it.
loading = ProcessLock("a network that is being loaded", fork_waits=True)

_waited_for: list[ProcessLock] = []


def _before_fork() -> None:
    for lock in process_locks():
        if lock.fork_waits:
            lock.__enter__()
            _waited_for.append(lock)


def _let_go() -> None:
    while _waited_for:
        _waited_for.pop().__exit__()


def _after_fork_in_child() -> None:
    _let_go()
    for lock in process_locks():
        lock._free()
    for work in _in_child:
        work()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_let_go, after_in_child=_after_fork_in_child)
