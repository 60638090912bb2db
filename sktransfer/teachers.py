"""Teachers: checked, fitted, asked for what they know of rows; each answer of a fitted one is computed once."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import joblib
import narwhals.stable.v2 as nw
import numpy as np
from scipy.sparse import issparse
from scipy.special import log_softmax, logsumexp
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from torch import nn

from sktransfer.backbones.modules import ModuleBackbone
from sktransfer.caching.fits import kept_fits
from sktransfer.caching.interface import RowCache
from sktransfer.caching.keys import digest
from sktransfer.feature_extraction import PretrainedFeatureExtractor

# Probabilities below it say that a class is out of the question; logarithms have to be finite.
_SMALLEST = 1e-8
_SUM_TOLERANCE = 1e-3
_METHODS = ("predict_proba", "decision_function")

_lock = threading.Lock()
# By identity of a fitted teacher: that teacher, the digest of its state, and what stands for both in keys of the cache.
_tokens: dict[int, tuple[weakref.ref, str, bytes]] = {}


# What a teacher is


def is_module(teacher: Any) -> bool:
    """Whether a teacher is a network that gives scores of classes, or numbers."""
    return isinstance(teacher, nn.Module | ModuleBackbone)


def is_frozen(teacher: Any) -> bool:
    """Whether a teacher is asked as it is, and not fitted."""
    return is_module(teacher) or isinstance(teacher, FrozenEstimator)


def as_list(teacher: Any) -> list[Any]:
    """Return the teachers: one, or those of a list."""
    return list(teacher) if isinstance(teacher, list | tuple) else [teacher]


def name_of(teacher: Any) -> str:
    """Return what a teacher is called in messages."""
    inner = teacher.estimator if isinstance(teacher, FrozenEstimator) else teacher
    return inner.name if isinstance(inner, ModuleBackbone) else type(inner).__name__


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
    given = np.asarray(weights, dtype=float)
    if given.shape != (len(teachers),):
        raise ValueError(f"teacher_weights has the shape {given.shape}; there are {len(teachers)} teacher(s).")
    if not np.isfinite(given).all() or (given < 0).any() or not given.any():
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
    if not any(_has(teacher, name) for name in needed):
        has = [name for name in ("predict", "transform", "score_samples", *_METHODS) if _has(teacher, name)]
        way_out = (
            "A classifier without probabilities can be wrapped in sklearn.calibration.CalibratedClassifierCV; some have a "
            "parameter for them, as SGDClassifier(loss='log_loss') and VotingClassifier(voting='soft')."
            if classifies
            else "A classifier can't teach numbers."
        )
        raise TypeError(
            f"The teacher {name_of(teacher)} has neither {' nor '.join(needed)}, it has "
            f"{', '.join(has) or 'none of the usual'}. {way_out}"
        )
    if isinstance(teacher, FrozenEstimator):
        try:
            check_is_fitted(teacher.estimator)
        except NotFittedError as error:
            raise NotFittedError(
                f"The teacher FrozenEstimator({name_of(teacher)}(...)) holds an estimator that is not fitted. Fit it first, or "
                "leave FrozenEstimator out, and it is fitted to the labelled rows."
            ) from error


def _has(teacher: Any, name: str) -> bool:
    # A search, a voting or a pipeline has it where what is inside does.
    return callable(getattr(teacher, name, None))


# Fitting


def takes_weights(estimator: Any) -> bool:
    """Whether `fit` of an estimator, or of the last step of a pipeline, takes `sample_weight`."""
    if isinstance(estimator, Pipeline):
        return takes_weights(estimator.steps[-1][1])
    if isinstance(estimator, FrozenEstimator) or is_module(estimator):
        return True  # nothing is fitted
    if has_fit_parameter(estimator, "sample_weight"):
        return True
    parameters = inspect.signature(estimator.fit).parameters.values()
    return any(one.kind is one.VAR_KEYWORD for one in parameters)


def fit_weighted(estimator: Any, X: Any, y: np.ndarray, weights: np.ndarray | None) -> Any:
    """Fit an estimator, handing weights to the last step of a pipeline."""
    if weights is None:
        return estimator.fit(X, y)
    if not isinstance(estimator, Pipeline):
        return estimator.fit(X, y, sample_weight=weights)
    if get_routing_for_object(estimator.steps[-1][1]).consumes("fit", ["sample_weight"]):
        return estimator.fit(X, y, sample_weight=weights)  # the user has said where they go
    return estimator.fit(X, y, **{f"{estimator.steps[-1][0]}__sample_weight": weights})


def fit_teacher(
    teacher: Any,
    X: Any,
    y: np.ndarray,
    weights: np.ndarray | None,
    cv: Any,
    seed: int | None,
    ask_rows: Callable[[Any, Any], np.ndarray],
    content: bytes | None,
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
    content : bytes or None
        Digest of rows, targets and weights; None to fit in any case.
    classifies : bool
        Whether folds are stratified.

    Returns
    -------
    fitted : estimator
    out_of_fold : ndarray or None
        With `cv` answers for the labelled rows.
    """
    key = None if content is None else _fit_key(teacher, content, cv, seed)
    if key is not None and (known := kept_fits.get(key)) is not None:
        return known
    unfitted = seeded(clone(teacher), seed)
    out_of_fold = None
    if cv is not None:
        for learned, held_out in check_cv(cv, y, classifier=classifies).split(X, y):
            fold = None if weights is None else weights[learned]
            inner = fit_weighted(clone(unfitted), _safe_indexing(X, learned), y[learned], fold)
            answers = ask_rows(inner, _safe_indexing(X, held_out))
            if out_of_fold is None:
                out_of_fold = np.full((len(y), *answers.shape[1:]), np.nan)
            out_of_fold[held_out] = answers
        if out_of_fold is None or np.isnan(out_of_fold).any():
            raise ValueError(
                "cv leaves labelled rows that no fold holds out, so that they have no out-of-fold answer of the teacher. Use a "
                "splitter whose test parts are all rows, such as KFold."
            )
    made = fit_weighted(unfitted, X, y, weights), out_of_fold
    if key is not None:
        kept_fits.put(key, made)
    return made


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


