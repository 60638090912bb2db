"""Students: an estimator and a lesson of rows with soft targets in, the fitted estimator out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from sktransfer.backbones.rows import about
from sktransfer.caching import resolve_cache
from sktransfer.fine_tuning import FineTunedClassifier, FineTunedRegressor
from sktransfer.runtime.device import resolve_device
from sktransfer.teachers import estimator_type, fit_weighted, has_method, is_search, takes_weights
from sktransfer.training.targets import Classes, Numbers, Taught, Teaching
from sktransfer.tuned_estimator import TunedEstimator

# A class that has less than this of a row's weight is not worth a copy of the row.
_SMALLEST_SHARE = 1e-4


@dataclass(frozen=True)
class Lesson:
    """What a student learns from.

    Attributes
    ----------
    y : ndarray of shape (n,) or (n, n_targets)
        The caller's targets; where a row has none, what the teacher says of it.
    labelled : ndarray of shape (n,), bool
        Whether the target is the caller's.
    answers : ndarray of shape (n, n_answers)
        The teacher's: logarithms of probabilities in the order of `classes`, or numbers.
    weights : ndarray of shape (n,) or None
        What each row counts.
    classes : ndarray or None
        All classes, the teacher's and the caller's; None for numbers.
    hints : ndarray of shape (n, n_hints) or None
        The teacher's features.
    teaching : Teaching
        How it is all weighed.
    lineage : dict
        What the student's lineage says of it.
    """

    y: np.ndarray
    labelled: np.ndarray
    answers: np.ndarray
    weights: np.ndarray | None
    classes: np.ndarray | None
    hints: np.ndarray | None
    teaching: Teaching
    lineage: dict[str, Any]

    @property
    def mixed(self) -> np.ndarray:
        """Numbers at which the loss of each row is lowest: between its target and the teacher's answer."""
        alpha = self.teaching.alpha
        share = alpha * self.labelled
        wide = (...,) + (None,) * (self.y.ndim - 1)
        answers = self.answers.reshape(self.y.shape)
        return (share[wide] * self.y + (1 - alpha) * answers) / (share + 1 - alpha)[wide]


def check_student(student: Any, X: Any, *, classifies: bool, weighs: bool) -> None:
    """Refuse what can't be taught.

    Parameters
    ----------
    student : estimator
        Unfitted.
    X : rows
        What it will be fitted to.
    classifies : bool
        Whether it is to tell classes, or numbers.
    weighs : bool
        Whether rows have different weights, apart from those that soft labels of classes bring.

    Raises
    ------
    TypeError
        If it is no estimator of that sort.
    ValueError
        If it needs weights of rows and does not take any.
    """
    last = student.steps[-1][1] if isinstance(student, Pipeline) else student
    name = type(last).__name__
    if not hasattr(last, "fit") or not has_method(last, "predict"):
        raise TypeError(f"A student must be an estimator, or name a network. Got {name}: {last!r:.80}.")
    if isinstance(last, TunedEstimator):
        wanted = FineTunedClassifier if classifies else FineTunedRegressor
        if not isinstance(last, wanted):
            raise TypeError(f"The student is a {name}; for these targets it has to be a {wanted.__name__}.")
        if last.warm_start:
            raise ValueError("A student with warm_start=True is not supported: each fit begins anew.")
        last._validate_params()
        resolve_device(last.device)
        resolve_cache(last.cache)
        if last is student:
            with about("student"):
                last._resolve(X)  # which loads the network, and says where there is none
        return
    if is_search(last):
        raise TypeError(
            f"The student is a {name}, whose folds would have copies of a row on both sides. Search outside: "
            "GridSearchCV(DistilledClassifier(...), {'student__...': [...]})."
        )
    if hasattr(last, "_parameter_constraints"):  # which estimators of other packages need not have
        last._validate_params()
    told = estimator_type(last)
    wanted_type = "classifier" if classifies else "regressor"
    if told is not None and told != wanted_type:
        raise TypeError(f"The student {name} is a {told}; for these targets a {wanted_type} is needed.")
    if (classifies or weighs) and not takes_weights(last):
        why = (
            "soft labels reach a scikit-learn student as rows with a weight for each class"
            if classifies
            else "rows with and without a label of their own, or with sample_weight, count differently"
        )
        raise ValueError(
            f"The student {name} can't take sample_weight in fit, which it needs: {why}. Take one that does, such as "
            f"{'LogisticRegression, DecisionTreeClassifier' if classifies else 'Ridge, DecisionTreeRegressor'} or "
            f"{'HistGradientBoostingClassifier' if classifies else 'HistGradientBoostingRegressor'}."
        )


def fit_student(student: Any, X: Any, lesson: Lesson) -> Any:
    """Fit a clone of a student to a lesson.

    Parameters
    ----------
    student : estimator
        An estimator of this package that trains a network, any other, or a pipeline that ends with one.
    X : rows
        As many as the lesson has.
    lesson : Lesson
        What is to be learned of them.

    Returns
    -------
    estimator
        Fitted; of the student's own class.
    """
    if isinstance(student, Pipeline):
        # The steps before see each row once; only the last one learns from soft targets.
        front = clone(student[:-1])
        prepared = front.fit_transform(X, lesson.y) if len(front.steps) else X
        made = clone(student)
        made.steps = [*front.steps, (student.steps[-1][0], fit_student(student.steps[-1][1], prepared, lesson))]
        return made
    if isinstance(student, TunedEstimator):
        return _fit_network(student, X, lesson)
    return _fit_classifier(student, X, lesson) if lesson.classes is not None else _fit_regressor(student, X, lesson)


