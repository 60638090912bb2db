"""Rows with and without labels in one X: put together, and scored on those with."""

from __future__ import annotations

from numbers import Number
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.stable.v2.dependencies import (
    get_pandas,
    get_polars,
    is_pandas_dataframe,
    is_pandas_series,
    is_polars_dataframe,
)
from scipy import sparse
from sklearn import get_config
from sklearn.metrics import check_scoring
from sklearn.utils.validation import check_consistent_length

from sktransfer._compat import UNUSED, _MetadataRequester, _num_samples, _safe_indexing
from sktransfer._labels import check_container, check_targets


def stack_unlabeled(X, y, X_unlabeled):
    """Put rows without a label behind rows with one.

    Parameters
    ----------
    X : list, ndarray, sparse matrix, Series or DataFrame of n_samples rows
        Rows with a label.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Their labels.
    X_unlabeled : like `X`, of n_unlabeled rows
        Rows without.

    Returns
    -------
    X : like `X`, of n_samples + n_unlabeled rows
        All rows.
    y : ndarray of shape (n_samples + n_unlabeled,) or (n_samples + n_unlabeled, n_targets)
        The labels, and for rows without one some label of the others, which nobody reads: it only has to be of the
        right type, and to let splitters that balance classes go on.
    sample_labeled : ndarray of shape (n_samples + n_unlabeled,), bool
        Whether a row has a label, for ``fit(X, y, sample_labeled=...)``.

    Raises
    ------
    TypeError
        If `X` and `X_unlabeled` are of different types.
    ValueError
        If columns or shapes of rows differ, or `X` and `y` are not of the same length.

    Examples
    --------
    >>> from sktransfer.model_selection import stack_unlabeled
    >>> X, y, sample_labeled = stack_unlabeled(["too cold", "too warm"], ["cold", "warm"], ["freezing in here"])
    >>> X
    ['too cold', 'too warm', 'freezing in here']
    >>> sample_labeled
    array([ True,  True, False])
    """
    check_targets(y)
    check_consistent_length(X, y)
    n_labeled, n_unlabeled = _num_samples(X), _num_samples(X_unlabeled)
    if not n_labeled:
        raise ValueError("X has no rows. Give at least one with a label.")
    frame = nw.from_native(y, eager_only=True, allow_series=True, pass_through=True)
    labels = frame.to_numpy() if isinstance(frame, nw.Series | nw.DataFrame) else np.asarray(y)
    filler = labels[np.arange(n_unlabeled) % n_labeled]
    return _stacked(X, X_unlabeled), np.concatenate([labels, filler]), np.arange(n_labeled + n_unlabeled) < n_labeled


def _stacked(first: Any, second: Any) -> Any:
    parts = [nw.from_native(one, eager_only=True, allow_series=True, pass_through=True) for one in (first, second)]
    kinds = (list, np.ndarray, nw.Series, nw.DataFrame)
    alike = any(all(isinstance(part, kind) for part in parts) for kind in kinds)
    if not alike and not all(sparse.issparse(part) for part in parts):
        raise TypeError(
            f"X is of type {type(first).__name__} and X_unlabeled of type {type(second).__name__}; both have to be lists, "
            "arrays, sparse matrices, columns or frames."
        )
    if isinstance(first, list):
        return [*first, *second]
    if sparse.issparse(first):
        return sparse.vstack([first, second], format="csr")
    if isinstance(first, np.ndarray):
        if first.shape[1:] != second.shape[1:]:
            raise ValueError(f"Rows of X have the shape {first.shape[1:]}, those of X_unlabeled {second.shape[1:]}.")
        return np.concatenate([first, second])
    if isinstance(parts[0], nw.DataFrame):
        own, other = (list(part.columns) for part in parts)
        if set(own) != set(other):
            raise ValueError(
                f"X has the columns {', '.join(map(str, own[:10]))}, X_unlabeled {', '.join(map(str, other[:10]))}."
            )
        if is_pandas_dataframe(first):
            return get_pandas().concat([first, second[first.columns]], ignore_index=True)
        if is_polars_dataframe(first):
            return get_polars().concat([first, second.select(first.columns)], how="vertical_relaxed")
        return nw.concat([parts[0], parts[1][own]]).to_native()
    if is_pandas_series(first):
        return get_pandas().concat([first, second.rename(first.name)], ignore_index=True)
    columns = [part.alias("rows").to_frame() for part in parts]
    return nw.concat(columns)["rows"].alias(parts[0].name).to_native()


