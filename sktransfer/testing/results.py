"""Checks of what methods give back: one entry for each row, in order, whatever else is in X."""

from __future__ import annotations

from typing import Any

import numpy as np
from joblib import Parallel, delayed

from sktransfer.testing.expectations import answers, close, expect, fitted, forget, fresh, methods_of, same, target_of
from sktransfer.testing.samples import Sample


def check_row_order(estimator: Any, sample: Sample) -> None:
    """Rows in another order give the same results in that order."""
    copy = fitted(estimator, sample)
    X = sample.rows + sample.odd_rows
    order = np.random.default_rng(0).permutation(len(X))
    wanted = answers(copy, X)
    forget()
    seen = answers(copy, [X[place] for place in order])
    same("results follow the rows when X is permuted", {name: all_[order] for name, all_ in wanted.items()}, seen)


def check_row_subsets(estimator: Any, sample: Sample) -> None:
    """A row gives the same result alone, in part of X and in all of X, and however often it is in there."""
    copy = fitted(estimator, sample)
    X = sample.rows[:6] + sample.odd_rows + sample.rows[:3]
    wanted = answers(copy, X)
    for size in (1, 4):
        forget()
        parts = [answers(copy, X[start : start + size]) for start in range(0, len(X), size)]
        seen = {name: np.concatenate([part[name] for part in parts]) for name in wanted}
        same(f"rows handed over {size} at a time give what they give together", wanted, seen)
    for name, values in wanted.items():
        close(f"{name} gives equal results for equal rows", values[:3], values[-3:])


def check_repeated_calls(estimator: Any, sample: Sample) -> None:
    """Asked twice, an estimator answers the same, even after the first answer was written over."""
    copy = fitted(estimator, sample)
    X = list(sample.rows)
    for name in methods_of(copy):
        first = getattr(copy, name)(X)
        kept = np.array(first)
        if isinstance(first, np.ndarray):
            expect(first.flags.writeable, f"{name} gives an array that its caller may write to", "a read-only array")
            first[...] = first[::-1].copy()
            first[:1] = 0 if first.dtype.kind == "f" else first[:1]
        close(f"{name} gives the same again after the caller wrote over its result", kept, getattr(copy, name)(X))


def check_threads(estimator: Any, sample: Sample) -> None:
    """Several threads may use one fitted estimator at once."""
    copy = fitted(estimator, sample)
    X = list(sample.rows)
    wanted = answers(copy, X)
    forget()
    parts = [X, X[::-1], X[::2], X[1::2]] * 2
    places = [range(len(X)), range(len(X))[::-1], range(len(X))[::2], range(len(X))[1::2]] * 2
    results = Parallel(n_jobs=4, prefer="threads")(delayed(answers)(copy, part) for part in parts)
    for chosen, seen in zip(places, results, strict=True):
        same("threads get what a single caller gets", {name: all_[list(chosen)] for name, all_ in wanted.items()}, seen)


def check_transform_output(estimator: Any, sample: Sample) -> None:
    """`transform` gives a finite float array of shape (n_samples, n_features)."""
    copy = fitted(estimator, sample)
    for X in (list(sample.rows), sample.rows[:1]):
        out = copy.transform(X)
        expect(isinstance(out, np.ndarray), "transform gives an ndarray", f"an object of type {type(out).__name__}")
        expect(out.ndim == 2 and len(out) == len(X), "transform gives one row for each row", f"shape {out.shape}")
        expect(out.dtype.kind == "f", "transform gives floats", str(out.dtype))
        expect(np.isfinite(out).all(), "transform gives finite numbers", "NaN or infinity")
    width = getattr(copy, "_n_features_out", out.shape[1])
    expect(width == out.shape[1], "_n_features_out is the number of columns", f"{width} for {out.shape[1]} columns")


def check_fit_transform(estimator: Any, sample: Sample) -> None:
    """`fit_transform` gives what `fit` and then `transform` give, on a new and on a fitted estimator."""
    X = list(sample.rows)
    copy = fitted(estimator, sample)
    wanted = copy.transform(X)
    for state in ("new", "fitted"):
        one = fresh(estimator) if state == "new" else copy
        out = one.fit_transform(X, target_of(estimator, sample))
        close(f"fit_transform of a {state} estimator gives what transform gives", wanted, out)