def _fit_key(teacher: Any, content: bytes, cv: Any, seed: int | None) -> bytes | None:
    """Return what tells a fit from others, None where that can't be said."""
    if cv is not None and not isinstance(cv, int | np.integer | BaseEstimator) and not hasattr(cv, "get_n_splits"):
        return None  # an iterable is used up by being looked at
    try:
        told = joblib.hash((clone(teacher), None if cv is None else repr(cv), seed))
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
        return None
    return digest(content + told.encode(), domain=b"teacher fit")


# Rows


def digest_rows(X: Any) -> list[bytes]:
    """Return a digest of the content of each row; of a file with its size and time of change."""
    if issparse(X):
        X = X.tocsr()
        starts = X.indptr
        rows = ((X.indices[a:b].tobytes(), X.data[a:b].tobytes()) for a, b in zip(starts, starts[1:], strict=False))
        return [digest(repr(row).encode(), domain=b"sparse row") for row in rows]
    frame = nw.from_native(X, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        names = repr(list(frame.columns)).encode()
        return [digest(names + _content(row), domain=b"frame row") for row in frame.iter_rows()]
    if isinstance(frame, nw.Series):
        X = frame.to_list()
    return [digest(_content(row), domain=b"row") for row in X]


def _content(value: Any) -> bytes:
    if isinstance(value, np.ndarray) and value.dtype != object:
        return repr((value.shape, value.dtype.str)).encode() + value.tobytes()
    if isinstance(value, list | tuple | np.ndarray):
        parts = [_content(one) for one in value]
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    if isinstance(value, str | PurePath):
        named = str(value)
        stamp: Any = None
        if len(named) < 1024 and "\0" not in named:
            with contextlib.suppress(OSError):
                found = os.stat(named)
                stamp = (found.st_mtime_ns, found.st_size)
        return repr((type(value).__name__, named, stamp)).encode()
    if isinstance(value, int | float | bytes | bool | np.generic | None):
        return repr((type(value).__name__, value)).encode()
    return pickle.dumps(value, protocol=5)  # an image, a date, ...


def distinct_answers(
    teacher: Any, X: Any, digests: Sequence[bytes], cache: RowCache | None, ask_rows: Callable[[Any, Any], np.ndarray]
) -> np.ndarray:
    """Ask a fitted teacher for its answers, for each distinct row once, those in the cache not at all.

    Parameters
    ----------
    teacher : estimator or network
        Fitted.
    X : rows
        What it is asked for.
    digests : sequence of bytes
        Their digests.
    cache : RowCache or None
        Where answers are kept.
    ask_rows : callable
        From a teacher and rows to answers, a row each.

    Returns
    -------
    ndarray of shape (n, n_answers)
    """
    token = None if cache is None else _token_of(teacher)
    keys = [digest((token or b"") + one, domain=b"teacher") for one in digests]
    found: list[np.ndarray | None] = [None] * len(keys) if token is None else cache.get_many(keys)  # type: ignore[union-attr]
    missing: dict[bytes, int] = {}
    for place, (key, row) in enumerate(zip(keys, found, strict=True)):
        if row is None:
            missing.setdefault(key, place)
    if missing:
        places = np.fromiter(missing.values(), dtype=int)
        asked = ask_rows(teacher, X if len(places) == len(keys) else _safe_indexing(X, places))
        if token is not None:
            cache.put_many(list(missing), asked)  # type: ignore[union-attr]
        new = dict(zip(missing, asked, strict=True))
        found = [new[key] if row is None else row for key, row in zip(keys, found, strict=True)]
    return np.array(found, dtype=np.float64)


def _token_of(teacher: Any) -> bytes | None:
    """Return what stands for a fitted teacher in its present state, None where its state can't be seen."""
    subject = teacher.estimator if isinstance(teacher, FrozenEstimator) else teacher
    state = _state_of(subject)
    if state is None:
        return None
    with _lock:
        origin, known_state, token = _tokens.get(id(subject), (None, "", b""))
        if origin is not None and origin() is subject and known_state == state:
            return token
        for key in [key for key, (reference, *_) in _tokens.items() if reference() is None]:
            del _tokens[key]
        try:
            reference = weakref.ref(subject)
        except TypeError:
            return None
        token = os.urandom(16)
        _tokens[id(subject)] = reference, state, token
        return token


class _Digest:
    """A file that only remembers the digest of what is written to it."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b()

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return memoryview(data).nbytes


def _state_of(model: Any) -> str | None:
    """Return the digest of a pickle: the same object with the same pickle was not fitted again, nor its weights changed."""
    written = _Digest()
    try:
        pickle.Pickler(written, protocol=5).dump(model.module if isinstance(model, ModuleBackbone) else model)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
        return None
    return written.hash.hexdigest()


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
        if _has(teacher, "predict_proba"):
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
        places = {label: place for place, label in enumerate(known.tolist())}
        found = [places.get(label) for label in self.classes.tolist()]
        lacking = [label for label, place in zip(self.classes.tolist(), found, strict=True) if place is None]
        if lacking and not self.partial:
            raise _lacking(teacher, known, lacking)
        made = np.full((len(logs), len(found)), np.log(_SMALLEST))
        for place, column in enumerate(found):
            if column is not None:
                made[:, place] = logs[:, column]
        return log_softmax(made, axis=1)


def _lacking(teacher: Any, known: np.ndarray, lacking: list[Any]) -> ValueError:
    told = ", ".join(map(repr, known[:20].tolist()))
    hint = ""
    if {str(one) for one in lacking} & {str(one) for one in known.tolist()}:
        hint = " They look alike but are of other types: give y in the type that the teacher was fitted with."
    return ValueError(
        f"The teacher {name_of(teacher)} does not know the class(es) {', '.join(map(repr, lacking[:10]))} of y. It knows "
        f"{told}{', ...' if len(known) > 20 else ''}.{hint}"
    )


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
    shares = np.ones(len(answers)) if weights is None else np.asarray(weights, dtype=float)
    shares = shares / shares.sum()
    if len(answers) == 1:
        return answers[0]
    wide = shares[:, None, None]
    stacked = np.stack(answers)
    return logsumexp(stacked, axis=0, b=wide) if classifies else (wide * stacked).sum(axis=0)


def run_module(teacher: Any, X: Any, network: dict[str, Any]) -> np.ndarray:
    """Return what a network gives for rows, a vector each."""
    return PretrainedFeatureExtractor(teacher, normalize=False, **network).fit_transform(X).astype(np.float64)


def embed(teacher: Any, X: Any, network: dict[str, Any]) -> np.ndarray:
    """Return a fitted teacher's features of rows: what its own head sees.

    Raises
    ------
    TypeError
        If it is no network.
    """
    inner = teacher.estimator if isinstance(teacher, FrozenEstimator) else teacher
    if isinstance(inner, Pipeline):
        before = inner[:-1].transform(X) if len(inner.steps) > 1 else X
        return embed(inner.steps[-1][1], before, network)
    if is_module(inner) or hasattr(inner, "__sktransfer_backbone__"):
        return PretrainedFeatureExtractor(inner, **network).fit_transform(X).astype(np.float64)
    raise TypeError(
        f"hint_weight is for teachers that are networks; {name_of(teacher)} has no features to give. Set hint_weight=0."
    )


def check_gives_hints(teacher: Any) -> None:
    """Refuse a teacher without features, before it is fitted."""
    inner = teacher.estimator if isinstance(teacher, FrozenEstimator) else teacher
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
