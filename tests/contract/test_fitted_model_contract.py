"""PretrainedFeatureExtractor over fitted models against scikit-learn's own checks.

Each of these checks fits on a table of its own, and a fitted forest reads tables of one width only. So they are run
twice: on a meta-estimator that fits the forest on whatever it is given and hands it to the extractor, and on the extractor
itself, over a forest that was fitted before on other rows of the width that the check is going to use.
"""

import functools
import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import SkipTestWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.validation import check_is_fitted

from sktransfer import PretrainedFeatureExtractor
from sktransfer.testing import transfer_estimator_checks

WIDTHS = set()


def make_forest():
    return RandomForestClassifier(n_estimators=5, random_state=0)


class ForestThenExtractor(TransformerMixin, BaseEstimator):
    """A forest fitted on `X`, and the extractor over it."""

    def __init__(self, layer=None):
        self.layer = layer

    def fit(self, X, y):
        forest = make_forest().fit(X, y)
        self.extractor_ = PretrainedFeatureExtractor(forest, layer=self.layer).fit(X)
        self.n_features_in_ = self.extractor_.n_features_in_
        if hasattr(self.extractor_, "feature_names_in_"):
            self.feature_names_in_ = self.extractor_.feature_names_in_
        WIDTHS.add(self.n_features_in_)
        return self

    def transform(self, X):
        check_is_fitted(self)
        return self.extractor_.transform(X)

    def get_feature_names_out(self, input_features=None):
        return self.extractor_.get_feature_names_out(input_features)

    def __sklearn_tags__(self):
        tags, forests = super().__sklearn_tags__(), get_tags(make_forest())
        tags.input_tags = forests.input_tags
        tags.target_tags = forests.target_tags
        tags.transformer_tags.preserves_dtype = []
        return tags


def checks_of(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        for one, check in estimator_checks.estimator_checks_generator(estimator):
            parameters = ",".join(f"{name}={value}" for name, value in check.keywords.items())
            yield pytest.param(one, check, id=f"{check.func.__name__}({parameters})")


def run(check, estimator):
    with warnings.catch_warnings():
        # The checks hand over a forest's rows as frames and arrays by turns, of which scikit-learn warns.
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.fixture(autouse=True)
def array_api(monkeypatch):
    # Without it scikit-learn refuses to switch array API dispatch on.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


@pytest.mark.parametrize("layer", [None, "leaf_values"])
@pytest.mark.parametrize("estimator, check", list(checks_of(ForestThenExtractor())))
def test_a_forest_fitted_on_the_rows_at_hand_passes_all_checks(estimator, check, layer):
    run(check, estimator.set_params(layer=layer))


# Checks that scikit-learn runs on its own estimators only.
FURTHER = (
    "check_dataframe_column_names_consistency",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
    "check_n_features_in_after_fitting",
    "check_readonly_memmap_input",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
)


@pytest.mark.parametrize("layer", [None, "leaf_values"])
@pytest.mark.parametrize("name", FURTHER)
def test_a_forest_fitted_on_the_rows_at_hand_passes_further_checks(name, layer):
    check = functools.partial(getattr(estimator_checks, name), "ForestThenExtractor")
    run(check, ForestThenExtractor(layer))


@functools.cache
def fitted_before(width, model=RandomForestClassifier):
    random = np.random.default_rng(0)
    model = make_forest() if model is RandomForestClassifier else model()
    return model.fit(random.normal(size=(50, width)), random.integers(0, 2, 50))


@pytest.mark.parametrize("estimator, check", list(checks_of(PretrainedFeatureExtractor(fitted_before(4)))))
def test_a_model_fitted_before_passes_all_checks(estimator, check):
    WIDTHS.clear()
    run(check, ForestThenExtractor())
    assert len(WIDTHS) <= 1
    width = max(WIDTHS, default=4)
    model = fitted_before(width)
    if check.func is estimator_checks.check_estimators_overwrite_params:
        # It compares joblib's hash with that of a copy, and any copy of a decision tree has another hash.
        model = fitted_before(width, StandardScaler)
    run(check, estimator.set_params(backbone=model))


def read_texts():
    texts = ["a good film", "bad film", "lovely thing", "awful and dull", "good and lovely", "bad and awful"]
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0, 1, 0])


@pytest.mark.parametrize("layer", [None, ["predict_proba", "predict"]])
@pytest.mark.parametrize(
    "check", [check for _, check in transfer_estimator_checks(PretrainedFeatureExtractor(), "text")], ids=str
)
def test_a_fitted_model_of_texts_passes_the_checks_on_texts(check, layer):
    check(PretrainedFeatureExtractor(read_texts(), layer=layer))
