"""How alike two representations of the same rows are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def linear_cka(X: ArrayLike, Y: ArrayLike) -> float:
    """Linear centred kernel alignment of two representations of the same rows.

    It is 1 where the representations are the same up to rotation, reflection, shift and one common scale, and 0
    where no feature of one correlates with any feature of the other. The number of features may differ.

    Parameters
    ----------
    X : array-like of shape (n_rows, n_features_x)
        A representation of the rows. It is centred here.
    Y : array-like of shape (n_rows, n_features_y)
        Another representation of the same rows, in the same order.

    Returns
    -------
    float
        The similarity, between 0 and 1.

    Raises
    ------
    ValueError
        If an array is not two-dimensional, has fewer than two rows or no feature, holds values that are no real
        finite numbers, or has rows that are all the same, and if the arrays differ in their number of rows.

    Notes
    -----
    The measure of Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019:
    ``||Y.T X||_F**2 / (||X.T X||_F ||Y.T Y||_F)`` for centred columns. With fewer rows than features the same number
    is computed from products of shape (n_rows, n_rows), so that memory does not grow with the square of the features.

    With few rows for many features the measure is high for unrelated representations too: compare values only
    between equal numbers of rows, and take more rows than features where its level is to mean something.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.metrics import linear_cka
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> rotation = np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2)[0]
    >>> round(linear_cka(X, 5 * X @ rotation + 1), 6)
    1.0
    >>> round(linear_cka(X, np.maximum(X, 0)), 2)
    0.72
    """
    X, Y = _centred(X, "X"), _centred(Y, "Y")
    if len(X) != len(Y):
        raise ValueError(f"X and Y must hold the same rows, but X has {len(X)} and Y has {len(Y)}.")
    if len(X) < max(X.shape[1], Y.shape[1]):
        within_x, within_y = X @ X.T, Y @ Y.T
        between = np.vdot(within_x, within_y)
    else:
        within_x, within_y = X.T @ X, Y.T @ Y
        between = np.linalg.norm(Y.T @ X) ** 2
    similarity = between / (np.linalg.norm(within_x) * np.linalg.norm(within_y))
    # Rounding may step over the bounds by 1e-16.
    return float(np.clip(similarity, 0.0, 1.0))


def _centred(array: ArrayLike, name: str) -> np.ndarray:
    """Check a representation, and return it as float64 of common scale with columns of mean zero."""
    if np.iscomplexobj(array):
        raise ValueError(f"{name} must hold real numbers, but holds complex ones.")
    checked = np.asarray(array, dtype=np.float64)
    if checked.ndim != 2:
        raise ValueError(
            f"{name} must have the shape (n_rows, n_features), but has the shape {checked.shape}. "
            "Pool or flatten what a network gives for each row to one vector."
        )
    if len(checked) < 2 or checked.shape[1] < 1:
        raise ValueError(f"{name} must have at least two rows and one feature, but has the shape {checked.shape}.")
    if not np.isfinite(checked).all():
        raise ValueError(f"{name} must hold finite numbers, but holds NaN or infinity.")
    if (checked == checked[0]).all():
        raise ValueError(f"All rows of {name} are the same: the similarity of a constant is not defined.")
    # The measure does not depend on the scale, and products of numbers around 1 neither overflow nor vanish.
    scaled = checked / np.abs(checked).max()
    return scaled - scaled.mean(axis=0)
