"""Weights of rows: checked, and brought to a size that can be computed with."""

from __future__ import annotations

from typing import Any

import numpy as np

from sktransfer._compat import _check_sample_weight
from sktransfer._labels import check_container

# A weight that is not 0 stays above it, however small its share.
_LEAST = float(np.finfo(np.float64).tiny)
# Beyond it sums of weights, and penalties that are compared with them, lose their precision.
_USUAL = (1e-6, 1e6)


def check_row_weights(sample_weight: Any, X: Any, name: str = "sample_weight") -> np.ndarray:
    """Return weights of rows as an array; 1 each where there are none.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), number or None
        What each row counts.
    X : rows
        The rows.
    name : str, default="sample_weight"
        What they are called.

    Raises
    ------
    ValueError
        If they are not one number a row, finite and not negative.
    TypeError
        If the container has no order.
    """
    if sample_weight is not None:
        check_container(sample_weight, name)
    if getattr(getattr(sample_weight, "dtype", None), "kind", "") in ("m", "M"):
        raise TypeError(f"{name} holds {sample_weight.dtype}, which are no weights. Pass one number a row.")
    try:
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: {error}" if name not in str(error) else str(error)) from error
    if not np.isfinite(weights).all():  # a single number is not looked at there
        raise ValueError(f"{name} must be finite. Got {sample_weight!r}.")
    return weights


def of_mean_one(weights: np.ndarray) -> np.ndarray:
    """Bring the mean to 1, since only shares count; a share that is too small to be told stays above 0."""
    largest = weights.max(initial=0.0)
    if not largest:
        return weights
    shares = np.where(weights > 0, np.maximum(weights / largest, _LEAST), 0.0)
    return shares / shares.mean()


def of_any_size(sample_weight: Any, X: Any) -> np.ndarray | None:
    """Return weights for a score, whose sums can be computed; None where there are none."""
    return None if sample_weight is None else of_mean_one(check_row_weights(sample_weight, X))


def times(weights: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Multiply weights by factors of any size, up to a common factor."""
    product = of_mean_one(weights) * of_mean_one(factors)
    return np.where((weights > 0) & (factors > 0), np.maximum(product, _LEAST), 0.0)


def of_usual_size(weights: np.ndarray) -> np.ndarray:
    """Bring the mean to 1 where weights are far from it.

    Estimators of scikit-learn set weights against a penalty, so that a weight of 2 is worth two rows; that is kept where it
    can be computed.
    """
    largest = weights.max(initial=0.0)
    if not largest:
        return weights
    mean = largest * float((weights[weights > 0] / largest).mean())
    return weights if _USUAL[0] <= mean <= _USUAL[1] else of_mean_one(weights)
