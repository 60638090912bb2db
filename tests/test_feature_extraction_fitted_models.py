"""PretrainedFeatureExtractor over fitted scikit-learn models."""

import copy
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.utils import get_tags

from sktransfer import PretrainedFeatureExtractor


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    X = random.normal(size=(80, 4))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


@pytest.fixture
def forest(table):
    return RandomForestClassifier(n_estimators=5, max_depth=4, random_state=0).fit(*table)


@pytest.fixture
def reader(texts):
    """A fitted model of texts."""
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [0, 1, 0, 1, 0, 0, 1])


def dense(features):
    return features.toarray() if sparse.issparse(features) else features


# What comes out


def test_a_forest_gives_one_column_a_leaf(table, forest):
    X, _ = table
    extractor = PretrainedFeatureExtractor(forest).fit(X)
    E = extractor.transform(X)
    assert sparse.issparse(E) and E.format == "csr" and E.dtype == np.float32
    assert E.shape == (80, sum(tree.get_n_leaves() for tree in forest.estimators_))
    together = (E @ E.T).toarray()
    places = forest.apply(X)
    np.testing.assert_array_equal(together, (places[:, None] == places[None]).sum(axis=2))
    assert list(extractor.get_feature_names_out()[:2]) == ["pretrainedfeatureextractor0", "pretrainedfeatureextractor1"]
    assert len(extractor.get_feature_names_out()) == E.shape[1]


