"""Checks of sample_weight."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import SkipTest

import numpy as np
from sklearn.base import is_classifier

from sktransfer.testing.expectations import answers, close, expect, fresh, refuses, same, target_of
from sktransfer.testing.samples import ArrayProtocol, Sample, pandas


def check_weights_of_one(estimator: Any, sample: Sample) -> None:
    """Weights of 1 give what no weights and None give."""
    X, y = list(sample.rows), target_of(estimator, sample)
    wanted = answers(fresh(estimator).fit(X, y), X)
    for name, weights in (("None", None), ("ones", np.ones(len(X))), ("integer ones", np.ones(len(X), dtype=int))):
        same(f"sample_weight of {name} gives what none gives", wanted, answers(_fit(estimator, X, y, weights), X))


def check_weight_containers(estimator: Any, sample: Sample) -> None:
    """Weights in a list, a Series or an object with __array__ give what they give in an array."""
    X, y = list(sample.rows), target_of(estimator, sample)
    weights = _uneven(len(X))
    wanted = answers(_fit(estimator, X, y, weights), X)
    containers = {"a list": weights.tolist(), "an object with __array__": ArrayProtocol(weights)}
    try:
        containers["a pandas Series"] = pandas().Series(weights, index=range(50, 50 + len(X)))
    except SkipTest:
        pass  # the other containers are still worth a check
    for name, handed in containers.items():
        same(
            f"sample_weight in {name} gives what it gives in an array",
            wanted,
            answers(_fit(estimator, X, y, handed), X),
        )


def check_weights_unchanged(estimator: Any, sample: Sample) -> None:
    """`fit` leaves the weights as they were."""
    X, y = list(sample.rows), target_of(estimator, sample)
    weights = _uneven(len(X))
    _fit(estimator, X, y, weights)
    close("fit leaves sample_weight as it was", _uneven(len(X)), weights)


def check_weight_shape(estimator: Any, sample: Sample) -> None:
    """Weights of another length, or of two dimensions, are refused with a ValueError."""
    X, y = list(sample.rows), target_of(estimator, sample)
    for shape in ((2 * len(X),), (len(X) - 1,), (len(X), 2)):
        refuses(
            f"fit refuses sample_weight of shape {shape}", partial(_fit, estimator, X, y, np.ones(shape)), ValueError
        )


def check_weights_of_zero(estimator: Any, sample: Sample) -> None:
    """Weights that are all zero are refused with a ValueError that says so."""
    X, y = list(sample.rows), target_of(estimator, sample)
    refuses(
        "fit refuses weights that are all zero", partial(_fit, estimator, X, y, np.zeros(len(X))), ValueError, "zero"
    )


def check_weights_equal_copies(estimator: Any, sample: Sample) -> None:
    """A weight of k gives what k copies of the row give, and a weight of 0 what leaving it out gives."""
    X, y = list(sample.rows), target_of(estimator, sample)
    counts = np.random.default_rng(3).integers(0, 4, size=len(X))
    places = np.repeat(np.arange(len(X)), counts)
    wanted = answers(fresh(estimator).fit([X[place] for place in places], y[places]), X)
    seen = answers(_fit(estimator, X, y, counts.astype(float)), X)
    for name, values in wanted.items():
        # Solvers stop near the optimum, not at it.
        close(f"a weight of k is worth k copies of the row ({name})", values, seen[name], tolerance=1e-3)


def check_one_class_left_by_weights(estimator: Any, sample: Sample) -> None:
    """Where only one class has weight, it is predicted for all, or fit raises a ValueError about classes."""
    if not is_classifier(estimator):
        raise SkipTest("not a classifier")
    X, places = sample.pick(0, 1)
    y = target_of(estimator, sample)[places]
    kept = y == y[0]
    try:
        copy = _fit(estimator, X, y, kept.astype(float))
    except ValueError as error:
        expect("class" in str(error), "an error about one class left says 'class'", f"ValueError: {error}")
        return
    seen = set(np.asarray(copy.predict(X)).tolist())
    expect(seen == {y[0]}, "the only class with weight is predicted for all rows", f"{sorted(seen)}")


def _fit(estimator: Any, X: Any, y: Any, weights: Any) -> Any:
    return fresh(estimator).fit(X, y, sample_weight=weights)


def _uneven(n: int) -> np.ndarray:
    return np.linspace(0.5, 2.0, n)
