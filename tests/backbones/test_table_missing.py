"""A value that is missing at prediction, in a column that was complete in the fit."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, cross_val_score
from torch import nn

from sktransfer import DistilledClassifier, FineTunedClassifier, ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.inputs.table import TablePreparation
from sktransfer.inputs.table_rows import read_table
from sktransfer.inputs.table_schema import CategoricalColumn, NumericColumn, TableSchema

TUNED = {"max_epochs": 1, "random_state": 0}


def frame():
    return pd.DataFrame(
        {
            "age": [20.0, 30.0, 70.0, 40.0, 25.0],
            "rooms": [1, 2, 2, 9, 3],
            "here": [True, False, True, True, False],
            "job": ["cook", "smith", "smith", "cook", "clerk"],
            "gap": [1.0, None, 3.0, 4.0, 5.0],
        }
    )


def schema(X):
    return TableSchema.learnt_from(read_table(X))


def test_the_median_stands_for_a_missing_number():
    columns = schema(frame())
    missing = frame().assign(age=np.nan, rooms=None, here=pd.array([None] * 5, dtype="boolean"))
    read = columns.read(read_table(missing))
    np.testing.assert_array_equal(read[:, :3], [[30.0, 2.0, 1.0]] * 5)
    np.testing.assert_array_equal(read[:, 4], frame()["gap"], "a column with gaps keeps its NaN for the indicator")


@pytest.mark.parametrize(
    "missing",
    [
        pd.Series([None, 2.0]),
        pd.Series([None, 2], dtype=object),
        pd.Series([pd.NA, 2], dtype=object),
        pd.Series([pd.NA, 2], dtype="Int64"),
        pd.Series([None, 2], dtype="int64[pyarrow]"),
        pl.Series([None, 2]),
        pl.Series([None, 2.0]),
        pa.array([None, 2]),
    ],
    ids=lambda column: f"{type(column).__module__} {getattr(column, 'dtype', '')}",
)
def test_missing_numbers_of_every_kind_are_the_median(missing):
    columns = schema(pd.DataFrame({"x": [1.0, 3.0, 10.0]}))
    container = {"pandas": pd.DataFrame, "polars": pl.DataFrame}.get(type(missing).__module__.split(".")[0], pa.table)
    np.testing.assert_array_equal(columns.read(read_table(container({"x": missing}))), [[3.0], [2.0]])


@pytest.mark.parametrize("X", [[[None, 1.0]], np.array([[np.nan, 1.0]]), np.array([[None, 1]], dtype=object)])
def test_missing_numbers_of_arrays_and_lists_are_the_median(X):
    np.testing.assert_array_equal(schema([[1, 2], [3, 4], [10, 6]]).read(read_table(X)), [[3.0, 1.0]])


@pytest.mark.parametrize("dtype", [object, "str", "category", "string[pyarrow]"])
def test_a_missing_string_is_the_unknown_category(dtype):
    X = pd.DataFrame({"job": ["cook", "smith", "cook"], "zone": ["a", None, "b"]}, dtype=dtype)
    columns = schema(X)
    new = pd.DataFrame({"job": [None, "baker", "cook"], "zone": [None, "c", "a"]}, dtype=dtype)
    np.testing.assert_array_equal(columns.read(read_table(new)), [[2, 3], [2, 2], [0, 0]])
    extractor = PretrainedFeatureExtractor("table-mlp").fit(X)
    vectors = extractor.transform(new.assign(zone="a"))
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - vectors[2]).max() > 0


@pytest.mark.parametrize("values", [[1e308, 1.7e308], [-1.7e308, -1.6e308], [5e-324, 5e-324, 1], [0.1, 0.3], [7]])
def test_medians_are_those_of_numpy_whatever_the_numbers(values):
    (column,) = schema(np.array(values)[:, None]).columns
    halves = [np.median(np.array(values) / 4) * 4]
    np.testing.assert_allclose(column.median, halves, rtol=1e-15)
    assert np.isfinite(column.median)


def test_the_median_is_that_of_scikit_learns_imputer():
    X = np.random.default_rng(0).normal(size=(51, 4)).round(1)
    imputed = SimpleImputer(strategy="median").fit(X).transform(np.full((1, 4), np.nan))
    np.testing.assert_array_equal(schema(X).read(read_table(np.full((1, 4), np.nan))), imputed)


def test_rows_without_weight_have_no_say_in_the_median():
    columns = TableSchema.learnt_from(read_table([[1.0], [2.0], [3.0], [100.0], [100.0]]), np.array([1, 1, 1, 0, 0]))
    assert columns.columns[0].median == 2


def test_the_shape_of_the_inputs_is_that_of_the_fit():
    preparation = TablePreparation(schema(frame()))
    assert preparation.n_numbers == 5, "four columns of numbers and the one indicator that fit had a use for"
    rows = preparation.read(read_table(frame().assign(age=np.nan)))
    numbers, codes = preparation.collate(preparation.prepare(rows, 0)).args
    assert numbers.shape == (5, 5) and codes.shape == (5, 1)


def test_networks_that_differ_in_the_median_alone_are_not_shared():
    # Mean 0 and deviation sqrt(2) both, but other medians.
    first, second = np.array([[-2.0, 0, 0, 2]]).T, np.array([[-1.0, -1, -1, 3]]).T / np.sqrt(1.5)
    first_schema, second_schema = schema(first), schema(second)
    np.testing.assert_allclose(first_schema.columns[0].mean, second_schema.columns[0].mean, atol=1e-15)
    np.testing.assert_allclose(first_schema.columns[0].scale, second_schema.columns[0].scale)
    assert first_schema.columns[0].median != second_schema.columns[0].median
    same = TableSchema(None, (NumericColumn(0.0, 1.0, False, median=1.0),))
    other = TableSchema(None, (NumericColumn(0.0, 1.0, False, median=2.0),))
    assert same.describe() != other.describe()
    gap = np.array([[np.nan]])
    extractors = [PretrainedFeatureExtractor("table-mlp").fit(X) for X in (first, second)]
    assert extractors[0].backbone_.fingerprint != extractors[1].backbone_.fingerprint
    assert np.abs(extractors[0].transform(gap) - extractors[1].transform(gap)).max() > 0


@pytest.mark.parametrize(
    "make", [lambda: PretrainedFeatureExtractor("table-mlp"), lambda: FineTunedClassifier(**TUNED)]
)
def test_the_median_travels_with_the_pickle_and_with_the_source(make):
    X, y = frame(), [0, 1, 0, 1, 0]
    source = make().fit(X, y)
    gap = X.assign(age=[None, 30.0, 70.0, 40.0, 25.0])
    wanted = source.transform(X.assign(age=[30.0, 30.0, 70.0, 40.0, 25.0]))
    np.testing.assert_array_equal(source.transform(gap), wanted)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).transform(gap), wanted)
    # Another fit, whose rows miss what the source's had, takes the source's median.
    target = PretrainedFeatureExtractor(source).fit(gap)
    np.testing.assert_array_equal(target.transform(gap), target.transform(X.assign(age=[30.0, 30.0, 70.0, 40.0, 25.0])))
    tuned = FineTunedClassifier(source, **TUNED).fit(gap, y)
    assert np.isfinite(tuned.predict_proba(gap)).all()


def test_a_column_of_a_former_version_has_its_mean_for_a_median():
    column = NumericColumn(4.0, 1.0, False)
    del column.__dict__["median"]  # as its pickle restores it
    assert column.median is None
    np.testing.assert_array_equal(TableSchema(None, (column,)).read(read_table([[np.nan], [1.0]])), [[4.0], [1.0]])


def test_a_column_that_was_all_missing_in_the_fit_stays_what_it_was():
    columns = schema(pd.DataFrame({"a": [None, None], "b": [1.0, 2.0]}))
    assert columns.columns[0].missing and columns.columns[0].median is None
    np.testing.assert_array_equal(columns.read(read_table([[None, 1.0]])), [[np.nan, 1.0]])


def test_infinity_stays_an_error():
    extractor = PretrainedFeatureExtractor("table-mlp").fit(frame())
    with pytest.raises(ValueError, match="Row 1 of X has infinity in column 'age'"):
        extractor.transform(frame().assign(age=[1, np.inf, np.nan, 2, 3]))


def test_rows_for_validation_may_miss_values():
    X, y = frame(), [0, 1, 0, 1, 0]
    gap = X.assign(age=np.nan, job=None)
    full = X.assign(age=30.0, job="nobody")
    fits = [FineTunedClassifier(**TUNED).fit(X, y, X_val=X_val, y_val=y) for X_val in (gap, full)]
    np.testing.assert_array_equal(fits[0].predict_proba(gap), fits[1].predict_proba(full))


def test_a_module_of_the_users_refuses_missing_values_at_prediction_too():
    extractor = PretrainedFeatureExtractor(ModuleBackbone(nn.Linear(2, 3), modality="table")).fit(
        [[1.0, 2.0], [3.0, 4.0]]
    )
    with pytest.raises(ValueError, match=r"Row 0 of X has NaN.*column 1.*SimpleImputer"):
        extractor.transform([[1.0, np.nan]])
    assert not extractor.__sklearn_tags__().input_tags.allow_nan


@pytest.mark.parametrize(
    "model",
    [
        FineTunedClassifier(**TUNED),
        DistilledClassifier(HistGradientBoostingClassifier(max_iter=2), FineTunedClassifier(**TUNED), random_state=0),
    ],
    ids=["tuned", "distilled"],
)
def test_a_value_that_only_the_last_fold_misses_ends_no_cross_validation(data, model):
    rows = pd.read_csv(data / "heart_disease" / "heart_4_hospitals.csv")
    columns = ["age", "sex", "cp", "trestbps", "thalach", "exang", "oldpeak"]
    rows = rows.dropna(subset=columns).sample(150, random_state=0).reset_index(drop=True)
    X, y = rows[columns], (rows["target"] > 0).astype(int)
    whole = cross_val_score(model, X, y, cv=KFold(5), error_score="raise")
    X.loc[149, "trestbps"] = np.nan
    scores = cross_val_score(model, X, y, cv=KFold(5), error_score="raise")
    # The other folds learn from a column with a gap now, the last one meets it when it predicts.
    assert np.isfinite(scores).all() and abs(scores[4] - whole[4]) <= 1 / 30 + 1e-9


def test_an_unseen_column_type_with_nothing_in_it_is_all_missing():
    columns = schema(frame())
    read = columns.read(read_table(frame().assign(age=pd.Series([None] * 5, dtype="str"), job=np.nan)))
    np.testing.assert_array_equal(read[:, 0], [30.0] * 5)
    assert isinstance(columns.columns[3], CategoricalColumn)
    np.testing.assert_array_equal(read[:, 3], [3.0] * 5)
