"""Rows in one SQLite file: its layout, and reading, writing and evicting through an open connection."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import numpy as np

APPLICATION_ID = 0x534B5452  # "SKTR"
FORMAT = 1
DEFAULT_MAX_BYTES = 10 * 2**30
# Larger rows are not stored; and a damaged length in the file can't make SQLite ask for gigabytes.
MAX_ROW_BYTES = 2**28
# Rows of 768 or 1024 floats waste little space in pages of this size.
PAGE_BYTES = 16384
# A version is believed up to here; larger numbers in the file's header are damage.
_MOST_FORMATS = 9999
# Pages of a file without rows.
_EMPTY_PAGES = 7
_CHUNK = 500
# At most so much is removed in one transaction, since its journal holds what it changes.
_STEP_BYTES = 8 * 2**20
_HEAD_BYTES = 16  # checksum and name of the type
# Of rows, and of numbers in the table of settings.
_DTYPES = {dtype.str.encode(): dtype for dtype in map(np.dtype, ("f2", "f4", ">f4", "f8", "i4", "i8", "u1", "?"))}
_TABLES = frozenset({"settings", "rows", "uses"})
# Time of use stands apart from the rows: to note it must not rewrite them.
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, content BLOB NOT NULL);
CREATE TABLE uses (id INTEGER PRIMARY KEY, used INTEGER NOT NULL);
CREATE INDEX uses_by_time ON uses (used)
"""


class Damaged(Exception):
    """The file can't be read any more, or holds what this module never wrote."""


class Unavailable(Exception):
    """The file can't be opened, read or written: no permission, no space, a failing disk."""


class Busy(Unavailable):
    """Another process held the file for too long."""


class NotOurs(ValueError):
    """The file belongs to another version of the format, or to another program."""


@contextmanager
def _sorted_errors() -> Iterator[None]:
    """Tell damage from a busy file and from one that can't be used."""
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite's message quotes damaged names
        raise Damaged("unreadable names in it") from error
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        if code in (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS):
            raise Damaged(str(error)) from error
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Busy(str(error)) from error
        if code & 0xFF in _UNAVAILABLE:
            raise Unavailable(str(error)) from error
        raise Damaged(str(error)) from error


_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


@contextmanager
def opened(path: Path, *, wait: float, max_bytes: int) -> Iterator[sqlite3.Connection]:
    """Open the file, which is created where there is none, and close it afterwards.

    Parameters
    ----------
    path : Path
        The file.
    wait : float
        Seconds to wait for other processes.
    max_bytes : int
        Limit of a file that has to be created.

    Raises
    ------
    Damaged, Unavailable, Busy, NotOurs
        From here or from the body.
    """
    with _sorted_errors():
        connection = sqlite3.connect(path, timeout=wait, isolation_level=None)
        try:
            with _journal_to_blame(path):
                _set_up(connection)
                empty = _is_empty(connection, path)
            if empty:
                _create(connection, path, max_bytes)
            yield connection
        finally:
            # An open transaction is rolled back.
            connection.close()


