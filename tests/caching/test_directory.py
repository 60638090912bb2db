import gc
import os
import sqlite3
import threading
import time
import warnings
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.cached_rows import assert_none_is_wrong, keys, row_of, rows_of

from sktransfer import PretrainedFeatureExtractor, cache_clear, cache_info, set_cache_limit
from sktransfer.caching import directory, memory_cache, resolve_cache, row_file
from sktransfer.caching.directory import FILE_NAME, DirectoryCache, directory_cache

MIB = 2**20


@pytest.fixture
def cache(tmp_path):
    cache = directory_cache(tmp_path / "cache")
    cache.check()
    return cache


def store(cache, names, width=64):
    cache.put_many(names, rows_of(names, width))


def test_rows_come_back_in_the_order_asked_for_and_are_counted(cache):
    store(cache, keys(1200))
    asked = [*reversed(keys(1201)), keys(1)[0]]
    found = cache.get_many(asked)
    assert found[0] is None
    assert assert_none_is_wrong(asked, found) == 1201
    info = cache.info()
    assert (info.hits, info.misses, info.evictions, info.rows) == (1201, 1, 0, 1200)
    assert info.n_bytes == (cache.path / FILE_NAME).stat().st_size
    assert info.max_bytes == 10 * 2**30


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", ">f4", "i8", "u1", "?"])
def test_a_row_keeps_its_type_and_is_read_only(cache, dtype):
    row = np.arange(5).astype(dtype)
    cache.put_many(keys(1), [row])
    (found,) = cache.get_many(keys(1))
    assert found.dtype == row.dtype
    np.testing.assert_array_equal(found, row)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_rows_of_any_width_come_back_even_without_values_or_longer_than_a_page(cache):
    names = keys(4)
    rows = [np.arange(n, dtype=np.float32) for n in (0, 1, 5000, 300_000)]
    cache.put_many(names, rows)
    for row, found in zip(rows, cache.get_many(names), strict=True):
        np.testing.assert_array_equal(found, row)


@pytest.mark.parametrize("row", [np.array(["a"]), np.array([object()]), np.zeros((2, 2))])
def test_only_rows_of_numbers_are_taken(cache, row):
    with pytest.raises(TypeError, match="rows of numbers in one dimension"):
        cache.put_many(keys(1), [row])


def test_the_first_row_under_a_key_stays(cache):
    store(cache, keys(1))
    cache.put_many(keys(1) * 2, np.zeros((2, 64), np.float32))
    assert assert_none_is_wrong(keys(1), cache.get_many(keys(1))) == 1


