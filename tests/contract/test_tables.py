"""Every public estimator, on tables: what is no table is refused, gaps are answered, useless columns are named."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from support.estimators import ESTIMATORS

from sktransfer import DistilledClassifier, FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor

N = 24
TITLES = [f"a parcel from town number {place}" for place in range(N)]
BODIES = [f"it arrived {place} days late and was torn on one side" for place in range(N)]

every_estimator = pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)


def frame():
    return pd.DataFrame({"age": np.arange(N) * 7.0 % 13, "job": ["cook", "smith", "clerk"] * (N // 3)})


def fit_backbones(listed):
    """Return the values of `backbone` with which an estimator reads tables."""
    return ["table-mlp"] if listed.estimator is PretrainedFeatureExtractor else ["auto", "table-mlp"]


@every_estimator
@pytest.mark.parametrize(
    "form",
    [
        pd.DataFrame,
        pl.DataFrame,
        lambda X: pd.DataFrame(X).astype("category"),
        lambda X: np.array(list(zip(*X.values(), strict=True)), dtype=object),
        lambda X: np.array(list(zip(*X.values(), strict=True))),
        lambda X: pd.DataFrame({"title": X["title"], "age": np.arange(N)}),
    ],
    ids=["pandas", "polars", "categories", "objects", "strings", "beside numbers"],
)
def test_columns_of_free_text_are_refused(listed, form):
    X = form({"title": TITLES, "body": BODIES})
    for backbone in fit_backbones(listed):
        with pytest.raises(ValueError, match=r"free text in column ('title'|0) .*ColumnTransformer.*X\["):
            listed.fit(X, backbone=backbone)


@every_estimator
def test_lists_of_free_texts_are_refused_as_tables(listed):
    X = [[title, body] for title, body in zip(TITLES, BODIES, strict=True)]
    with pytest.raises(ValueError, match="free text in column 0 .*, column 1 "):
        listed.fit(X, backbone="table-mlp")


@every_estimator
def test_one_column_of_texts_stays_texts(listed):
    fitted = listed.fit(pd.DataFrame({"title": TITLES}), backbone="auto")
    assert getattr(fitted, "student_", fitted).modality_ == "text"
    np.testing.assert_array_equal(
        listed.predict(fitted, pd.DataFrame({"title": TITLES})), listed.predict(fitted, TITLES)
    )


@every_estimator
def test_a_value_missing_at_prediction_is_the_median_or_the_unknown_category(listed):
    fitted = listed.fit(frame(), backbone="table-mlp")
    gap, full = frame(), frame()
    gap.loc[0, "age"], full.loc[0, "age"] = np.nan, frame()["age"].median()
    gap.loc[1, "job"], full.loc[1, "job"] = None, "astronaut"
    np.testing.assert_array_equal(listed.predict(fitted, gap), listed.predict(fitted, full))
    assert fitted.__sklearn_tags__().input_tags.allow_nan or listed.name.startswith("Distilled")


@every_estimator
def test_identifiers_are_named_once(listed):
    X = frame().assign(id=[f"id{place}" for place in range(N)], when=[f"2024-01-{1 + place:02}" for place in range(N)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = listed.make(backbone="table-mlp").fit(X, listed.targets(N))
        about = [one for one in caught if "identifiers" in str(one.message)]
        assert len(about) == 1 and len(caught) == 1
        assert about[0].category is UserWarning and about[0].filename == __file__
        message = str(about[0].message)
        assert "column 'id' (24 of 24 values differ" in message and "dates as strings in column 'when'" in message
        listed.predict(fitted, X)
    assert len(caught) == 1, "prediction is silent"


@every_estimator
def test_ordinary_tables_are_read_in_silence(listed):
    listed.fit(frame(), backbone="table-mlp")  # warnings are errors here


@pytest.mark.parametrize("estimator", [FineTunedClassifier, FineTunedRegressor])
def test_rows_for_validation_are_held_to_the_same(estimator):
    y = [0, 1] * (N // 2)
    with pytest.raises(ValueError, match="X_val.*free text in column 'job'"):
        estimator(max_epochs=1).fit(frame(), y, X_val=frame().assign(job=TITLES), y_val=y)


@pytest.mark.parametrize("warm", [False, True])
def test_a_later_fit_is_held_to_the_same(warm):
    y = [0, 1] * (N // 2)
    source = FineTunedClassifier(max_epochs=1, random_state=0).fit(frame(), y)
    model = source.set_params(warm_start=True) if warm else FineTunedClassifier(source, max_epochs=1)
    with pytest.raises(ValueError, match="free text in column 'job'"):
        model.fit(frame().assign(job=TITLES), y)


class Unfittable(DummyClassifier):
    def fit(self, X, y, sample_weight=None):
        raise AssertionError("the teacher was fitted first")


def test_a_student_refuses_before_its_teacher_is_fitted():
    X = pd.DataFrame({"title": TITLES, "body": BODIES})
    with pytest.raises(ValueError, match="free text in column 'title'"):
        DistilledClassifier(Unfittable(), "auto").fit(X, [0, 1] * (N // 2))


def test_the_advice_is_followed_by_every_estimator_that_reads_texts():
    X = pd.DataFrame({"title": TITLES, "body": BODIES})
    y = np.array([0, 1] * (N // 2))
    columns = ColumnTransformer([(name, PretrainedFeatureExtractor(), name) for name in X])
    make_pipeline(columns, LogisticRegression()).fit(X, y)
    joined = X["title"] + " " + X["body"]
    tuned = FineTunedClassifier(max_epochs=1, random_state=0)
    assert tuned.fit(joined, y).modality_ == "text"
    teacher = make_pipeline(TfidfVectorizer(), LogisticRegression())
    assert DistilledClassifier(teacher, clone(tuned)).fit(joined, y).student_.modality_ == "text"


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_a_student_answers_for_missing_values_unless_its_teacher_is_known_to_read_none(method):
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = np.arange(40) % 2
    holed = X[:3].copy()
    holed[1, 1] = np.nan
    student = FineTunedClassifier(max_epochs=1)
    for teacher in (DecisionTreeClassifier(), make_pipeline(SimpleImputer(), LogisticRegression())):
        assert len(getattr(DistilledClassifier(teacher, student).fit(X, y), method)(holed)) == 3
    model = DistilledClassifier(LogisticRegression(), student).fit(X, y)
    with pytest.raises(ValueError, match="Row 1 of X has NaN.*column 1.*LogisticRegression.*imputer"):
        getattr(model, method)(holed)
    assert len(getattr(model, method)(X[:3])) == 3