@pytest.mark.parametrize(
    "model, method",
    [
        (PCA(2), "transform"),
        (SVC(), "decision_function"),
        (KMeans(3, n_init=1, random_state=0), "transform"),
        (Ridge(), "predict"),
        (HistGradientBoostingClassifier(max_iter=3), "decision_function"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "decision_function"),
        (GridSearchCV(LogisticRegression(), {"C": [1]}, cv=2), "decision_function"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_models_give_their_natural_output(model, method, table):
    X, y = table
    expected = getattr(model.fit(X, y), method)(X).reshape(len(X), -1)
    E = PretrainedFeatureExtractor(model).fit_transform(X)
    assert E.dtype == np.float32
    np.testing.assert_allclose(E, expected, rtol=1e-6)


@pytest.mark.parametrize("model", [ExtraTreesClassifier(4, random_state=0), GradientBoostingClassifier(n_estimators=4)])
def test_layer_names_the_output_and_a_list_is_concatenated(model, table):
    X, y = table
    model.fit(X, y)

    def embed(layer):
        return PretrainedFeatureExtractor(model, layer=layer).fit_transform(X)

    np.testing.assert_allclose(embed("predict_proba"), model.predict_proba(X), rtol=1e-6)
    both = embed(["leaves", "leaf_values"])
    assert sparse.issparse(both) and both.format == "csr" and both.dtype == np.float32
    np.testing.assert_array_equal(both.toarray(), np.hstack([dense(embed("leaves")), embed("leaf_values")]))
    np.testing.assert_array_equal(
        embed(("leaf_values", "predict_proba")), np.hstack([embed("leaf_values"), embed("predict_proba")])
    )


def test_predicted_classes_become_columns(table):
    X, y = table
    names = np.array(["no", "yes"])[y]
    model = SVC().fit(X, names)
    E = PretrainedFeatureExtractor(model, layer="predict").fit_transform(X)
    np.testing.assert_array_equal(E, model.predict(X)[:, None] == ["no", "yes"])
    several = RandomForestClassifier(3, random_state=0).fit(X, np.c_[names, names[::-1], names])
    E = PretrainedFeatureExtractor(several, layer="predict").fit_transform(X)
    assert E.shape == (80, 6)
    np.testing.assert_array_equal(E.sum(axis=1), 3)
    assert PretrainedFeatureExtractor(several, layer="predict_proba").fit_transform(X).shape == (80, 6)
    assert PretrainedFeatureExtractor(several, layer="leaf_values").fit_transform(X).shape == (80, 3 * 3 * 2)


def test_several_targets_of_a_regression(table):
    X, _ = table
    model = RandomForestRegressor(3, max_depth=2, random_state=0).fit(X, X[:, :2])
    assert PretrainedFeatureExtractor(model, layer="leaf_values").fit_transform(X).shape == (80, 6)
    np.testing.assert_allclose(
        PretrainedFeatureExtractor(model, layer="predict").fit_transform(X), model.predict(X), rtol=1e-6
    )


def test_truncation_comes_before_normalisation(table, forest):
    X, _ = table
    for layer in ("leaves", "leaf_values"):
        whole = dense(PretrainedFeatureExtractor(forest, layer=layer).fit_transform(X))
        cut = PretrainedFeatureExtractor(forest, layer=layer, truncate_dim=7, normalize=True).fit(X)
        found = cut.transform(X)
        assert sparse.issparse(found) == (layer == "leaves")
        lengths = np.linalg.norm(whole[:, :7], axis=1, keepdims=True)
        np.testing.assert_allclose(dense(found), whole[:, :7] / np.where(lengths == 0, 1, lengths), rtol=1e-5)
        assert len(cut.get_feature_names_out()) == 7
    with pytest.raises(ValueError, match="truncate_dim=9 is more than the 4 values"):
        PretrainedFeatureExtractor(PCA().fit(X), truncate_dim=9).fit(X)


def test_a_result_is_never_the_callers_own_array(table):
    X = table[0].astype(np.float32)
    E = PretrainedFeatureExtractor(FunctionTransformer().fit(X)).fit_transform(X)
    assert not np.shares_memory(E, X)


class ForeignBoosting(BaseEstimator):
    """What gradient boosting outside scikit-learn looks like: `apply` gives floats, and the trees can't be seen."""

    def fit(self, X, y):
        self._forest = RandomForestClassifier(4, max_depth=3, random_state=0).fit(X, y)
        self.n_trees_ = 4
        return self

    def apply(self, X):
        return self._forest.apply(X).astype(np.float32)

    def predict(self, X):
        return self._forest.predict(X)


def test_leaves_of_foreign_trees_are_those_seen_in_fit(table):
    X, y = table
    model = ForeignBoosting().fit(X, y)
    E = PretrainedFeatureExtractor(model).fit(X).transform(X)
    ours = PretrainedFeatureExtractor(model._forest).fit_transform(X)
    np.testing.assert_array_equal((E @ E.T).toarray(), (ours @ ours.T).toarray())
    few = PretrainedFeatureExtractor(model).fit(X[:1])
    assert few.transform(X).shape == (80, 4)
    np.testing.assert_array_equal(few.transform(X).toarray().sum(1), (model.apply(X) == model.apply(X[:1])).sum(1))
    # Each extractor keeps the leaves that it has seen, though they share the model.
    assert few.backbone_ is PretrainedFeatureExtractor(model).fit(X).backbone_


# What goes in


def test_texts_go_to_a_model_of_texts_from_any_column(texts, reader):
    expected = reader.decision_function(texts)[:, None]
    extractor = PretrainedFeatureExtractor(reader).fit(texts)
    assert extractor.modality_ == "text"
    for X in (texts, pd.Series(texts), pl.Series(texts), np.array(texts), pd.DataFrame({"message": texts})):
        np.testing.assert_allclose(PretrainedFeatureExtractor(reader).fit_transform(X), expected, rtol=1e-6)
    assert list(PretrainedFeatureExtractor(reader).fit(pd.DataFrame({"message": texts})).feature_names_in_) == [
        "message"
    ]
    with pytest.raises(ValueError, match="Row 1 of X is missing"):
        extractor.transform(["a", None])


def test_lists_of_words_go_to_a_model_that_reads_those():
    documents = [["a", "b"], ["b"], ["c", "a"]]
    model = TfidfVectorizer(analyzer=list).fit(documents)
    extractor = PretrainedFeatureExtractor(model).fit(documents)
    assert extractor.modality_ is None
    np.testing.assert_allclose(
        extractor.transform(documents).toarray(), model.transform(documents).toarray(), rtol=1e-6
    )


def test_a_frame_of_mixed_columns_goes_to_a_model_that_reads_it():
    frame = pd.DataFrame({"colour": ["red", "blue", "red", "grey"] * 5, "size": np.arange(20.0)})
    columns = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
    model = make_pipeline(columns, GradientBoostingClassifier(n_estimators=3)).fit(frame, np.arange(20) % 2)
    extractor = PretrainedFeatureExtractor(model).fit(frame)
    assert list(extractor.feature_names_in_) == ["colour", "size"]
    # The model is the judge: columns are taken by name here.
    np.testing.assert_array_equal(
        extractor.transform(frame[["size", "colour"]]).toarray(), extractor.transform(frame).toarray()
    )


@pytest.mark.parametrize("model", [RandomForestClassifier(3), GradientBoostingClassifier(n_estimators=3)])
def test_frames_give_what_arrays_give_without_a_warning(model, table):
    X, y = table
    frame = pd.DataFrame(X, columns=list("abcd"))
    model.fit(frame, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        E = PretrainedFeatureExtractor(model).fit(frame).transform(frame)
    np.testing.assert_array_equal(E.toarray(), PretrainedFeatureExtractor(model).fit(frame).transform(frame).toarray())
    extractor = PretrainedFeatureExtractor(model).fit(frame)
    for wrong in (frame[["b", "a", "c", "d"]], frame.rename(columns={"a": "x"}), frame[["a", "b"]]):
        with pytest.raises(ValueError, match="feature names"):
            extractor.transform(wrong)
        with pytest.raises(ValueError, match="feature names"):
            PretrainedFeatureExtractor(model).fit(wrong)
    with pytest.raises(ValueError, match="X has 3 features, but .* is expecting 4"):
        PretrainedFeatureExtractor(RandomForestClassifier(3).fit(X, y)).fit(X[:, :3])


def test_sparse_input_where_the_model_reads_it(table):
    X, y = table
    X = X * (X > 0)
    for model in (RandomForestClassifier(3).fit(X, y), GradientBoostingClassifier(n_estimators=3).fit(X, y)):
        extractor = PretrainedFeatureExtractor(model)
        for kind in (sparse.csr_array, sparse.csc_matrix):
            np.testing.assert_array_equal(
                dense(extractor.fit(kind(X)).transform(kind(X))), dense(extractor.fit_transform(X))
            )
    with pytest.raises(TypeError, match="Sparse data was passed"):
        PretrainedFeatureExtractor(HistGradientBoostingClassifier(max_iter=2).fit(X, y)).fit(sparse.csr_array(X))


def test_missing_values_where_the_model_reads_them(table, forest):
    X, y = table
    X = X.copy()
    X[3, 1] = np.nan
    assert PretrainedFeatureExtractor(forest).fit_transform(X).shape[0] == 80
    boosted = GradientBoostingClassifier(n_estimators=2).fit(*table)
    for layer in (None, "leaf_values", "decision_function"):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            PretrainedFeatureExtractor(boosted, layer=layer).fit(X)


def test_tags_follow_the_model_without_a_fit(forest, reader, table):
    tags = get_tags(PretrainedFeatureExtractor(forest)).input_tags
    assert tags.two_d_array and tags.sparse and tags.allow_nan and not tags.string
    assert not get_tags(PretrainedFeatureExtractor(PCA().fit(table[0]))).input_tags.allow_nan
    tags = get_tags(PretrainedFeatureExtractor(FrozenEstimator(reader))).input_tags
    assert tags.string and not tags.two_d_array
    fitted = PretrainedFeatureExtractor(forest).fit(table[0])
    assert get_tags(PretrainedFeatureExtractor(fitted)).input_tags.allow_nan


# What goes wrong


@pytest.mark.parametrize(
    "parameters, message",
    [
        (
            {"layer": "decision_function"},
            "'decision_function' is not an output of the fitted RandomForestClassifier, which",
        ),
        ({"layer": "leafs"}, "which gives 'leaves', 'predict_proba', 'predict', 'leaf_values'. Did you mean 'leaves'"),
        ({"layer": -1}, "layer=-1 is not an output"),
        ({"layer": ["leaves", None]}, "layer must be .* a stage, or a list of those"),
        ({"layer": []}, "layer must be .* a stage, or a list of those"),
        ({"pooling": "mean"}, "pooling='mean' says nothing to a fitted scikit-learn model.*Leave pooling='auto'"),
        ({"pooling": ["mean", "cls"]}, "pooling=.* says nothing"),
        ({"weights": "random"}, "weights='random' says nothing.*Leave weights=None"),
        ({"max_length": 3}, "max_length=3 says nothing"),
        ({"window_pooling": "mean"}, "window_pooling='mean' says nothing"),
        ({"prompt": "query: "}, "prompt='query: ' says nothing"),
        ({"modality": "text"}, "modality='text', but the fitted RandomForestClassifier reads table rows"),
    ],
)
def test_parameters_that_do_not_fit_are_errors_and_change_nothing(parameters, message, table, forest):
    X, _ = table
    extractor = PretrainedFeatureExtractor(forest).fit(X)
    before = {name: value for name, value in vars(extractor).items() if name.endswith("_") or name.startswith("_")}
    with pytest.raises(ValueError, match=message):
        extractor.set_params(**parameters).fit(X)
    assert {name: vars(extractor)[name] for name in before} == before


def test_how_to_compute_is_nothing_to_a_model(table, forest):
    X, _ = table
    plain = PretrainedFeatureExtractor(forest).fit_transform(X)
    other = PretrainedFeatureExtractor(
        forest, device="cpu", precision="auto", batch_size=3, cache=None, verbose=1, modality="table", normalize=False
    )
    np.testing.assert_array_equal(other.fit_transform(X).toarray(), plain.toarray())


def test_hist_gradient_boosting_says_that_it_publishes_no_leaves(table):
    model = HistGradientBoostingClassifier(max_iter=2).fit(*table)
    with pytest.raises(ValueError, match="gives 'decision_function'.*HistGradientBoosting, which doesn't publish them"):
        PretrainedFeatureExtractor(model, layer="leaves").fit(table[0])


def in_row_two(value):
    def change(X):
        X = np.array(X, dtype=float)
        X[X[:, 0] == 2, 1] = value
        return X

    return change


@pytest.mark.parametrize("value, shown", [(np.inf, "inf"), (np.nan, "nan"), (1e300, "inf")])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_a_value_that_is_not_finite_is_an_error_that_names_the_row(value, shown, container):
    X = np.array([[1.0, 0], [2, 0], [3, 0]])

    model = FunctionTransformer(lambda rows: container(in_row_two(value)(rows))).fit(X)
    fine = PretrainedFeatureExtractor(model).fit(X[:1])
    with pytest.raises(ValueError, match=f"FunctionTransformer.transform gives {shown} for row 1 of X"):
        fine.transform(X)


def test_what_are_no_features_is_an_error():
    X = np.array([["a"], ["b"]], dtype=object)
    with pytest.raises(ValueError, match="gives object values, not numbers, so they are no features"):
        PretrainedFeatureExtractor(FunctionTransformer().fit(X)).fit(X)
    with pytest.raises(ValueError, match=r"gives an array of shape \(1, 2\) for 2 rows of X"):
        PretrainedFeatureExtractor(FunctionTransformer(np.transpose)).fit(np.zeros((2, 1)))
    with pytest.raises(ValueError, match="gives no column"):
        PretrainedFeatureExtractor(FunctionTransformer(lambda rows: rows[:, :0])).fit(np.zeros((2, 1)))


def test_frames_of_sparse_features_are_refused_with_the_way_out(table, forest):
    X, _ = table
    extractor = PretrainedFeatureExtractor(forest).set_output(transform="pandas").fit(X)
    with pytest.raises(ValueError, match="Pandas output does not support sparse data. .*'leaf_values'"):
        extractor.transform(X)
    for library, frame in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        values = PretrainedFeatureExtractor(forest, layer="leaf_values").set_output(transform=library).fit_transform(X)
        assert isinstance(values, frame)
        assert values.columns[0] == "pretrainedfeatureextractor0"


# The user's model is sacred


def test_a_later_fit_of_the_model_changes_nothing(table, forest):
    X, y = table
    extractor = PretrainedFeatureExtractor(forest).fit(X)
    before = extractor.transform(X).toarray()
    forest.fit(X[::-1] + 1, y)
    np.testing.assert_array_equal(extractor.transform(X).toarray(), before)
    assert not np.array_equal(extractor.fit(X).transform(X).toarray(), before)


def test_the_model_is_only_read(table, forest):
    X, _ = table
    before = pickle.dumps(forest)
    PretrainedFeatureExtractor(forest, layer=["leaves", "predict_proba"]).fit(X).transform(X)
    assert pickle.dumps(forest) == before


def test_extractors_and_clones_over_one_model_hold_one_copy(table, forest):
    X, _ = table
    first = PretrainedFeatureExtractor(forest).fit(X)
    others = [clone(first).fit(X) for _ in range(3)] + [PretrainedFeatureExtractor(first, layer="leaf_values").fit(X)]
    assert all(other.backbone_ is first.backbone_ for other in others)


def test_clones_keep_a_model_fitted(table, forest):
    X, y = table
    extractor = PretrainedFeatureExtractor(forest, truncate_dim=3)
    assert clone(extractor).backbone is forest
    assert clone(extractor).truncate_dim == 3
    model = make_pipeline(extractor, LogisticRegression())
    assert cross_val_score(model, X, y, cv=3, error_score="raise").shape == (3,)
    grid = {"pretrainedfeatureextractor__layer": [None, "leaf_values"], "logisticregression__C": [1, 10]}
    assert GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y).best_estimator_[0].backbone is forest


def test_a_grid_of_models_needs_them_frozen(table, forest):
    X, y = table
    other = PCA(2).fit(X)
    model = make_pipeline(PretrainedFeatureExtractor(forest), LogisticRegression())
    frozen = {"pretrainedfeatureextractor__backbone": [FrozenEstimator(forest), FrozenEstimator(other)]}
    search = GridSearchCV(model, frozen, cv=2, error_score="raise").fit(X, y)
    assert len(set(search.cv_results_["mean_test_score"])) == 2
    with pytest.raises(NotFittedError, match=r"RandomForestClassifier\(...\) is not fitted.*FrozenEstimator"):
        GridSearchCV(model, {"pretrainedfeatureextractor__backbone": [forest]}, cv=2, error_score="raise").fit(X, y)


def test_parameters_of_the_model_cannot_be_set_from_here(table, forest):
    extractor = PretrainedFeatureExtractor(forest)
    assert not any(name.startswith("backbone__") for name in extractor.get_params(deep=True))
    with pytest.raises(ValueError, match="backbone__max_depth can't be set.*FrozenEstimator"):
        clone(extractor).set_params(backbone__max_depth=1)
    assert forest.max_depth == 4


def test_fitted_extractors_survive_pickling_and_copying(table, forest, texts, reader):
    for model, X in ((forest, table[0]), (reader, texts)):
        extractor = PretrainedFeatureExtractor(model).fit(X)
        expected = dense(extractor.transform(X))
        for again in (pickle.loads(pickle.dumps(extractor)), copy.deepcopy(extractor)):
            np.testing.assert_array_equal(dense(again.transform(X)), expected)


def test_joblib_keeps_a_fitted_extractor(table, forest, tmp_path):
    X, _ = table
    extractor = PretrainedFeatureExtractor(forest).fit(X)
    joblib.dump(extractor, tmp_path / "extractor")
    again = joblib.load(tmp_path / "extractor", mmap_mode="r")
    np.testing.assert_array_equal(again.transform(X).toarray(), extractor.transform(X).toarray())


def test_a_fit_on_a_model_forgets_a_network_and_the_other_way_round(table, forest, texts):
    extractor = PretrainedFeatureExtractor().fit(texts)
    width = extractor.transform(texts).shape[1]
    extractor.set_params(backbone=forest).fit(table[0])
    assert extractor.modality_ == "table" and extractor.n_features_in_ == 4
    extractor = pickle.loads(pickle.dumps(extractor))
    assert extractor.transform(table[0]).shape[0] == 80
    extractor.set_params(backbone="auto").fit(texts)
    assert extractor.transform(texts).shape == (len(texts), width)
    assert not hasattr(extractor, "n_features_in_")


# Among others


def test_it_stands_beside_other_columns(texts, reader):
    frame = pd.DataFrame({"message": texts, "number": np.arange(7.0)})
    columns = ColumnTransformer(
        [("model", PretrainedFeatureExtractor(reader), ["message"]), ("number", StandardScaler(), ["number"])]
    )
    assert columns.fit_transform(frame).shape == (7, 2)


def test_sparse_and_dense_features_stand_side_by_side(table, forest):
    X, y = table
    union = FeatureUnion([("leaves", PretrainedFeatureExtractor(forest)), ("values", StandardScaler())])
    assert make_pipeline(union, LogisticRegression()).fit(X, y).score(X, y) > 0.8


class ModelOfWords(TransformerMixin, BaseEstimator):
    """A transformer with nothing of scikit-learn's validation: what a user may bring."""

    def fit(self, X, y=None):
        self.words_ = sorted({word for text in X for word in text.split()})
        return self

    def transform(self, X):
        return [[text.split().count(word) for word in self.words_] for text in X]


def test_a_transformer_of_the_users_own(texts):
    model = ModelOfWords().fit(texts)
    E = PretrainedFeatureExtractor(model).fit_transform(texts)
    np.testing.assert_array_equal(E, model.transform(texts))


# Real data


@pytest.fixture(scope="module")
def incomes(data):
    """Income of people in private companies (the source), and of some others (the target)."""
    read = {name: pd.read_csv(data / "adult" / f"{name}.csv.gz") for name in ("train", "test")}
    target = {name: frame[frame["workclass"] != "Private"] for name, frame in read.items()}
    parts = {
        "source": read["train"][read["train"]["workclass"] == "Private"],
        "target": target["train"].sample(300, random_state=0),
        "test": target["test"],
    }
    return {name: (frame.drop(columns="income"), frame["income"] == ">50K") for name, frame in parts.items()}


def test_leaves_of_a_source_help_a_small_target(incomes):
    words = make_column_selector(dtype_include=["object", "string"])
    numbers = make_column_selector(dtype_include="number")
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    source = make_pipeline(
        make_column_transformer((codes, words), remainder="passthrough"),
        GradientBoostingClassifier(n_estimators=50, max_depth=4, random_state=0),
    ).fit(*incomes["source"])
    plain = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), words), (StandardScaler(), numbers))

    def score(features, C):
        model = make_pipeline(features, LogisticRegression(C=C, max_iter=1000)).fit(*incomes["target"])
        X, y = incomes["test"]
        return roc_auc_score(y, model.predict_proba(X)[:, 1])

    baseline = max(score(plain, C) for C in (0.01, 0.1, 1))
    assert score(PretrainedFeatureExtractor(source), 0.01) > baseline + 0.005
    assert score(PretrainedFeatureExtractor(source, layer="leaf_values"), 0.1) > baseline + 0.015


