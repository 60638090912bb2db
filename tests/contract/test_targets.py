"""Targets in every estimator that takes some: which are refused, in which words, and that constants are learned as they are."""

import datetime
from collections import UserList, deque
from decimal import Decimal
from enum import Enum, StrEnum

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone, is_classifier
from sklearn.exceptions import DataConversionWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from support.estimators import ESTIMATORS

from sktransfer import DistilledClassifier, DistilledRegressor, FineTunedClassifier, FineTunedRegressor
from sktransfer.model_selection import check_labeled, stack_unlabeled

SUPERVISED = [listed for listed in ESTIMATORS if listed.targets(1) is not None]
CLASSIFIERS = [listed for listed in SUPERVISED if is_classifier(listed.make())]
REGRESSORS = [listed for listed in SUPERVISED if not is_classifier(listed.make())]
over_all = pytest.mark.parametrize("listed", SUPERVISED, ids=lambda listed: listed.name)
over_classifiers = pytest.mark.parametrize("listed", CLASSIFIERS, ids=lambda listed: listed.name)
over_regressors = pytest.mark.parametrize("listed", REGRESSORS, ids=lambda listed: listed.name)

N_ROWS = 12
X = np.random.default_rng(0).normal(size=(N_ROWS, 3))
NUMBERS = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0]


def holed(hole, values=NUMBERS):
    """Return targets of which every other one is a hole, the first of them in row 1."""
    return [part for value in values for part in (value, hole)]


TEXTS = ["no" if number else "yes" for number in NUMBERS]
MISSING = {
    "None": holed(None),
    "NaN": holed(float("nan")),
    "NaN of numpy": holed(np.float32("nan")),
    "NA": holed(pd.NA),
    "NaT": holed(pd.NaT),
    "NaT of numpy": holed(np.datetime64("NaT")),
    "NaN of decimal": holed(Decimal("NaN")),
    "None beside texts": holed(None, TEXTS),
    "NaN beside texts": holed(float("nan"), TEXTS),
    "a tuple": tuple(holed(None, TEXTS)),
    "a deque": deque(holed(None)),
    "an array": np.array(holed(np.nan)),
    "an array of objects": np.array(holed(None), dtype=object),
    "a column of an array": np.array(holed(np.nan))[:, None],
    "an index": pd.Index(holed(None, TEXTS)),
    "a series": pd.Series(holed(None, TEXTS)),
    "a frame": pd.DataFrame({"y": holed(None, TEXTS)}),
    "arrays in a list": [np.array(value) for value in holed(np.nan)],
    "arrow": pa.array(holed(None)),
    "arrow in chunks": pa.chunked_array([holed(None, TEXTS)]),
    "a tensor": torch.tensor(holed(np.nan)),
    "a polars series": pl.Series(holed(None, TEXTS)),
    "a polars frame": pl.DataFrame({"y": holed(None)}),
    "polars numbers": pl.Series(holed(None)),
    "polars categories": pl.Series(holed(None, TEXTS), dtype=pl.Categorical),
    **{kind: pd.Series(holed(None), dtype=kind) for kind in ("Int64", "Float64", "boolean")},
    **{kind: pd.Series(holed(None, TEXTS), dtype=kind) for kind in ("string", "string[pyarrow]", "category")},
}
NEVER_VALID = {
    "dates": np.array(holed("NaT", ["2020-01-01"] * 6), dtype="M8[D]"),
    "columns": np.array(holed([np.nan, 0.0], [[1.0, 0.0]] * 6)),
    "lists": holed([1, None], [[0, 1]] * 6),
}


@over_all
@pytest.mark.parametrize("kind", [*MISSING, *NEVER_VALID])
def test_missing_targets_are_refused(listed, kind):
    y = {**MISSING, **NEVER_VALID}[kind]
    word = "label" if listed in CLASSIFIERS else "target"
    with pytest.raises(ValueError, match=rf"y contains NaN or None: 6 row\(s\) have no {word}, the first is row 1\. "):
        listed.make().fit(X, y)


