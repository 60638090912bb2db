"""Teachers: checked, fitted, asked for what they know of rows; each answer of a fitted one is computed once."""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from torch import nn

from sktransfer._compat import _safe_indexing
from sktransfer._labels import refuse_masked
from sktransfer._locks import ProcessLock
from sktransfer._parameters import is_number
from sktransfer._row_weights import of_mean_one
from sktransfer.backbone_estimator import OneStateMixin
from sktransfer.backbones.identity.fingerprint import code_of
from sktransfer.backbones.sources.modules import ModuleBackbone
from sktransfer.caching.fits import kept_fits
from sktransfer.caching.interface import RowCache
from sktransfer.caching.keys import digest
from sktransfer.caching.pickled import PickledState, pickled_state
from sktransfer.caching.seen_rows import SeenRows, content_of
from sktransfer.feature_extraction import PretrainedFeatureExtractor
from sktransfer.inputs.rows import about

# Probabilities below it say that a class is out of the question; logarithms have to be finite.
_SMALLEST = 1e-8
_SUM_TOLERANCE = 1e-3
_METHODS = ("predict_proba", "decision_function")

_lock = ProcessLock("states that teachers come to by being asked")
# By state that a teacher has come to by being asked: the one before.
_aliases: OrderedDict[str, str] = OrderedDict()
_MOST_ALIASES = 256


# What a teacher is


def is_module(teacher: Any) -> bool:
    """Whether a teacher is a network that gives scores of classes, or numbers."""
    return isinstance(_inside(teacher), nn.Module | ModuleBackbone)


def _inside(teacher: Any) -> Any:
    """Return what `FrozenEstimator` wraps, or the teacher itself."""
    return teacher.estimator if isinstance(teacher, FrozenEstimator) else teacher


def is_frozen(teacher: Any) -> bool:
    """Whether a teacher is asked as it is, and not fitted."""
    return is_module(teacher) or isinstance(teacher, FrozenEstimator)


def as_list(teacher: Any) -> list[Any]:
    """Return the teachers: one, or those of a list."""
    return list(teacher) if isinstance(teacher, list | tuple) else [teacher]


def name_of(teacher: Any) -> str:
    """Return what a teacher is called in messages."""
    inner = _inside(teacher)
    return inner.name if isinstance(inner, ModuleBackbone) else type(inner).__name__


def refuses_missing(teacher: Any) -> bool:
    """Whether a teacher is a single estimator that reads no missing values.

    Pipelines, searches and other estimators of estimators may fill them; their tags don't say so.
    """
    inner = _inside(teacher)
    if is_module(inner) or not hasattr(inner, "__sklearn_tags__"):
        return False
    if any(hasattr(value, "fit") for value in inner.get_params(deep=True).values()):
        return False
    return not get_tags(inner).input_tags.allow_nan


def check_teachers(teacher: Any, weights: Any, *, classifies: bool) -> None:
    """Refuse what can't teach, before anything is fitted.

    Parameters
    ----------
    teacher : estimator, nn.Module, ModuleBackbone, or a list of them
        The parameter `teacher`.
    weights : array-like or None
        The parameter `teacher_weights`.
    classifies : bool
        Whether classes are taught, or numbers.

    Raises
    ------
    TypeError
        If a teacher is no estimator or network, or lacks the method that is asked.
    ValueError
        If there is none, or weights don't fit.
    sklearn.exceptions.NotFittedError
        If a frozen teacher was not fitted.
    """
    teachers = as_list(teacher)
    if not teachers:
        raise ValueError("teacher is an empty list. Give at least one.")
    for one in teachers:
        _check_teacher(one, classifies=classifies)
    if weights is None:
        return
    refuse_masked(weights, "teacher_weights")
    given = np.asarray(weights)
    if given.ndim == 1 and not all(map(is_number, weights)):
        raise ValueError(f"teacher_weights must be finite numbers, one for each teacher. Got {weights!r:.200}.")
    if given.shape != (len(teachers),):
        raise ValueError(f"teacher_weights has the shape {given.shape}; there are {len(teachers)} teacher(s).")
    if (given < 0).any() or not given.any():
        raise ValueError(f"teacher_weights must be finite, not negative, and not all 0. Got {weights!r}.")


