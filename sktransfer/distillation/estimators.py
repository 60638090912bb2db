"""DistilledClassifier and DistilledRegressor: what any teacher knows, in any student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy.sparse import issparse
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import column_or_1d, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from sktransfer._compat import HasMethods, StrOptions, _check_y, _num_samples, _safe_indexing
from sktransfer._containers import as_container
from sktransfer._labels import check_container, check_size, check_targets
from sktransfer._parameters import plain, plain_parameters, random_states, real, share_of_rows, whole
from sktransfer._row_weights import check_row_weights, of_any_size, of_usual_size
from sktransfer.backbone_estimator import OneStateMixin, of_one_state
from sktransfer.backbones.sources.loading import names_or_holds_network
from sktransfer.caching import resolve_cache
from sktransfer.caching.seen_rows import see_rows
from sktransfer.distillation.report import DistillationReport, make_report, split_for_report
from sktransfer.distillation.soft_targets import DistillationConfig, DistillationData
from sktransfer.distillation.students import check_student, fit_student
from sktransfer.distillation.teachers import (
    ClassAnswers,
    NumberAnswers,
    as_list,
    check_folds,
    check_gives_hints,
    check_knows,
    check_teachers,
    combine,
    distinct_answers,
    embed,
    fit_teacher,
    is_frozen,
    is_module,
    known_classes,
    name_of,
    refuses_missing,
    seeded,
    shared_copy,
    takes_weights,
)
from sktransfer.fine_tuning.estimators import FineTunedClassifier, FineTunedRegressor
from sktransfer.inputs.rows import about
from sktransfer.inputs.table_columns import one_warning
from sktransfer.inputs.table_rows import read_table
from sktransfer.inputs.table_schema import check_complete
from sktransfer.model_selection import check_labeled
from sktransfer.runtime.global_settings import numpy_errors_ignored
from sktransfer.runtime.seeding import own_random_state


def _student_has(name: str) -> Any:
    def check(self: Any) -> bool:
        getattr(self.student_ if hasattr(self, "student_") else self._student(), name)
        return True

    return lambda method: available_if(check)(of_one_state(method))


class _Distilled(OneStateMixin, MetaEstimatorMixin, BaseEstimator):
    """What the two estimators share: parameters and attributes are documented there."""

    _parameter_constraints: dict = {
        "teacher": "no_validation",
        "student": "no_validation",
        "alpha": [real(0, 1)],
        "cv": [whole(2), HasMethods(["split", "get_n_splits"]), Iterable, None],
        "teacher_weights": ["array-like", None],
        "hint_weight": [real(0)],
        "report_fraction": [*share_of_rows(), None],
        "cache": [StrOptions({"memory"}), None],
        "random_state": random_states(),
    }
    _classifies: bool
    _network: type

    # Asked for by default, so that a mask given to a search or a pipeline arrives here.
    __metadata_request__fit = {"sample_labeled": True}

    def _validate_params(self) -> None:
        super()._validate_params()
        no_array = not isinstance(self.cv, np.generic) and getattr(self.cv, "ndim", None) == 0
        if no_array or isinstance(self.cv, type):
            raise TypeError(f"cv must be an int, a splitter (not its class) or splits in a list. Got {self.cv!r}.")
        if isinstance(self.cv, Iterable) and not isinstance(self.cv, Iterator) and not hasattr(self.cv, "get_n_splits"):
            check_folds(list(self.cv))

    # Fit

    def _student(self) -> Any:
        """Return the student, unfitted."""
        named = self.student
        if isinstance(named, type):
            raise TypeError(f"student is the class {named.__name__}, not an instance: write {named.__name__}().")
        if hasattr(named, "fit") and hasattr(named, "get_params"):
            return named
        if not names_or_holds_network(named):
            raise TypeError(
                "student must be an estimator with fit, or a network: a name, a directory, a torch.nn.Module or a "
                f"ModuleBackbone. Got {type(named).__name__}: {named!r:.80}."
            )
        return self._network(named)

    @numpy_errors_ignored()
    @one_warning()  # teacher and student read the same columns
    def _fit(self, X: Any, y: Any, sample_weight: Any, sample_labeled: Any) -> Any:
        self._validate_params()
        student = self._check_parties()
        if y is None:
            raise ValueError(f"This {type(self).__name__} requires y to be passed, but the target y is None.")
        X = _indexable(X)
        if isinstance(student, FineTunedClassifier | FineTunedRegressor):
            student._rows_in(X, None)  # which refuses one image
        labelled = check_labeled(sample_labeled, X)
        check_container(y)
        check_consistent_length(X, y)
        if not len(labelled):
            raise ValueError("Found 0 samples in X, while there must be rows to learn from.")
        weights = self._checked_weights(sample_weight, labelled, X)
        weighs = weights is not None or (0 < self.alpha < 1 and not labelled.all())
        check_student(student, X, classifies=self._classifies, weighs=weighs)
        self._check_weighted_teachers(weights)
        y = self._checked_y(y, labelled)
        seed = None
        if self.random_state is not None:
            seed = int(own_random_state(self.random_state).randint(2**31 - 1))
        held_out = None
        if self.report_fraction is not None:
            (X, y, labelled, weights), held_out = split_for_report(
                plain(self.report_fraction), X, y, labelled, weights, seed, classifies=self._classifies
            )
        if self.alpha == 1 and not labelled.all():
            # There is nothing to learn from the others.
            X, y, labelled, weights = _rows(np.flatnonzero(labelled), X, y, labelled, weights)
        teachers, data = self._ask_teachers(X, y, labelled, weights, seed)
        student = seeded(clone(student), seed)
        fitted = fit_student(student, X, data)
        report: DistillationReport | None = None
        if held_out is not None:
            kept = np.flatnonzero(labelled)
            alone = _rows(kept, X, y, labelled, weights)
            report = make_report(
                teachers,
                fitted,
                student,
                alone,
                held_out,
                self._ask(data.classes, y, network={**self._of_network, "cache": None}),
                self.teacher_weights,
                self._classifies,
            )
        # Nothing is set before all has gone well: a failed fit leaves the estimator as it was.
        columns = ("n_features_in_", "feature_names_in_")
        made = {name: getattr(fitted, name) for name in columns if hasattr(fitted, name)}
        made |= {
            "teacher_": teachers if isinstance(self.teacher, list | tuple) else teachers[0],
            "student_": fitted,
            "distillation_report_": report,
        }
        if data.classes is not None:
            made["classes_"] = data.classes
        self._replace_fitted(made, gone=columns)
        return self

    def _checked_weights(self, sample_weight: Any, labelled: np.ndarray, X: Any) -> np.ndarray | None:
        """Return weights of a usual size; refuse a fit in which no label counts, or none is there where one is needed."""
        frozen = [is_frozen(one) for one in as_list(self.teacher)]
        if not labelled.any() and (self.alpha > 0 or not all(frozen)):
            what = "alpha > 0 weighs labels" if self.alpha > 0 else "the teacher is fitted to labelled rows"
            raise ValueError(
                f"No row has a label, but {what}. Give rows with labels, or set alpha=0 and wrap every teacher in "
                "FrozenEstimator."
            )
        if sample_weight is None:
            return None
        weights = of_usual_size(check_row_weights(sample_weight, X))
        if not weights.any():
            raise ValueError("All sample weights are zero, so there is nothing to learn from.")
        if labelled.any() and not weights[labelled].any():
            raise ValueError("The weights of all rows with a label are zero, so no label counts.")
        return weights

    def _check_parties(self) -> Any:
        check_teachers(self.teacher, self.teacher_weights, classifies=self._classifies)
        student = self._student()
        if self.hint_weight:
            last = student.steps[-1][1] if hasattr(student, "steps") else student
            if not isinstance(last, FineTunedClassifier | FineTunedRegressor):
                raise TypeError(
                    f"hint_weight is for students that are networks; {type(last).__name__} has no features to bring closer to "
                    "the teacher's. Set hint_weight=0."
                )
            for one in as_list(self.teacher):
                check_gives_hints(one)
        return student

    def _check_weighted_teachers(self, weights: np.ndarray | None) -> None:
        for one in as_list(self.teacher):
            if weights is not None and not is_frozen(one) and not takes_weights(one):
                raise ValueError(
                    f"The teacher {name_of(one)} can't take sample_weight in fit. Leave the weights out, or fit it yourself "
                    "and wrap it in FrozenEstimator."
                )

    def _ask_teachers(
        self, X: Any, y: np.ndarray, labelled: np.ndarray, weights: np.ndarray | None, seed: int | None
    ) -> tuple[list[Any], DistillationData]:
        """Fit the teachers that are not frozen, and ask all of them."""
        cache = resolve_cache(self.cache)
        seen = see_rows(X)
        places = np.flatnonzero(labelled)
        X_own, y_own, _, weights_own = _rows(places, X, y, labelled, weights)
        shared = None if cache is None else seen.at(places)
        classes = self._all_classes(y_own)
        ask = self._ask(classes, y)
        teachers = as_list(self.teacher)
        fitted, answers = [None] * len(teachers), [np.empty(0)] * len(teachers)
        # Frozen ones first: what is wrong with their answers is told before another one is fitted.
        for place in sorted(range(len(teachers)), key=lambda place: not is_frozen(teachers[place])):
            one, out_of_fold = teachers[place], None
            if is_frozen(one):
                made = one
            else:
                inner = self._ask(classes, y, partial=True)
                made, out_of_fold = fit_teacher(
                    one, X_own, y_own, weights_own, self.cv, seed, inner, shared, classifies=self._classifies
                )
            told = distinct_answers(made, X, seen, cache, ask)
            if out_of_fold is not None:
                told = told.copy()
                told[places] = out_of_fold
            fitted[place], answers[place] = made, told
        mean = combine(answers, self.teacher_weights, classifies=self._classifies)
        hints = None
        if self.hint_weight:
            hints = np.column_stack([embed(one, X, self._of_network) for one in fitted])
        y = self._filled(y, labelled, mean, classes)
        own = plain_parameters(self)
        config = DistillationConfig(float(own.alpha), float(getattr(own, "temperature", 1.0)), float(own.hint_weight))
        lineage = {"step": "distilled", "teacher": [name_of(one) for one in fitted], "alpha": own.alpha}
        return fitted, DistillationData(y, labelled, mean, weights, classes, hints, config, lineage)

    @property
    def _of_network(self) -> dict[str, Any]:
        """Parameters with which a teacher that is a network is run."""
        student = self._student()
        last = student.steps[-1][1] if hasattr(student, "steps") else student
        if not isinstance(last, FineTunedClassifier | FineTunedRegressor):
            return {}
        return {name: getattr(last, name) for name in ("modality", "device", "precision", "cache")}

    # Predictions

    def _read(self, X: Any) -> Any:
        """Return X as a container, after refusing missing values that a teacher could never have answered for."""
        check_is_fitted(self)
        X = as_container(X)
        if getattr(self.student_, "modality_", None) == "table" and get_tags(self.student_).input_tags.allow_nan:
            needing = [name_of(one) for one in as_list(self.teacher_) if refuses_missing(one)]
            if needing:
                check_complete(
                    read_table(X),
                    f"The teacher {needing[0]} was fitted without any. Fill them first, for example with an imputer in a "
                    f"pipeline in front of {type(self).__name__}.",
                )
        return X

    def predict(self, X):
        """Predict with the student.

        Parameters
        ----------
        X : rows
            As the student reads them.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
            Labels, or numbers.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        X = self._read(X)
        return self.student_.predict(X)

    def __sktransfer_backbone__(self) -> Any:
        """Hand the student's network to another estimator, as its `backbone`."""
        check_is_fitted(self)
        handing = getattr(self.student_, "__sktransfer_backbone__", None)
        if handing is None:
            raise NotFittedError(f"The student {type(self.student_).__name__} has no network to hand on.")
        return handing()

    @property
    def lineage_(self) -> tuple[dict[str, Any], ...]:
        """Where the student comes from."""
        check_is_fitted(self)
        last = self.student_.steps[-1][1] if hasattr(self.student_, "steps") else self.student_
        own = {"step": "distilled", "estimator": type(last).__name__, "alpha": plain(self.alpha)}
        taught = [name_of(one) for one in as_list(self.teacher_)]
        return getattr(last, "lineage_", ({**own, "teacher": taught},))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "student_")

    def __sklearn_clone__(self):
        # Networks are only read, so clones share them: a copy of each for every candidate and fold would be another
        # teacher to the cache.
        made = type(self)(
            **{**self._cloned(), "teacher": shared_copy(self.teacher), "student": shared_copy(self.student)}
        )
        if hasattr(self, "_metadata_request"):
            made._metadata_request = clone(self._metadata_request, safe=False)
        return made

    def _cloned(self) -> dict[str, Any]:
        own = self.get_params(deep=False)
        return {name: clone(value, safe=False) for name, value in own.items() if name not in ("teacher", "student")}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            parties = [self._student(), *(one for one in as_list(self.teacher) if not is_module(one))]
        except TypeError:
            return tags
        known = [one.__sklearn_tags__().input_tags for one in parties if hasattr(one, "__sklearn_tags__")]
        for name in ("sparse", "allow_nan", "string", "two_d_array", "one_d_array", "three_d_array", "categorical"):
            setattr(tags.input_tags, name, all(getattr(one, name) for one in known))
        tags.input_tags.positive_only = any(one.positive_only for one in known)
        tags.non_deterministic = any(
            one.__sklearn_tags__().non_deterministic for one in parties if hasattr(one, "__sklearn_tags__")
        )
        return tags


