"""The probe: a linear model on frozen embeddings, where a head starts from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from sktransfer._locks import ProcessLock
from sktransfer.caching.keys import digest

# Inverse strengths of the penalty times the length of the embedding: for values of size 1 the prior variance of a score,
# whatever that length.
PRIOR_VARIANCES = (0.1, 1.0, 10.0, 100.0, 1000.0)
_USUAL = 10.0
_N_FOLDS = 5
_MANY_ROWS = 2000
# For each row: with more, folds tell little, and scikit-learn warns of numbers taken for classes.
_MOST_CLASSES = 0.4
_KEPT = 32
_HIGHEST_TEMPERATURE = 100.0


@dataclass(frozen=True)
class LinearProbe:
    """A linear map from scaled embeddings to outputs.

    Attributes
    ----------
    weight : ndarray of shape (n_outputs, n_features)
    bias : ndarray of shape (n_outputs,)
    penalty : float
        The probe is where the weighted mean loss of rows plus half of this times the squared norm of `weight` is lowest.
    temperature : float, default=1.0
        Scores divided by it have the loss on the training rows that cross-validation found on held-out rows. 1 where
        there was no cross-validation, and for numbers.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float
    temperature: float = 1.0


@dataclass(frozen=True)
class Scaling:
    """Mean of the training rows' embeddings, and one scale for all of their values.

    Values that vary more are those that the network was taught to tell rows by, so their sizes are left as they are to
    each other.

    Attributes
    ----------
    center : ndarray of shape (n_features,)
    scale : float
        Root of the mean square of deviations; 1 where nothing varies.
    """

    center: np.ndarray
    scale: float

    @classmethod
    def of(cls, vectors: np.ndarray, weights: np.ndarray) -> Scaling:
        """Take weighted means and deviation."""
        vectors = vectors.astype(np.float64)
        center = np.average(vectors, axis=0, weights=weights)
        scale = float(np.sqrt(np.average(((vectors - center) ** 2).mean(axis=1), weights=weights)))
        return cls(center, scale if scale > 1e-6 * np.abs(center).max(initial=0.0) else 1.0)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Center and scale."""
        return (vectors - self.center) / self.scale


_lock = ProcessLock("the last probes")
_recent: OrderedDict[bytes, LinearProbe] = OrderedDict()


def fit_probe(
    vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray, kind: str, n_classes: int | None = None
) -> LinearProbe:
    """Fit a linear model to scaled embeddings, with the strength of its penalty chosen by cross-validation.

    In a search over rates and depths every candidate of a fold asks for the same one, so the last few are kept.

    Parameters
    ----------
    vectors : ndarray of shape (n, d)
        Embeddings, centered and of a size of about 1.
    targets : ndarray
        Of shape (n,), codes of classes from 0 on, for "classes"; (n, n_outputs) for "labels" (0 and 1) and "numbers".
    weights : ndarray of shape (n,)
        Weights of rows.
    kind : {"classes", "labels", "numbers"}
        What the targets are.
    n_classes : int, optional
        Number of classes, where there may be some without a row; those are then held to be improbable.

    Returns
    -------
    LinearProbe
        With one output for two classes, otherwise one for each class, label or number.

    Notes
    -----
    The penalty is the one of five with the lowest loss in five folds, or in one of them with 2,000 rows or more; a middle one
    where there are fewer than 2.5 rows a class. Rows
    that are equal count as one of their weights' sum, so that a row's copy never judges it. Weights count by their shares.

    Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform out-of-distribution",
    arXiv:2202.10054: a head that starts at random distorts the features while it catches up.
    """
    if kind == "classes" and n_classes is not None:
        present, codes = np.unique(targets, return_inverse=True)
        if len(present) < n_classes:
            probe = None if len(present) == 1 else fit_probe(vectors, codes, weights, kind)
            return _with_absent(probe, present, n_classes, vectors.shape)
    return _remembered(kind, _FIT[kind], vectors, targets, weights)


def _remembered(
    kind: str,
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray], LinearProbe],
    vectors: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
) -> LinearProbe:
    """Fit a probe to distinct rows, or return it if it is among the last few."""
    content = b"".join(
        repr((part.shape, part.dtype.str)).encode() + np.ascontiguousarray(part).tobytes()
        for part in (vectors, targets, weights)
    )
    key = digest(content, domain=b"probe " + kind.encode())
    with _lock:
        if key in _recent:
            _recent.move_to_end(key)
            return _recent[key]
    vectors, targets, weights = _distinct(vectors, targets, weights)
    # BLAS with several threads on arrays this small mostly waits.
    with threadpool_limits(limits=1 if vectors.size < 1 << 20 else None, user_api="blas"):
        probe = fit(vectors, targets, weights)
    with _lock:
        _recent[key] = probe
        while len(_recent) > _KEPT:
            _recent.popitem(last=False)
    return probe


def _with_absent(probe: LinearProbe | None, present: np.ndarray, n_classes: int, shape: tuple[int, ...]) -> LinearProbe:
    """Give a probe classes that had no row, as improbable as the number of rows makes them (Laplace)."""
    n_rows, n_features = shape
    rows, bias = np.zeros((n_classes, n_features)), np.zeros(n_classes)
    if probe is not None:
        one = len(probe.weight) == 1
        rows[present] = np.outer([-0.5, 0.5], probe.weight[0]) if one else probe.weight
        bias[present] = np.array([-0.5, 0.5]) * probe.bias[0] if one else probe.bias
    bias[np.setdiff1d(np.arange(n_classes), present)] = bias[present].min() - np.log(n_rows + 1)
    penalty, temperature = (0.0, 1.0) if probe is None else (probe.penalty, probe.temperature)
    if n_classes == 2:
        return LinearProbe(rows[1:] - rows[:1], bias[1:] - bias[:1], penalty, temperature)
    return LinearProbe(rows, bias, penalty, temperature)


def _distinct(
    vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort rows, put equal ones into one, and bring the mean weight to 1."""
    joined = np.column_stack([vectors, targets])
    _, first, places = np.unique(joined, axis=0, return_index=True, return_inverse=True)
    weights = np.bincount(places.ravel(), weights)
    return vectors[first], targets[first], weights / weights.mean()