@pytest.mark.parametrize("width", [3, 64, 384, 1024, 3000, 50_000])
@pytest.mark.parametrize("limit", [0, 300_000, 4 * MIB])
def test_the_file_stays_under_the_limit(cache, width, limit):
    cache.set_limit(limit)
    file = cache.path / FILE_NAME
    empty = file.stat().st_size
    n_rows = min(40_000_000 // (4 * width), 6000)
    for start in range(0, n_rows, 300):
        store(cache, keys(min(300, n_rows - start), start), width)
        assert file.stat().st_size <= max(limit, empty)
    info = cache.info()
    assert info.max_bytes == limit
    if limit == 4 * MIB:
        # It is used, too: some goes to pages half full, and to making room for a batch nearly as large as the limit.
        assert info.rows == n_rows or info.rows * width * 4 > 0.5 * limit
        assert info.rows + info.evictions <= n_rows


def test_a_lower_limit_shrinks_the_file_at_once_and_holds_for_every_process(cache):
    store(cache, keys(5000), 384)
    set_cache_limit(2 * MIB, cache.path)
    assert (cache.path / FILE_NAME).stat().st_size <= 2 * MIB
    assert 800 < cache.info().rows < 5000
    assert assert_none_is_wrong(keys(5000), cache.get_many(keys(5000))) == cache.info().rows
    assert DirectoryCache(cache.path).info().max_bytes == 2 * MIB


def test_least_recently_used_row_goes_first(cache, monkeypatch):
    clock = iter(range(1_000_000, 2_000_000, 1000))
    monkeypatch.setattr(directory.time, "time", lambda: next(clock))
    for start in range(0, 1000, 100):
        store(cache, keys(100, start), 1000)
    cache.get_many(keys(100))  # the first batch is used again, so the second is the oldest
    cache.set_limit(3 * MIB)
    left = [sum(row is not None for row in cache.get_many(keys(100, start))) for start in range(0, 1000, 100)]
    assert left[0] == left[-1] == 100
    assert left[1] == 0
    assert cache.info().evictions == 1000 - sum(left)


def test_reading_again_soon_writes_nothing(cache):
    store(cache, keys(100))
    file = cache.path / FILE_NAME
    before = file.read_bytes()
    for _ in range(3):
        cache.get_many(keys(100))
    assert file.read_bytes() == before


def test_clear_forgets_rows_and_counts_and_keeps_the_limit(cache):
    set_cache_limit(5 * MIB, cache.path)
    store(cache, keys(100))
    cache.get_many(keys(100))
    cache_clear(cache.path)
    info = cache_info(cache.path)
    assert (info.hits, info.misses, info.rows, info.max_bytes) == (0, 0, 0, 5 * MIB)


def test_threads_can_share_it(cache):
    def work(seed):
        for start in np.random.default_rng(seed).integers(0, 200, 15):
            names = keys(20, int(start))
            store(cache, names)
            assert assert_none_is_wrong(names, cache.get_many(names)) == 20

    failures = []
    threads = [threading.Thread(target=lambda s=seed: failures.extend(_failure(work, s))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert cache.info().hits == 4 * 15 * 20


def _failure(work, argument):
    try:
        work(argument)
    except BaseException as error:
        return [error]
    return []


def test_nothing_stays_open_between_calls(cache):
    store(cache, keys(5))
    cache.get_many(keys(5))
    opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not [name for name in opened if name.startswith(str(cache.path))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()


@contextmanager
def held_by_another(cache, statement):
    """Another connection is in the middle of something, as that of a stopped process would be for ever."""
    with closing(sqlite3.connect(cache.path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE" if statement is None else "BEGIN")
        if statement is not None:
            other.execute(statement).fetchone()
        yield
        other.rollback()


def test_a_held_file_costs_one_wait_and_one_warning(cache, monkeypatch):
    monkeypatch.setattr(directory, "_WAIT", 0.5)
    store(cache, keys(5))
    with (
        held_by_another(cache, None),
        pytest.warns(UserWarning, match="held by another process.*The run goes") as caught,
    ):
        start = time.monotonic()
        for _ in range(10):
            cache.check()
            assert cache.get_many(keys(5)) == [None] * 5
            store(cache, keys(5, 5))
        assert 0.5 <= time.monotonic() - start < 4, "not one wait for each call"
    assert len(caught) == 1
    assert cache.get_many(keys(5)) == [None] * 5, "for a while it is left alone"
    monkeypatch.setattr(directory.time, "monotonic", lambda: start + 70)
    assert assert_none_is_wrong(keys(5), cache.get_many(keys(5))) == 5
    store(cache, keys(5, 5))
    assert assert_none_is_wrong(keys(10), cache.get_many(keys(10))) == 10


def test_a_reader_that_stays_keeps_rows_from_being_stored_and_not_from_being_read(cache, monkeypatch):
    monkeypatch.setattr(directory, "_WAIT", 0.5)
    store(cache, keys(5))
    with (
        held_by_another(cache, "SELECT * FROM rows"),
        pytest.warns(UserWarning, match="held by another process") as caught,
    ):
        start = time.monotonic()
        for _ in range(10):
            store(cache, keys(5, 5))
            assert assert_none_is_wrong(keys(10), cache.get_many(keys(10))) == 5
        assert time.monotonic() - start < 4, "not one wait for each call"
    assert len(caught) == 1


def test_threads_wait_for_a_held_file_once_in_all(cache, monkeypatch):
    monkeypatch.setattr(directory, "_WAIT", 1.0)
    with held_by_another(cache, None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=cache.get_many, args=(keys(5),)) for _ in range(6)]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - start < 5.5, "not one wait for each thread"


def test_a_run_with_a_held_directory_gives_the_same_rows_without_delay(cache, monkeypatch):
    monkeypatch.setattr(directory, "_WAIT", 0.5)
    X = [f"text number {i}" for i in range(500)]
    expected = PretrainedFeatureExtractor(cache=None).fit_transform(X)
    with held_by_another(cache, None), pytest.warns(UserWarning, match="held by another process") as caught:
        start = time.monotonic()
        found = PretrainedFeatureExtractor(cache=cache.path, batch_size=50).fit(X).transform(X)
        assert time.monotonic() - start < 4.5, "not one wait for each batch"
    assert len(caught) == 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "call, what",
    [
        (cache_info, "The rows can't be counted"),
        (cache_clear, "The cache can't be cleared"),
        (lambda path: set_cache_limit(MIB, path), "The limit can't be set"),
    ],
)
def test_what_is_asked_of_a_held_cache_is_an_error_and_no_guess(cache, monkeypatch, call, what):
    monkeypatch.setattr(directory, "_WAIT", 0.1)
    store(cache, keys(5))
    with held_by_another(cache, None):
        for _ in range(2):  # a pause is for runs: who asks is answered
            with pytest.raises(TimeoutError, match=f"{what} in .*: other processes are using it"):
                call(cache.path)
    assert cache_info(cache.path).rows == 5


def test_one_object_per_directory_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    assert directory_cache("~/cache") is directory_cache("cache") is directory_cache(tmp_path / "cache")
    resolve_cache("~/cache")
    assert directory_cache("link") is directory_cache("cache")
    assert (tmp_path / "cache" / FILE_NAME).exists()


def test_other_files_in_the_directory_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    resolve_cache(tmp_path).put_many(keys(2), rows_of(keys(2)))
    cache_clear(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", FILE_NAME]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_a_cache_may_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_cache(None) is None
    assert resolve_cache("memory") is memory_cache
    assert resolve_cache("new/embeddings").path == tmp_path / "new" / "embeddings"
    with pytest.raises(ValueError, match="Did you mean 'memory'"):
        resolve_cache("memmory")
    for word in ("none", "disk", "Memory"):
        with pytest.raises(ValueError, match="no directory that exists"):
            resolve_cache(word)
    for blank in ("", " "):
        with pytest.raises(ValueError, match="can't be a directory"):
            resolve_cache(blank)
    assert os.listdir(tmp_path) == ["new"]
    assert resolve_cache("./disk").path == tmp_path / "disk"
    assert resolve_cache("disk") is resolve_cache("./disk"), "now it exists"


def test_a_path_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    for call in (resolve_cache, lambda path: set_cache_limit(1000, path)):
        with pytest.raises(ValueError, match="is a file. Give a directory"):
            call(tmp_path / "file")


@pytest.mark.parametrize("path", ["a\0b", "/tmp/a\0b", "x" * 5000, "./" + "d/" * 2500, "/tmp/" + "x" * 300, "./\ud800"])
@pytest.mark.parametrize("call", [resolve_cache, cache_info, cache_clear, lambda path: set_cache_limit(1000, path)])
def test_a_path_that_no_file_system_takes_is_an_error(path, call):
    for given in (path, Path(path)):
        with pytest.raises(ValueError, match=r"cache=.* can't be a directory: .*another path|cache=.* working directory of this process is gone"):
            call(given)


def test_a_relative_path_without_a_working_directory_is_an_error(tmp_path, monkeypatch, texts):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for call in (resolve_cache, cache_info, cache_clear, lambda path: set_cache_limit(1000, path)):
        with pytest.raises(
            ValueError, match=r"cache='\./rows' is a relative path, but the working directory .* is gone"
        ):
            call("./rows")
    with pytest.raises(ValueError, match="cache='rows' is a relative path"):
        PretrainedFeatureExtractor("no/such network", cache="rows").fit(texts)
    assert resolve_cache(tmp_path / "rows").path == tmp_path / "rows"


def test_a_relative_path_is_looked_up_whenever_it_is_used(tmp_path, monkeypatch, texts):
    for name in ("fit", "transform"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "fit")
    extractor = PretrainedFeatureExtractor(cache="./rows").fit(texts)
    monkeypatch.chdir(tmp_path / "transform")
    extractor.transform(texts)
    assert cache_info(tmp_path / "fit" / "rows").rows == 1
    assert cache_info("./rows").rows == len(set(texts))


@pytest.mark.parametrize("call", [cache_info, cache_clear])
def test_asking_for_a_cache_that_is_not_there_does_not_make_one(tmp_path, call):
    for path in (tmp_path / "typo", tmp_path):
        with pytest.raises(
            ValueError, match="There is no cache in .*nothing has been written there yet, or nothing could"
        ):
            call(path)
    assert os.listdir(tmp_path) == []


def test_the_limit_can_be_set_before_the_first_use(tmp_path):
    set_cache_limit(3 * MIB, tmp_path / "new")
    assert cache_info(tmp_path / "new").max_bytes == 3 * MIB


def test_another_version_is_an_error_and_is_left_alone(cache):
    store(cache, keys(5))
    with closing(sqlite3.connect(cache.path / FILE_NAME)) as connection:
        connection.execute(f"PRAGMA user_version={row_file.FORMAT + 1}")
    before = (cache.path / FILE_NAME).read_bytes()
    for call in (resolve_cache, cache_info, cache_clear, lambda path: set_cache_limit(0, path)):
        with pytest.raises(ValueError, match="has format 2, .* reads and writes format 1. Choose another directory"):
            call(cache.path)
    with pytest.warns(UserWarning, match="has format 2"):  # it changed while a run was going on
        assert cache.get_many(keys(1)) == [None]
    store(cache, keys(5))
    assert (cache.path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("kind", ["text", "database"])
def test_the_file_of_another_program_is_an_error_and_is_left_alone(tmp_path, kind):
    file = tmp_path / FILE_NAME
    if kind == "text":
        file.write_text("Notes on embeddings. " * 500)
    else:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE notes (text)")
    before = file.read_bytes()
    for call in (resolve_cache, cache_info, cache_clear, lambda path: set_cache_limit(0, path)):
        with pytest.raises(ValueError, match="is not a cache of sktransfer"):
            call(tmp_path)
    assert file.read_bytes() == before


def test_an_extractor_finds_its_rows_in_a_later_session(tmp_path, texts):
    cached = PretrainedFeatureExtractor(cache=tmp_path / "cache").fit(texts)
    first = cached.transform(texts)
    cache = directory_cache(tmp_path / "cache")
    assert cache.info().rows == len(set(texts))
    directory._caches.clear()  # as a new process
    again = PretrainedFeatureExtractor(cache=str(tmp_path / "cache")).fit_transform(texts)
    assert cache_info(tmp_path / "cache").misses == 0
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, PretrainedFeatureExtractor(cache=None).fit_transform(texts))


def test_an_extractor_refuses_a_bad_directory_before_it_loads_the_network(tmp_path, texts):
    (tmp_path / "file").write_text("mine")
    for cache, message in ((tmp_path / "file", "is a file"), ("memmory", "Did you mean"), (5, "'cache' parameter")):
        with pytest.raises(ValueError, match=message):
            PretrainedFeatureExtractor("no/such-network", cache=cache).fit(texts)


def test_a_key_of_another_row_never_gives_this_row(cache):
    store(cache, keys(2))
    with closing(sqlite3.connect(cache.path / FILE_NAME)) as connection:
        first, second = (content for (content,) in connection.execute("SELECT content FROM rows ORDER BY id"))
        connection.execute("UPDATE rows SET content = ? WHERE id = 1", [second])
        connection.commit()
    assert first != second
    assert cache.get_many(keys(1)) == [None]
    store(cache, keys(1))
    np.testing.assert_array_equal(cache.get_many(keys(1))[0], row_of(keys(1)[0]))