@contextmanager
def _journal_to_blame(path: Path) -> Iterator[None]:
    """Take a failing disk for a damaged journal, where there is one: it would be met again at every opening."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR and os.path.exists(f"{path}-journal"):
            raise Damaged("its journal can't be read") from error
        raise


def _set_up(connection: sqlite3.Connection) -> None:
    connection.text_factory = bytes  # damaged text must not fail to decode
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES + 2**20)
    for pragma in (
        # A killed process leaves what it wrote to the operating system; only a power cut can tear the file, which then
        # counts as damage. To wait for the disk at every batch would cost ten times the writing.
        "synchronous=OFF",
        # A mapped file that someone truncates kills its readers.
        "mmap_size=0",
        # A stray write-ahead log would be mapped too; and a single file is all that has to be kept whole.
        "journal_mode=DELETE",
        "secure_delete=OFF",
        "cache_size=-32768",
        "cell_size_check=ON",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _is_empty(connection: sqlite3.Connection, path: Path) -> bool:
    """Check whose file it is; True if nobody has written to it yet."""
    # One statement after the other, but nobody changes these once they are there.
    application = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if (application, version) == (APPLICATION_ID, FORMAT):
        return False
    if application == APPLICATION_ID:
        if 0 < version <= _MOST_FORMATS:
            raise NotOurs(
                f"The cache in {str(path.parent)!r} has format {version}, written by another version of sktransfer; this one "
                f"reads and writes format {FORMAT}. Choose another directory, or delete {path.name!r} in that one."
            )
        raise Damaged(f"format {version} in its header")
    tables = {bytes(name).decode(errors="replace") for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not tables and not application and not version:
        return True
    if tables >= _TABLES:
        raise Damaged("another application's number in its header")
    raise not_ours(path)


def _create(connection: sqlite3.Connection, path: Path, max_bytes: int) -> None:
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    if _is_empty(connection, path):  # still, now that nobody else can write
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={FORMAT}")
        write_limit(connection, max_bytes)
    connection.execute("COMMIT")


def not_ours(path: Path) -> NotOurs:
    """Return the error about a file that another program wrote."""
    return NotOurs(
        f"{path.name!r} in the cache directory {str(path.parent)!r} is not a cache of sktransfer. Choose another directory, "
        "or remove that file."
    )


def looks_like_ours(path: Path) -> bool:
    """Whether a file that SQLite can't read any more was once written by :func:`opened`."""
    with open(path, "rb") as file:
        head = file.read(72)
    magic = b"SQLite format 3\0"
    same = sum(a == b for a, b in zip(head, magic, strict=False))
    # Much of the first bytes is left, or they were never written or wiped out, or our number still stands in its place.
    return 2 * same >= len(head[:16]) or not any(head[:16]) or head[68:] == APPLICATION_ID.to_bytes(4, "big")


def _number(connection: sqlite3.Connection, statement: str) -> int:
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0


def pack(key: bytes, row: np.ndarray) -> bytes:
    """Return a row's bytes with the name of its type, behind a checksum that binds them to the key."""
    if row.ndim != 1 or row.dtype.kind not in "fiub":
        raise TypeError(f"A cache keeps rows of numbers in one dimension, not {row.ndim} dimensions of {row.dtype}.")
    body = row.dtype.str.encode().ljust(8, b"\0") + row.tobytes()
    return _checksum(key, body) + body


def unpack(key: bytes, content: object) -> np.ndarray | None:
    """Return the row, read-only, or None if this is not what was stored under the key."""
    if not isinstance(content, bytes) or len(content) < _HEAD_BYTES:
        return None
    if _checksum(key, memoryview(content)[8:]) != content[:8]:
        return None
    # A valid checksum says that nothing was damaged, not who wrote it.
    dtype = _DTYPES.get(content[8:_HEAD_BYTES].rstrip(b"\0"))
    if dtype is None or (len(content) - _HEAD_BYTES) % dtype.itemsize:
        return None
    return np.frombuffer(content, dtype, offset=_HEAD_BYTES)


def _checksum(key: bytes, body: bytes | memoryview) -> bytes:
    return blake2b(body, key=key, digest_size=8).digest()


def read_limit(connection: sqlite3.Connection) -> int | None:
    """Return the byte limit, or None if it is damaged."""
    row = connection.execute("SELECT value FROM settings WHERE name = 'limit'").fetchone()
    stored = unpack(b"limit", row[0]) if row else None
    return None if stored is None else int(stored[0])


