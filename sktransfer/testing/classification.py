"""Checks of classifiers."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import SkipTest

import numpy as np
from scipy.stats import rankdata
from sklearn.utils import get_tags

from sktransfer.testing.expectations import (
    TOLERANCE,
    close,
    expect,
    fitted,
    fresh,
    reads_several_classes,
    refuses,
    target_of,
)
from sktransfer.testing.samples import Sample


def check_classes(estimator: Any, sample: Sample) -> None:
    """Labels may be str, int or bool; `classes_` holds them sorted, and `predict` gives one of them, in their type."""
    X, places = sample.pick(0, 1)
    first = sample.topics[places] == 0
    problems = {
        "str": np.where(first, "yes", "no"),
        "str objects": np.where(first, "yes", "no").astype(object),
        "-1 and 1": np.where(first, -1, 1),
        "7 and 3": np.where(first, 7, 3),
        "float": np.where(first, 1.0, 0.0),
        "bool": first,
    }
    for name, y in problems.items():
        copy = fresh(estimator).fit(X, y)
        classes = np.asarray(copy.classes_)
        expect(list(classes) == sorted(set(y.tolist())), f"classes_ holds the labels ({name}), sorted", repr(classes))
        predicted = np.asarray(copy.predict(X))
        unknown = set(predicted.tolist()) - set(y.tolist())
        expect(not unknown, f"predict gives labels of y ({name})", repr(unknown))
        expect(predicted.shape == (len(X),), "predict gives one label for each row", f"shape {predicted.shape}")
        kinds = predicted.dtype.kind, classes.dtype.kind
        expect(
            kinds[0] == kinds[1],
            f"labels ({name}) keep their type",
            f"predicted {predicted.dtype}, classes {classes.dtype}",
        )
    if reads_several_classes(estimator):
        copy = fresh(estimator).fit(list(sample.rows), sample.labels)
        expect(list(copy.classes_) == ["kitchen", "music", "sea"], "classes_ is sorted", repr(copy.classes_))
    else:
        refuses(
            "fit refuses three classes, as the tag multi_class is False",
            partial(fresh(estimator).fit, list(sample.rows), sample.labels),
            ValueError,
            "only binary",
        )


def check_classifier_learns(estimator: Any, sample: Sample) -> None:
    """Rows seen in `fit` get their own label in 5 of 6 cases, with two classes and with three."""
    if get_tags(estimator).classifier_tags.poor_score:
        raise SkipTest("the tags say that the score is poor")
    X, y = list(sample.rows), target_of(estimator, sample)
    two, places = sample.pick(0, 1)
    for rows, labels in ((X, y), (two, y[places])):
        accuracy = np.mean(np.asarray(fresh(estimator).fit(rows, labels).predict(rows)) == labels)
        expect(
            accuracy > 5 / 6, f"the rows of fit are told apart ({len(set(labels))} classes)", f"accuracy {accuracy:.3f}"
        )


def check_predict_proba(estimator: Any, sample: Sample) -> None:
    """`predict_proba` has a column for each class, sums to 1, and is largest for what `predict` gives."""
    if not hasattr(fitted(estimator, sample), "predict_proba"):
        raise SkipTest("there is no predict_proba")
    for X, y in _problems(estimator, sample):
        copy = fresh(estimator).fit(X, y)
        rows = X + sample.odd_rows
        shares = np.asarray(copy.predict_proba(rows))
        shape = (len(rows), len(copy.classes_))
        expect(
            shares.shape == shape, "predict_proba has a row for each row and a column for each class", f"{shares.shape}"
        )
        expect(
            (shares >= 0).all() and (shares <= 1).all(),
            "probabilities lie in [0, 1]",
            f"{shares.min()}..{shares.max()}",
        )
        close("probabilities of a row sum to 1", np.ones(len(rows)), shares.sum(axis=1))
        close("predict gives the most probable class", copy.classes_[shares.argmax(axis=1)], copy.predict(rows))
        if hasattr(copy, "predict_log_proba"):
            logs = np.asarray(copy.predict_log_proba(rows))
            close("predict_log_proba is the logarithm of predict_proba", shares, np.exp(logs))


def check_decision_function(estimator: Any, sample: Sample) -> None:
    """`decision_function` agrees with `predict`, and orders rows as `predict_proba` does."""
    if not hasattr(fitted(estimator, sample), "decision_function"):
        raise SkipTest("there is no decision_function")
    for X, y in _problems(estimator, sample):
        copy = fresh(estimator).fit(X, y)
        scores = np.asarray(copy.decision_function(X))
        if len(copy.classes_) > 2:
            shape = (len(X), len(copy.classes_))
            expect(scores.shape == shape, "decision_function has a column for each class", f"shape {scores.shape}")
            close("predict gives the class of the highest score", copy.classes_[scores.argmax(axis=1)], copy.predict(X))
            continue
        expect(
            scores.shape == (len(X),), "decision_function of two classes has one value for each row", f"{scores.shape}"
        )
        close(
            "predict gives classes_[1] where the score is positive",
            copy.classes_[(scores > 0).astype(int)],
            copy.predict(X),
        )
        if hasattr(copy, "predict_proba"):
            shares = np.asarray(copy.predict_proba(X))[:, 1]
            ordered = scores[np.argsort(rankdata(shares), kind="stable")]
            # Probabilities near 0 and 1 are rounded to ties; within a tie scores may be in any order.
            falls = (np.diff(ordered) < 0) & (np.diff(np.sort(shares)) > TOLERANCE)
            expect(not falls.any(), "predict_proba grows with decision_function", f"{np.count_nonzero(falls)} falls")


def check_one_class(estimator: Any, sample: Sample) -> None:
    """With one class in `y`, it is predicted for all rows, or fit raises a ValueError about classes."""
    X = list(sample.rows)
    try:
        copy = fresh(estimator).fit(X, np.full(len(X), "only"))
    except ValueError as error:
        expect("class" in str(error), "an error about one class says 'class'", f"ValueError: {error}")
        return
    seen = set(np.asarray(copy.predict(X)).tolist())
    expect(seen == {"only"}, "the only class is predicted for all rows", f"{sorted(seen)}")
    if hasattr(copy, "predict_proba"):
        shares = np.asarray(copy.predict_proba(X))
        close("the only class has probability 1", np.ones((len(X), 1)), shares.astype(float))


def check_continuous_target(estimator: Any, sample: Sample) -> None:
    """A classifier refuses numbers to regress on with a ValueError about label types."""
    refuses(
        "fit of a classifier refuses continuous numbers",
        partial(fresh(estimator).fit, list(sample.rows), sample.targets + 0.123),
        ValueError,
        "unknown label type",
        "continuous",
    )


def check_class_weight(estimator: Any, sample: Sample) -> None:
    """A class with a large `class_weight` is predicted for all; "balanced" is what its formula gives."""
    if "class_weight" not in estimator.get_params(deep=False):
        raise SkipTest("there is no parameter class_weight")
    X, places = sample.pick(0, 1)
    y = np.where(sample.topics[places] == 0, "rare", "usual")
    # Labels that can't be learned: what decides is the weight.
    mixed = np.where(np.arange(len(X)) % 4 < 2, "rare", "usual")
    heavy = fresh(estimator).set_params(class_weight={"rare": 1000.0, "usual": 0.001}).fit(X, mixed)
    if not get_tags(estimator).classifier_tags.poor_score:
        share = np.mean(np.asarray(heavy.predict(X)) == "rare")
        expect(share > 0.87, "a class with a million times the weight is predicted for nearly all", f"for {share:.2f}")
    X, y = X[:-5], y[:-5]
    formula = {str(label): len(y) / (2 * np.count_nonzero(y == label)) for label in np.unique(y)}
    balanced = fresh(estimator).set_params(class_weight="balanced").fit(X, y)
    by_hand = fresh(estimator).set_params(class_weight=formula).fit(X, y)
    method = "predict_proba" if hasattr(balanced, "predict_proba") else "predict"
    close(
        "class_weight='balanced' is n_samples / (n_classes * count)",
        getattr(by_hand, method)(X),
        getattr(balanced, method)(X),
    )


def _problems(estimator: Any, sample: Sample) -> list[tuple[list[Any], np.ndarray]]:
    """Two classes, and three where the estimator takes them."""
    X, places = sample.pick(0, 2)
    problems = [(X, sample.labels[places])]
    if reads_several_classes(estimator):
        problems.append((list(sample.rows), sample.labels))
    return problems
