"""What distillation was worth: scores, agreement, size and speed on rows that nobody learned from."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from torch import nn

from sktransfer._compat import _safe_indexing
from sktransfer.backbones.sources.modules import ModuleBackbone
from sktransfer.caching.pickled import pickled_size
from sktransfer.distillation.teachers import combine, fit_weighted

_ROUNDS = 3


@dataclass(frozen=True)
class DistillationReport:
    """Teacher and student on the same rows, which neither the student nor a teacher that was fitted beside it has seen.

    Attributes
    ----------
    n_rows : int
        Number of these rows.
    metric : str
        What scores are: "accuracy" or "r2".
    teacher_score, student_score, alone_score : float
        Of the teacher, the student, and the same student fitted to the labels alone.
    agreement : float
        Share of rows for which student and teacher predict the same class; for numbers the correlation of predictions.
    teacher_bytes, student_bytes : int
        Weights of networks, pickles of everything else.
    teacher_seconds, student_seconds : float
        For 1,000 predictions, on this machine and without a cache of networks, unless they stand inside other estimators than
        pipelines: the best of three rounds over the rows.
    gain : float
        `student_score` less `alone_score`.
    gain_error : float
        Standard error of that gain over the rows, of accuracies; NaN for numbers.
    """

    n_rows: int
    metric: str
    teacher_score: float
    student_score: float
    alone_score: float
    agreement: float
    teacher_bytes: int
    student_bytes: int
    teacher_seconds: float
    student_seconds: float
    gain_error: float

    @property
    def gain(self) -> float:
        """What the teacher added to the student's score."""
        return self.student_score - self.alone_score

    @property
    def helped(self) -> bool:
        """Whether the student is better with the teacher, by more than one standard error where that is known."""
        return bool(self.gain > (self.gain_error if np.isfinite(self.gain_error) else 0.0))


def split_for_report(
    fraction: float | int,
    X: Any,
    y: np.ndarray,
    labelled: np.ndarray,
    weights: np.ndarray | None,
    seed: int | None,
    *,
    classifies: bool,
) -> tuple[tuple[Any, ...], tuple[Any, np.ndarray]]:
    """Hold back labelled rows.

    Returns
    -------
    kept : tuple
        X, y, labelled and weights of the others.
    held_out : tuple
        X and y of those held back.
    """
    places = np.flatnonzero(labelled)
    if len(places) < 2:
        raise ValueError("report_fraction needs at least two labelled rows: one to learn from, one to be judged by.")
    n_held_out = int(np.ceil(fraction * len(places))) if fraction < 1 else int(fraction)
    if n_held_out >= len(places):
        raise ValueError(
            f"report_fraction={fraction} of {len(places)} labelled rows holds back {n_held_out} of them, so that none is left "
            "to learn from. Make it smaller."
        )
    strata = None
    if classifies:
        counts = np.unique(y[places], return_counts=True)[1]
        if counts.min() > 1 and len(counts) <= min(n_held_out, len(places) - n_held_out):
            strata = y[places]
    _, held_out = train_test_split(places, test_size=fraction, random_state=seed, stratify=strata)
    kept = np.setdiff1d(np.arange(len(y)), held_out)
    if classifies and len(lost := np.setdiff1d(y[places], y[np.intersect1d(kept, places)])):
        raise ValueError(
            f"report_fraction={fraction} holds back all labelled rows of the class {lost.tolist()[0]!r}. Make it smaller."
        )
    weights_kept = None if weights is None else weights[kept]
    return (_safe_indexing(X, kept), y[kept], labelled[kept], weights_kept), (_safe_indexing(X, held_out), y[held_out])


def make_report(
    teachers: list[Any],
    student: Any,
    unfitted: Any,
    alone: tuple[Any, ...],
    held_out: tuple[Any, np.ndarray],
    ask: Any,
    teacher_weights: Any,
    classifies: bool,
) -> DistillationReport:
    """Fit the student alone, and score all three."""
    X, y = held_out
    X_own, y_own, _, weights = alone
    single = fit_weighted(clone(unfitted), X_own, y_own, weights)

    def taught(model: list[Any]) -> np.ndarray:
        answers = combine([ask(_uncached(one), X) for one in model], teacher_weights, classifies=classifies)
        return ask.classes[answers.argmax(axis=1)] if classifies else answers.reshape(y.shape)

    said, alone_said = _uncached(student).predict(X), _uncached(single).predict(X)
    told = taught(teachers)
    score = accuracy_score if classifies else r2_score
    error = float("nan")
    if classifies:
        differences = (said == y).astype(float) - (alone_said == y)
        error = float(differences.std(ddof=1) / np.sqrt(len(y))) if len(y) > 1 else float("nan")
        agreement = float(np.mean(said == told))
    else:
        varied = all(np.ptp(one) > 0 for one in (said, told))  # what never varies has no correlation
        agreement = float(np.corrcoef(np.ravel(said), np.ravel(told))[0, 1]) if varied else float("nan")
    return DistillationReport(
        n_rows=len(y),
        metric="accuracy" if classifies else "r2",
        teacher_score=float(score(y, told)),
        student_score=float(score(y, said)),
        alone_score=float(score(y, alone_said)),
        agreement=agreement,
        teacher_bytes=sum(map(size_of, teachers)),
        student_bytes=size_of(student),
        teacher_seconds=_seconds(lambda: taught(teachers), len(y)),
        student_seconds=_seconds(lambda: _uncached(student).predict(X), len(y)),
        gain_error=error,
    )


def _seconds(call: Any, n_rows: int) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return 1000 * best / n_rows


def _uncached(model: Any) -> Any:
    """Return a view of a fitted model that computes everything anew."""
    if isinstance(model, FrozenEstimator):
        return _uncached(model.estimator)
    if isinstance(model, Pipeline):
        view = copy.copy(model)
        view.steps = [(name, _uncached(step)) for name, step in model.steps]
        return view
    if getattr(model, "cache", None) is not None and hasattr(model, "__sktransfer_backbone__"):
        view = copy.copy(model)
        view.cache = None
        return view
    return model


def size_of(model: Any) -> int:
    """Return the bytes of a fitted model: weights of its networks, and the pickle of what is none."""
    if isinstance(model, FrozenEstimator):
        return size_of(model.estimator)
    if isinstance(model, ModuleBackbone):
        return size_of(model.module)
    if isinstance(model, nn.Module):
        return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
    if isinstance(model, Pipeline):
        return sum(size_of(step) for _, step in model.steps if hasattr(step, "fit"))
    head = getattr(getattr(model, "_network", None), "head", None)
    if head is not None:
        return size_of(model.__sktransfer_backbone__().network_to_read()) + size_of(head)
    return pickled_size(model)
