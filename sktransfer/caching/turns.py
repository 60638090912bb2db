"""Whose turn it is: among the threads of this process, across a fork, and among processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sktransfer._locks import ProcessLock

try:
    import fcntl
except ImportError:  # Windows, which refuses to remove a file that somebody has open
    fcntl = None  # type: ignore[assignment]

_POLL = 0.001

_turn = ProcessLock("files of directory caches", fork_waits=True)


def own_turn() -> ProcessLock:
    """Let one thread work at a time; a fork waits for it, so that nothing is ever open on both sides of a fork."""
    return _turn


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
