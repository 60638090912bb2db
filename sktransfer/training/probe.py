"""The probe: a linear model on frozen embeddings, where a head starts from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from sktransfer.caching.keys import digest

# Inverse strength of the penalty on standardised values, times their number: a prior on scores that does not depend
# on the length of the embedding.
PROBE_C = 10.0
_KEPT = 32


@dataclass(frozen=True)
class LinearProbe:
    """A linear map from standardised embeddings to outputs.

    Attributes
    ----------
    weight : ndarray of shape (n_outputs, n_features)
    bias : ndarray of shape (n_outputs,)
    """

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each value of the training rows' embeddings.

    Attributes
    ----------
    center, scale : ndarray of shape (n_features,)
    """

    center: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, weights: np.ndarray) -> Scaling:
        """Take the weighted mean and deviation; values that don't vary keep their size."""
        vectors = vectors.astype(np.float64)
        center = np.average(vectors, axis=0, weights=weights)
        deviation = np.sqrt(np.average((vectors - center) ** 2, axis=0, weights=weights))
        floor = 1e-6 * np.maximum(np.abs(center), deviation.max(initial=0.0))
        return cls(center, np.where(deviation > floor, deviation, 1.0))

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Standardise."""
        return (vectors - self.center) / self.scale


_lock = threading.Lock()
_recent: OrderedDict[bytes, LinearProbe] = OrderedDict()


def fit_probe(vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray, kind: str) -> LinearProbe:
    """Fit a linear model to standardised embeddings.

    In a search over rates and depths every candidate of a fold asks for the same one, so the last few are kept.

    Parameters
    ----------
    vectors : ndarray of shape (n, d)
        Standardised embeddings.
    targets : ndarray
        Of shape (n,), codes of classes from 0 on, for "classes"; (n, n_outputs) for "labels" (0 and 1) and "numbers".
    weights : ndarray of shape (n,)
        Weights of rows.
    kind : {"classes", "labels", "numbers"}
        What the targets are.

    Returns
    -------
    LinearProbe
        With one output for two classes, otherwise one for each class, label or number.

    Notes
    -----
    Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution",
    arXiv:2202.10054: a head that starts at random distorts the features while it catches up.
    """
    content = b"".join(
        repr((part.shape, part.dtype.str)).encode() + np.ascontiguousarray(part).tobytes()
        for part in (vectors, targets, weights)
    )
    key = digest(content, domain=b"probe " + kind.encode())
    with _lock:
        if key in _recent:
            _recent.move_to_end(key)
            return _recent[key]
    # BLAS with several threads on arrays this small mostly waits.
    with threadpool_limits(limits=1 if vectors.size < 1 << 20 else None, user_api="blas"):
        probe = _FIT[kind](vectors, targets, weights)
    with _lock:
        _recent[key] = probe
        while len(_recent) > _KEPT:
            _recent.popitem(last=False)
    return probe


def _fit_classes(vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LinearProbe:
    model = LogisticRegression(C=PROBE_C / vectors.shape[1], max_iter=1000)
    model.fit(vectors, targets, sample_weight=weights)
    return LinearProbe(model.coef_, model.intercept_)


def _fit_labels(vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LinearProbe:
    rows, bias = np.zeros((targets.shape[1], vectors.shape[1])), np.zeros(targets.shape[1])
    for label in range(targets.shape[1]):
        column = targets[:, label]
        if column.min() == column.max():
            # All alike: as sure as the number of rows allows (Laplace).
            bias[label] = (2 * column[0] - 1) * np.log(weights.sum() + 1)
        else:
            probe = _fit_classes(vectors, column.astype(np.int64), weights)
            rows[label], bias[label] = probe.weight[0], probe.bias[0]
    return LinearProbe(rows, bias)


def _fit_numbers(vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LinearProbe:
    model = Ridge(alpha=vectors.shape[1] / PROBE_C).fit(vectors, targets, sample_weight=weights)
    return LinearProbe(np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_))


_FIT = {"classes": _fit_classes, "labels": _fit_labels, "numbers": _fit_numbers}
