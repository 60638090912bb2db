"""Taking in fitted scikit-learn models, and their leaves."""

import copy
import gc
import pickle
import threading

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import DBSCAN, MeanShift
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomTreesEmbedding,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.manifold import TSNE
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.backbones.sklearn_models.fitted_models import FittedModel, find_model, input_tags_of, take_model
from sktransfer.backbones.sklearn_models.leaves import Leaves
from sktransfer.backbones.sources.loading import load_backbone


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 4))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)


TREES = [
    DecisionTreeClassifier(max_depth=3, random_state=0),
    DecisionTreeRegressor(max_leaf_nodes=5, random_state=0),
    RandomForestClassifier(n_estimators=4, random_state=0),
    ExtraTreesRegressor(n_estimators=4, max_depth=4, random_state=0),
    GradientBoostingClassifier(n_estimators=3, random_state=0),
    AdaBoostRegressor(n_estimators=4, random_state=0),
    BaggingClassifier(DecisionTreeClassifier(), n_estimators=4, max_features=2, random_state=0),
    IsolationForest(n_estimators=4, max_features=3, random_state=0),
    RandomTreesEmbedding(n_estimators=4, random_state=0),
]


def members_of(model):
    """List a model's trees, each with the columns that it reads."""
    if isinstance(model, DecisionTreeClassifier | DecisionTreeRegressor):
        return [(model, slice(None))]
    trees = np.ravel(model.estimators_).tolist()
    return list(zip(trees, getattr(model, "estimators_features_", [slice(None)] * len(trees)), strict=True))


@pytest.mark.parametrize("model", TREES, ids=lambda model: type(model).__name__)
def test_every_tree_says_where_a_row_ends_up(model, table):
    X, y = table
    model.fit(X, y)
    expected = np.column_stack([tree.apply(X[:, columns]) for tree, columns in members_of(model)])
    leaves = Leaves(model)
    np.testing.assert_array_equal(leaves.places(X), expected)
    encoded = leaves.learn_columns(X[:1]).encode(expected)
    assert encoded.shape[1] == sum(tree.get_n_leaves() for tree, _ in members_of(model))
    np.testing.assert_array_equal(encoded.sum(axis=1), len(members_of(model)))
    # Two rows share a column for each tree that puts them into the same leaf.
    together = (encoded @ encoded.T).toarray()
    np.testing.assert_array_equal(together, (expected[:, None] == expected[None]).sum(axis=2))


def test_columns_of_leaves_do_not_depend_on_the_rows(table):
    X, y = table
    leaves = Leaves(RandomForestClassifier(n_estimators=4, random_state=0).fit(X, y))
    few, all_rows = leaves.learn_columns(X[:1]), leaves.learn_columns(X)
    np.testing.assert_array_equal(few.encode(leaves.places(X)).toarray(), all_rows.encode(leaves.places(X)).toarray())


def test_values_of_leaves_are_what_the_trees_predict(table):
    X, y = table
    forest = RandomForestClassifier(n_estimators=4, random_state=0).fit(X, y)
    expected = np.hstack([tree.predict_proba(X) for tree in forest.estimators_])
    np.testing.assert_allclose(Leaves(forest).values(X), expected)
    boosted = AdaBoostRegressor(n_estimators=3, random_state=0).fit(X, y)
    expected = np.column_stack([tree.predict(X) for tree in boosted.estimators_])
    np.testing.assert_allclose(Leaves(boosted).values(X), expected)


def test_trees_grown_on_random_targets_have_no_values(table):
    X, _ = table
    for model in (IsolationForest(n_estimators=3), RandomTreesEmbedding(n_estimators=3)):
        leaves = Leaves(model.fit(X))
        assert leaves.found and not leaves.have_values


def test_leaves_lie_behind_pipelines_searches_and_frozen_models(table):
    X, y = table
    inner = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    search = GridSearchCV(inner, {"decisiontreeclassifier__max_depth": [2]}, cv=2).fit(X, y)
    outer = make_pipeline(StandardScaler(), search).fit(X, y)
    tree = outer[-1].best_estimator_[-1]
    expected = tree.apply(outer[-1].best_estimator_[0].transform(outer[0].transform(X)))
    np.testing.assert_array_equal(Leaves(FrozenEstimator(outer)).places(X)[:, 0], expected)


def test_a_search_tree_is_no_decision_tree(table):
    X, _ = table
    assert take_model(KernelDensity().fit(X)).outputs == ("score_samples",)


def test_the_natural_output_comes_first(table):
    X, y = table
    assert take_model(TREES[2].fit(X, y)).outputs == ("leaves", "predict_proba", "predict", "leaf_values")
    assert take_model(HistGradientBoostingClassifier(max_iter=2).fit(X, y)).outputs[0] == "decision_function"
    assert take_model(PCA().fit(X)).outputs[0] == "transform"
    assert take_model(make_pipeline(PCA(2), LogisticRegression()).fit(X, y)).outputs[0] == "decision_function"


