"""Teachers are told apart, and their answers, by everything that an estimator can see."""

import datetime
import os
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktransfer import DistilledRegressor, cache_clear
from sktransfer.caching.seen_rows import see_rows

NUMBERS = [1, 0, 1, 2]
WORDS = ["b", "a", "b", "c"]
DAYS = [datetime.datetime(2020, 1, day) for day in (1, 2, 1, 3)]


def signature(X):
    """A number for what a caller's estimator can see of rows beside their values."""
    told = [type(X).__name__, str(getattr(X, "dtype", "")), str(getattr(X, "format", ""))]
    if isinstance(X, pd.DataFrame | pd.Series):
        dtypes = X.dtypes if isinstance(X, pd.DataFrame) else [X.dtype]
        told += [repr(dtype) for dtype in dtypes]
        told += [(list(one.categories), one.categories.dtype, one.ordered) for one in dtypes if hasattr(one, "ordered")]
        told += [getattr(X, "name", None), X.index.names, X.index.dtype, X.index[:1].tolist()]
        told += [(list(X.columns), X.columns.names)] if isinstance(X, pd.DataFrame) else []
    elif isinstance(X, pl.DataFrame | pl.Series):
        told += [repr(X.schema) if isinstance(X, pl.DataFrame) else X.name]
    elif isinstance(X, np.ndarray):
        told += [X.shape[1:]]
    else:
        told += [type(X[0]).__name__, type(X[0][0]).__name__] if isinstance(X, list) else []
    return float(zlib.crc32(repr(told).encode()) % 10_000)


