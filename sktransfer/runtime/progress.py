"""Progress bars."""

from __future__ import annotations

import threading
from typing import Any

from tqdm.auto import tqdm
from tqdm.std import TqdmDefaultWriteLock

from sktransfer._locks import after_fork_in_child


class _Nothing:
    """A bar that is not shown. tqdm's own takes a lock all the same, which a fork at that moment would leave taken."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Do nothing."""


def progress_bar(total: int, description: str, unit: str, *, show: bool = True) -> Any:
    """Return a progress bar of tqdm, for use with ``with``, or what does nothing in its place.

    Parameters
    ----------
    total : int
        When it is full.
    description : str
        What stands in front.
    unit : str
        What is counted.
    show : bool, default=True
        Whether there is a bar.
    """
    return tqdm(total=total, desc=description, unit=unit) if show else _Nothing()


def _free_the_lock_of_bars() -> None:
    """Let a forked process have bars though a thread of its parent was writing to one."""
    lock = TqdmDefaultWriteLock.th_lock
    if lock.acquire(blocking=False):
        lock.release()
    else:
        tqdm.set_lock(threading.RLock())


after_fork_in_child(_free_the_lock_of_bars)