class LabeledScorer(_MetadataRequester):
    """A scorer that looks at rows with a label only.

    Parameters
    ----------
    scoring : str or callable, default=None
        A scorer of scikit-learn or its name; None for the estimator's own ``score``.

    See Also
    --------
    stack_unlabeled : Puts rows with and without labels together.

    Notes
    -----
    It asks for `sample_labeled` by itself. scikit-learn hands such metadata on when told to:
    ``sklearn.set_config(enable_metadata_routing=True)``. Without it a call that brings no mask is an error.

    Examples
    --------
    >>> import sklearn
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn.datasets import load_iris
    >>> from sktransfer import DistilledClassifier
    >>> from sktransfer.model_selection import LabeledScorer
    >>> X, y = load_iris(return_X_y=True)
    >>> model = DistilledClassifier(LogisticRegression(max_iter=1000), student=LogisticRegression(max_iter=1000))
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     found = cross_validate(model, X, y, scoring=LabeledScorer("accuracy"), params={"sample_labeled": y < 2})
    >>> len(found["test_score"])
    5
    """

    # What is no metadata is told apart by name.
    __metadata_request__score = {"estimator": UNUSED, "sample_labeled": True}

    def __init__(self, scoring=None):
        self.scoring = scoring

    def __repr__(self):
        return f"LabeledScorer({self.scoring!r})"

    def __call__(self, estimator, X, y, sample_labeled=None):
        """Score an estimator; see `score`."""
        return self.score(estimator, X, y, sample_labeled=sample_labeled)

    def score(self, estimator, X, y, sample_labeled=None):
        """Score an estimator on rows with a label.

        Parameters
        ----------
        estimator : estimator
            A fitted one.
        X : rows
            With and without labels.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels; of rows without one, anything.
        sample_labeled : array-like of shape (n_samples,), default=None
            Whether a row has a label; None for all, where scikit-learn's routing is on.

        Returns
        -------
        float
            The score.

        Raises
        ------
        ValueError
            If no row has a label, or there is no mask although routing is off.
        """
        scorer = check_scoring(estimator, self.scoring)
        if sample_labeled is None:
            if not get_config()["enable_metadata_routing"]:
                raise ValueError(
                    "LabeledScorer got no sample_labeled. scikit-learn hands it to scorers only with "
                    "sklearn.set_config(enable_metadata_routing=True); without, rows that have no label would be scored too."
                )
            return scorer(estimator, X, y)
        labeled = np.flatnonzero(check_labeled(sample_labeled, X))
        if not len(labeled):
            raise ValueError(
                "None of the rows to score has a label. Take a splitter that shuffles, as "
                "StratifiedKFold(5, shuffle=True), so that every fold has some."
            )
        return scorer(estimator, _safe_indexing(X, labeled), _safe_indexing(y, labeled))


def check_labeled(sample_labeled: Any, X: Any) -> np.ndarray:
    """Return the mask of rows that have a label.

    Parameters
    ----------
    sample_labeled : array-like of shape (n_samples,) or None
        True or 1 where a row has a label; None for all.
    X : rows
        The rows.

    Raises
    ------
    ValueError
        If it is of another length, or holds anything but True and False, or 1 and 0.
    """
    n_rows = _num_samples(X)
    if sample_labeled is None:
        return np.ones(n_rows, dtype=bool)
    check_container(sample_labeled, "sample_labeled")
    frame = nw.from_native(sample_labeled, eager_only=True, allow_series=True, pass_through=True)
    mask = frame.to_numpy() if isinstance(frame, nw.Series) else np.asarray(sample_labeled)
    if mask.shape != (n_rows,):
        raise ValueError(
            f"sample_labeled has the shape {mask.shape}; it needs one entry for each of the {n_rows} rows of X."
        )
    known = mask.dtype.kind in "biuf" or all(isinstance(one, Number | np.bool_) for one in mask)
    if mask.dtype.kind != "b" and not (known and np.isin(mask, (0, 1)).all()):
        raise ValueError("sample_labeled must hold True where a row has a label and False where it has none.")
    return mask.astype(bool)
