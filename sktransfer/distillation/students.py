"""Students: an estimator and rows with soft targets in, the fitted estimator out."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sktransfer._compat import _safe_indexing
from sktransfer.caching import resolve_cache
from sktransfer.distillation.soft_targets import DistillationData
from sktransfer.distillation.teachers import estimator_type, fit_weighted, has_method, is_search, takes_weights
from sktransfer.fine_tuning.base import TunedEstimator
from sktransfer.fine_tuning.estimators import FineTunedClassifier, FineTunedRegressor
from sktransfer.inputs.rows import about
from sktransfer.runtime.device import resolve_device

# A class that has less than this of a row's weight is not worth a copy of the row.
_SMALLEST_SHARE = 1e-4


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


def fit_student(student: Any, X: Any, data: DistillationData) -> Any:
    """Fit a clone of a student to a data.

    Parameters
    ----------
    student : estimator
        An estimator of this package that trains a network, any other, or a pipeline that ends with one.
    X : rows
        As many as there are targets.
    data : DistillationData
        What is to be learned of them.

    Returns
    -------
    estimator
        Fitted; of the student's own class.
    """
    if isinstance(student, Pipeline):
        # The steps before see each row once; only the last one learns from soft targets.
        front = clone(student[:-1])
        prepared = front.fit_transform(X, data.y) if len(front.steps) else X
        made = clone(student)
        made.steps = [*front.steps, (student.steps[-1][0], fit_student(student.steps[-1][1], prepared, data))]
        return made
    if isinstance(student, TunedEstimator):
        return _fit_network(student, X, data)
    return _fit_classifier(student, X, data) if data.classes is not None else _fit_regressor(student, X, data)


# Networks


def _fit_network(student: Any, X: Any, data: DistillationData) -> Any:
    fitted = clone(student)
    # Callbacks of scikit-learn are set on an estimator, and are no parameters.
    fitted.__dict__.update({name: value for name, value in vars(student).items() if name == "_skl_callbacks"})
    return fitted._fit(X, data.y, data.weights, factory=data)


# Others


def _fit_classifier(student: Any, X: Any, data: DistillationData) -> Any:
    """Give each row once for each class, weighted by its share of the mixed target.

    The weighted cross-entropy of these rows is that of the mixed target, up to a constant.
    """
    assert data.classes is not None
    alpha = data.config.alpha
    shares = (1 - alpha) * softmax(data.predictions, axis=1)
    codes = np.searchsorted(data.classes, data.y)
    shares[np.arange(len(shares)), codes] += alpha * data.labelled
    if data.weights is not None:
        shares *= data.weights[:, None]
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
    return fit_weighted(student, _safe_indexing(X, places), data.classes[columns], shares[places, columns])


def _fit_regressor(student: Any, X: Any, data: DistillationData) -> Any:
    """Give each row the mean of its targets: the weighted sum of two squared errors has its minimum there."""
    mass = data.config.alpha * data.labelled + 1 - data.config.alpha
    weights = mass if data.weights is None else mass * data.weights
    alike = data.weights is None and np.ptp(mass) == 0
    return fit_weighted(clone(student), X, data.mixed, None if alike else weights)