def test_a_function_that_is_defined_anew_is_another_model(monkeypatch):
    import sys
    import types

    from sklearn.preprocessing import FunctionTransformer

    notebook = types.ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", notebook)
    X = np.arange(1.0, 13.0).reshape(6, 2)
    exec("def times(a): return a * 2", notebook.__dict__)
    first = PretrainedFeatureExtractor(FunctionTransformer(notebook.times).fit(X)).fit(X)
    exec("def times(a): return a * 100", notebook.__dict__)
    second = PretrainedFeatureExtractor(FunctionTransformer(notebook.times).fit(X)).fit(X)
    np.testing.assert_allclose(first.transform(X), X * 2)
    np.testing.assert_allclose(second.transform(X), X * 100)


@pytest.mark.parametrize("layer", [None, ["transform", "transform"]])
def test_a_model_that_works_in_place_changes_neither_X_nor_the_features(layer):
    from sklearn.preprocessing import StandardScaler

    X = np.random.default_rng(0).normal(3, 2, size=(20, 4))
    before = X.copy()
    model = StandardScaler(copy=False).fit(X.copy())
    features = PretrainedFeatureExtractor(model, layer=layer).fit_transform(X)
    np.testing.assert_array_equal(X, before)
    expected = StandardScaler().fit(before).transform(before)
    np.testing.assert_allclose(features[:, :4], expected, atol=1e-6)
    np.testing.assert_allclose(features[:, -4:], expected, atol=1e-6)


def test_a_frame_of_texts_reaches_a_meta_estimator_as_texts():
    import pandas as pd
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = ["bin not emptied", "street lamp dark", "rubbish in the bin", "the lamp is out"] * 3
    labels = [0, 1, 0, 1] * 3
    model = CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LogisticRegression()), cv=2).fit(texts, labels)
    extractor = PretrainedFeatureExtractor(model, layer="predict_proba").fit(texts)
    frame = pd.DataFrame({"street lamp dark": texts[:1]})
    np.testing.assert_allclose(extractor.transform(frame), extractor.transform(texts[:1]))


def test_leaves_stay_sparse_whatever_the_global_output_is():
    from sklearn import config_context
    from sklearn.ensemble import RandomForestClassifier

    X = np.random.default_rng(0).normal(size=(20, 4))
    forest = RandomForestClassifier(3, random_state=0).fit(X, np.arange(20) % 2)
    with config_context(transform_output="pandas"):
        extractor = PretrainedFeatureExtractor(forest).set_output(transform="default").fit(X)
        assert extractor.transform(X).shape[0] == 20