def _check_teacher(teacher: Any, *, classifies: bool) -> None:
    if is_module(teacher):
        return
    if isinstance(teacher, type):
        raise TypeError(f"teacher is the class {teacher.__name__}, not an instance: write {teacher.__name__}().")
    if not hasattr(teacher, "fit"):
        raise TypeError(
            f"A teacher must be an estimator, a torch.nn.Module or a ModuleBackbone. Got {type(teacher).__name__}: "
            f"{teacher!r:.80}."
        )
    needed = _METHODS if classifies else ("predict",)
    told = estimator_type(teacher)
    refused = {"clusterer", "outlier_detector", "density_estimator", "regressor" if classifies else "classifier"}
    if told in refused or not any(has_method(teacher, name) for name in needed):
        has = [name for name in ("predict", "transform", "score_samples", *_METHODS) if has_method(teacher, name)]
        lacks = f"is a {told}" if told in refused - {"regressor"} else f"has neither {' nor '.join(needed)}"
        way_out = (
            "A classifier without probabilities can be wrapped in sklearn.calibration.CalibratedClassifierCV; some have a "
            "parameter for them, as SGDClassifier(loss='log_loss') and VotingClassifier(voting='soft')."
            if classifies
            else "A regressor is needed."
        )
        raise TypeError(
            f"The teacher {name_of(teacher)} {lacks}, it has {', '.join(has) or 'none of the usual methods'}. {way_out}"
        )
    if isinstance(teacher, FrozenEstimator):
        try:
            check_is_fitted(teacher.estimator)
        except NotFittedError as error:
            raise NotFittedError(
                f"The teacher FrozenEstimator({name_of(teacher)}(...)) holds an estimator that is not fitted. Fit it first, or "
                "leave FrozenEstimator out, and it is fitted to the labelled rows."
            ) from error


def estimator_type(estimator: Any) -> str | None:
    """Return "classifier", "regressor" and so on, None where an estimator does not say."""
    with contextlib.suppress(Exception):  # third-party tags of other versions
        return get_tags(estimator).estimator_type
    return None


def has_method(estimator: Any, name: str) -> bool:
    """Whether an estimator has a method, or will have it once it is fitted."""
    if isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    if getattr(estimator, "final_estimator", estimator) is None:
        return hasattr(type(estimator), name)  # of a stacking, whose own final estimator is made in fit, and has all
    # A search or a voting has it where what is inside does.
    return callable(getattr(estimator, name, None))


# Fitting


def takes_weights(estimator: Any) -> bool:
    """Whether `fit` of an estimator, or of the last step of a pipeline, takes `sample_weight`."""
    if isinstance(estimator, Pipeline):
        return takes_weights(estimator.steps[-1][1])
    if is_frozen(estimator):
        return True  # nothing is fitted
    if has_fit_parameter(estimator, "sample_weight"):
        return True
    # Searches and ensembles hand on what they get, to estimators that take it by that name.
    inner = [one for _, one in getattr(estimator, "estimators", None) or [] if one != "drop"]
    inner = [estimator.estimator] if is_search(estimator) else inner
    return bool(inner) and all(has_fit_parameter(one, "sample_weight") for one in inner)


def is_search(estimator: Any) -> bool:
    """Whether an estimator chooses parameters of another by cross-validation."""
    return hasattr(estimator, "estimator") and hasattr(estimator, "refit")


def fit_weighted(estimator: Any, X: Any, y: np.ndarray, weights: np.ndarray | None) -> Any:
    """Fit an estimator in place, handing weights to the last step of a pipeline."""
    if weights is None:
        return estimator.fit(X, y)
    if not isinstance(estimator, Pipeline):
        return estimator.fit(X, y, sample_weight=weights)
    if get_routing_for_object(estimator.steps[-1][1]).consumes("fit", ["sample_weight"]):
        return estimator.fit(X, y, sample_weight=weights)  # the user has said where they go
    front = estimator[:-1]
    prepared = front.fit_transform(X, y) if len(front.steps) else X
    name, last = estimator.steps[-1]
    estimator.steps = [*front.steps, (name, fit_weighted(last, prepared, y, weights))]
    return estimator


