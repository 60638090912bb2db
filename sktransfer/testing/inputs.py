"""Checks of what is handed in as X: containers, columns, and what is refused."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any
from unittest import SkipTest

import joblib
import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils import get_tags

from sktransfer.testing.expectations import (
    answers,
    expect,
    fitted,
    fresh,
    methods_of,
    refuses,
    same,
    target_of,
)
from sktransfer.testing.samples import Container, Sample, objects

_REFUSAL = (TypeError, ValueError)


def check_container(estimator: Any, sample: Sample, container: Container) -> None:
    """The same rows give the same result, whatever they are handed over in."""
    X, y = list(sample.rows), target_of(estimator, sample)
    wanted = answers(fitted(estimator, sample), X)
    handed = container.make(sample.rows)
    contract = f"rows in a {container.name} give what they give in a list"
    same(contract, wanted, answers(fitted(estimator, sample), handed))
    if container.tells_kind:
        same(f"{contract}, used in fit", wanted, answers(fresh(estimator).fit(handed, y), X))


def check_input_unchanged(estimator: Any, sample: Sample, container: Container) -> None:
    """`fit` and the other methods leave `X` as it was."""
    handed = container.make(sample.rows)
    if container.name == "array protocol":
        raise SkipTest("the array behind the protocol is the estimator's own")
    before = _content_of(handed)
    copy = fitted(estimator, sample)
    if container.tells_kind:
        copy = fresh(estimator).fit(handed, target_of(estimator, sample))
        expect(_content_of(handed) == before, "fit leaves X as it was", f"other content in the {container.name}")
    for name in methods_of(copy):
        getattr(copy, name)(handed)
        expect(_content_of(handed) == before, f"{name} leaves X as it was", f"other content in the {container.name}")


def check_list_unchanged(estimator: Any, sample: Sample) -> None:
    """A list keeps its rows, the very objects, and their content."""
    X = sample.rows + sample.odd_rows
    rows, contents = list(X), [_content_of(row) for row in X]
    copy = fresh(estimator).fit(X, np.resize(target_of(estimator, sample), len(X)))
    for name in methods_of(copy):
        getattr(copy, name)(X)
    expect(len(X) == len(rows), "a list handed in keeps its length", f"{len(X)} rows instead of {len(rows)}")
    moved = [place for place, (old, new) in enumerate(zip(rows, X, strict=True)) if old is not new]
    expect(not moved, "a list handed in keeps its rows", f"other objects in rows {moved}")
    changed = [place for place, row in enumerate(X) if _content_of(row) != contents[place]]
    expect(not changed, "rows handed in keep their content", f"changes in rows {changed}")


def check_readonly_input(estimator: Any, sample: Sample) -> None:
    """Read-only arrays, in memory and memory-mapped, are read like others."""
    wanted = answers(fitted(estimator, sample), list(sample.rows))
    array = np.array(sample.rows)
    locked = array.copy()
    locked.flags.writeable = False
    y = target_of(estimator, sample)
    y.flags.writeable = False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        joblib.dump(array, path)
        mapped = joblib.load(path, mmap_mode="r")
        for name, X in (("read-only", locked), ("memory-mapped", mapped)):
            same(f"a {name} array gives what a list gives", wanted, answers(fresh(estimator).fit(X, y), X))
        del mapped, X


def check_odd_rows(estimator: Any, sample: Sample) -> None:
    """Rows that are valid but hard to read are read, alone and in company, and give finite numbers."""
    copy = fitted(estimator, sample)
    X = sample.rows[:3] + sample.odd_rows
    together = answers(copy, X)
    for name, values in together.items():
        expect(len(values) == len(X), f"{name} gives one entry for each row", f"{len(values)} for {len(X)} rows")
        if values.dtype.kind == "f" and name != "predict_log_proba":
            bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
            expect(not bad.size, f"{name} gives finite numbers", f"NaN or infinity for {[X[i] for i in bad]!r:.200}")
    fresh(estimator).fit(X, np.resize(target_of(estimator, sample), len(X)))


def check_one_row(estimator: Any, sample: Sample) -> None:
    """One row is enough to ask, and to fit; or the error speaks of samples or classes."""
    copy = fitted(estimator, sample)
    for name, values in answers(copy, sample.rows[:1]).items():
        expect(values.shape[:1] == (1,), f"{name} of one row gives one entry", f"shape {values.shape}")
    alone = fresh(estimator)
    try:
        alone.fit(sample.rows[:1], target_of(estimator, sample)[:1])
    except ValueError as error:
        told = any(word in str(error).lower() for word in ("sample", "class", "row"))
        expect(told, "a fit to one row works, or says that samples or classes are too few", f"ValueError: {error}")
    else:
        answers(alone, sample.rows[:1])


def check_empty_input(estimator: Any, sample: Sample) -> None:
    """No rows are refused with a ValueError that says so."""
    copy = fitted(estimator, sample)
    y = target_of(estimator, sample)[:0]
    empty: list[Any] = [[], (), np.array([], dtype=object), np.array(sample.rows)[:0]]
    for X in empty:
        shown = f"an empty {type(X).__name__}"
        refuses(f"fit refuses {shown}", partial(fresh(estimator).fit, X, y), ValueError, "0 sample", "empty")
        for name in methods_of(copy):
            refuses(f"{name} refuses {shown}", partial(getattr(copy, name), X), ValueError, "0 sample", "empty")


def check_missing_rows(estimator: Any, sample: Sample) -> None:
    """A missing value among the rows is refused with a ValueError that says so."""
    copy = fitted(estimator, sample)
    for value in sample.missing:
        X: list[Any] = list(sample.rows)
        X[5] = value
        _refused(copy, sample, X, f"{value!r} among the rows", ValueError, "missing", "nan", "none")
        X[0] = value
        _refused(copy, sample, X, f"{value!r} in the first row", ValueError, "missing", "nan", "none")


def check_missing_in_frame(estimator: Any, sample: Sample, container: Container) -> None:
    """A missing value in a frame's column is refused as in a list."""
    X = container.make([None if place == 5 else row for place, row in enumerate(sample.rows)])
    _refused(fitted(estimator, sample), sample, X, f"None in a {container.name}", ValueError, "missing", "nan", "none")


