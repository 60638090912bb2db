"""A file damaged in any way costs rows, never gives a wrong one, and never ends the reader."""

import os
import shutil
import sqlite3
import warnings
from contextlib import closing

import pytest
from support.cached_rows import assert_none_is_wrong, keys, rows_of

from sktransfer.caching import row_file
from sktransfer.caching.directory import FILE_NAME, DirectoryCache

N_ROWS = 150
NAMES = keys(N_ROWS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of a good file."""
    cache = DirectoryCache(tmp_path_factory.mktemp("whole"))
    cache.check()
    cache.put_many(NAMES, rows_of(NAMES, 100))
    return (cache.path / FILE_NAME).read_bytes()


def put_files(path, content, **others):
    """Lay a file, and journals beside it, as they were found."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    (path / FILE_NAME).write_bytes(content)
    for suffix, bytes_ in others.items():
        (path / f"{FILE_NAME}-{suffix}").write_bytes(bytes_)


def survive(path):
    """Read, store again and read; return the rows found at first and the messages given."""
    cache = DirectoryCache(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache.check()
        found = assert_none_is_wrong(NAMES, cache.get_many(NAMES))
        cache.info()
        cache.put_many(NAMES, rows_of(NAMES, 100))
        # Some damage shows up only in writing, and what was stored with it goes; the next time all is well.
        cache.put_many(NAMES, rows_of(NAMES, 100))
        again = assert_none_is_wrong(NAMES, cache.get_many(NAMES))
    assert again >= N_ROWS - 20, [str(w.message) for w in caught]
    messages = [str(warning.message) for warning in caught]
    assert len(messages) <= 1, "one warning"
    assert all("was damaged" in message for message in messages)
    return found, messages


def test_a_whole_file_gives_all_rows_without_a_word(tmp_path, whole):
    put_files(tmp_path / "cache", whole)
    assert survive(tmp_path / "cache") == (N_ROWS, [])


def test_a_flipped_byte_anywhere(tmp_path, whole):
    places = [*range(0, 112), *range(112, len(whole), 487)]
    lost = 0
    for place in places:
        if place in range(60, 64):
            continue  # the version, see below
        damaged = bytearray(whole)
        damaged[place] ^= (0xFF, 0x01, 0x80)[place % 3]
        put_files(tmp_path / "cache", bytes(damaged))
        found, _ = survive(tmp_path / "cache")
        lost += found < N_ROWS
    assert lost > 20, "the bytes flipped were used"


def test_a_flipped_byte_in_the_version_is_damage_or_another_version(tmp_path, whole):
    for place in range(60, 64):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        put_files(tmp_path / "cache", bytes(damaged))
        if place == 63:
            with pytest.raises(ValueError, match="format 254"):
                DirectoryCache(tmp_path / "cache").check()
        else:
            assert survive(tmp_path / "cache")[0] == 0


def test_a_file_cut_anywhere(tmp_path, whole):
    for length in [*range(0, 120, 7), *range(120, len(whole), 3001), len(whole) - 1]:
        put_files(tmp_path / "cache", whole[:length])
        found, messages = survive(tmp_path / "cache")
        # An empty file is a new one; and a page that lacks only its last byte is read.
        assert messages or length in (0, len(whole) - 1)


def test_a_stretch_of_zeros_or_noise(tmp_path, whole):
    for start in range(0, len(whole), row_file.PAGE_BYTES // 2):
        for filling in (b"\0" * 4096, bytes(range(256)) * 16):
            damaged = whole[:start] + filling + whole[start + 4096 :]
            put_files(tmp_path / "cache", damaged)
            if start == 0 and filling[1]:
                with pytest.raises(ValueError, match="is not a cache of sktransfer"):
                    DirectoryCache(tmp_path / "cache").check()
            else:
                survive(tmp_path / "cache")


def test_damage_while_the_cache_is_in_use(tmp_path, whole):
    (tmp_path / FILE_NAME).write_bytes(whole)
    cache = DirectoryCache(tmp_path)
    cache.set_limit(2**20)
    assert assert_none_is_wrong(NAMES, cache.get_many(NAMES)) == N_ROWS
    with open(tmp_path / FILE_NAME, "r+b") as file:
        file.truncate(len(whole) // 3)
    with pytest.warns(UserWarning, match="was damaged .* begun anew") as caught:
        assert cache.get_many(NAMES) == [None] * N_ROWS
    assert len(caught) == 1
    cache.put_many(NAMES, rows_of(NAMES))
    assert assert_none_is_wrong(NAMES, cache.get_many(NAMES)) == N_ROWS
    assert cache.info().max_bytes == 2**20, "the limit is kept"
    os.truncate(tmp_path / FILE_NAME, 5)
    assert cache.get_many(NAMES) == [None] * N_ROWS, "and no second warning"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A file and its journal in the midst of a transaction."""
    directory = tmp_path_factory.mktemp("interrupted")
    cache = DirectoryCache(directory)
    cache.check()
    cache.put_many(NAMES[:100], rows_of(NAMES[:100], 100))
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size=1")  # writes to the file before the end
        connection.execute("BEGIN IMMEDIATE")
        row_file.insert(
            connection, {key: row_file.pack(key, row) for key, row in zip(NAMES, rows_of(NAMES), strict=True)}, 1
        )
        file = (directory / FILE_NAME).read_bytes()
        journal = (directory / f"{FILE_NAME}-journal").read_bytes()
    assert len(journal) > 1000
    return file, journal


def test_a_transaction_cut_short_is_taken_back(tmp_path, interrupted):
    file, journal = interrupted
    put_files(tmp_path / "cache", file, journal=journal)
    assert survive(tmp_path / "cache") == (100, [])
    assert os.listdir(tmp_path / "cache") == [FILE_NAME]


def test_a_damaged_cut_or_missing_journal(tmp_path, interrupted):
    file, journal = interrupted
    variants = [journal[:length] for length in range(0, len(journal), 9999)]
    for place in [*range(0, 64), *range(64, len(journal), 4999)]:
        damaged = bytearray(journal)
        damaged[place] ^= 0xFF
        variants.append(bytes(damaged))
    for variant in variants:
        put_files(tmp_path / "cache", file, journal=variant)
        survive(tmp_path / "cache")
    put_files(tmp_path / "cache", file)
    survive(tmp_path / "cache")


def test_stray_journals_of_another_kind(tmp_path, whole):
    for content in (b"", b"garbage" * 999, bytes(40_000)):
        put_files(tmp_path / "cache", whole, wal=content, shm=content)
        assert survive(tmp_path / "cache") == (N_ROWS, [])


def test_a_file_left_in_write_ahead_mode_by_another_tool(tmp_path, whole):
    put_files(tmp_path / "cache", whole)
    with closing(sqlite3.connect(tmp_path / "cache" / FILE_NAME)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("DELETE FROM uses WHERE id = 1")
        connection.commit()
        for suffix in ("", "-wal", "-shm"):
            name = f"{FILE_NAME}{suffix}"
            (tmp_path / name).write_bytes((tmp_path / "cache" / name).read_bytes())
    good = {suffix: (tmp_path / f"{FILE_NAME}-{suffix}").read_bytes() for suffix in ("wal", "shm")}
    file = (tmp_path / FILE_NAME).read_bytes()
    for suffix, content in good.items():
        for variant in (content[: len(content) // 2], content[:-1], b"", b"\xff" + content[1:], content[::-1]):
            put_files(tmp_path / "cache", file, **{**good, suffix: variant})
            survive(tmp_path / "cache")
    put_files(tmp_path / "cache", file, **good)
    survive(tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == [FILE_NAME]


def test_a_damaged_limit_is_the_default(tmp_path, whole):
    put_files(tmp_path / "cache", whole)
    with closing(sqlite3.connect(tmp_path / "cache" / FILE_NAME)) as connection:
        connection.execute("UPDATE settings SET value = zeroblob(24)")
        connection.commit()
    assert DirectoryCache(tmp_path / "cache").info().max_bytes == row_file.DEFAULT_MAX_BYTES
    assert survive(tmp_path / "cache") == (N_ROWS, [])
