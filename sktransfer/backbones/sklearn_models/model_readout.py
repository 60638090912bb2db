"""What a fitted scikit-learn model gives, as a matrix of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.preprocessing import normalize as scale_to_unit_length

from sktransfer._compat import _num_samples
from sktransfer._nearest import did_you_mean
from sktransfer.backbones.sklearn_models.fitted_models import FittedModel
from sktransfer.backbones.sklearn_models.leaves import LeafColumns

# numpy's array or scipy's sparse matrix or array, which publish no types.
Matrix = Any


class ModelReadout:
    """What is read out of a fitted model, and how it is scaled.

    Parameters
    ----------
    source : FittedModel
        The model.
    layer : str, sequence of str or None
        Names of outputs; None for the model's default.
    normalize : bool
        Whether rows are scaled to unit length.
    truncate_dim : int or None
        Number of leading values to keep; None for all.

    Raises
    ------
    ValueError
        If the model has no such output.
    """

    def __init__(self, source: FittedModel, layer: Any, *, normalize: bool, truncate_dim: int | None):
        self.source = source
        self._outputs = _check_layer(source, layer)
        self._normalize = normalize
        self._truncate_dim = truncate_dim
        self._leaf_columns: LeafColumns | None = None

    def fit(self, X: Any) -> int:
        """Read `X` once, to find out whether the model can, and return the number of values a row has.

        Raises
        ------
        ValueError
            If the model can't read `X`, what it gives are no features, or `truncate_dim` is more than it gives.
        """
        if "leaves" in self._outputs:
            self._leaf_columns = self.source.leaves.learn_columns(X.copy() if hasattr(X, "copy") else X)
        dimension = self._read_whole(X).shape[1]
        if self._truncate_dim is not None and self._truncate_dim > dimension:
            raise ValueError(
                f"truncate_dim={self._truncate_dim} is more than the {dimension} values that this embedding has."
            )
        return self._truncate_dim or dimension

    def read(self, X: Any) -> Matrix:
        """Return the features of rows.

        Parameters
        ----------
        X : array-like, frame, sparse matrix or list
            Rows as the model reads them.

        Returns
        -------
        ndarray or sparse matrix of shape (n_rows, n_values), float32
            Sparse if one of the outputs is.
        """
        features = self._read_whole(X)[:, : self._truncate_dim]
        return scale_to_unit_length(features) if self._normalize else features

    def _read_whole(self, X: Any) -> Matrix:
        parts = [self._read_one(output, X) for output in self._outputs]
        if len(parts) == 1:
            return parts[0]
        # csr: hstack of scipy gives another format by default, from which no rows can be taken.
        return sparse.hstack(parts, format="csr") if any(map(sparse.issparse, parts)) else np.hstack(parts)

    def _read_one(self, output: str, X: Any) -> Matrix:
        source = self.source
        # The model may have been told to work in place (copy=False); X is the caller's.
        X = X.copy() if hasattr(X, "copy") else X
        if output == "leaves":
            assert self._leaf_columns is not None
            values: Any = self._leaf_columns.encode(source.leaves.places(X))
        elif output == "leaf_values":
            values = source.leaves.values(X)
        else:
            values = getattr(source.model, output)(X)
            classes = getattr(source.model, "classes_", None)
            if output == "predict" and classes is not None:
                values = _indicate(values, classes)
        where = f"{source.name}.{output}" if output not in ("leaves", "leaf_values") else f"{output} of {source.name}"
        return _as_features(values, where, _num_samples(X))


def _check_layer(source: FittedModel, layer: Any) -> tuple[str, ...]:
    if layer is None:
        return source.outputs[:1]
    asked = [layer] if isinstance(layer, str) or not isinstance(layer, Sequence) else list(layer)
    listed = ", ".join(map(repr, source.outputs))
    for name in asked:
        if name in source.outputs:
            continue
        hint = did_you_mean(name, source.outputs) if isinstance(name, str) else ""
        if name in ("leaves", "leaf_values"):
            hint = (
                " Leaves are read from scikit-learn's decision trees and the ensembles of them, except "
                "HistGradientBoosting, which doesn't publish them."
            )
        raise ValueError(f"layer={name!r} is not an output of the fitted {source.name}, which gives {listed}.{hint}")
    return tuple(asked)


def _indicate(labels: Any, classes: Any) -> np.ndarray:
    """Turn predicted classes into one column a class; the table of a multilabel task is one already."""
    labels = np.asarray(labels)
    if labels.ndim == 1:
        return labels[:, None] == np.asarray(classes)
    if isinstance(classes, list):
        return np.hstack([labels[:, [place]] == np.asarray(own) for place, own in enumerate(classes)])
    return labels


def _as_features(values: Any, where: str, n_rows: int) -> Matrix:
    """Bring what a model gives to a float32 matrix with a row for each row, or say why that can't be.

    Raises
    ------
    ValueError
        If it is not numbers, not one row for each row, or not finite.
    """
    if isinstance(values, list) and values and np.ndim(values[0]) == 2:
        values = np.hstack([np.asarray(part) for part in values])  # one array for each of several targets
    if sparse.issparse(values):
        values = values.tocsr()
    else:
        values = np.asarray(values)
        if values.ndim == 1:
            values = values[:, None]
    if values.ndim != 2 or values.shape[0] != n_rows:
        raise ValueError(
            f"{where} gives an array of shape {values.shape} for {n_rows} rows of X, but a row of features for each is needed."
        )
    if values.shape[1] == 0:
        raise ValueError(f"{where} gives no column, so there is nothing to reuse.")
    values = _to_float32(values, where)
    stored = values.data if sparse.issparse(values) else values
    if not np.isfinite(stored).all():
        place = np.argwhere(~np.isfinite(stored))[0]
        row = int(np.searchsorted(values.indptr, place[0], side="right") - 1) if sparse.issparse(values) else place[0]
        raise ValueError(
            f"{where} gives {stored[tuple(place)]} for row {row} of X, which is no finite float32 number. Look at that row, "
            "or choose another output with layer=."
        )
    return values


def _to_float32(values: Any, where: str) -> Any:
    if values.dtype.kind in "biufO":
        try:
            # A copy in any case: a model may hand back X itself. What overflows is found by the caller.
            with np.errstate(over="ignore"):
                return values.astype(np.float32)
        except (TypeError, ValueError):
            pass
    raise ValueError(
        f"{where} gives {values.dtype} values, not numbers, so they are no features. Choose another layer=."
    )