# Networks


class _TaughtMixin:
    """A network's estimator whose targets are places of rows in a lesson."""

    _lesson: Lesson

    def _checked_y(self, y: Any) -> np.ndarray:
        return y

    def _class_weights(self, y: np.ndarray, weights: np.ndarray, earlier: Any) -> dict[Any, float]:
        if getattr(self, "class_weight", None) is None:
            return {}
        labels = self._lesson.y
        found = super()._class_weights(labels[y], weights, None)  # type: ignore[misc]
        return {place: found.get(labels[place], 1.0) for place in y.tolist()}

    def _is_solved(self, X: Any) -> bool:
        return False

    def _enough_to_split(self, y: np.ndarray) -> bool:
        return super()._enough_to_split(self._lesson.y[y])  # type: ignore[misc]

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        return super()._strata(self._lesson.y[y])  # type: ignore[misc]

    def _split(self, X: Any, y: np.ndarray, weights: np.ndarray, seed: int) -> tuple[Any, ...]:
        # A class that only validation rows have is still taught by the teacher's answers.
        return TunedEstimator._split(self, X, y, weights, seed)  # type: ignore[arg-type]

    def _targets_of(self, y: np.ndarray, weights: np.ndarray, earlier: Any) -> Taught:
        lesson = self._lesson
        own: Classes | Numbers
        if lesson.classes is not None:
            own, answers = Classes(lesson.classes), lesson.answers
            codes = own.encode(lesson.y)[:, None]
        else:
            own = Numbers.of(lesson.y[y], weights)
            if own.constant is not None and own.constant.any():
                # The teacher may tell numbers apart where targets are all alike.
                own = Numbers.of(lesson.mixed[y], weights)
            answers, codes = own.encode(lesson.answers), own.encode(lesson.y)
        hints = np.zeros((len(codes), 0))
        if lesson.hints is not None:
            deviation = lesson.hints.std(axis=0)
            hints = (lesson.hints - lesson.hints.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
        table = np.column_stack([lesson.labelled.astype(float), codes, answers, hints])
        return Taught(own, replace(lesson.teaching, n_hints=hints.shape[1]), table)

    def _step(self, y: np.ndarray, depth: int, n_epochs: int, targets: Any, shift: float | None) -> dict[str, Any]:
        step = super()._step(y, depth, n_epochs, targets, shift)  # type: ignore[misc]
        return {**step, "step": "distilled", **self._lesson.lineage}


def _fit_network(student: Any, X: Any, lesson: Lesson) -> Any:
    kind = type(student)
    taught = type(kind.__name__, (_TaughtMixin, kind), {})(**student.get_params(deep=False))
    # Callbacks of scikit-learn are set on an estimator, and are no parameters.
    taught.__dict__.update({name: value for name, value in vars(student).items() if name == "_skl_callbacks"})
    taught._lesson = lesson
    taught._fit(X, np.arange(len(lesson.y)), lesson.weights, None, None, None)
    fitted = clone(student)
    state = {name: value for name, value in vars(taught).items() if name != "_lesson"}
    # What it predicts is the caller's targets; the lesson is over.
    fitted.__dict__.update(state, _targets=taught._targets.own)
    return fitted


# Others


def _fit_classifier(student: Any, X: Any, lesson: Lesson) -> Any:
    """Give each row once for each class, weighted by its share of the mixed target.

    The weighted cross-entropy of these rows is that of the mixed target, up to a constant.
    """
    assert lesson.classes is not None
    alpha = lesson.teaching.alpha
    shares = (1 - alpha) * softmax(lesson.answers, axis=1)
    codes = np.searchsorted(lesson.classes, lesson.y)
    shares[np.arange(len(shares)), codes] += alpha * lesson.labelled
    if lesson.weights is not None:
        shares *= lesson.weights[:, None]
    mass = shares.sum(axis=1, keepdims=True)
    kept = shares > _SMALLEST_SHARE * mass
    shares = np.where(kept, shares, 0.0)
    kept_mass = shares.sum(axis=1, keepdims=True)
    shares *= np.divide(mass, kept_mass, out=np.zeros_like(mass), where=kept_mass > 0)
    student = clone(student)
    if str(student.get_params(deep=False).get("class_weight")).startswith("balanced"):
        # Some count copies of rows, of which all classes have about as many.
        of_classes = shares.sum(axis=0)
        shares *= shares.sum() / (np.count_nonzero(of_classes) * np.maximum(of_classes, 1e-300))
        student.set_params(class_weight=None)
    places, columns = np.nonzero(shares)
    return fit_weighted(student, _safe_indexing(X, places), lesson.classes[columns], shares[places, columns])


def _fit_regressor(student: Any, X: Any, lesson: Lesson) -> Any:
    """Give each row the mean of its targets: the weighted sum of two squared errors has its minimum there."""
    mass = lesson.teaching.alpha * lesson.labelled + 1 - lesson.teaching.alpha
    weights = mass if lesson.weights is None else mass * lesson.weights
    alike = lesson.weights is None and np.ptp(mass) == 0
    return fit_weighted(clone(student), X, lesson.mixed, None if alike else weights)
