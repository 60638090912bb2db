"""Whose turn it is: among the threads of this process, across a fork, and among processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, which refuses to remove a file that somebody has open
    fcntl = None  # type: ignore[assignment]

_POLL = 0.001

_lock = threading.Lock()


@contextmanager
def own_turn() -> Iterator[None]:
    """Let one thread work at a time; a fork waits for it, so that nothing is ever open on both sides of a fork."""
    with _lock:
        yield


def _before_fork() -> None:
    _lock.acquire()


def _after_in_parent() -> None:
    _lock.release()


def _after_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


@contextmanager
def held(directory: Path, *, exclusive: bool, wait: float) -> Iterator[None]:
    """Hold a directory among processes, together with others or alone. The system lets go for a killed process.

    Parameters
    ----------
    directory : Path
        The directory itself is locked, so that this takes no file and no right to write. File systems without such
        locks go without.
    exclusive : bool
        Whether nobody else may hold it.
    wait : float
        Seconds to wait for others.

    Raises
    ------
    TimeoutError
        If others hold it for too long.
    OSError
        If the directory can't be opened.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        _acquire(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, time.monotonic() + wait)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, kind: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise TimeoutError("other processes hold the directory") from error
        except OSError:
            return  # no such locks on this file system
        time.sleep(_POLL)
