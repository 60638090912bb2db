import numpy as np
import pytest

from sktransfer.runtime.batching import batches_by_size


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
