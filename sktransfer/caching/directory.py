"""A cache of rows in a directory, shared by threads, processes and sessions."""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from sktransfer.caching import row_file
from sktransfer.caching.interface import CacheInfo
from sktransfer.caching.turns import held, own_turn

FILE_NAME = "sktransfer-cache.sqlite3"
_JOURNALS = ("-journal", "-wal", "-shm")
# Seconds that a call waits for other processes.
_WAIT = 5.0
# Seconds without further tries after one to write has failed, or others were waited for in vain.
_PAUSE = 60.0
# A row's time of use is brought up to date when it is older than so many seconds: most reads then write nothing.
_TOUCH_AFTER = 300

Result = TypeVar("Result")


class _Paused(Exception):
    """It is not tried now, since it failed a short while ago."""


class DirectoryCache:
    """Rows by key in a directory; the least recently used row goes first. Safe to use from threads and processes.

    The file is opened for each call and closed after it: nothing is held that a fork, a removed directory or a
    file damaged meanwhile could turn into a crash. Each row has a checksum that binds it to its key. A damaged file is
    removed and begun anew. Where it can't be written, what is there is read, and nothing is stored; where other processes
    hold it for too long, it is left alone for a minute.

    Parameters
    ----------
    path : str or path
        The directory, created when it is first used. Within a process take the one object of
        :func:`directory_cache`, so that warnings are given once.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._file = self.path / FILE_NAME
        self._max_bytes = row_file.DEFAULT_MAX_BYTES
        self._hits = self._misses = self._evictions = 0
        self._no_writes_before = self._no_use_before = 0.0
        self._warned: set[str] = set()

    def check(self) -> None:
        """Open the file, and create it where there is none.

        Raises
        ------
        ValueError
            If the path is a file, or the directory holds the file of another version or program.
        """
        try:
            self._make_directory()
            self._use(self._note_limit, turn=self._turn_unless_paused())
        except _Paused:
            pass
        except (row_file.Busy, TimeoutError):
            self._warn_locked_out()
        except (OSError, row_file.Unavailable) as error:
            self._warn_unavailable(error)

    def get_many(
        self, keys: Sequence[bytes], fits: Callable[[np.ndarray], bool] | None = None
    ) -> list[np.ndarray | None]:
        """Return the stored row for each key, None where there is none or one that doesn't fit. The rows are read-only."""
        found: dict[bytes, np.ndarray] = {}
        old: list[int] = []
        bad: list[int] = []
        now = int(time.time())

        def read(connection: sqlite3.Connection) -> None:
            for collected in (found, old, bad):  # of a file that proved damaged
                collected.clear()
            for number, key, content, used in row_file.select(connection, keys):
                row = row_file.unpack(key, content)
                if row is None or (fits is not None and not fits(row)):
                    bad.append(number)
                    continue
                found[key] = row
                if not isinstance(used, int) or not now - _TOUCH_AFTER <= used <= now:
                    old.append(number)

        self._try(read)
        if bad or old:
            self._try(lambda connection: self._tidy(connection, bad, old, now), patient=False, writes=True)
        rows = [found.get(key) for key in keys]
        n_hits = sum(row is not None for row in rows)
        with own_turn():
            self._hits += n_hits
            self._misses += len(rows) - n_hits
        return rows

    def put_many(self, keys: Iterable[bytes], rows: Iterable[np.ndarray]) -> None:
        """Store the rows, unless that is not possible now; rows larger than the whole limit are not kept."""
        contents = {key: row_file.pack(key, row) for key, row in zip(keys, rows, strict=True)}
        contents = {key: content for key, content in contents.items() if len(content) <= row_file.MAX_ROW_BYTES}
        now = int(time.time())

        def write(connection: sqlite3.Connection) -> int:
            connection.execute("BEGIN IMMEDIATE")
            evicted = row_file.insert(connection, contents, now)
            connection.execute("COMMIT")
            return evicted

        if contents:
            evicted = self._try(write, writes=True)
            with own_turn():
                self._evictions += evicted or 0

    def set_limit(self, max_bytes: int) -> None:
        """Change the limit for all processes; rows beyond it go at once.

        Raises
        ------
        OSError
            If the file can't be written.
        """

        def write(connection: sqlite3.Connection) -> tuple[int, bool]:
            connection.execute("BEGIN IMMEDIATE")
            row_file.write_limit(connection, max_bytes)
            connection.execute("COMMIT")
            return row_file.shrink(connection, max_bytes)

        done = False
        with self._as_oserror("The limit can't be set"):
            self._make_directory()
            self._max_bytes = max_bytes
            while not done:
                # Step by step, so that other processes have their turn.
                evicted, done = self._use(write)
                with own_turn():
                    self._evictions += evicted

    def clear(self) -> None:
        """Forget all rows, for all processes, and the counts of this one. The limit stays.

        Raises
        ------
        OSError
            If the file can't be removed.
        """
        with self._as_oserror("The cache can't be cleared"):
            self._use(self._note_limit)
            with own_turn(), self._held(exclusive=True, wait=_WAIT):
                self._remove()
                with self._opened(_WAIT):
                    pass
        with own_turn():
            self._hits = self._misses = self._evictions = 0

    def info(self, *, certain: bool = False) -> CacheInfo:
        """Return the present state; the counts are those of this process.

        Parameters
        ----------
        certain : bool, default=False
            What happens where the file can't be read: True raises, False takes it for one without rows, so that a run
            goes on.

        Raises
        ------
        OSError
            If `certain` and the file can't be read; a TimeoutError if others hold it for too long.
        """

        def read(connection: sqlite3.Connection) -> int:
            self._note_limit(connection)
            return row_file.count_rows(connection)

        if certain:
            with self._as_oserror("The rows can't be counted"):
                rows = self._use(read)
        else:
            rows = self._try(read) or 0
        n_bytes = 0
        for suffix in ("", *_JOURNALS):
            with suppress(OSError):
                n_bytes += os.stat(f"{self._file}{suffix}").st_size
        with own_turn():
            return CacheInfo(self._hits, self._misses, self._evictions, rows, n_bytes, self._max_bytes)

    def exists(self) -> bool:
        """Whether there is a file already.

        Raises
        ------
        OSError
            If the directory can't be looked into.
        """
        with self._as_oserror("The cache can't be looked for"):
            try:
                os.stat(self._file)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def _make_directory(self) -> None:
        if self.path.is_file():
            raise ValueError(f"cache={str(self.path)!r} is a file. Give a directory, existing or new.")
        self.path.mkdir(parents=True, exist_ok=True)

    def _note_limit(self, connection: sqlite3.Connection) -> None:
        limit = row_file.read_limit(connection)
        if limit is not None:
            self._max_bytes = limit

    def _tidy(self, connection: sqlite3.Connection, bad: list[int], old: list[int], now: int) -> None:
        """Remove rows that are not what was stored, so that they are stored again, and note which were used."""
        connection.execute("BEGIN IMMEDIATE")
        row_file.delete(connection, bad)
        row_file.touch(connection, old, now)
        connection.execute("COMMIT")

    def _try(
        self, work: Callable[[sqlite3.Connection], Result], *, patient: bool = True, writes: bool = False
    ) -> Result | None:
        """Do what can be done now; warn once where nothing can."""
        try:
            return self._use(work, patient=patient, turn=self._turn_unless_paused(patient=patient, writes=writes))
        except _Paused:
            return None
        except (row_file.Busy, TimeoutError):
            if patient:
                self._warn_locked_out()
            return None
        except (OSError, row_file.Unavailable, row_file.NotOurs) as error:
            if writes:
                self._no_writes_before = time.monotonic() + _PAUSE
            self._warn_unavailable(error)
            return None

    @contextmanager
    def _turn_unless_paused(self, *, patient: bool = True, writes: bool = False) -> Iterator[None]:
        """Have this thread's turn, and begin a pause where other processes are waited for in vain."""
        with own_turn():
            # Another thread may have waited meanwhile: each would do so in its turn.
            if time.monotonic() < (max(self._no_writes_before, self._no_use_before) if writes else self._no_use_before):
                raise _Paused
            try:
                yield
            except (row_file.Busy, TimeoutError):
                until = time.monotonic() + _PAUSE
                if patient and writes:  # those who only read hinder no reader
                    self._no_writes_before = until
                elif patient:
                    self._no_use_before = until
                raise

    def _use(
        self,
        work: Callable[[sqlite3.Connection], Result],
        *,
        patient: bool = True,
        turn: AbstractContextManager[None] | None = None,
    ) -> Result:
        """Work on the open file, and once more on a new one where it is damaged."""
        wait = _WAIT if patient else 0.0
        with turn or own_turn():
            with suppress(row_file.Damaged):
                with self._held(exclusive=False, wait=wait), self._opened(wait) as connection:
                    return work(connection)
            with self._held(exclusive=True, wait=wait):
                # Another process may have put a new file there meanwhile.
                try:
                    with self._opened(wait) as connection:
                        return work(connection)
                except row_file.Damaged as error:
                    damage = str(error)
                    self._remove()
                with self._opened(wait) as connection:
                    result = work(connection)
        self._warn(
            "damaged",
            f"The cache in {str(self.path)!r} was damaged ({damage}) and has been begun anew: its rows are computed again. "
            "Nothing else is lost.",
        )
        return result

    def _opened(self, wait: float) -> AbstractContextManager[sqlite3.Connection]:
        return row_file.opened(self._file, wait=wait, max_bytes=self._max_bytes)

    def _held(self, *, exclusive: bool, wait: float) -> AbstractContextManager[None]:
        """Hold the directory: with others while its file is in use, alone while it is replaced."""
        return held(self.path, exclusive=exclusive, wait=wait)

    def _remove(self) -> None:
        """Remove the file, if it is ours. The directory is held exclusively."""
        with suppress(FileNotFoundError):
            if not row_file.looks_like_ours(self._file):
                raise row_file.not_ours(self._file)
        for suffix in ("", *_JOURNALS):
            with suppress(FileNotFoundError):
                os.unlink(f"{self._file}{suffix}")

    @contextmanager
    def _as_oserror(self, what: str) -> Iterator[None]:
        """Let an explicit order fail where a batch of rows is silently not stored."""
        try:
            yield
        except (row_file.Busy, TimeoutError) as error:
            raise TimeoutError(f"{what} in {str(self.path)!r}: other processes are using it. Try again.") from error
        except row_file.Unavailable as error:
            raise OSError(f"{what} in {str(self.path)!r}: {error}.") from error
        except OSError as error:
            # With the number, so that it stays a PermissionError, say.
            raise OSError(error.errno, f"{what} in {str(self.path)!r}: {_reason(error)}.") from error

    def _warn_unavailable(self, error: Exception) -> None:
        self._warn(
            "unavailable",
            f"The cache in {str(self.path)!r} can't be used in full: {_reason(error)}. The run goes on; rows that it does not "
            "hold are computed and not stored. Make room or allow writing there, or give another directory.",
        )

    def _warn_locked_out(self) -> None:
        self._warn(
            "locked out",
            f"The cache in {str(self.path)!r} is held by another process, which was waited for in vain. The run goes on; for "
            "a minute, and again whenever that happens, rows are computed and not stored. End the process that has the "
            f"file {FILE_NAME!r} open for so long, or give another directory.",
        )

    def _warn(self, kind: str, message: str) -> None:
        """Warn once per kind; not while the lock is held, since a warning may run anything."""
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, UserWarning, stacklevel=3)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return str(error)


_caches: dict[str, DirectoryCache] = {}


def directory_cache(path: str | os.PathLike[str]) -> DirectoryCache:
    """Return this process's cache in a directory.

    Parameters
    ----------
    path : str or path
        The directory; "~" is the home directory.

    Returns
    -------
    DirectoryCache
        One object per directory and process. It holds nothing open.
    """
    resolved = os.path.realpath(os.path.expanduser(path))
    # A single step, so that threads need no lock.
    return _caches.setdefault(resolved, DirectoryCache(resolved))
