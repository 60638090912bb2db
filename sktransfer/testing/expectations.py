"""What the checks are made of: prepare an estimator, ask it, compare, expect an error."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor

from sktransfer._compat import set_random_state
from sktransfer.backbones.sources.loading import unload_backbones
from sktransfer.caching import cache_clear
from sktransfer.testing.samples import Sample

# Methods that answer with one entry for each row of X.
METHODS = ("transform", "predict", "predict_proba", "predict_log_proba", "decision_function", "score_samples")

# A row's result may depend on its batch mates by as much as the order of float32 sums does.
TOLERANCE = 1e-5


def fresh(estimator: Any) -> Any:
    """Clone, with fixed seeds: the checks compare runs with each other."""
    copy = clone(estimator)
    set_random_state(copy, random_state=0)
    if "warm_start" in copy.get_params(deep=False):
        copy.set_params(warm_start=False)
    return copy


def target_of(estimator: Any, sample: Sample) -> np.ndarray:
    """Return a `y` that fits the estimator."""
    if is_regressor(estimator):
        return sample.targets
    if is_classifier(estimator) and not reads_several_classes(estimator):
        return np.where(sample.topics == 0, "sea", "land")
    return sample.labels


def reads_several_classes(estimator: Any) -> bool:
    """Whether a classifier takes more than two classes."""
    return estimator.__sklearn_tags__().classifier_tags.multi_class


def is_supervised(estimator: Any) -> bool:
    """Whether the estimator learns from `y`."""
    return is_classifier(estimator) or is_regressor(estimator)


def fitted(estimator: Any, sample: Sample) -> Any:
    """Fit a clone to the plain rows."""
    copy = fresh(estimator)
    copy.fit(list(sample.rows), target_of(estimator, sample))
    return copy


def methods_of(estimator: Any) -> list[str]:
    """Return the methods that the estimator has and that give one entry for each row."""
    return [name for name in METHODS if hasattr(estimator, name)]


def answers(estimator: Any, X: Any) -> dict[str, np.ndarray]:
    """Call every method that gives one entry for each row."""
    return {name: np.asarray(getattr(estimator, name)(X)) for name in methods_of(estimator)}


def forget() -> None:
    """Empty the process's caches, so that the next call computes instead of remembering."""
    cache_clear()
    unload_backbones()
    gc.collect()


def same(contract: str, expected: dict[str, np.ndarray], seen: dict[str, np.ndarray]) -> None:
    """Compare the answers of two calls, method by method."""
    for name, wanted in expected.items():
        close(f"{contract} ({name})", wanted, seen[name])


def close(contract: str, expected: Any, seen: Any, tolerance: float = TOLERANCE) -> None:
    """Compare two results; numbers may differ by the tolerance, in units of the largest."""
    expected, seen = np.asarray(expected), np.asarray(seen)
    if expected.shape != seen.shape:
        raise AssertionError(f"{contract}: expected shape {expected.shape}, saw {seen.shape}.")
    if expected.dtype.kind == "f" and seen.dtype.kind == "f":
        finite = np.abs(expected[np.isfinite(expected)])
        scale = max(1.0, float(finite.max())) if finite.size else 1.0
        equal = np.isclose(seen, expected, rtol=0, atol=tolerance * scale, equal_nan=True)
    else:
        equal = np.asarray(expected == seen)
    if not equal.all():
        place = tuple(int(i) for i in np.argwhere(~equal)[0])
        raise AssertionError(
            f"{contract}: {np.count_nonzero(~equal)} of {equal.size} values differ, the first at {place}: expected "
            f"{expected[place].item()!r}, saw {seen[place].item()!r}."
        )


def expect(condition: Any, contract: str, seen: str) -> None:
    """Raise an AssertionError with the contract and what was seen instead."""
    if not condition:
        raise AssertionError(f"{contract}. Seen: {seen}.")


def refuses(
    contract: str,
    call: Callable[[], Any],
    errors: type[Exception] | tuple[type[Exception], ...],
    *words: str,
) -> None:
    """Expect an error of one of these types whose message has one of these words.

    Parameters
    ----------
    contract : str
        What is to be refused, and how.
    call : callable
        What must raise.
    errors : exception type or tuple of them
        What may be raised.
    *words : str
        One of them must be in the message, in capitals or not; none asks for nothing.
    """
    try:
        result = call()
    except errors as error:
        if words and not any(word.lower() in str(error).lower() for word in words):
            wanted = " or ".join(map(repr, words))
            raise AssertionError(
                f"{contract}, with a message that says {wanted}. Seen: {type(error).__name__}: {error}"
            ) from error
    except Exception as error:
        names = errors.__name__ if isinstance(errors, type) else " or ".join(one.__name__ for one in errors)
        raise AssertionError(f"{contract}, with {names}. Seen: {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{contract}. Seen: no error, but a result of type {type(result).__name__}.")
