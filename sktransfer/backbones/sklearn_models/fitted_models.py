"""A fitted scikit-learn model as a source of features."""

from __future__ import annotations

import contextlib
import copy
import pickle
import weakref
from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import InputTags, get_tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._locks import ProcessLock
from sktransfer.backbones.sklearn_models.leaves import Leaves
from sktransfer.caching.pickled import PickledState, pickled_state

# In the order of preference: the first that a model has is what it gives by default.
OUTPUTS = ("leaves", "transform", "decision_function", "predict_proba", "predict", "score_samples", "leaf_values")

_lock = ProcessLock("copies of fitted models")
# By identity of the caller's model: that model, the digest of its state, and the copy made of it in that state.
_copies: dict[int, tuple[weakref.ref, PickledState, weakref.ref[FittedModel]]] = {}


class FittedModel:
    """A fitted model of scikit-learn's conventions, as it was when it was taken in.

    A handle is immutable, and shared by all estimators that were fitted on the model in this state.

    Parameters
    ----------
    model : estimator
        A fitted model that belongs to the handle alone.

    Attributes
    ----------
    model : estimator
        The handle's own copy; only to be read.
    name : str
        Name of its class.
    kind : str or None
        Kind of row that it reads, "table" or "text", where its tags tell.
    outputs : tuple of str
        What can be read out, the default first.
    """

    def __init__(self, model: Any):
        self.model = model
        self.name = _name_of(model)
        self.kind = _kind_of(model)
        self.leaves = Leaves(model)
        self.outputs = _outputs_of(model, self.leaves)

    def __repr__(self) -> str:
        return f"<FittedModel {self.name!r} ({self.kind or 'any rows'}, gives {', '.join(self.outputs)})>"

    def __copy__(self) -> FittedModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FittedModel:
        # Immutable, so estimators that are copied go on sharing it.
        return self


def find_model(backbone: Any) -> Any:
    """Return the scikit-learn model, fitted or not, that `backbone` is or hands on; None where it is something else.

    Parameters
    ----------
    backbone : object
        What was given as ``backbone=``.

    Returns
    -------
    estimator, FittedModel or None
        A `FittedModel` where an estimator of this package hands one on.
    """
    if isinstance(backbone, type | nn.Module):
        return None
    if isinstance(backbone, FittedModel):
        return backbone
    if hasattr(backbone, "__sktransfer_backbone__"):
        try:
            handed = backbone.__sktransfer_backbone__()
        except NotFittedError:
            return None
        return handed if isinstance(handed, FittedModel) else None
    return backbone if hasattr(backbone, "fit") else None


def take_model(model: Any) -> FittedModel:
    """Take a fitted model in: copy it, or find the copy that was made of it in this state.

    Parameters
    ----------
    model : estimator or FittedModel
        What `find_model` returned. It is not changed, and what happens to it later has no effect here.

    Returns
    -------
    FittedModel

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    ValueError
        If it has nothing to give, or can't be copied.
    """
    if isinstance(model, FittedModel):
        return model
    _check_fitted(model)
    if not _outputs_of(model, Leaves(model)):
        raise ValueError(
            f"backbone={_name_of(model)}(...) has nothing to give for new rows. Looked for: leaves of decision trees "
            "(tree_, estimators_ or apply), transform, decision_function, predict_proba, predict (labels of clusters don't "
            "count), score_samples."
        )
    state = pickled_state(model)
    with _lock:
        known = None if state is None else _known_copy(model, state)
        if known is None:
            known = FittedModel(_copy_of(model))
            if state is not None:
                _remember(model, state, known)
        return known


def _known_copy(model: Any, state: PickledState) -> FittedModel | None:
    # Of the same object only: a pickle names functions and classes, which may have been defined anew since.
    origin, known_state, copied = _copies.get(id(model), (None, None, None))
    if origin is None or copied is None or origin() is not model or known_state != state:
        return None
    return copied()


def _remember(model: Any, state: PickledState, copied: FittedModel) -> None:
    for key in [key for key, (origin, _, kept) in _copies.items() if origin() is None or kept() is None]:
        del _copies[key]
    with contextlib.suppress(TypeError):  # an object that takes no weak reference is copied each time
        _copies[id(model)] = weakref.ref(model), state, weakref.ref(copied)


def input_tags_of(model: Any) -> InputTags:
    """Return the tags of what a model reads: those of the first step, where it is a pipeline."""
    model = model.model if isinstance(model, FittedModel) else model
    tags = copy.deepcopy(_input_tags(_first_step(model)))
    tags.sparse = _input_tags(model).sparse
    return tags


def _name_of(model: Any) -> str:
    return type(model.estimator if isinstance(model, FrozenEstimator) else model).__name__


def _check_fitted(model: Any) -> None:
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise NotFittedError(
            f"backbone={_name_of(model)}(...) is not fitted, so it has learned nothing to reuse. Fit it first. If it was "
            "fitted: a grid of backbones is cloned by the search, which makes fitted models unfitted ones; wrap each as "
            "sklearn.frozen.FrozenEstimator(fitted), so that clones stay fitted."
        ) from error


def _outputs_of(model: Any, leaves: Leaves) -> tuple[str, ...]:
    """Return what can be read out of a fitted model, the default first."""
    has = {name: callable(getattr(model, name, None)) for name in OUTPUTS}
    has["leaves"] = leaves.found
    has["leaf_values"] = leaves.have_values
    # The number of a cluster is a label that nobody has given a meaning.
    has["predict"] = has["predict"] and getattr(_tags(model), "estimator_type", None) != "clusterer"
    return tuple(name for name in OUTPUTS if has[name])


def _kind_of(model: Any) -> str | None:
    first = _first_step(model)
    tags = _input_tags(first)
    if tags.two_d_array:
        # Meta-estimators over texts say that they read tables, but count no columns.
        return "table" if hasattr(model, "n_features_in_") else None
    # Vectorizers read anything when they are told how: files, or documents that are lists of words.
    reads_else = getattr(first, "input", "content") != "content" or any(
        callable(getattr(first, name, None)) for name in ("analyzer", "preprocessor")
    )
    return "text" if tags.string and not reads_else else None


def _first_step(model: Any) -> Any:
    """Return what `X` meets first: pipelines don't hand on what their first step reads."""
    while True:
        if isinstance(model, FrozenEstimator):
            model = model.estimator
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif isinstance(model, Pipeline):
            steps = [step for _, step in model.steps if step not in (None, "passthrough")]
            if not steps:
                return model
            model = steps[0]
        else:
            return model


def _tags(model: Any) -> Any:
    """Return a model's tags, or None where it is no scikit-learn estimator by descent."""
    return get_tags(model) if hasattr(model, "__sklearn_tags__") else None


def _input_tags(model: Any) -> InputTags:
    tags = _tags(model)
    return InputTags() if tags is None else tags.input_tags


def _copy_of(model: Any) -> Any:
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, AttributeError, pickle.PicklingError) as error:
        raise ValueError(
            f"The model {_name_of(model)} can't be copied ({error}). sktransfer works on a copy, so that a later fit of yours "
            "changes nothing here: make copy.deepcopy(model) work."
        ) from error
