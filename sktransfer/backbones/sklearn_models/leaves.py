"""The leaves of decision trees, alone or in ensembles, as features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.ensemble import BaseEnsemble, IsolationForest, RandomTreesEmbedding
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data

# Trees of these are grown on random targets: where a row ends up means something, what the leaf predicts does not.
_RANDOM_TARGETS = (IsolationForest, RandomTreesEmbedding)


class Leaves:
    """Where each tree of a fitted model puts a row.

    Parameters
    ----------
    model : estimator
        A fitted model: trees, an ensemble of trees, a third party's model with ``apply(X)``, or a pipeline or search
        that ends in one. It is only read.

    Attributes
    ----------
    found : bool
        Whether the model has leaves.
    have_values : bool
        Whether the leaves hold values that were learned.
    """

    def __init__(self, model: Any):
        self._steps, self._model = _take_apart(model)
        self._trees = _trees_of(self._model)
        # A third party's trees can be asked where a row ends up, but don't show how many leaves there are.
        self.found = bool(self._trees) or callable(getattr(self._model, "apply", None))
        self.have_values = bool(self._trees) and not isinstance(self._model, _RANDOM_TARGETS)

    def places(self, X: Any) -> np.ndarray:
        """Return the number of the leaf that each row reaches in each tree.

        Parameters
        ----------
        X : array-like, frame or sparse matrix
            Rows as the model reads them.

        Returns
        -------
        ndarray of shape (n_rows, n_trees), int64
        """
        for step in self._steps:
            X = step.transform(X)
        if not self._trees or self._applies_itself():
            reached = np.asarray(self._model.apply(X))
            return reached.reshape(len(reached), -1).astype(np.int64)
        # Gradient boosting's own `apply` warns of every frame, and the other ensembles have none.
        allow_nan = get_tags(self._model).input_tags.allow_nan
        X = validate_data(
            self._model,
            X,
            reset=False,
            dtype=np.float32,
            order="C",
            accept_sparse="csr",
            ensure_all_finite="allow-nan" if allow_nan else True,
        )
        columns = getattr(self._model, "estimators_features_", None)
        subsets = [slice(None)] * len(self._trees) if columns is None else columns
        pairs = zip(self._trees, subsets, strict=True)
        return np.column_stack([tree.apply(X[:, subset]) for tree, subset in pairs]).astype(np.int64)

    def learn_columns(self, X: Any) -> LeafColumns:
        """Give every leaf a column: all leaves of trees that are known, else those that rows of `X` reach."""
        if self._trees:
            return LeafColumns([np.flatnonzero(tree.tree_.children_left == -1) for tree in self._trees])
        return LeafColumns([np.unique(reached) for reached in self.places(X).T])

    def values(self, X: Any) -> np.ndarray:
        """Return what the reached leaves hold, tree after tree.

        Returns
        -------
        ndarray of shape (n_rows, sum of n_outputs * n_classes over the trees)
            The share of each class, or the value of a regression tree.
        """
        places = self.places(X)
        held = [tree.tree_.value.reshape(tree.tree_.node_count, -1) for tree in self._trees]
        return np.hstack([values[reached] for values, reached in zip(held, places.T, strict=True)])

    def _applies_itself(self) -> bool:
        # Forests, in parallel, and single trees.
        return _is_tree(self._model) or (hasattr(self._model, "apply") and isinstance(self._model.estimators_, list))


class LeafColumns:
    """One column a leaf: 1 where the row is in it, else 0.

    Parameters
    ----------
    leaves : sequence of ndarray
        The numbers of each tree's leaves, ascending.
    """

    def __init__(self, leaves: Sequence[np.ndarray]):
        self._encoder = OneHotEncoder(categories=list(leaves), handle_unknown="ignore", dtype=np.float32)
        self._encoder.set_output(transform="default")  # whatever the global setting: frames hold no sparse matrix
        self._encoder.fit(np.array([[numbers[0] for numbers in leaves]]))

    def encode(self, places: np.ndarray) -> sparse.spmatrix:
        """Return the columns of rows; a leaf without a column leaves its tree's columns at 0."""
        return self._encoder.transform(places)


def _take_apart(model: Any) -> tuple[list[Any], Any]:
    """Return the transformers that `X` passes first, and the model at the end of pipelines, searches and the like."""
    steps = []
    while True:
        if isinstance(model, FrozenEstimator):
            model = model.estimator
        elif isinstance(model, Pipeline):
            if len(model.steps) > 1:
                steps.append(model[:-1])
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):  # a search
            model = model.best_estimator_
        else:
            return steps, model


def _trees_of(model: Any) -> list[Any]:
    """Return the decision trees of a model of scikit-learn's, or of a subclass."""
    if _is_tree(model):
        return [model]
    if not isinstance(model, BaseEnsemble):
        return []
    members = model.estimators_
    members = members.ravel().tolist() if isinstance(members, np.ndarray) else list(members)
    return members if all(map(_is_tree, members)) else []


def _is_tree(model: Any) -> bool:
    # The tree_ of KernelDensity is a search tree.
    return hasattr(getattr(model, "tree_", None), "children_left")