@pytest.mark.parametrize("kind", MISSING)
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_missing_targets_of_rows_without_one_are_never_read(kind):
    labelled = np.arange(N_ROWS) % 2 == 0
    known = np.repeat(NUMBERS, 2)
    model = DistilledClassifier(LogisticRegression(), LogisticRegression())
    made = model.fit(X, MISSING[kind], sample_labeled=labelled)
    texts = made.classes_.tolist() == ["no", "yes"]
    expected = clone(model).fit(X, np.where(known, "no", "yes") if texts else known, sample_labeled=labelled)
    np.testing.assert_array_equal(made.predict_proba(X), expected.predict_proba(X))
    if not texts:
        model = DistilledRegressor(Ridge(), Ridge())
        made, expected = (clone(model).fit(X, y, sample_labeled=labelled).predict(X) for y in (MISSING[kind], known))
        np.testing.assert_array_equal(made, expected)


def test_anything_may_stand_in_rows_without_a_target():
    labelled = np.arange(N_ROWS) % 2 == 0
    y = [value for number in NUMBERS for value in (number, {"not": "a label"})]
    made = DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X, y, sample_labeled=labelled)
    assert made.classes_.tolist() == [0, 1]


def test_the_first_missing_label_is_counted_among_all_rows():
    y, labelled = [None, "a", "b", None, "a", "b"], [False, True, True, True, True, True]
    with pytest.raises(ValueError, match=r"1 row\(s\) have no label, the first is row 3.*sample_labeled"):
        DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X[:6], y, sample_labeled=labelled)


def test_wrong_labels_to_be_stacked():
    for y, error in (([1, "a"] * 6, "mixed types"), (np.ma.ones(N_ROWS), "masked"), (iter(NUMBERS), "only once")):
        with pytest.raises((ValueError, TypeError), match=error):
            stack_unlabeled(X, y, X)


def test_missing_labels_elsewhere():
    y = np.arange(N_ROWS) % 2
    for given in (MISSING["NA"], MISSING["string"]):
        with pytest.raises(ValueError, match=r"y_val.*6 row\(s\) have no label, the first is row 1"):
            FineTunedClassifier().fit(X, y, X_val=X, y_val=given)
        with pytest.raises(ValueError, match=r"source_probe: .*6 row\(s\) have no label"):
            FineTunedClassifier(source_probe=(X, given), stability_every=1).fit(X, y)
        with pytest.raises(ValueError, match=r"6 row\(s\) have no label"):
            stack_unlabeled(X, given, X)


@over_all
@pytest.mark.parametrize("mask", [True, False])
def test_masked_targets_weights_and_marks_are_refused(listed, mask):
    y = np.asarray(listed.targets(N_ROWS))
    masked = np.ma.array(np.ones(N_ROWS), mask=[mask] + [False] * (N_ROWS - 1))
    with pytest.raises(ValueError, match="^y is a masked array"):
        listed.make().fit(X, np.ma.array(y, mask=masked.mask))
    with pytest.raises(ValueError, match="^sample_weight is a masked array"):
        listed.make().fit(X, y, sample_weight=masked)
    if "Distilled" in listed.name:
        with pytest.raises(ValueError, match="^sample_labeled is a masked array"):
            listed.make().fit(X, y, sample_labeled=masked.astype(bool))
    else:
        with pytest.raises(ValueError, match="y_val.*: y is a masked array"):
            listed.make().fit(X, y, X_val=X, y_val=np.ma.array(y, mask=masked.mask))
        with pytest.raises(ValueError, match="sample_weight_val: sample_weight is a masked array"):
            listed.make().fit(X, y, X_val=X, y_val=y, sample_weight_val=masked)


@over_all
def test_masked_targets_of_a_score_are_refused(listed):
    y = np.asarray(listed.targets(N_ROWS))
    model = listed.make().fit(X, y)
    with pytest.raises(ValueError, match="^y is a masked array"):
        model.score(X, np.ma.array(y))
    with pytest.raises(ValueError, match="^sample_weight is a masked array"):
        model.score(X, y, sample_weight=np.ma.ones(N_ROWS))


@over_all
def test_a_score_refuses_what_a_fit_refuses(listed):
    y = list(listed.targets(N_ROWS))
    model = listed.make().fit(X, y)
    for hole in (None, float("nan"), pd.NA, pd.NaT):
        for held in (lambda values: values, lambda values: pd.DataFrame({"y": pd.Series(values, dtype=object)})):
            with pytest.raises(ValueError, match=r"^Input y contains NaN or None: 1 row\(s\) .*, the first is row 1"):
                model.score(X, held([y[0], hole, *y[2:]]))
    if is_classifier(model):
        with pytest.raises(TypeError, match="^Labels in y are of mixed types"):
            model.score(X, [1, *y[1:]])


