import threading

import numpy as np
import pytest

from sktransfer import cache_info, set_cache_limit
from sktransfer.caching.keys import context_digest, digest
from sktransfer.caching.memory import MemoryCache


def keys(n, start=0):
    return [digest(str(i).encode(), domain=b"test") for i in range(start, start + n)]


def test_rows_come_back_and_hits_are_counted():
    cache = MemoryCache()
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache.put_many(keys(2), rows)
    found = cache.get_many(keys(3))
    np.testing.assert_array_equal(np.stack(found[:2]), rows)
    assert found[2] is None
    assert (cache.info().hits, cache.info().misses, cache.info().rows) == (2, 1, 2)


def test_a_stored_row_is_a_copy_and_read_only():
    cache = MemoryCache()
    row = np.zeros((1, 4), np.float32)
    cache.put_many(keys(1), row)
    row[:] = 7
    (found,) = cache.get_many(keys(1))
    assert (found == 0).all()
    assert found.base is None, "a view would keep its whole batch alive"
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_least_recently_used_row_goes_first():
    cache = MemoryCache()
    cache.put_many(keys(3), np.zeros((3, 1000), np.float32))
    one_row = cache.info().n_bytes // 3
    cache.get_many(keys(1))  # row 0 is used again, so row 1 is the oldest
    cache.set_limit(2 * one_row)
    assert [row is not None for row in cache.get_many(keys(3))] == [True, False, True]
    assert cache.info().evictions == 1


@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_bytes_stay_under_the_limit(limit):
    cache = MemoryCache(limit)
    for start in range(0, 200, 10):
        cache.put_many(keys(10, start), np.zeros((10, 64), np.float32))
        assert cache.info().n_bytes <= limit
    assert cache.info().rows + cache.info().evictions == 200


def test_counted_bytes_are_about_what_python_allocates():
    import tracemalloc

    cache = MemoryCache()
    names = keys(2000)
    rows = np.zeros((2000, 32), np.float32)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    cache.put_many([bytes(name) + b"context" for name in names], rows)
    allocated = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert allocated * 0.7 < cache.info().n_bytes < allocated * 1.5


def test_threads_can_share_it():
    cache = MemoryCache(50_000)

    def work(seed):
        for start in np.random.default_rng(seed).integers(0, 100, 50):
            names = keys(5, int(start))
            cache.put_many(names, np.full((5, 50), start, np.float32))
            cache.get_many(names)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.info().n_bytes <= 50_000
    assert cache.info().hits + cache.info().misses == 4 * 50 * 5


@pytest.mark.parametrize("limit", [-1, 1.5, "1 GB", True, None])
def test_a_limit_must_be_a_number_of_bytes(limit):
    with pytest.raises(ValueError, match="whole number of bytes"):
        set_cache_limit(limit)
    assert cache_info().max_bytes == 2**30


def test_keys_depend_on_content_domain_and_context():
    assert digest(b"a", domain=b"text") != digest(b"b", domain=b"text")
    assert digest(b"a", domain=b"text") != digest(b"a", domain=b"image")
    assert context_digest({"layer": 1, "b": 2}) == context_digest({"b": 2, "layer": 1})
    assert context_digest({"layer": 1}) != context_digest({"layer": 2})