def check_wrong_rows(estimator: Any, sample: Sample) -> None:
    """Values that are no rows are refused with a TypeError or ValueError, wherever they stand."""
    copy = fitted(estimator, sample)
    for value in sample.wrong_rows:
        X: list[Any] = list(sample.rows)
        X[5] = value
        _refused(copy, sample, X, f"{value!r:.40} among the rows", _REFUSAL)


def check_wrong_inputs(estimator: Any, sample: Sample) -> None:
    """After a fit, inputs of another kind are refused with a TypeError or ValueError."""
    copy = fitted(estimator, sample)
    for shown, X in sample.wrong_inputs.items():
        for name in methods_of(copy):
            refuses(
                f"{name} of an estimator fitted to {sample.kind} rows refuses {shown}",
                partial(getattr(copy, name), X),
                _REFUSAL,
            )
    # The refusals must not have spoilt anything.
    same(
        "refused inputs leave the estimator as it was",
        answers(fitted(estimator, sample), sample.rows),
        answers(copy, sample.rows),
    )


def check_bare_row(estimator: Any, sample: Sample) -> None:
    """A single row that is not in a list is refused with a TypeError or ValueError, not read letter by letter."""
    copy = fitted(estimator, sample)
    for row in sample.bare_rows:
        _refused(copy, sample, row, f"a bare {type(row).__name__}", _REFUSAL)