def _folds(order: np.ndarray, may_be_held_out: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield masks of the rows to learn from and indices of those held out, dealing rows out in their order."""
    fold = np.empty(len(order), int)
    fold[order] = np.arange(len(order)) % _N_FOLDS
    fold[~may_be_held_out] = -1
    for number in range(1 if len(order) >= _MANY_ROWS else _N_FOLDS):
        held_out = np.flatnonzero(fold == number)
        if len(held_out):
            yield fold != number, held_out


def _best(losses: np.ndarray) -> float:
    """Return the prior variance of the lowest loss; losses that are all alike don't tell."""
    return _USUAL if np.ptp(losses) == 0 else PRIOR_VARIANCES[int(losses.argmin())]


def _class_losses(vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the sum of held-out losses for each strength of the penalty, and the weight of the rows in it."""
    losses, counts, total = np.zeros(len(PRIOR_VARIANCES)), np.bincount(targets), 0.0
    if len(counts) > _MOST_CLASSES * len(targets):
        return losses, total
    # The only row of a class is there to learn from.
    for learned, held_out in _folds(np.argsort(targets, kind="stable"), counts[targets] > 1):
        model = LogisticRegression(tol=1e-3, max_iter=1000, warm_start=True)
        for place, variance in enumerate(PRIOR_VARIANCES):
            model.set_params(C=variance / vectors.shape[1]).fit(vectors[learned], targets[learned], weights[learned])
            told = model.predict_proba(vectors[held_out])[np.arange(len(held_out)), targets[held_out]]
            losses[place] -= weights[held_out] @ np.log(np.maximum(told, 1e-40))
        total += float(weights[held_out].sum())
    return losses, total


def _temperature(training_loss: Callable[[float], float], losses: np.ndarray, total: float) -> float:
    """Return what scores are divided by for the training loss to be the lowest held-out loss (Guo et al. 2017)."""
    if not total:
        return 1.0

    def excess(logarithm: float) -> float:
        return training_loss(float(np.exp(logarithm))) - float(losses.min()) / total

    most = float(np.log(_HIGHEST_TEMPERATURE))
    if excess(0.0) >= 0:
        return 1.0
    return _HIGHEST_TEMPERATURE if excess(most) <= 0 else float(np.exp(brentq(excess, 0.0, most, xtol=1e-3)))


def _fit_classes(vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LinearProbe:
    losses, total = _class_losses(vectors, targets, weights)
    strength = _best(losses) / vectors.shape[1]
    model = LogisticRegression(C=strength, max_iter=1000).fit(vectors, targets, weights)
    scores = model.decision_function(vectors)
    scores = np.column_stack([np.zeros(len(scores)), scores]) if scores.ndim == 1 else scores

    def training_loss(temperature: float) -> float:
        losses = -log_softmax(scores / temperature, axis=1)[np.arange(len(targets)), targets]
        return float(np.average(losses, weights=weights))

    temperature = _temperature(training_loss, losses, total)
    return LinearProbe(model.coef_, model.intercept_, 1 / (strength * weights.sum()), temperature)


def _fit_labels(vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LinearProbe:
    columns = targets.T.astype(np.int64)
    mixed = [place for place, column in enumerate(columns) if column.min() != column.max()]
    found = [_class_losses(vectors, columns[place], weights) for place in mixed]
    losses = sum((one for one, _ in found), np.zeros(len(PRIOR_VARIANCES)))
    strength = _best(losses) / vectors.shape[1]
    # Labels that are all alike: as confident as the number of rows allows (Laplace).
    bias = (2.0 * columns[:, 0] - 1) * np.log(weights.sum() + 1)
    rows = np.zeros((len(columns), vectors.shape[1]))
    for place in mixed:
        model = LogisticRegression(C=strength, max_iter=1000).fit(vectors, columns[place], weights)
        rows[place], bias[place] = model.coef_[0], model.intercept_[0]
    signed = (1 - 2 * targets[:, mixed]) * (vectors @ rows[mixed].T + bias[mixed])

    def training_loss(temperature: float) -> float:
        return float(np.average(np.logaddexp(0, signed / temperature).mean(axis=1), weights=weights))

    temperature = _temperature(training_loss, losses, sum(total for _, total in found))
    # The loss of a row is the mean over its labels.
    return LinearProbe(rows, bias, 1 / (strength * weights.sum() * len(columns)), temperature)


def _fit_numbers(vectors: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LinearProbe:
    n_rows, n_features = vectors.shape
    losses = np.zeros(len(PRIOR_VARIANCES))
    for learned, held_out in _folds(np.arange(n_rows), np.full(n_rows, n_rows > 1)):
        for place, variance in enumerate(PRIOR_VARIANCES):
            model = Ridge(alpha=n_features / variance).fit(vectors[learned], targets[learned], weights[learned])
            error = model.predict(vectors[held_out]).reshape(len(held_out), -1) - targets[held_out]
            losses[place] += weights[held_out] @ np.square(error).sum(1)
    alpha = n_features / _best(losses)
    model = Ridge(alpha=alpha).fit(vectors, targets, weights)
    rows, bias = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    # The loss of a row is the mean over its outputs, and ridge regression's lacks the half.
    return LinearProbe(rows, bias, 2 * alpha / (weights.sum() * len(rows)))


_FIT = {"classes": _fit_classes, "labels": _fit_labels, "numbers": _fit_numbers}
