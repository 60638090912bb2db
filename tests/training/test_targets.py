import numpy as np
import pytest
import torch

from sktransfer.training.targets import Classes, Labels, Numbers


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"], [-3, 9], [0.5, 1.5, 2.5]], ids=str)
def test_classes_go_there_and_back(classes):
    targets = Classes(np.array(classes))
    y = np.array(classes)[[0, 1, -1, 0]]
    codes = targets.encode(y)
    assert codes.tolist() == [0, 1, len(classes) - 1, 0]
    tensor = targets.tensor(codes)
    if len(classes) == 2:
        assert targets.n_outputs == 1
        outputs = 2.0 * codes[:, None] - 1.0
    else:
        assert targets.n_outputs == len(classes)
        outputs = np.eye(len(classes))[codes] * 3
    np.testing.assert_array_equal(targets.predict(outputs), y)
    shares = targets.probabilities(outputs)
    assert shares.shape == (4, len(classes))
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_array_equal(shares.argmax(1), codes)
    # The loss is the log loss of the probabilities.
    losses = targets.loss(torch.from_numpy(outputs), tensor)
    np.testing.assert_allclose(losses, -np.log(shares[np.arange(4), codes]))


def test_extreme_scores_give_probabilities():
    with np.errstate(all="raise"):
        for outputs in ([[800.0]], [[-800.0]]):
            shares = Classes(np.array([0, 1])).probabilities(np.array(outputs))
            assert np.isfinite(shares).all()
            assert shares.sum() == pytest.approx(1)


def test_labels():
    targets = Labels(3)
    y = np.array([[0, 1, 1], [0, 0, 0]])
    assert targets.tensor(targets.encode(y)).dtype == torch.float64
    np.testing.assert_array_equal(targets.predict(2.0 * y - 1), y)
    np.testing.assert_allclose(targets.probabilities(np.zeros((1, 3))), 0.5)


def test_numbers_are_standardised_by_weighted_moments():
    y = np.array([[1.0, 5.0], [3.0, 5.0], [100.0, 5.0]])
    targets = Numbers.of(y, np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(targets.center, [2, 5])
    np.testing.assert_allclose(targets.scale, [1, 1])  # 1 where all are alike
    np.testing.assert_allclose(targets.predict(targets.encode(y)), y)
    flat = Numbers.of(y[:, 0], np.ones(3))
    assert flat.encode(y[:, 0]).shape == (3, 1)
    np.testing.assert_allclose(flat.predict(flat.encode(y[:, 0])), y[:, 0])


@pytest.mark.parametrize("scale, shift", [(1e-8, 0), (1e8, 0), (1.0, 1e6), (1e150, 0)])
def test_numbers_of_any_size(scale, shift):
    y = np.random.default_rng(0).normal(size=50) * scale + shift
    targets = Numbers.of(y, np.ones(50))
    codes = targets.encode(y)
    assert codes.std() == pytest.approx(1)
    np.testing.assert_allclose(targets.predict(codes), y)