def check_sparse_input(estimator: Any, sample: Sample) -> None:
    """Sparse matrices are refused with a message that speaks of sparse data."""
    if get_tags(estimator).input_tags.sparse:
        raise SkipTest("the tags say that sparse data is read")
    copy = fitted(estimator, sample)
    dense = np.eye(len(sample.rows), 3)
    for make in (
        sparse.csr_array,
        sparse.csr_matrix,
        sparse.csc_array,
        sparse.coo_array,
        sparse.dok_array,
        sparse.lil_array,
    ):
        _refused(copy, sample, make(dense), f"a {make.__name__}", _REFUSAL, "sparse")


def check_several_columns(estimator: Any, sample: Sample) -> None:
    """Several columns are refused with a ValueError, instead of one being taken or all being joined."""
    copy = fitted(estimator, sample)
    column = objects(sample.rows).reshape(-1, 1)
    _refused(copy, sample, np.hstack([column, column]), "an array of two columns", _REFUSAL)
    for container in sample.containers:
        if container.is_frame:
            try:
                frame = nw.from_native(container.make(sample.rows))
            except SkipTest:
                continue
            name = frame.columns[0]
            two = frame.with_columns(frame[name].alias("second")).to_native()
            _refused(copy, sample, two, f"a {container.name} of two columns", _REFUSAL)


def check_columns(estimator: Any, sample: Sample, container: Container) -> None:
    """`n_features_in_` and `feature_names_in_` are set by a fit to a frame, not before, and other names refused."""
    copy = fresh(estimator)
    expect(not hasattr(copy, "n_features_in_"), "n_features_in_ does not exist before fit", "it does")
    frame = container.make(sample.rows)
    column = nw.from_native(frame).columns[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*feature names.*")
        copy.fit(frame, target_of(estimator, sample))
        answers(copy, frame)
    names: Any = getattr(copy, "feature_names_in_", None)
    count = getattr(copy, "n_features_in_", None)
    expect(count == 1, "n_features_in_ is 1 after a fit to one column", repr(count))
    expect(isinstance(names, np.ndarray) and names.dtype == object, "feature_names_in_ is an object array", repr(names))
    expect(list(names) == [column], f"feature_names_in_ is [{column!r}] after a fit to such a frame", repr(names))
    other = nw.from_native(frame).rename({column: "another"}).to_native()
    for name in methods_of(copy):
        refuses(
            f"{name} refuses a column of another name than in fit",
            partial(getattr(copy, name), other),
            ValueError,
            "feature name",
            "column",
        )


def _refused(
    copy: Any, sample: Sample, X: Any, shown: str, errors: type[Exception] | tuple[type[Exception], ...], *words: str
) -> None:
    """Expect all methods of a fitted estimator, and `fit` of a clone, to refuse `X`."""
    y = target_of(copy, sample)
    refuses(f"fit refuses {shown}", partial(fresh(copy).fit, X, y), errors, *words)
    for name in methods_of(copy):
        refuses(f"{name} refuses {shown}", partial(getattr(copy, name), X), errors, *words)


def _content_of(X: Any) -> Any:
    """A snapshot of everything in a container, to compare with later."""
    frame = nw.from_native(X, allow_series=True, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return frame.columns, [_content_of(row) for row in frame[frame.columns[0]].to_list()], _index_of(X)
    if isinstance(frame, nw.Series):
        return frame.name, [_content_of(row) for row in frame.to_list()], _index_of(X)
    if isinstance(X, np.ndarray) and X.dtype != object:
        return X.shape, X.dtype.str, X.flags.writeable, X.tobytes()
    if isinstance(X, list | tuple | np.ndarray):
        return [_content_of(row) for row in X]
    if hasattr(X, "tobytes") and hasattr(X, "mode"):
        # A picture: reading a file's pixels is no change, its mode, size, pixels and palette are what counts.
        return X.mode, X.size, X.tobytes(), X.getpalette()
    return pickle.dumps(X)


def _index_of(X: Any) -> Any:
    return pickle.dumps(list(X.index)) if hasattr(X, "index") and not callable(X.index) else None