class DistilledClassifier(ClassifierMixin, _Distilled):
    """Teach a small model what a large one knows (knowledge distillation).

    The student learns from labels and from the probabilities that the teacher gives, which say more of a row than its label
    does, and which unlabelled rows have too. Teacher and student read the raw rows each in its own way.

    Parameters
    ----------
    teacher : estimator, nn.Module, ModuleBackbone, or a list of them
        Anything with ``predict_proba`` or ``decision_function``. It is cloned and fitted to the labelled rows, unless it is
        wrapped in :class:`sklearn.frozen.FrozenEstimator`. A module is asked as it is; it gives scores of the classes, in
        sorted order, before the softmax, or one score for the second of two. Of several teachers the probabilities
        are averaged.
    student : str, path, nn.Module, ModuleBackbone or estimator, default="auto"
        What learns. A name or a network stands for ``FineTunedClassifier(student)``. A :class:`FineTunedClassifier`, a
        pipeline that ends with one, or any classifier that takes ``sample_weight``.
    temperature : float, default=2.0
        What scores of teacher and student are divided by before they are compared: above 1 it lets small probabilities
        count for more. From 1e-6 to 1e6. Only for students that are networks: others have no scores to divide, and learn at
        temperature 1.
    alpha : float, default=0.5
        Share of the loss against labels; the rest is the loss against the teacher. With 0 labels are not used but by a
        teacher that is fitted; with 1 it is the student alone.
    cv : int, splitter, iterable or None, default=None
        With it, the teacher's probabilities of a labelled row come from a clone that has not seen it, so that an
        overfitted teacher does not hand on its confidence in its own rows. It does not concern frozen teachers.
    teacher_weights : array-like of shape (n_teachers,), default=None
        What each of several teachers counts; None for the same.
    hint_weight : float, default=0
        Strength of a third loss, between the teacher's embedding of a row (of a module its output), standardised, and a
        linear projection of the student's that is learned beside it (FitNets). Both have to be networks.
    report_fraction : float, int or None, default=None
        Share or number of the labelled rows that are held back to make `distillation_report_`; they are lost to learning,
        and should be strange to a frozen teacher as well.
    cache : "memory" or None, default="memory"
        Whether answers of fitted teachers are kept in this process, row by row, for other folds and candidates, and the
        last few teachers that were fitted for other candidates. None asks and fits anew.
    random_state : int, RandomState or None, default=None
        Of teacher and student, where theirs is None, and of the rows that are held back.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted: those of `y`, and those that a frozen teacher knows beside them.
    teacher_ : estimator, or list of them
        The teachers as they were asked. A search shares one fit between the candidates of a fold.
    student_ : estimator
        The fitted student, which needs nothing of the teacher any more.
    distillation_report_ : DistillationReport or None
        Scores of teacher, student and the student without a teacher, where `report_fraction` asked for it.
    lineage_ : tuple of dict
        Where the student comes from.
    n_features_in_ : int
        Number of columns of `X`, where the student counts them.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where they are all strings.

    See Also
    --------
    DistilledRegressor : The same for numbers.
    sktransfer.model_selection.stack_unlabeled : Rows with and without labels in one `X`.
    sktransfer.inspection.DistillationDisplay : Draws the report.

    Notes
    -----
    The loss of a row is ``alpha * H + (1 - alpha) * T**2 * KL``, with the cross-entropy ``H`` of its label, 0 where it has
    none, and the divergence of softened probabilities (Hinton et al. 2015, arXiv:1503.02531). A scikit-learn student gets each
    row once for each class, weighted by that class's share of ``alpha * label + (1 - alpha) * teacher``; shares below 1e-4 are
    left out. Hints: Romero et al. 2015, arXiv:1412.6550.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sktransfer import DistilledClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> student = make_pipeline(StandardScaler(), LogisticRegression())
    >>> model = DistilledClassifier(RandomForestClassifier(random_state=0), student, cv=3).fit(X[:400], y[:400])
    >>> model.score(X[400:], y[400:]) > 0.95
    True
    >>> model.student_
    Pipeline(steps=[('standardscaler', StandardScaler()),
                    ('logisticregression', LogisticRegression())])
    """

    _parameter_constraints: dict = {
        **_Distilled._parameter_constraints,
        # Beyond it differences of scores are lost in rounding.
        "temperature": [real(1e-6, 1e6)],
    }
    _classifies = True
    _network = FineTunedClassifier

    def __init__(
        self,
        teacher,
        student="auto",
        *,
        temperature=2.0,
        alpha=0.5,
        cv=None,
        teacher_weights=None,
        hint_weight=0.0,
        report_fraction=None,
        cache="memory",
        random_state=None,
    ):
        self.teacher = teacher
        self.student = student
        self.temperature = temperature
        self.alpha = alpha
        self.cv = cv
        self.teacher_weights = teacher_weights
        self.hint_weight = hint_weight
        self.report_fraction = report_fraction
        self.cache = cache
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None, *, sample_labeled=None):
        """Fit the teacher, unless it is frozen, and teach the student.

        Parameters
        ----------
        X : list, ndarray, sparse matrix, Series or DataFrame of n_samples rows
            Rows that both teacher and student can read.
        y : array-like of shape (n_samples,)
            Labels, numbers or strings. Of rows without a label they are never read: no value means that there is none.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts, for teacher and student. For networks only shares matter; others get the weights as they are,
            but brought to a mean of 1 where it is below 1e-6 or above 1e6.
        sample_labeled : array-like of shape (n_samples,), default=None
            Whether a row has a label; None for all. From a row without one the student learns what the teacher says of
            it. It is metadata to scikit-learn's routing, asked for by default.

        Returns
        -------
        self : DistilledClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, no row has a label where one is needed, the teacher does not know a class of `y`, or
            what it gives are no probabilities.
        TypeError
            If teacher or student lack a method that is needed.
        sklearn.exceptions.NotFittedError
            If a frozen teacher is not fitted.
        """
        return self._fit(X, y, sample_weight, sample_labeled)

    @_student_has("predict_proba")
    def predict_proba(self, X):
        """Predict probabilities with the student.

        Parameters
        ----------
        X : rows
            As the student reads them.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        X = self._read(X)
        return self._aligned(self.student_.predict_proba(X), 0.0)

    @_student_has("decision_function")
    def decision_function(self, X):
        """Return the student's scores of classes.

        Parameters
        ----------
        X : rows
            As the student reads them.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes the score of the second.
        """
        X = self._read(X)
        given = self.student_.decision_function(X)
        if len(self.student_.classes_) == len(self.classes_):
            return given
        given = np.column_stack([np.zeros(len(given)), given]) if given.ndim == 1 else given
        # As improbable as a teacher can hold a class to be.
        return self._aligned(given, logsumexp(given, axis=1, keepdims=True) + np.log(1e-8))

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of the student's predictions.

        Parameters
        ----------
        X : rows
            As the student reads them.
        y : array-like of shape (n_samples,)
            The true labels.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts.

        Returns
        -------
        float
            Share of rows that are predicted right.
        """
        check_targets(y)
        return super().score(X, y, of_any_size(sample_weight, X))

    def _aligned(self, given: np.ndarray, absent: Any) -> np.ndarray:
        """Give classes that the student has never been shown a column."""
        known = self.student_.classes_
        if len(known) == len(self.classes_):
            return given
        made = np.zeros((len(given), len(self.classes_))) + absent
        made[:, np.searchsorted(self.classes_, known)] = given
        return made

    def _checked_y(self, y: Any, labelled: np.ndarray) -> np.ndarray:
        """Check labels, and put any of them where there is none."""
        own = _own_targets(y, labelled, "label")
        if not labelled.any():
            return np.zeros(len(labelled), dtype=int)
        kind = type_of_target(own, input_name="y")
        if kind.startswith("multilabel") or kind == "multiclass-multioutput":
            raise ValueError(
                "y has several columns. DistilledClassifier tells one class a row: fit one for each column, see "
                "sklearn.multioutput.MultiOutputClassifier."
            )
        check_classification_targets(own)
        own = _check_y(own, estimator=self)
        made = np.full(len(labelled), own[0], dtype=own.dtype)
        made[labelled] = own
        return made

    def _all_classes(self, y: np.ndarray) -> np.ndarray:
        own = classes = np.unique(y)
        for one in as_list(self.teacher):
            known = known_classes(one) if is_frozen(one) else None
            if known is None:
                continue
            check_knows(one, own)
            classes = np.union1d(classes, known) if len(classes) else np.unique(known)
        if len(classes) < 2:
            raise ValueError(
                f"DistilledClassifier can't tell classes apart where there is only one class"
                f"{', ' + repr(classes.tolist()[0]) if len(classes) else ''}. Give rows of at least two classes, or a frozen "
                "teacher with classes_ that knows more."
            )
        return classes

    def _ask(
        self, classes: np.ndarray | None, y: np.ndarray, *, partial: bool = False, network: Any = None
    ) -> ClassAnswers:
        assert classes is not None
        # A teacher that was fitted here knows the classes of y; with others beside it these may be more.
        several = len(as_list(self.teacher)) > 1
        partial = partial or several or not is_frozen(self.teacher)
        return ClassAnswers(classes, partial=partial, network=network or self._of_network)

    def _filled(self, y: np.ndarray, labelled: np.ndarray, answers: np.ndarray, classes: Any) -> np.ndarray:
        made = classes[answers.argmax(axis=1)]
        made[labelled] = y[labelled]
        return made

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = False
        return tags