def test_kind_and_tags_are_those_of_what_reads_x_first(table):
    X, y = table
    texts = ["a", "b c", "a c", "b"]
    vectorizer = TfidfVectorizer(token_pattern=r"\w")
    model = make_pipeline(vectorizer, LogisticRegression()).fit(texts, [0, 1, 0, 1])
    assert take_model(FrozenEstimator(model)).kind == "text"
    assert input_tags_of(model).string and not input_tags_of(model).two_d_array
    words = CountVectorizer(analyzer=list).fit([["a", "b"], ["c"]])
    assert take_model(words).kind is None
    forest = take_model(TREES[2].fit(X, y))
    assert forest.kind == "table"
    assert input_tags_of(forest).sparse and input_tags_of(forest).allow_nan
    assert "RandomForestClassifier" in repr(forest) and "leaf_values" in repr(forest)


@pytest.mark.parametrize("model", [DBSCAN(), MeanShift(), TSNE(perplexity=3), LocalOutlierFactor()], ids=str)
def test_a_model_with_nothing_to_give_is_an_error_that_says_what_was_looked_for(model, table):
    model.fit(table[0])
    with pytest.raises(
        ValueError, match=rf"{type(model).__name__}\(.*nothing to give.*decision_function, predict_proba"
    ):
        take_model(model)


def test_an_unfitted_model_is_an_error_that_names_the_frozen_estimator():
    with pytest.raises(NotFittedError, match=r"RandomForestClassifier\(...\) is not fitted.*FrozenEstimator\(fitted\)"):
        take_model(RandomForestClassifier())


def test_a_model_is_copied_once_in_each_state(table):
    X, y = table
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(X, y)
    first = take_model(forest)
    assert first.model is not forest
    assert take_model(forest) is first
    assert take_model(first) is first
    assert copy.deepcopy(first) is first
    forest.fit(X, 1 - (y > 0))
    second = take_model(forest)
    assert second is not first
    assert len(second.model.classes_) == 2 and len(first.model.classes_) == 3


def test_a_change_in_place_makes_another_copy(table):
    X, y = table
    model = SGDClassifier(random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    first = take_model(model)
    before = first.model.coef_.copy()
    model.partial_fit(X[::-1], y[::-1])
    assert take_model(model) is not first
    np.testing.assert_array_equal(first.model.coef_, before)


def test_copies_go_with_the_last_estimator_that_holds_them(table):
    import weakref

    X, y = table
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(X, y)
    handle = take_model(forest)
    watched = weakref.ref(handle.model)
    del handle
    gc.collect()
    assert watched() is None


class Unpicklable(BaseEstimator):
    """A transformer that can be copied, but not pickled."""

    def fit(self, X, y=None):
        self.scale_ = 2.0
        self.function = lambda values: values
        return self

    def transform(self, X):
        return X * self.scale_


def test_a_model_without_a_pickle_is_copied_each_time(table):
    X, _ = table
    model = Unpicklable().fit(X)
    first = take_model(model)
    assert take_model(model) is not first
    assert first.model is not model


def test_a_model_that_cannot_be_copied_is_an_error(table):
    X, _ = table
    model = Unpicklable().fit(X)
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match="Unpicklable can't be copied.*make copy.deepcopy"):
        take_model(model)


def test_handles_pickle(table):
    X, y = table
    handle = take_model(RandomForestClassifier(n_estimators=3, random_state=0).fit(X, y))
    again = pickle.loads(pickle.dumps(handle))
    assert again.outputs == handle.outputs
    np.testing.assert_array_equal(again.leaves.places(X), handle.leaves.places(X))


def test_only_models_are_taken_for_models():
    from torch import nn

    for other in ("auto", None, 3, nn.Linear(1, 1), ModuleBackbone(nn.Conv2d(3, 1, 1)), RandomForestClassifier):
        assert find_model(other) is None
    assert find_model(PretrainedFeatureExtractor()) is None
    forest = RandomForestClassifier()
    assert find_model(forest) is forest


def test_a_fitted_extractor_hands_its_model_on(table):
    X, y = table
    extractor = PretrainedFeatureExtractor(TREES[2].fit(X, y)).fit(X)
    assert find_model(extractor) is extractor.backbone_
    assert find_model(FrozenEstimator(extractor)) is extractor.backbone_
    assert isinstance(extractor.backbone_, FittedModel)


def test_what_needs_a_network_says_that_a_model_has_none(table):
    X, y = table
    extractor = PretrainedFeatureExtractor(TREES[2].fit(X, y)).fit(X)
    for given in (TREES[2], FrozenEstimator(TREES[2]), extractor):
        with pytest.raises(
            TypeError, match="scikit-learn model, .*no network that can be tuned.*PretrainedFeatureExtractor"
        ):
            load_backbone(given)
