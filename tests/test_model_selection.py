"""Rows with and without labels: stacked, masked, scored."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate

from sktransfer import DistilledClassifier
from sktransfer.model_selection import LabeledScorer, stack_unlabeled

PAIRS = {
    "list": (["a", "b"], ["c"]),
    "array": (np.zeros((2, 3)), np.ones((1, 3))),
    "images": (np.zeros((2, 4, 4, 3), np.uint8), np.ones((1, 4, 4, 3), np.uint8)),
    "series": (pd.Series(["a", "b"], name="t"), pd.Series(["c"], name="t")),
    "frame": (pd.DataFrame({"x": [1, 2], "t": ["a", "b"]}), pd.DataFrame({"t": ["c"], "x": [3]})),
    "numbered columns": (pd.DataFrame(np.zeros((2, 2))), pd.DataFrame(np.ones((1, 2)))),
    "types": (pl.DataFrame({"x": [1, 2]}), pl.DataFrame({"x": [3.5]})),
    "no name": (pd.Series(["a", "b"]), pd.Series(["c"])),
    "polars": (pl.DataFrame({"x": [1, 2]}), pl.DataFrame({"x": [3]})),
    "polars column": (pl.Series("t", ["a", "b"]), pl.Series("t", ["c"])),
    "sparse": (sparse.csr_array(np.eye(2)), sparse.csc_array(np.ones((1, 2)))),
}


@pytest.mark.parametrize("name", PAIRS)
def test_rows_are_stacked_in_their_own_type(name):
    first, second = PAIRS[name]
    X, y, sample_labeled = stack_unlabeled(first, ["p", "q"], second)
    assert type(X) is type(first) or sparse.issparse(X)
    assert (X.shape[0] if hasattr(X, "shape") else len(X)) == 3
    assert y.tolist()[:2] == ["p", "q"] and y[2] in ("p", "q")
    assert sample_labeled.tolist() == [True, True, False]
    if name == "frame":
        assert X.columns.tolist() == ["x", "t"] and X["x"].tolist() == [1, 2, 3] and X.index.tolist() == [0, 1, 2]


def test_targets_of_several_columns():
    _, y, _ = stack_unlabeled(np.zeros((2, 1)), np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((3, 1)))
    assert y.shape == (5, 2)


@pytest.mark.parametrize(
    "X, y, other, error, message",
    [
        (["a"], ["p"], np.array(["b"]), TypeError, "X is of type list and X_unlabeled of type ndarray"),
        (
            np.zeros((1, 2)),
            [0],
            np.zeros((1, 3)),
            ValueError,
            r"Rows of X have the shape \(2,\), those of X_unlabeled \(3,\)",
        ),
        (pd.DataFrame({"a": [1]}), [0], pd.DataFrame({"b": [1]}), ValueError, "X has the columns a, X_unlabeled b"),
        (["a", "b"], [0], ["c"], ValueError, "inconsistent numbers of samples"),
        ([], [], ["c"], ValueError, "X has no rows"),
    ],
)
def test_rows_that_do_not_fit_together(X, y, other, error, message):
    with pytest.raises(error, match=message):
        stack_unlabeled(X, y, other)


class Lying(DummyClassifier):
    """Right for rows of label 1, which it reads from X."""

    def predict(self, X):
        return np.asarray(X)[:, 0].astype(int)


def test_only_labelled_rows_are_scored():
    X = np.array([[0], [1], [1], [1]])
    y = np.array([0, 1, 0, 0])
    model = Lying().fit(X, y)
    with sklearn.config_context(enable_metadata_routing=True):
        assert LabeledScorer("accuracy")(model, X, y) == 0.5
    with pytest.raises(ValueError, match="only with sklearn.set_config"):
        LabeledScorer("accuracy")(model, X, y)
    assert LabeledScorer("accuracy")(model, X, y, sample_labeled=[True, True, False, False]) == 1.0
    assert LabeledScorer()(model, X, y, sample_labeled=[0, 1, 1, 0]) == 0.5
    with pytest.raises(ValueError, match="None of the rows to score has a label"):
        LabeledScorer("accuracy")(model, X, y, sample_labeled=np.zeros(4, bool))
    with pytest.raises(ValueError, match="needs one entry for each"):
        LabeledScorer("accuracy")(model, X, y, sample_labeled=[True])


def test_masks_reach_estimator_and_scorer_in_cross_validation_and_searches():
    rng = np.random.default_rng(0)
    X_own = rng.normal(size=(60, 3))
    X, y, sample_labeled = stack_unlabeled(X_own, (X_own[:, 0] > 0).astype(int), rng.normal(size=(90, 3)))
    y_wrong = np.where(sample_labeled, y, 1 - (X[:, 0] > 0))  # whoever reads these is wrong
    model = DistilledClassifier(LogisticRegression(), LogisticRegression())
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        params = {"sample_labeled": sample_labeled}
        found = cross_validate(model, X, y_wrong, cv=folds, scoring=LabeledScorer("accuracy"), params=params)
        assert found["test_score"].min() > 0.8
        plain = cross_validate(model, X, y_wrong, cv=folds, scoring="accuracy", params=params)
        assert plain["test_score"].max() < 0.6
        search = GridSearchCV(model, {"alpha": [0.1, 0.9]}, cv=folds, scoring=LabeledScorer("neg_log_loss"))
        search.fit(X, y_wrong, sample_labeled=sample_labeled)
        assert search.best_score_ > -0.5