def fit_teacher(
    teacher: Any,
    X: Any,
    y: np.ndarray,
    weights: np.ndarray | None,
    cv: Any,
    seed: int | None,
    ask_rows: ClassAnswers | NumberAnswers,
    seen: SeenRows | None,
    *,
    classifies: bool,
) -> tuple[Any, np.ndarray | None]:
    """Fit a clone of a teacher, or find the fit of the same teacher to the same rows.

    Parameters
    ----------
    teacher : estimator
        Unfitted, or to be fitted anew; not frozen.
    X, y, weights
        Labelled rows; weights of 0 count as no row.
    cv : int, splitter, iterable or None
        Folds for answers by teachers that have not seen the row.
    seed : int or None
        What `random_state` becomes where the teacher leaves it open.
    ask_rows : callable
        From a fitted teacher and rows to answers.
    seen : SeenRows or None
        What tells the rows from others; None to fit in any case.
    classifies : bool
        Whether folds are stratified.

    Returns
    -------
    fitted : estimator
    out_of_fold : ndarray or None
        With `cv` answers for the labelled rows.
    """
    folds = None if cv is None else _folds(cv, X, y, classifies)
    if folds is not None and len(np.unique(np.concatenate([held_out for _, held_out in folds]))) < len(y):
        raise ValueError(
            "cv leaves labelled rows that no fold holds out, so that they have no out-of-fold answer of the teacher. Use a "
            "splitter whose test parts are all rows, such as KFold."
        )
    key = None
    if seen is not None:
        told = [
            b"".join(seen.digests),
            content_of(y),
            b"" if weights is None else content_of(weights),
            ask_rows.context,
        ]
        key = _fit_key(teacher, told, folds, seed)
    known = None if key is None else kept_fits.get(key)
    if known is not None and _state_of(known[0]) == known[2]:
        return known[:2]
    unfitted = seeded(clone(teacher), seed)
    out_of_fold = None
    for learned, held_out in folds or ():
        fold = None if weights is None else weights[learned]
        inner = fit_weighted(clone(unfitted), _safe_indexing(X, learned), y[learned], fold)
        answers = ask_rows(inner, _safe_indexing(X, held_out))
        if out_of_fold is None:
            out_of_fold = np.empty((len(y), *answers.shape[1:]))
        out_of_fold[held_out] = answers
    made = fit_weighted(unfitted, X, y, weights)
    state = _state_of(made)
    if key is not None and state is not None and (seen is None or seen.hold(X)):
        kept_fits.put(key, (made, out_of_fold, state), state.n_bytes)
    return made, out_of_fold


