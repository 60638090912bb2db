"""Weights of rows in every estimator that takes some: only their shares count, whatever their size."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from support.estimators import ESTIMATORS

from sktransfer import DistilledClassifier, DistilledRegressor, FineTunedClassifier, FineTunedRegressor
from sktransfer._row_weights import of_mean_one, of_usual_size, times

N_ROWS = 12
X = np.random.default_rng(0).normal(size=(N_ROWS, 3))
CLASSES, NUMBERS = np.arange(N_ROWS) % 2, 3 * X[:, 0]
WEIGHTS = np.random.default_rng(1).uniform(0.5, 2, N_ROWS)
SUPERVISED = [listed for listed in ESTIMATORS if listed.targets(1) is not None]
over_all = pytest.mark.parametrize("listed", SUPERVISED, ids=lambda listed: listed.name)


@pytest.fixture(scope="module")
def source():
    return FineTunedClassifier(max_epochs=1, random_state=0).fit(X, CLASSES)


def models(source):
    quick = {"max_epochs": 2, "random_state": 0, "freeze_depth": 0}
    classifier, regressor = FineTunedClassifier(source, **quick), FineTunedRegressor(source, **quick)
    return {
        "untrained": FineTunedClassifier(**quick),
        "tuned": classifier,
        "frozen": FineTunedClassifier(source, freeze_depth="all"),
        "balanced": FineTunedClassifier(source, **quick, class_weight="balanced"),
        "held back": FineTunedClassifier(source, **quick, early_stopping=True, validation_fraction=0.3),
        "regressor": regressor,
        "distilled": DistilledClassifier(classifier, classifier),
        "distilled regressor": DistilledRegressor(regressor, regressor),
        "of scikit-learn": DistilledClassifier(LogisticRegression(), LogisticRegression(), cv=2),
        "regressor of scikit-learn": DistilledRegressor(Ridge(), Ridge()),
    }


NAMES = ["untrained", "tuned", "frozen", "balanced", "held back", "regressor", "distilled", "distilled regressor",
         "of scikit-learn", "regressor of scikit-learn"]  # fmt: skip


def answers(model, weights):
    y = NUMBERS if "egressor" in type(model).__name__ else CLASSES
    fitted = model.fit(X, y, sample_weight=weights)
    return getattr(fitted, "predict_proba", fitted.predict)(X), fitted.score(X, y, sample_weight=weights)


@pytest.mark.parametrize("name", NAMES)
def test_alike_weights_of_any_size_are_weights_of_one(source, name):
    model = models(source)[name]
    expected, score = answers(model, np.ones(N_ROWS))
    for size in (5e-324, 1e-320, 1.7e308):
        made, its_score = answers(model, np.full(N_ROWS, size))
        np.testing.assert_array_equal(made, expected)
        assert its_score == score
    np.testing.assert_array_equal(answers(model, np.ones(N_ROWS, dtype=bool))[0], expected)
    np.testing.assert_array_equal(answers(model, 1)[0], expected)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_any_size_count_by_their_shares(source, name):
    model = models(source)[name]
    expected = answers(model, WEIGHTS / WEIGHTS.mean())[0]
    for size in (1e-300, 8e307):
        np.testing.assert_allclose(answers(model, WEIGHTS * size)[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_share_that_is_lost_in_rounding(source, name):
    weights = np.full(N_ROWS, 1.7e308)
    weights[3] = 1e-320
    assert np.isfinite(answers(models(source)[name], weights)[0]).all()


def test_a_class_whose_share_is_lost_in_rounding_stays_a_class(source):
    weights = np.where(CLASSES == 1, 1e-320, 1.7e308)
    assert FineTunedClassifier(source, freeze_depth="all").fit(X, CLASSES, weights).classes_.tolist() == [0, 1]


def test_weights_of_validation_rows_and_classes(source):
    model = FineTunedClassifier(source, max_epochs=1, random_state=0)
    losses = [
        model.fit(X, CLASSES, X_val=X, y_val=CLASSES, sample_weight_val=weights).history_[-1]["valid_loss"]
        for weights in (None, np.full(N_ROWS, 1e-320), np.full(N_ROWS, 1.7e308))
    ]
    assert losses[0] == losses[1] == losses[2]
    model = FineTunedClassifier(source, freeze_depth="all")
    expected = model.set_params(class_weight={0: 1.0, 1: 2.0}).fit(X, CLASSES).predict_proba(X)
    for size in (4e-324, 8e307):
        found = model.set_params(class_weight={0: size, 1: 2 * size}).fit(X, CLASSES).predict_proba(X)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@over_all
@pytest.mark.parametrize(
    "make",
    [
        lambda: [np.nan] + [1] * 11,
        lambda: [np.inf] + [1] * 11,
        lambda: [None] + [1] * 11,
        lambda: pd.Series([None] + [1] * 11, dtype="Int64"),
        lambda: pl.Series([None] + [1] * 11),
        lambda: [-1] + [1] * 11,
        lambda: np.zeros(12),
        lambda: np.nan,
        lambda: "balanced",
        lambda: ["a"] * 12,
        lambda: [1] * 11,
        lambda: np.ones((12, 1)),
        lambda: np.ones(12) * 1j,
        lambda: np.arange(12).astype("M8[D]"),
        lambda: [10**400] * 12,
        lambda: (1 for _ in range(12)),
        lambda: {0: 1, 1: 2},
        lambda: torch.ones(12, requires_grad=True),
    ],
)
def test_what_is_no_weight_is_refused_by_name(listed, make):
    y = listed.targets(N_ROWS)
    with pytest.raises((ValueError, TypeError), match="sample_weight"):
        listed.make().fit(X, y, sample_weight=make())
    if "Distilled" not in listed.name:
        with pytest.raises((ValueError, TypeError), match="sample_weight_val"):
            listed.make().fit(X, y, X_val=X, y_val=y, sample_weight_val=make())


def test_weights_that_can_be_computed_with_stay_what_they_are():
    counts = np.array([0.0, 1, 2, 3])
    assert of_usual_size(counts) is counts
    for size in (5e-324, 1e-9, 1e9, 1.7e308):
        np.testing.assert_array_equal(of_usual_size(np.full(3, size)), np.ones(3))


def test_a_product_above_zero_stays_above_zero():
    weights, factors = np.array([1e300, 1e-20, 0]), np.array([1e300, 1e-300, 1])
    product = times(weights, factors)
    assert (product > 0).tolist() == [True, True, False] and np.isfinite(product).all()
    assert of_mean_one(np.array([2.0, 6.0])).tolist() == [0.5, 1.5]