def write_limit(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Store the byte limit."""
    value = pack(b"limit", np.array([max_bytes], np.int64))
    connection.execute("INSERT OR REPLACE INTO settings VALUES ('limit', ?)", [value])


def count_rows(connection: sqlite3.Connection) -> int:
    """Return the number of rows."""
    return _number(connection, "SELECT count(*) FROM uses")


def select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[tuple[int, bytes, object, int]]:
    """Yield number, key, content and time of last use of those rows that are there."""
    for chunk in _chunks(keys):
        # Read to the end at once, so that a slow caller keeps no writer waiting.
        yield from connection.execute(
            "SELECT rows.id, key, content, coalesce(used, 0) FROM rows LEFT JOIN uses ON uses.id = rows.id "
            f"WHERE key IN ({_marks(chunk)})",
            chunk,
        ).fetchall()


def insert(connection: sqlite3.Connection, contents: dict[bytes, bytes], now: int) -> int:
    """Add packed rows within the limit, and return how many others had to go. To be called in a transaction."""
    known = {
        key
        for chunk in _chunks(list(contents))
        for (key,) in connection.execute(f"SELECT key FROM rows WHERE key IN ({_marks(chunk)})", chunk)
    }
    max_bytes = read_limit(connection)
    limit = (DEFAULT_MAX_BYTES if max_bytes is None else max_bytes) // PAGE_BYTES
    fitting, pages = _fitting([item for item in contents.items() if item[0] not in known], limit - _EMPTY_PAGES)
    evicted = 0
    if fitting and _used_pages(connection) + pages > limit:
        # Somewhat more goes than must, so that not every batch has to.
        slack = min(limit // 16, _STEP_BYTES // PAGE_BYTES)
        evicted = evict(connection, max(limit - pages - slack, _EMPTY_PAGES))
    if not fitting or _used_pages(connection) + pages > limit:
        return evicted
    # Within a transaction nobody else takes the next numbers.
    start = 1 + max(_number(connection, f"SELECT coalesce(max(id), 0) FROM {table}") for table in ("rows", "uses"))
    connection.executemany(
        "INSERT INTO rows VALUES (?, ?, ?)", [(start + i, key, content) for i, (key, content) in enumerate(fitting)]
    )
    connection.executemany("INSERT INTO uses VALUES (?, ?)", [(start + i, now) for i in range(len(fitting))])
    return evicted


def _fitting(items: list[tuple[bytes, bytes]], most_pages: int) -> tuple[list[tuple[bytes, bytes]], int]:
    """Return those of the rows for which there is room, the last if not all, and the pages they need at most."""
    usable = PAGE_BYTES - 100
    pages = 2.0
    for place in reversed(range(len(items))):
        size = len(items[place][1]) + 64
        # Small rows share a page, large ones fill several; indexes take some bytes of each.
        share = 1 / (usable // size) if size <= usable else -(-size // usable) + 1
        pages += share + 128 / usable
        if pages > most_pages:
            return items[place + 1 :], most_pages
    return items, math.ceil(pages)


def evict(connection: sqlite3.Connection, most_pages: int) -> int:
    """Remove the least recently used rows until so many pages are used, and return how many went."""
    evicted = 0
    while (excess := _used_pages(connection) - most_pages) > 0:
        oldest = connection.execute(
            "SELECT uses.id, length(content) FROM uses LEFT JOIN rows ON rows.id = uses.id "
            f"ORDER BY used, uses.id LIMIT {_CHUNK}"
        ).fetchall()
        chosen, n_bytes = [], 0
        for number, size in oldest:
            chosen.append(number)
            n_bytes += size or 0
            if n_bytes >= excess * PAGE_BYTES:
                break
        if not chosen:
            # What is left has no time of use: leftovers of damage.
            connection.execute("DELETE FROM rows")
            break
        delete(connection, chosen)
        evicted += len(chosen)
    return evicted


def shrink(connection: sqlite3.Connection, max_bytes: int) -> tuple[int, bool]:
    """Take one step towards the limit; return how many rows went, and whether the limit is reached."""
    limit = max_bytes // PAGE_BYTES
    step = _STEP_BYTES // PAGE_BYTES
    connection.execute("BEGIN IMMEDIATE")
    evicted = evict(connection, max(limit, _used_pages(connection) - step))
    connection.execute("COMMIT")
    before = _number(connection, "PRAGMA page_count")
    if before > limit and (not evicted or _used_pages(connection) <= limit):
        # As a script, because a statement without result is taken one step, which is one page.
        connection.executescript(f"PRAGMA incremental_vacuum({min(before - limit, step)})")
    after = _number(connection, "PRAGMA page_count")
    return evicted, after <= limit or (after == before and not evicted)


def touch(connection: sqlite3.Connection, numbers: Sequence[int], now: int) -> None:
    """Note that rows were used."""
    connection.executemany("UPDATE uses SET used = ? WHERE id = ?", [(now, number) for number in numbers])


def delete(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Remove rows."""
    for chunk in _chunks(numbers):
        connection.execute(f"DELETE FROM rows WHERE id IN ({_marks(chunk)})", chunk)
        connection.execute(f"DELETE FROM uses WHERE id IN ({_marks(chunk)})", chunk)


def _chunks(values: Sequence) -> Iterator[Sequence]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def _marks(values: Sequence) -> str:
    return ",".join("?" * len(values))


def _used_pages(connection: sqlite3.Connection) -> int:
    return _number(connection, "PRAGMA page_count") - _number(connection, "PRAGMA freelist_count")