@over_all
def test_masked_values_in_a_list_are_refused(listed):
    with pytest.raises(ValueError, match="masked array, or holds one"):
        listed.make().fit(X, [0, np.ma.masked] * 6)


@over_classifiers
@pytest.mark.parametrize(
    "y, told",
    [
        ([1, "a"] * 6, r"int \(1 in row 0\), str \('a' in row 1\)"),
        (["a", 1.5] * 6, r"str \('a' in row 0\), float \(1.5 in row 1\)"),
        ([True, "a"] * 6, r"bool \(True in row 0\), str"),
        ([b"a", "a"] * 6, "bytes .*str"),
        (np.array([1, "a"] * 6, dtype=object), "int .*str"),
        (pd.Series(["a", 2] * 6), "str .*int"),
        (UserList([1, "a"] * 6), "int .*str"),
        (["a", datetime.date(2020, 1, 1)] * 6, "str .*date"),
        ([np.array(1), "a"] * 6, "int .*str"),
    ],
    ids=str,
)
def test_labels_of_mixed_types(listed, y, told):
    with pytest.raises(TypeError, match=f"Labels in y are of mixed types: {told}"):
        listed.make().fit(X, y)


class Tone(StrEnum):
    LOW, HIGH = "low", "high"


@pytest.mark.parametrize(
    "y", [[True, 2, 0] * 4, [np.int64(1), 2, 0.0] * 4, [np.str_("a"), "b"] * 6, [Tone.LOW, Tone.HIGH] * 6], ids=str
)
def test_labels_of_one_kind(y):
    model = DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X, y)
    assert sorted(set(y)) == model.classes_.tolist()


class Size(str, Enum):  # noqa: UP042
    SMALL, LARGE = "s", "l"


@over_all
@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: "abcdefghijkl", "y is a single str"),
        (lambda: b"abcdefghijkl", "y is a single bytes"),
        (lambda: (number for number in range(12)), r"y is a generator, which can be read only once. Pass list\(y\)"),
        (lambda: map(int, range(12)), "y is a map, which can be read only once"),
        (lambda: set(range(12)), "y is a set, which does not say which entry belongs to which row"),
        (lambda: dict.fromkeys(range(12)), "y is a dict, which does not say"),
        (lambda: pl.DataFrame({"y": range(12)}).lazy(), r"y is a LazyFrame.*collect\(\)"),
        (lambda: np.arange(12) * 1j, "[Cc]omplex"),
        (lambda: [1j, 2.0] * 6, "[Cc]omplex"),
        (lambda: np.arange(12).astype("M8[D]"), "y holds dates"),
        (lambda: pd.Series(pd.date_range("2020", periods=12, tz="UTC")), "y holds dates"),
        (lambda: np.arange(12).astype("m8[D]"), "y holds durations"),
        (lambda: [datetime.date(2020, 1, 1)] * 12, "date"),
        (lambda: [1.0, float("inf")] * 6, "y contains infinity"),
        (lambda: [Size.SMALL, Size.LARGE] * 6, "Size|could not convert"),
        (
            lambda: np.array(["a", "b"] * 6, dtype=np.dtypes.StringDType()),
            r"y is of the type StringDType.*astype\(str\)",
        ),
        (lambda: np.array([1.0, np.inf] * 6), "y contains infinity"),
        (lambda: csr_matrix(np.arange(12.0)[:, None]), "[Ss]parse"),
        (lambda: [0, 1], "inconsistent numbers of samples"),
        (lambda: list(range(13)), "inconsistent numbers of samples"),
        (lambda: 3, "array-like|dimension"),
        (
            lambda: torch.arange(12.0, requires_grad=True),
            r"^y is a tensor that numpy can't read.*y\.detach\(\)\.cpu\(\)",
        ),
        (lambda: torch.arange(12).bfloat16(), "^y is a tensor that numpy can't read"),
        (lambda: torch.arange(12).to_sparse(), r"^y is a tensor that numpy can't read.*y\.to_dense\(\)"),
    ],
)
def test_what_holds_no_targets(listed, make, match):
    with pytest.raises((ValueError, TypeError), match=match):
        listed.make().fit(X, make())