class DistilledRegressor(RegressorMixin, _Distilled):
    """Teach a small regressor what a large one knows (knowledge distillation).

    As :class:`DistilledClassifier`, with squared errors: towards the targets, and towards the teacher's predictions.

    Parameters
    ----------
    teacher : estimator, nn.Module, ModuleBackbone, or a list of them
        Anything that predicts numbers. It is cloned and fitted to the labelled rows, unless it is wrapped in
        :class:`sklearn.frozen.FrozenEstimator`. A module is asked as it is. Of several teachers predictions are averaged.
    student : str, path, nn.Module, ModuleBackbone or estimator, default="auto"
        What learns. A name or a network stands for ``FineTunedRegressor(student)``. A :class:`FineTunedRegressor`, a
        pipeline that ends with one, or any regressor; it has to take ``sample_weight`` where some rows have no target.
    alpha : float, default=0.5
        Share of the loss against targets; the rest is the loss against the teacher.
    cv : int, splitter, iterable or None, default=None
        With it, the teacher's prediction for a row with a target comes from a clone that has not seen it. It does not
        concern frozen teachers.
    teacher_weights : array-like of shape (n_teachers,), default=None
        What each of several teachers counts; None for the same.
    hint_weight : float, default=0
        Strength of a loss between the teacher's embedding and a projection of the student's. Both have to be networks.
    report_fraction : float, int or None, default=None
        Share or number of the rows with targets that are held back to make `distillation_report_`.
    cache : "memory" or None, default="memory"
        Whether answers of fitted teachers are kept in this process, row by row.
    random_state : int, RandomState or None, default=None
        Of teacher and student, where theirs is None, and of the rows that are held back.

    Attributes
    ----------
    teacher_ : estimator, or list of them
        The teachers as they were asked.
    student_ : estimator
        The fitted student.
    distillation_report_ : DistillationReport or None
        Scores of teacher, student and the student without a teacher, where `report_fraction` asked for it.
    lineage_ : tuple of dict
        Where the student comes from.
    n_features_in_ : int
        Number of columns of `X`, where the student counts them.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where they are all strings.

    See Also
    --------
    DistilledClassifier : The same for classes.

    Notes
    -----
    The loss of a row is ``alpha * (target - student)**2 + (1 - alpha) * (teacher - student)**2``, without the first term where
    it has no target. A scikit-learn student gets the weighted mean of target and prediction, where that has its minimum.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.ensemble import RandomForestRegressor
    >>> from sklearn.linear_model import Ridge
    >>> from sktransfer import DistilledRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = DistilledRegressor(RandomForestRegressor(random_state=0), Ridge(0.1), cv=3).fit(X[:300], y[:300])
    >>> model.predict(X[300:]).shape
    (142,)
    """

    _classifies = False
    _network = FineTunedRegressor

    def __init__(
        self,
        teacher,
        student="auto",
        *,
        alpha=0.5,
        cv=None,
        teacher_weights=None,
        hint_weight=0.0,
        report_fraction=None,
        cache="memory",
        random_state=None,
    ):
        self.teacher = teacher
        self.student = student
        self.alpha = alpha
        self.cv = cv
        self.teacher_weights = teacher_weights
        self.hint_weight = hint_weight
        self.report_fraction = report_fraction
        self.cache = cache
        self.random_state = random_state

    def fit(self, X, y, sample_weight=None, *, sample_labeled=None):
        """Fit the teacher, unless it is frozen, and teach the student.

        Parameters
        ----------
        X : list, ndarray, sparse matrix, Series or DataFrame of n_samples rows
            Rows that both teacher and student can read.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Numbers. Of rows without a target they are never read.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts, for teacher and student. For networks only shares matter; others get the weights as they are,
            but brought to a mean of 1 where it is below 1e-6 or above 1e6.
        sample_labeled : array-like of shape (n_samples,), default=None
            Whether a row has a target; None for all.

        Returns
        -------
        self : DistilledRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, no row has a target where one is needed, or the teacher gives NaN.
        TypeError
            If teacher or student lack a method that is needed.
        sklearn.exceptions.NotFittedError
            If a frozen teacher is not fitted.
        """
        return self._fit(X, y, sample_weight, sample_labeled)

    def score(self, X, y, sample_weight=None):
        """Return the coefficient of determination of the student's predictions.

        Parameters
        ----------
        X : rows
            As the student reads them.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            The true numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            What each row counts.

        Returns
        -------
        float
            At most 1, which is perfect; 0 is as good as the mean.
        """
        check_targets(y, word="target")
        return super().score(X, y, of_any_size(sample_weight, X))

    def _checked_y(self, y: Any, labelled: np.ndarray) -> np.ndarray:
        """Check numbers, and put 0 where there is none."""
        own = _own_targets(y, labelled, "target")
        if not labelled.any():
            return np.zeros(np.shape(y)[:2] if np.ndim(y) == 2 else len(labelled))
        if issparse(own):
            raise TypeError("y is sparse. DistilledRegressor needs all numbers in memory: convert it with y.toarray().")
        with about("y"):
            own = _check_y(own, multi_output=True, y_numeric=True, estimator=self).astype(np.float64)
        check_size(own)
        if own.ndim == 2 and own.shape[1] == 1:
            own = column_or_1d(own, warn=True)
        made = np.zeros((len(labelled), *own.shape[1:]))
        made[labelled] = own
        return made

    def _all_classes(self, y: np.ndarray) -> None:
        return None

    def _ask(self, classes: None, y: np.ndarray, *, partial: bool = False, network: Any = None) -> NumberAnswers:
        return NumberAnswers(1 if y.ndim == 1 else y.shape[1], network or self._of_network)

    def _filled(self, y: np.ndarray, labelled: np.ndarray, answers: np.ndarray, classes: Any) -> np.ndarray:
        made = answers.reshape(y.shape).copy()
        made[labelled] = y[labelled]
        return made

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _own_targets(y: Any, labelled: np.ndarray, word: str) -> Any:
    """Return the targets of rows that have one, none of them missing; the others may hold anything."""
    advice = f"Leave them out, or say with sample_labeled which rows have a {word}."
    if labelled.all():
        check_targets(y, word=word, advice=advice)
        return y
    if issparse(y):
        raise TypeError("y is sparse. To leave some of its rows unread convert it with y.toarray().")
    frame = nw.from_native(y, eager_only=True, allow_series=True, pass_through=True)
    values = frame.to_numpy() if isinstance(frame, nw.Series | nw.DataFrame) else y
    if isinstance(values, Sequence):
        values = [one for one, has in zip(values, labelled, strict=True) if has]
        check_targets(values, word=word, rows=np.flatnonzero(labelled), advice=advice)
        return np.asarray(values)
    values = np.asarray(values)[labelled]
    check_targets(values, word=word, rows=np.flatnonzero(labelled), advice=advice)
    return np.array(values.tolist()) if values.dtype == object else values


def _indexable(X: Any) -> Any:
    """Return rows that can be picked by place."""
    X = as_container(X)
    return X.tocsr() if issparse(X) else X


def _rows(places: np.ndarray, X: Any, y: Any, labelled: Any, weights: Any) -> tuple[Any, Any, Any, Any]:
    if len(places) == _num_samples(X):
        return X, y, labelled, weights
    return _safe_indexing(X, places), y[places], labelled[places], None if weights is None else weights[places]
