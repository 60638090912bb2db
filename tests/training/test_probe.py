import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from sktransfer.losses.supervised import binary_cross_entropy, cross_entropy, squared_error
from sktransfer.training import probe
from sktransfer.training.probe import PRIOR_VARIANCES, Scaling, fit_probe


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(probe, "_recent", type(probe._recent)())


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(60, 5))
    return vectors, vectors @ generator.normal(size=(5, 3)), generator.uniform(0.5, 2, 60)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes_are_a_logistic_regression(rows, n_classes):
    vectors, scores, weights = rows
    codes = scores[:, :n_classes].argmax(1)
    made = fit_probe(vectors, codes, weights, "classes")
    assert made.weight.shape == (1 if n_classes == 2 else 3, 5)
    model = LogisticRegression(C=1 / (made.penalty * weights.sum()), max_iter=1000).fit(vectors, codes, weights)
    told = vectors @ made.weight.T + made.bias
    np.testing.assert_allclose(told, model.decision_function(vectors).reshape(60, -1), atol=2e-2)


def strength(probe, weights, n_features=5):
    return n_features / (probe.penalty * weights.sum())


def test_the_penalty_is_chosen_by_cross_validation():
    generator = np.random.default_rng(0)
    vectors, weights = generator.normal(size=(120, 20)), np.ones(120)
    clear = (vectors[:, 0] > 0).astype(int)
    noise = generator.integers(0, 2, 120)
    assert strength(fit_probe(vectors, clear, weights, "classes"), weights, 20) >= 100
    assert strength(fit_probe(vectors, noise, weights, "classes"), weights, 20) == pytest.approx(PRIOR_VARIANCES[0])
    numbers = generator.normal(size=(120, 1))
    told = fit_probe(vectors, numbers, weights, "numbers")
    assert np.abs(told.weight).max() < 0.1
    assert told.penalty == pytest.approx(2 * 20 / PRIOR_VARIANCES[0] / 120)


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_the_probe_is_where_loss_and_penalty_are_lowest(rows, kind):
    vectors, scores, weights = rows
    scores = scores + np.random.default_rng(1).normal(scale=3, size=scores.shape)
    targets = {"classes": scores.argmax(1), "labels": (scores > 0).astype(int), "numbers": scores}[kind]
    probe = fit_probe(vectors, targets, weights, kind)
    loss = {"classes": cross_entropy, "labels": binary_cross_entropy, "numbers": squared_error}[kind]
    weight = torch.tensor(probe.weight, requires_grad=True)
    outputs = torch.tensor(vectors) @ weight.T + torch.tensor(probe.bias)
    target = torch.tensor(targets).to(torch.int64 if kind == "classes" else torch.float64)
    row_weights = torch.tensor(weights / weights.sum())
    total = (loss(outputs, target) * row_weights).sum() + 0.5 * probe.penalty * weight.square().sum()
    total.backward()
    of_penalty = probe.penalty * weight.detach().abs().max()
    assert weight.grad.abs().max() < of_penalty / 20


def test_classes_of_one_row_and_rows_all_alone():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(8, 3))
    for codes in ([0, 0, 0, 0, 0, 0, 0, 1], list(range(8)), [0, 0, 0, 1, 1, 1, 2, 3]):
        made = fit_probe(vectors, np.array(codes), np.ones(8), "classes")
        assert np.isfinite(made.weight).all()


def test_labels_all_alike_get_a_bias_alone(rows):
    vectors, scores, weights = rows
    labels = np.column_stack([scores[:, 0] > 0, np.ones(60), np.zeros(60)]).astype(int)
    made = fit_probe(vectors, labels, weights, "labels")
    predicted = vectors @ made.weight.T + made.bias > 0
    assert (predicted[:, 0] == labels[:, 0]).mean() > 0.9
    assert predicted[:, 1].all()
    assert not predicted[:, 2].any()
    assert np.isfinite(made.bias).all()


def test_numbers_are_a_ridge_regression(rows):
    vectors, scores, weights = rows
    for targets in (scores, scores[:, :1]):
        made = fit_probe(vectors, targets, weights, "numbers")
        assert made.weight.shape == (targets.shape[1], 5)
        error = vectors @ made.weight.T + made.bias - targets
        assert np.square(error).mean() < 0.05 * targets.var()


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_a_weight_of_k_is_k_copies(rows, kind):
    vectors, scores, _ = rows
    targets = {"classes": scores.argmax(1), "labels": (scores > 0).astype(int), "numbers": scores}[kind]
    counts = np.arange(60) % 3 + 1
    weighted = fit_probe(vectors, targets, counts.astype(float), kind)
    copied = fit_probe(np.repeat(vectors, counts, 0), np.repeat(targets, counts, 0), np.ones(counts.sum()), kind)
    np.testing.assert_array_equal(weighted.weight, copied.weight)


def test_the_same_question_is_answered_once_and_any_other_anew(rows, monkeypatch):
    vectors, scores, weights = rows
    codes = scores.argmax(1)
    fitted = []
    original = probe._FIT["classes"]
    monkeypatch.setitem(probe._FIT, "classes", lambda *args: fitted.append(1) or original(*args))
    first = fit_probe(vectors, codes, weights, "classes")
    assert fit_probe(vectors.copy(), codes.copy(), weights.copy(), "classes") is first
    assert len(fitted) == 1
    for other in (
        (vectors + 1e-9, codes, weights),
        (vectors, np.roll(codes, 1), weights),
        (vectors, codes, weights * 2),
        (vectors[:, ::-1], codes, weights),
    ):
        assert fit_probe(*other, "classes") is not first
    assert len(fitted) == 5


def test_few_are_kept(rows):
    vectors, scores, weights = rows
    for shift in range(probe._KEPT + 5):
        fit_probe(vectors + shift, scores, weights, "numbers")
    assert len(probe._recent) == probe._KEPT


def test_numbers_of_threads_stay(rows):
    vectors, scores, weights = rows
    before = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    fit_probe(vectors, scores, weights, "numbers")
    assert [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()] == before


def test_scaling_is_weighted_and_leaves_constants_alone():
    vectors = np.array([[1.0, 4.0, 1e5], [3.0, 4.0, 1e5 + 1e-4], [50.0, 4.0, 1e5]], np.float32)
    scaling = Scaling.of(vectors, np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(scaling.center[:2], [2, 4])
    assert scaling.scale == pytest.approx(np.sqrt(1 / 3))
    assert Scaling.of(vectors[:, 1:], np.ones(3)).scale == 1.0
    assert np.isfinite(scaling.apply(vectors)).all()


def test_few_rows_a_class_bring_no_warning_of_scikit_learns():
    generator = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n_classes in (10, 12, 15):
            fit_probe(generator.normal(size=(30, 5)), np.arange(30) % n_classes, np.ones(30), "classes")