@over_regressors
def test_texts_are_no_numbers(listed):
    with pytest.raises(ValueError, match=r"^y: could not convert string to float"):
        listed.make().fit(X, ["a"] * N_ROWS)


@over_all
def test_one_column_of_targets_is_flattened_with_a_warning(listed):
    y = np.asarray(listed.targets(N_ROWS))
    with pytest.warns(DataConversionWarning, match="column-vector"):
        made = listed.make().fit(X, y[:, None])
    np.testing.assert_array_equal(listed.predict(made, X), listed.predict(listed.make().fit(X, y), X))


@pytest.mark.parametrize(
    "given", [[None] * 12, ["a"] * 12, [True] * 11 + [2], pd.array([True, None] * 6), [np.nan] * 12]
)
def test_marks_that_are_neither_true_nor_false(given):
    with pytest.raises(ValueError, match="sample_labeled must hold True where a row has a label"):
        check_labeled(given, X)


# Constants


@pytest.fixture(scope="module")
def source():
    return FineTunedClassifier(max_epochs=1, random_state=0).fit(X, np.arange(N_ROWS) % 2)


def regressors(source):
    def tuned(**parameters):
        return FineTunedRegressor(source, **{"max_epochs": 2, "random_state": 0, "freeze_depth": 0, **parameters})

    frozen = tuned(freeze_depth="all")
    return {
        "tuned": tuned(),
        "frozen": frozen,
        "mlp": tuned(head="mlp", freeze_depth="all"),
        "from random": tuned(head_init="random", learning_rate=0.1),
        "distilled": DistilledRegressor(frozen, tuned()),
        "distilled alone": DistilledRegressor(frozen, tuned(), alpha=1.0),
    }


@pytest.mark.parametrize("name", ["tuned", "frozen", "mlp", "from random", "distilled", "distilled alone"])
def test_a_constant_is_predicted_as_it_is(source, name):
    model = regressors(source)[name]
    for constant in (1.0, 0.0, -3.7, 0.1, 1e6, 1e30, 1e-300):
        assert set(model.fit(X, np.full(N_ROWS, constant)).predict(X)) == {constant}
    weights = np.random.default_rng(0).uniform(0.1, 3, N_ROWS)
    assert set(model.fit(X, np.full(N_ROWS, 0.1), sample_weight=weights).predict(X)) == {0.1}
    # All that counts is constant.
    y = np.r_[np.full(N_ROWS - 1, 0.1), 9.0]
    assert set(model.fit(X, y, sample_weight=y < 1).predict(X)) == {0.1}
    made = model.fit(X, np.column_stack([np.full(N_ROWS, 2.5), X[:, 0]])).predict(X)
    assert set(made[:, 0]) == {2.5} and len(set(made[:, 1])) == N_ROWS
    for n_rows in (1, 2):
        assert set(model.fit(X[:n_rows], np.full(n_rows, 3.3)).predict(X)) == {3.3}


@pytest.mark.parametrize("unit", [1e-13, 1e-200, 1e150, 1e299])
def test_tiny_and_huge_ranges_are_learned_as_others_are(source, unit):
    model = FineTunedRegressor(source, freeze_depth="all")
    plain = model.fit(X, X[:, 0]).predict(X)
    mean = 1.0 if unit == 1e-13 else 0.0
    made = model.fit(X, mean + unit * X[:, 0]).predict(X)
    np.testing.assert_allclose((made - mean) / unit, plain, atol=0.02)


@over_regressors
def test_numbers_that_are_too_large(listed):
    with pytest.raises(ValueError, match=r"y holds 1e\+308; targets beyond 1e\+300 are too large"):
        listed.make().fit(X, np.r_[1e308, np.zeros(N_ROWS - 1)])
    with pytest.raises(ValueError, match="^y: int too large"):
        listed.make().fit(X, [10**400, 1] * 6)


def test_a_teacher_tells_numbers_apart_where_targets_are_constant(source):
    teacher = FrozenEstimator(Ridge().fit(X, 3 * X[:, 0]))
    expected = (1 + teacher.predict(X)) / 2
    student = FineTunedRegressor(source, freeze_depth="all", max_epochs=30, learning_rate=0.001, random_state=0)
    for model in (DistilledRegressor(teacher, Ridge(1e-6)), DistilledRegressor(teacher, student)):
        np.testing.assert_allclose(model.fit(X, np.ones(N_ROWS)).predict(X), expected, atol=0.3)
