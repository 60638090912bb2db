"""Which samples are trained on, and which ones choose the best epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from sktransfer._row_weights import of_mean_one
from sktransfer.training.objective import Samples


def weighted(X: Any, y: np.ndarray, weights: np.ndarray) -> Samples:
    """Leave out rows that have no weight, which is the same as no row, and bring the others' mean to 1."""
    kept = np.flatnonzero(weights)
    if not len(kept):
        raise ValueError("All sample weights are zero, so there is nothing to learn from.")
    samples = Samples(X, y, weights, np.arange(len(y)))
    samples = samples if len(kept) == len(weights) else samples.at(kept)
    return replace(samples, weights=of_mean_one(samples.weights))


def of_each(class_weights: dict[Any, float], y: np.ndarray) -> np.ndarray:
    """Return the class weight of each row."""
    return np.array([class_weights.get(label, 1.0) for label in y.tolist()]) if class_weights else np.ones(len(y))


def n_held_out(fraction: float, n_rows: int) -> int:
    """Return how many rows a share or number of them is."""
    return int(np.ceil(fraction * n_rows)) if fraction < 1 else int(fraction)


def split(
    samples: Samples, fraction: float, strata_of: Callable[[np.ndarray], np.ndarray | None], seed: int
) -> tuple[Samples, Samples]:
    """Hold validation samples back.

    Parameters
    ----------
    samples : Samples
        All of them.
    fraction : float
        Share or number of the validation samples.
    strata_of : callable
        From targets to the classes that both parts have in the same mix, or None.
    seed : int
        Of the draw.

    Returns
    -------
    training, validation : Samples
        In their order.
    """
    n_rows = len(samples.y)
    if n_rows < 2:
        raise ValueError(
            "Of a single row none can be held back for validation. Set early_stopping=False, or give X_val."
        )
    held_back = n_held_out(fraction, n_rows)
    if held_back >= n_rows:
        raise ValueError(
            f"validation_fraction={fraction} of {n_rows} rows holds back {held_back} of them, so that none is left to "
            "learn from. Make it smaller, or set early_stopping=False."
        )
    training, validation = train_test_split(
        np.arange(n_rows), test_size=fraction, random_state=seed, stratify=strata_of(samples.y)
    )
    return samples.at(np.sort(training)), samples.at(np.sort(validation))