def _folds(cv: Any, X: Any, y: np.ndarray, classifies: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows to learn from and those held out, fold by fold."""
    with about("cv"):
        folds = list(check_cv(cv, y, classifier=classifies).split(X, y))
    check_folds(folds)
    if any(part.min() < -len(y) or part.max() >= len(y) for fold in folds for part in map(np.asarray, fold)):
        raise ValueError(f"cv names rows beyond the {len(y)} with a label. Make its folds for these rows alone.")
    return folds


def check_folds(folds: Sequence[Any]) -> None:
    """Refuse folds that don't say which rows are learned from and which are held out.

    Parameters
    ----------
    folds : sequence
        What the parameter `cv` is, or gives.

    Raises
    ------
    ValueError
        If there are none, or one is no pair of arrays of whole numbers.
    """
    if not len(folds):
        raise ValueError("cv gives no folds. Give a number of folds, a splitter, or None.")
    for fold in folds:
        parts = [np.asarray(part) for part in fold] if isinstance(fold, tuple | list) else []
        if len(parts) != 2 or any(part.ndim != 1 or not len(part) or part.dtype.kind not in "iu" for part in parts):
            raise ValueError(
                f"cv must give for each fold an array of the rows to learn from and one of those held out. Got {fold!r:.80}."
            )


def seeded(estimator: Any, seed: int | None) -> Any:
    """Set every `random_state` that an estimator leaves open."""
    if seed is not None:
        parameters = estimator.get_params(deep=True)
        # In the order of names, so that the same estimator always gets the same numbers.
        names = sorted(name for name, value in parameters.items() if name.rpartition("__")[2] == "random_state")
        random = np.random.RandomState(seed)
        chosen = {name: int(random.randint(2**31 - 1)) for name in names}
        estimator.set_params(**{name: one for name, one in chosen.items() if parameters[name] is None})
    return estimator


def _fit_key(teacher: Any, content: list[bytes], folds: Any, seed: int | None) -> bytes | None:
    """Return what tells a fit from others, None where that can't be said."""
    state = _state_of(clone(teacher))
    if state is None:
        return None
    parts = content + ([] if folds is None else [np.asarray(places).tobytes() for pair in folds for places in pair])
    told = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return digest(told + repr((state.digest, len(parts), seed)).encode(), domain=b"teacher fit")


# Rows


def distinct_answers(
    teacher: Any,
    X: Any,
    seen: SeenRows,
    cache: RowCache | None,
    ask_rows: ClassAnswers | NumberAnswers,
) -> np.ndarray:
    """Ask a fitted teacher for its answers, for each distinct row once, those in the cache not at all.

    Parameters
    ----------
    teacher : estimator or network
        Fitted.
    X : rows
        What it is asked for.
    seen : SeenRows
        What tells them from others.
    cache : RowCache or None
        Where answers are kept.
    ask_rows : callable
        From a teacher and rows to answers, a row each.

    Returns
    -------
    ndarray of shape (n, n_answers)
    """
    if isinstance(_inside(teacher), OneStateMixin):
        # Its answers are kept for the state that it has now, whatever other threads do to it meanwhile.
        teacher = _inside(teacher)._as_it_is()
    state = None if cache is None else _state_of(_inside(teacher))
    with _lock:
        token = None if state is None else _aliases.get(state.digest, state.digest).encode() + ask_rows.context
    keys = [digest((token or b"") + one, domain=b"teacher") for one in seen.digests]
    found: list[np.ndarray | None] = [None] * len(keys)
    if cache is not None and token is not None:
        found = cache.get_many(keys)
    missing: dict[bytes, int] = {}
    for place, (key, row) in enumerate(zip(keys, found, strict=True)):
        if row is None:
            missing.setdefault(key, place)
    if missing:
        places = np.fromiter(missing.values(), dtype=int)
        X_asked = X if len(places) == len(keys) else _safe_indexing(X, places)
        asked = ask_rows(teacher, X_asked)
        if len(asked) != len(places):
            raise ValueError(f"The teacher {name_of(teacher)} gives {len(asked)} answers for {len(places)} rows.")
        if cache is not None and token is not None and state is not None and seen.at(places).hold(X_asked):
            cache.put_many(list(missing), asked)
            _remember_alias(teacher, state)
        new = dict(zip(missing, asked, strict=True))
        found = [new[key] if row is None else row for key, row in zip(keys, found, strict=True)]
    return np.array(found, dtype=np.float64)


def _remember_alias(teacher: Any, before: PickledState) -> None:
    """Take note where a teacher's state changes by being asked, as that of trees that count their calls."""
    after = _state_of(_inside(teacher))
    if after is not None and after != before:
        with _lock:
            _aliases[after.digest] = _aliases.get(before.digest, before.digest)
            while len(_aliases) > _MOST_ALIASES:
                _aliases.popitem(last=False)


def _state_of(model: Any) -> PickledState | None:
    """Return what tells the state of a model and the code of the user's in it, None where it can't be seen."""
    told = (model.load()[0], model.module) if isinstance(model, ModuleBackbone) else model
    return pickled_state(told, code_of=lambda code: code_of(code).digest)


# Answers


class ClassAnswers:
    """Asks teachers for logarithms of probabilities of given classes.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The classes, in whose order answers are given.
    partial : bool, default=False
        Whether a teacher may lack some of them, as one that was fitted to a fold; it holds them to be out of the question.
    network : dict, optional
        Parameters of the extractor through which networks are run.
    """

    def __init__(self, classes: np.ndarray, *, partial: bool = False, network: dict[str, Any] | None = None):
        self.classes = classes
        self.partial = partial
        self.network = network or {}
        # What an answer depends on beside teacher and row.
        told = ("classes", [(type(one).__name__, one) for one in classes.tolist()], _without_cache(self.network))
        self.context = repr(told).encode("utf-8", "surrogatepass")

    def __call__(self, teacher: Any, X: Any) -> np.ndarray:
        """Return logarithms of probabilities (n, n_classes)."""
        if is_module(teacher):
            scores = run_module(teacher, X, self.network)
            wanted = 1 if len(self.classes) == 2 else len(self.classes)
            if scores.shape[1] not in (wanted, len(self.classes)):
                raise ValueError(
                    f"The teacher {name_of(teacher)} gives {scores.shape[1]} value(s) a row; there are {len(self.classes)} "
                    f"classes, {', '.join(map(repr, self.classes[:10].tolist()))}. A network has to give one score for each "
                    "class, in sorted order."
                )
            return log_softmax(_both_sides(scores), axis=1)
        if has_method(teacher, "predict_proba"):
            given = _finite(teacher, "predict_proba", teacher.predict_proba(X))
            logs = self._logs(teacher, given)
        else:
            given = _finite(teacher, "decision_function", teacher.decision_function(X))
            scores = _both_sides(given.reshape(len(given), -1))
            known = known_classes(teacher)
            if known is not None and scores.shape[1] != len(known):
                raise ValueError(
                    f"decision_function of the teacher {name_of(teacher)} gives {scores.shape[1]} scores a row for "
                    f"{len(known)} classes. One for each class is needed: decision_function_shape='ovr' for scikit-learn's SVC."
                )
            logs = log_softmax(scores, axis=1)
        return self._aligned(teacher, logs)

    def _logs(self, teacher: Any, given: np.ndarray) -> np.ndarray:
        if given.ndim != 2:
            raise ValueError(
                f"predict_proba of the teacher {name_of(teacher)} gives an array of shape {given.shape}; one row of "
                "probabilities for each row of X is needed."
            )
        sums = given.sum(1)
        wrong = np.flatnonzero((np.abs(sums - 1) > _SUM_TOLERANCE) | (given < -_SUM_TOLERANCE).any(1))
        if len(wrong):
            raise ValueError(
                f"predict_proba of the teacher {name_of(teacher)} gives, for {len(wrong)} row(s), values that are "
                f"no probabilities of classes: they sum to {sums[wrong[0]]:.4g} in row {wrong[0]}. Teachers of several "
                "labels a row can't be distilled; scores belong in decision_function."
            )
        return np.log(np.maximum(given / sums[:, None], _SMALLEST))

    def _aligned(self, teacher: Any, logs: np.ndarray) -> np.ndarray:
        """Bring columns into the order of `classes`."""
        known = known_classes(teacher)
        if known is None:
            if logs.shape[1] != len(self.classes):
                raise ValueError(
                    f"The teacher {name_of(teacher)} gives {logs.shape[1]} columns and has no classes_ that would name them; "
                    f"there are {len(self.classes)} classes."
                )
            return logs
        if not self.partial:
            check_knows(teacher, self.classes)
        places = {label: place for place, label in enumerate(known.tolist())}
        found = [places.get(label) for label in self.classes.tolist()]
        made = np.full((len(logs), len(found)), np.log(_SMALLEST))
        for place, column in enumerate(found):
            if column is not None:
                made[:, place] = logs[:, column]
        return log_softmax(made, axis=1)


def check_knows(teacher: Any, classes: np.ndarray) -> None:
    """Refuse a fitted teacher that lacks a class."""
    known = known_classes(teacher)
    lacking = [] if known is None else sorted(set(classes.tolist()) - set(known.tolist()), key=classes.tolist().index)
    if known is None or not lacking:
        return
    told = ", ".join(map(repr, known[:20].tolist()))
    hint = ""
    if {str(one) for one in lacking} & {str(one) for one in known.tolist()}:
        hint = " They look alike but are of other types: give y in the type that the teacher was fitted with."
    elif lacking == list(range(len(lacking))):
        hint = (
            " cross_val_predict, voting and stacking turn labels into numbers before a fit: fit the teacher to numbers for "
            "them."
        )
    raise ValueError(
        f"The teacher {name_of(teacher)} does not know the class(es) {', '.join(map(repr, lacking[:10]))} of y. It knows "
        f"{told}{', ...' if len(known) > 20 else ''}.{hint}"
    )


def _without_cache(network: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((name, str(value)) for name, value in network.items() if name != "cache")


class NumberAnswers:
    """Asks teachers for numbers.

    Parameters
    ----------
    n_targets : int
        How many a row.
    network : dict, optional
        Parameters of the extractor through which networks are run.
    """

    def __init__(self, n_targets: int, network: dict[str, Any] | None = None):
        self.n_targets = n_targets
        self.network = network or {}
        self.context = repr(("numbers", n_targets, _without_cache(self.network))).encode()

    def __call__(self, teacher: Any, X: Any) -> np.ndarray:
        """Return predictions (n, n_targets)."""
        given = run_module(teacher, X, self.network) if is_module(teacher) else teacher.predict(X)
        made = _finite(teacher, "predict", given)
        made = made.reshape(len(made), -1)
        if made.shape[1] != self.n_targets:
            raise ValueError(
                f"The teacher {name_of(teacher)} predicts {made.shape[1]} number(s) a row, y has {self.n_targets}."
            )
        return made


def known_classes(teacher: Any) -> np.ndarray | None:
    """Return the classes of a fitted teacher, None where it does not say."""
    known = getattr(teacher, "classes_", None)
    return None if known is None or isinstance(known, list) else np.asarray(known)


def _both_sides(scores: np.ndarray) -> np.ndarray:
    """Turn scores of the second of two classes into scores of both."""
    scores = scores.astype(np.float64, copy=False)
    return np.column_stack([np.zeros(len(scores)), scores[:, 0]]) if scores.shape[1] == 1 else scores


def _finite(teacher: Any, method: str, given: Any) -> np.ndarray:
    if isinstance(given, list):
        raise ValueError(
            f"{method} of the teacher {name_of(teacher)} gives a list of arrays, as for several labels a row. A teacher has to "
            "be of one class a row."
        )
    frame = nw.from_native(given, eager_only=True, allow_series=True, pass_through=True)
    made = frame.to_numpy() if isinstance(frame, nw.DataFrame | nw.Series) else np.asarray(given)
    if made.dtype.kind not in "fiub":
        raise ValueError(
            f"{method} of the teacher {name_of(teacher)} gives values of type {made.dtype}; numbers are needed."
        )
    made = made.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(made.reshape(len(made), -1)).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{method} of the teacher {name_of(teacher)} gives NaN or infinity for {len(bad)} row(s), the first is "
            f"row {bad[0]}."
        )
    return made


def combine(answers: list[np.ndarray], weights: Any, *, classifies: bool) -> np.ndarray:
    """Average answers of several teachers: probabilities, given as logarithms, or numbers."""
    shares = np.ones(len(answers)) if weights is None else of_mean_one(np.asarray(weights, dtype=float))
    shares = shares / shares.sum()
    if len(answers) == 1:
        return answers[0]
    wide = shares[:, None, None]
    stacked = np.stack(answers)
    return logsumexp(stacked, axis=0, b=wide) if classifies else (wide * stacked).sum(axis=0)


def _for_rows(module: Any, X: Any, network: dict[str, Any]) -> dict[str, Any]:
    """Say that a bare module reads tables where X is one."""
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if isinstance(module, nn.Module) and network.get("modality", "auto") == "auto" and len(shape) == 2 and shape[1] > 1:
        return {**network, "modality": "table"}
    return network


def run_module(teacher: Any, X: Any, network: dict[str, Any]) -> np.ndarray:
    """Return what a network gives for rows, a vector each."""
    network = _for_rows(_inside(teacher), X, network)
    return PretrainedFeatureExtractor(_inside(teacher), normalize=False, **network).fit_transform(X).astype(np.float64)


def embed(teacher: Any, X: Any, network: dict[str, Any]) -> np.ndarray:
    """Return a fitted teacher's features of rows: what its own head sees.

    Raises
    ------
    TypeError
        If it is no network.
    """
    inner = _inside(teacher)
    if isinstance(inner, Pipeline):
        before = inner[:-1].transform(X) if len(inner.steps) > 1 else X
        return embed(inner.steps[-1][1], before, network)
    if is_module(inner) or hasattr(inner, "__sktransfer_backbone__"):
        return PretrainedFeatureExtractor(inner, **_for_rows(inner, X, network)).fit_transform(X).astype(np.float64)
    raise TypeError(
        f"hint_weight is for teachers that are networks; {name_of(teacher)} has no features to give. Set hint_weight=0."
    )


def check_gives_hints(teacher: Any) -> None:
    """Refuse a teacher without features, before it is fitted."""
    inner = _inside(teacher)
    last = inner.steps[-1][1] if isinstance(inner, Pipeline) else inner
    if not is_module(last) and not hasattr(type(last), "__sktransfer_backbone__"):
        embed(last, None, {})


def shared_copy(teacher: Any) -> Any:
    """Return what a clone of an estimator takes over: networks as they are, estimators cloned."""
    if isinstance(teacher, list | tuple):
        return type(teacher)(shared_copy(one) for one in teacher)
    if is_module(teacher):
        return teacher
    return clone(teacher) if hasattr(teacher, "get_params") else copy.deepcopy(teacher)
