"""Checks of regressors."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

import numpy as np
from sklearn.utils import get_tags

from sktransfer.testing.expectations import close, expect, fitted, fresh
from sktransfer.testing.samples import Sample


def check_regressor_learns(estimator: Any, sample: Sample) -> None:
    """Half of the variance of the rows seen in `fit` is explained, and predictions are floats of y's shape."""
    X, y = list(sample.rows), sample.targets
    copy = fresh(estimator).fit(X, y)
    seen = np.asarray(copy.predict(X))
    expect(seen.shape == y.shape, "predict gives one number for each row", f"shape {seen.shape}")
    expect(seen.dtype.kind == "f", "predict gives floats", str(seen.dtype))
    if get_tags(estimator).regressor_tags.poor_score:
        raise SkipTest("the tags say that the score is poor")
    score = copy.score(X, y)
    expect(score > 0.5, "R squared of the rows of fit is above 0.5", f"{score:.3f}")


def check_integer_target(estimator: Any, sample: Sample) -> None:
    """Whole numbers in `y` give what the same numbers as floats give."""
    X, y = list(sample.rows), sample.topics
    wanted = fresh(estimator).fit(X, y.astype(float)).predict(X)
    close("integers in y give what floats give", wanted, np.asarray(fresh(estimator).fit(X, y.astype(int)).predict(X)))


def check_no_decision_function(estimator: Any, sample: Sample) -> None:
    """A regressor has none of a classifier's methods."""
    copy = fitted(estimator, sample)
    extra = [name for name in ("decision_function", "predict_proba", "predict_log_proba") if hasattr(copy, name)]
    expect(not extra, "a regressor has no methods of a classifier", ", ".join(extra))
