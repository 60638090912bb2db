import subprocess
import sys

import numpy as np
import pytest

from sktransfer.metrics import linear_cka


@pytest.fixture
def random():
    return np.random.default_rng(0)


def by_definition(X, Y):
    """HSIC of the centred linear kernels, normalised, written as the paper introduces it."""
    centring = np.eye(len(X)) - 1 / len(X)

    def hsic(A, B):
        return np.trace(A @ A.T @ centring @ B @ B.T @ centring)

    return hsic(X, Y) / np.sqrt(hsic(X, X) * hsic(Y, Y))


@pytest.mark.parametrize("shapes", [((50, 4), (50, 7)), ((20, 64), (20, 3)), ((20, 3), (20, 64)), ((9, 9), (9, 40))])
def test_it_is_the_measure_of_the_paper_whatever_the_shapes(random, shapes):
    X, Y = random.normal(1.0, 2.0, shapes[0]), random.normal(-3.0, 0.1, shapes[1])
    Y[:, :2] += X[:, :2]
    assert linear_cka(X, Y) == pytest.approx(by_definition(X, Y), rel=1e-10)
    assert linear_cka(Y, X) == pytest.approx(linear_cka(X, Y), rel=1e-12)


@pytest.mark.parametrize("n_rows", [5, 300])
def test_rotation_shift_and_scale_do_not_count(random, n_rows):
    X = random.normal(size=(n_rows, 12))
    rotation = np.linalg.qr(random.normal(size=(12, 12)))[0]
    assert linear_cka(X, -7 * X @ rotation + 100) == pytest.approx(1, abs=1e-10)


def test_a_scale_that_differs_between_features_does_count(random):
    X = random.normal(size=(500, 4))
    assert linear_cka(X, X * [1, 1, 1, 30]) < 0.6


def test_uncorrelated_features_give_zero():
    X = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    Y = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    assert linear_cka(X, Y) == 0


def test_with_few_rows_unrelated_representations_look_alike_as_documented(random):
    assert linear_cka(random.normal(size=(8, 5000)), random.normal(size=(8, 5000))) > 0.95
    assert linear_cka(random.normal(size=(5000, 8)), random.normal(size=(5000, 8))) < 0.05


def test_it_never_leaves_the_range_from_zero_to_one(random):
    for n_features in range(1, 60):
        X = random.normal(size=(30, n_features)).astype(np.float32)
        assert 0 <= linear_cka(X, X) <= 1
        assert linear_cka(X, X) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_huge_and_tiny_numbers_neither_overflow_nor_vanish(random, scale):
    X, Y = random.normal(size=(40, 5)), random.normal(size=(40, 6))
    assert linear_cka(X * scale, Y) == pytest.approx(linear_cka(X, Y), rel=1e-9)


def test_half_and_single_precision_are_computed_in_double(random):
    X, Y = random.normal(size=(60, 5)), random.normal(size=(60, 6))
    assert linear_cka(X.astype(np.float32), Y) == pytest.approx(linear_cka(X, Y), rel=1e-5)
    assert linear_cka(X.astype(np.float16) * np.float16(300), Y) == pytest.approx(linear_cka(X, Y), rel=1e-2)


def test_the_arrays_stay_as_they_are(random):
    X, Y = random.normal(size=(10, 3)), random.normal(size=(10, 3))
    before = X.copy(), Y.copy()
    linear_cka(X, Y)
    np.testing.assert_array_equal(before, (X, Y))


@pytest.mark.parametrize(
    "X, message",
    [
        (np.ones(10), r"X must have the shape \(n_rows, n_features\), but has the shape \(10,\)"),
        (np.ones((10, 3, 4)), r"has the shape \(10, 3, 4\)\. Pool or flatten"),
        (np.ones((1, 3)), "at least two rows"),
        (np.ones((10, 0)), "one feature"),
        (np.full((10, 3), 0.1), "All rows of X are the same"),
        (np.array([[1.0, np.nan]] * 10), "holds NaN or infinity"),
        (np.array([[1.0, np.inf]] * 10), "holds NaN or infinity"),
        (np.ones((10, 2), dtype=complex), "holds complex"),
        (np.arange(18.0).reshape(9, 2), "X has 9 and Y has 10"),
    ],
)
def test_what_cannot_be_compared_is_refused(X, message):
    Y = np.arange(20.0).reshape(10, 2) ** 2
    with pytest.raises(ValueError, match=message):
        linear_cka(X, Y)
    with pytest.raises(
        ValueError, match=message.replace("X", "[XY]").replace("has 9", "has 10").replace("Y has 10", "Y has 9")
    ):
        linear_cka(Y, X)


def test_the_metrics_need_neither_torch_nor_scikit_learn():
    code = (
        "import sys, sktransfer.metrics; assert not {'torch', 'sklearn', 'skorch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