class Sees(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.seen_ = signature(X)
        return self

    def predict(self, X):
        return np.full(X.shape[0] if hasattr(X, "shape") else len(X), self.seen_ + signature(X))


def frame(values, dtype=None, index=None, name="a"):
    return pd.DataFrame({name: pd.Series(values, dtype=dtype).array}, index=index)


def category(values, categories, ordered=False):
    return frame(values, pd.CategoricalDtype(categories, ordered))


def same_numbers():
    column = np.array(NUMBERS)[:, None]
    yield from (column.astype(kind) for kind in ("i8", "i4", "u1", "f8", "f4", ">i8", object))
    yield from (column.ravel(), column.reshape(4, 1, 1))
    yield from ([[one] for one in NUMBERS], [(one,) for one in NUMBERS], [[float(one)] for one in NUMBERS])
    yield from ([np.array([one]) for one in NUMBERS], [np.array([one], "i4") for one in NUMBERS])
    for kind in ("i8", "i4", "f8", "f4", "Int64", "object", "Sparse[int64, 0]", "int64[pyarrow]", "category"):
        yield frame(NUMBERS, kind)
    yield from (category(NUMBERS, [0, 1, 2], True), category(NUMBERS, [2, 1, 0]), category(NUMBERS, [0, 1, 2, 3]))
    yield category(NUMBERS, np.array([0, 1, 2], "i4"))
    yield from (frame(NUMBERS, name="b"), frame(NUMBERS, name=0), frame(NUMBERS, name="0"))
    yield from (frame(NUMBERS, index=[7, 8, 9, 10]), frame(NUMBERS, index=list("wxyz")))
    yield from (frame(NUMBERS).rename_axis(index="id"), frame(NUMBERS).rename_axis(columns="unit"))
    yield frame(NUMBERS, index=np.array([0, 1, 2, 3], "i4"))
    yield from (pd.Series(NUMBERS), pd.Series(NUMBERS, name="a"), pd.Series(NUMBERS, dtype="i4"))
    yield from (pl.DataFrame({"a": NUMBERS}), pl.DataFrame({"a": NUMBERS}, schema={"a": pl.Int32}))
    yield from (pl.DataFrame({"b": NUMBERS}), pl.Series("a", NUMBERS), pl.Series("b", NUMBERS))
    yield from (kind(column) for kind in (sparse.csr_matrix, sparse.csr_array))
    yield sparse.csr_array(column.astype("f4"))


def same_words():
    yield from (WORDS, list(map(np.str_, WORDS)), np.array(WORDS), np.array(WORDS, "U9"), np.array(WORDS, object))
    yield from (frame(WORDS, kind) for kind in ("str", "object", "category", "string[python]", "string[pyarrow]"))
    yield from (category(WORDS, ["c", "b", "a"]), category(WORDS, ["a", "b", "c"], True))
    yield from (pl.DataFrame({"a": WORDS}), pl.DataFrame({"a": WORDS}, schema={"a": pl.Categorical}))
    yield from (
        pl.DataFrame({"a": WORDS}, schema={"a": pl.Enum(order)}) for order in (["a", "b", "c"], ["c", "b", "a"])
    )


def same_days():
    days = pd.Series(DAYS)
    yield from (
        days,
        days.astype("M8[s]"),
        days.dt.tz_localize("UTC"),
        days.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
    )
    yield from (days.astype("category"), days.astype(object), days.dt.to_period("D"))


def same_truth():
    values = np.array([True, False, True, True])
    yield from (values[:, None], values[:, None].astype(int), frame(values), frame(values.astype(int)))
    yield from (frame(values, "boolean"), frame(values, "object"))


@pytest.mark.parametrize("make", [same_numbers, same_words, same_days, same_truth])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_same_values_in_other_containers_are_other_rows(make, frozen):
    cache_clear()
    targets = np.arange(4.0)
    fitted = Sees().fit([[0]], [0])
    for X in [*make(), *make()]:  # and again, from the cache
        model = DistilledRegressor(FrozenEstimator(fitted) if frozen else Sees(), DummyRegressor(), alpha=0)
        expected = signature(X) + (fitted.seen_ if frozen else signature(X))
        assert model.fit(X, targets).predict(X)[0] == expected, (type(X), getattr(X, "dtypes", None))


def test_polars_categories_count_by_their_codes():
    def of(words, categories):
        return pl.DataFrame({"a": pl.Series(words, dtype=pl.Categorical(pl.Categories(categories)))})

    of(["y", "x"], "one"), of(["x", "y"], "two")  # which give out the codes
    one, two = (see_rows(of(["x", "y"], name)).digests for name in ("one", "two"))
    assert not set(one) & set(two)


def test_targets_of_other_types_are_other_fits():
    class Told(RegressorMixin, BaseEstimator):
        def fit(self, X, y):
            self.seen_ = y.dtype.itemsize * (1 if y.dtype.kind == "f" else 100)
            return self

        def predict(self, X):
            return np.full(len(X), float(self.seen_))

    cache_clear()
    X = np.arange(4.0)[:, None]
    for kind in ("f8", "f4", "i8", "f8"):
        y = np.arange(4).astype(kind)
        fresh, shared = (
            DistilledRegressor(Told(), DummyRegressor(), alpha=0, cache=cache).fit(X, y).predict(X)[0]
            for cache in (None, "memory")
        )
        assert fresh == shared


def test_rows_that_differ_in_their_label_alone_are_asked_apart():
    class Labels(Sees):
        def predict(self, X):
            return X.index.to_numpy(dtype=float)

    X = pd.DataFrame({"a": [1.0, 1.0, 1.0]}, index=[5, 6, 5])
    model = DistilledRegressor(FrozenEstimator(Labels().fit(X, [0])), DummyRegressor(), alpha=0)
    assert model.fit(X, [0.0, 0.0, 0.0]).predict(X)[0] == pytest.approx(16 / 3)


@pytest.mark.parametrize("frozen", [True, False])
def test_settings_and_helpers_of_a_teacher_count_as_they_are_now(frozen, monkeypatch):
    helpers = types.ModuleType("helpers_of_teacher")
    exec("SIZE = 2.0\ndef scale(X): return X * SIZE", vars(helpers))
    monkeypatch.setitem(sys.modules, "helpers_of_teacher", helpers)
    monkeypatch.setitem(globals(), "helpers", helpers)
    X, y = np.arange(6.0)[:, None], np.arange(6.0)
    cache_clear()

    def answer(cache):
        teacher = make_pipeline(FunctionTransformer(scaled), LinearRegression())
        teacher = FrozenEstimator(trained) if frozen else teacher
        return DistilledRegressor(teacher, LinearRegression(), alpha=0, cache=cache).fit(X, y).predict([[1.0]])[0]

    trained = make_pipeline(FunctionTransformer(scaled), LinearRegression()).fit(X, y)
    for size in (2.0, 0.0, 3.0):
        helpers.SIZE = size
        assert answer("memory") == answer(None)


def scaled(X):
    return helpers.scale(X)  # noqa: F821


class Reads(RegressorMixin, BaseEstimator):
    """Reads numbers from files."""

    during = None

    def fit(self, X, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        made = np.array([float(Path(name).read_text()) for name in X])
        if self.during is not None:
            self.during()
        return made


def test_files_count_by_what_is_in_them(tmp_path):
    file = tmp_path / "row.txt"
    file.write_text("1.0")
    stamp = file.stat()

    def rewrite(text):
        file.write_text(text)
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    def answer(teacher):
        model = DistilledRegressor(FrozenEstimator(teacher), DummyRegressor(), alpha=0)
        return model.fit([str(file)] * 2, [0.0, 0.0]).predict([0])[0]

    cache_clear()
    assert answer(Reads()) == 1
    rewrite("2.0")
    assert answer(Reads()) == 2, "of the same size and time"
    teacher = Reads()
    rewrite("3.0")
    # Rewritten while the teacher reads it: the answer is of one content, and nothing may be kept for the other.
    Reads.during = staticmethod(lambda: rewrite("4.0"))
    try:
        answer(teacher)
    finally:
        Reads.during = None
    assert answer(teacher) == 4
    rewrite("3.0")
    assert answer(teacher) == 3
