import threading

import numpy as np
import pytest

from sktransfer.runtime.batching import batches_by_size, made_ahead


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_every_row_comes_once_and_batches_stay_under_the_budget(padded, seed):
    sizes = np.random.default_rng(seed).integers(0, 60, 200).tolist()
    seen = []
    for batch in batches_by_size(sizes, budget=100, most=16, padded=padded):
        seen += batch
        cost = len(batch) * max(sizes[i] for i in batch) if padded else sum(sizes[i] for i in batch)
        assert len(batch) == 1 or cost <= 100
        assert len(batch) <= 16
    assert sorted(seen) == list(range(200))


def test_a_row_larger_than_the_budget_is_a_batch_of_its_own():
    assert list(batches_by_size([3, 500, 2], budget=10, most=8, padded=True)) == [[1], [0, 2]]


def test_rows_of_like_size_share_a_batch():
    sizes = [1, 9, 1, 9]
    assert list(batches_by_size(sizes, budget=18, most=2, padded=True)) == [[1, 3], [0, 2]]


def test_no_rows_make_no_batch():
    assert list(batches_by_size([], budget=10, most=8, padded=True)) == []


@pytest.mark.parametrize("n", [1, 2, 7])
def test_results_made_ahead_come_in_order(n):
    assert list(made_ahead(lambda i: i * 10, range(n))) == [i * 10 for i in range(n)]


def test_the_next_result_is_made_while_the_last_one_is_used():
    begun = [threading.Event() for _ in range(3)]
    for i, _ in enumerate(made_ahead(lambda i: begun[i].set(), range(3))):
        if i < 2:
            assert begun[i + 1].wait(10)


def test_an_error_comes_where_its_result_would_have_come():
    results = made_ahead(lambda i: 1 // (2 - i), range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_thread_is_left_when_the_results_are_abandoned():
    results = made_ahead(lambda i: i, range(5))
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sktransfer-prepare")]
