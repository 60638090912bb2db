"""Checks of y: how it may be handed over, and what is refused."""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from typing import Any
from unittest import SkipTest

import numpy as np
from sklearn.base import is_regressor
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import get_tags

from sktransfer.testing.expectations import (
    answers,
    close,
    expect,
    fitted,
    fresh,
    is_supervised,
    refuses,
    same,
    target_of,
)
from sktransfer.testing.samples import ArrayProtocol, Sample, pandas, polars


def check_methods_take_y(estimator: Any, sample: Sample) -> None:
    """Methods that a pipeline calls take `y` as their second argument, and work without it if it is not required."""
    X, y = list(sample.rows), target_of(estimator, sample)
    for name in ("fit", "fit_transform", "fit_predict", "partial_fit", "score"):
        if not hasattr(estimator, name):
            continue
        copy = fitted(estimator, sample) if name == "score" else fresh(estimator)
        arguments = list(inspect.signature(getattr(copy, name)).parameters)
        expect(arguments[1:2] in (["y"], ["Y"]), f"the second argument of {name} is y", f"arguments {arguments}")
        getattr(copy, name)(X, y)
    if not get_tags(estimator).target_tags.required:
        fresh(estimator).fit(X)


def check_y_required(estimator: Any, sample: Sample) -> None:
    """An estimator that learns from `y` refuses None with a ValueError about y."""
    if not get_tags(estimator).target_tags.required:
        raise SkipTest("the tags don't say that y is required")
    refuses("fit refuses y=None", partial(fresh(estimator).fit, list(sample.rows), None), ValueError, "y")


def check_y_length(estimator: Any, sample: Sample) -> None:
    """`y` of another length than `X` is refused with a ValueError."""
    X, y = list(sample.rows), target_of(estimator, sample)
    words = ("inconsistent", "length", "number of samples")
    refuses("fit refuses a y that is too short", partial(fresh(estimator).fit, X, y[:-1]), ValueError, *words)
    refuses("fit refuses a y that is too long", partial(fresh(estimator).fit, X[:-1], y), ValueError, *words)


def check_y_missing(estimator: Any, sample: Sample) -> None:
    """NaN, infinity and None in `y` are refused with a ValueError."""
    X = list(sample.rows)
    for value in (np.nan, np.inf):
        y = np.arange(len(X)) % 2.0
        y[4] = value
        refuses(f"fit refuses {value} in y", partial(fresh(estimator).fit, X, y), ValueError)
    missing = target_of(estimator, sample).astype(object)
    missing[4] = None
    refuses("fit refuses None in y", partial(fresh(estimator).fit, X, missing), (ValueError, TypeError))


def check_y_containers(estimator: Any, sample: Sample) -> None:
    """`y` in a list, an array of objects or a column of a frame gives what it gives in an array."""
    X, y = list(sample.rows), target_of(estimator, sample)
    wanted = answers(fitted(estimator, sample), X)
    # Numbers in an object array are refused by scikit-learn's own classifiers; strings are not.
    containers = {
        "a list": list(y.tolist()),
        "an object with __array__": ArrayProtocol(y),
        "a read-only array": _locked(y),
        "a strided array": np.repeat(y, 2)[::2],
    }
    for name, library in (("pandas", pandas), ("polars", polars)):
        try:
            containers[f"a {name} Series"] = library().Series(y.tolist())
        except SkipTest:
            continue
    for name, handed in containers.items():
        same(f"y in {name} gives what it gives in an array", wanted, answers(fresh(estimator).fit(X, handed), X))


def check_y_unchanged(estimator: Any, sample: Sample) -> None:
    """`fit` and `score` leave `y` as it was."""
    X, y = list(sample.rows), target_of(estimator, sample)
    for handed in (y.copy(), list(y.tolist())):
        copy = fresh(estimator).fit(X, handed)
        expect(list(handed) == list(y), "fit leaves y as it was", f"{list(handed)[:5]} instead of {list(y)[:5]}")
        if hasattr(copy, "score"):
            copy.score(X, handed)
            expect(list(handed) == list(y), "score leaves y as it was", f"{list(handed)[:5]} instead of {list(y)[:5]}")


def check_y_column(estimator: Any, sample: Sample) -> None:
    """`y` in a column of shape (n, 1) gives what a flat one gives, with a DataConversionWarning."""
    tags = get_tags(estimator).target_tags
    if not tags.single_output:
        raise SkipTest("the tags say that y is of two dimensions always")
    X, y = list(sample.rows), target_of(estimator, sample)
    wanted = fitted(estimator, sample).predict(X)
    copy = fresh(estimator)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        copy.fit(X, y.reshape(-1, 1))
    if not tags.multi_output:
        warned = any(issubclass(one.category, DataConversionWarning) for one in caught)
        expect(warned, "fit warns with a DataConversionWarning of a y of shape (n, 1)", f"{len(caught)} other warnings")
    close("a y of shape (n, 1) gives what a flat one gives", wanted.ravel(), np.asarray(copy.predict(X)).ravel())


def check_several_targets(estimator: Any, sample: Sample) -> None:
    """With the tag multi_output, `predict` gives as many columns as `y` has; without it several are refused."""
    X, y = list(sample.rows), target_of(estimator, sample)
    two = np.column_stack([y, y[::-1]])
    if not get_tags(estimator).target_tags.multi_output:
        refuses("fit refuses a y of two columns", partial(fresh(estimator).fit, X, two), ValueError)
        return
    seen = np.asarray(fresh(estimator).fit(X, two).predict(X))
    expect(seen.shape == two.shape, "predict gives a column for each target", f"shape {seen.shape} for {two.shape}")


def check_n_iter(estimator: Any, sample: Sample) -> None:
    """An estimator with the parameter `max_iter` says in `n_iter_` how many iterations it took."""
    if not hasattr(estimator, "max_iter"):
        raise SkipTest("there is no parameter max_iter")
    copy = fitted(estimator, sample)
    seen = getattr(copy, "n_iter_", 0)
    expect(np.all(np.asarray(seen) >= 1), "n_iter_ is at least 1 after fit", repr(seen))


def check_score(estimator: Any, sample: Sample) -> None:
    """`score` is accuracy for classifiers and R squared for regressors."""
    X, y = list(sample.rows), target_of(estimator, sample)
    copy = fitted(estimator, sample)
    if not is_supervised(estimator) or not hasattr(copy, "score"):
        raise SkipTest("there is no score")
    predicted = np.asarray(copy.predict(X))
    if is_regressor(estimator):
        wanted = 1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    else:
        wanted = np.mean(predicted == y)
    close("score is accuracy or R squared of predict", float(wanted), float(copy.score(X, y)))


def _locked(y: np.ndarray) -> np.ndarray:
    y = y.copy()
    y.flags.writeable = False
    return y
