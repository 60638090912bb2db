"""Distillation: what reaches the student, from which teacher, how often it is asked, and what is refused."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_digits, make_classification
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, PredefinedSplit, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from sktransfer import (
    DistilledClassifier,
    DistilledRegressor,
    FineTunedClassifier,
    FineTunedRegressor,
    ModuleBackbone,
    cache_clear,
)
from sktransfer.inspection import DistillationDisplay

X, y = make_classification(400, 8, n_informative=5, n_classes=3, random_state=0)
SMALL = {"max_epochs": 3, "random_state": 0}


class Counting(ClassifierMixin, BaseEstimator):
    """A teacher that writes down how often it is fitted and for which rows it is asked."""

    fits = 0
    asked: list = []

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y):
        type(self).fits += 1
        self.inner_ = LogisticRegression(C=self.C).fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, X):
        self.asked.extend(row.tobytes() for row in np.asarray(X))
        return self.inner_.predict_proba(X)

    def predict(self, X):
        return self.inner_.predict(X)


class Neighbours(KNeighborsClassifier):
    """Its pickle changes whenever it is asked: its tree counts."""

    calls: list = []

    def predict_proba(self, X):
        self.calls.append(len(X))
        return super().predict_proba(X)


@pytest.fixture
def counting():
    Counting.fits, Counting.asked = 0, []
    cache_clear()
    return Counting


def frozen_logistic(rows=slice(None), **parameters):
    return FrozenEstimator(LogisticRegression(**parameters).fit(X[rows], y[rows]))


# What reaches the student


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_scikit_learn_student_minimises_the_mixed_cross_entropy(alpha):
    teacher = frozen_logistic(C=0.01)
    model = DistilledClassifier(teacher, LogisticRegression(C=1e4, max_iter=5000, tol=1e-10), alpha=alpha).fit(X, y)
    target = (1 - alpha) * teacher.predict_proba(X) + alpha * np.eye(3)[y]

    def loss(coefficients, intercept):
        scores = X @ coefficients.T + intercept
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        return -(target * logs).sum(1).mean()

    student = model.student_
    best = loss(student.coef_, student.intercept_)
    random = np.random.default_rng(0)
    for _ in range(20):
        assert loss(student.coef_ + 0.05 * random.normal(size=student.coef_.shape), student.intercept_) > best


def test_without_labels_a_student_of_the_teachers_kind_becomes_the_teacher():
    teacher = frozen_logistic()
    model = DistilledClassifier(teacher, LogisticRegression(C=1e6, max_iter=5000), alpha=0).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), teacher.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_without_labels_a_network_comes_close_to_the_teacher_at_any_temperature(temperature):
    teacher = frozen_logistic()
    student = FineTunedClassifier(max_epochs=40, random_state=0)
    model = DistilledClassifier(teacher, student, alpha=0, temperature=temperature).fit(X, y)
    assert np.abs(model.predict_proba(X) - teacher.predict_proba(X)).mean() < 0.03


def test_alpha_of_one_is_the_student_alone():
    alone = LogisticRegression().fit(X, y)
    model = DistilledClassifier(RandomForestClassifier(random_state=0), LogisticRegression(), alpha=1).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), alone.predict_proba(X), atol=1e-6)
    network = FineTunedClassifier(**SMALL)
    taught = DistilledClassifier(LogisticRegression(), network, alpha=1).fit(X, y)
    np.testing.assert_allclose(taught.predict_proba(X), clone(network).fit(X, y).predict_proba(X), atol=1e-6)


def test_binary_networks_learn_the_soft_targets_of_both_classes():
    two = y < 1
    teacher = FrozenEstimator(LogisticRegression().fit(X, two))
    model = DistilledClassifier(teacher, FineTunedClassifier(max_epochs=40, random_state=0), alpha=0).fit(X, two)
    assert model.predict_proba(X).shape == (400, 2)
    assert np.abs(model.predict_proba(X) - teacher.predict_proba(X)).mean() < 0.03


@pytest.mark.parametrize("student", [LogisticRegression(), FineTunedClassifier(**SMALL)], ids=["sklearn", "network"])
def test_labels_of_unlabelled_rows_are_never_read(student):
    labelled = np.arange(400) % 4 == 0
    teacher = LogisticRegression()
    fits = []
    for filler in (0, 2):
        given = np.where(labelled, y, filler)
        fits.append(
            DistilledClassifier(teacher, clone(student)).fit(X, given, sample_labeled=labelled).predict_proba(X)
        )
    np.testing.assert_array_equal(*fits)
    strange = [label if has else None for label, has in zip(y.tolist(), labelled, strict=True)]
    other = DistilledClassifier(teacher, clone(student)).fit(X, strange, sample_labeled=labelled)
    np.testing.assert_array_equal(other.predict_proba(X), fits[0])


def test_minus_one_is_a_class_like_any_other():
    signed = np.where(y > 0, 1, -1)
    model = DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X, signed)
    assert model.classes_.tolist() == [-1, 1]


def test_unlabelled_rows_help_a_student_with_few_labels():
    X_digits, y_digits = load_digits(return_X_y=True)
    X_digits = X_digits / 16
    teacher = FrozenEstimator(RandomForestClassifier(random_state=0).fit(X_digits[:1000], y_digits[:1000]))
    labelled = np.arange(1300) >= 1200
    student = LogisticRegression(max_iter=1000)
    alone = clone(student).fit(X_digits[1200:1300], y_digits[1200:1300])
    model = DistilledClassifier(teacher, student).fit(X_digits[:1300], y_digits[:1300], sample_labeled=labelled)
    assert model.score(X_digits[1300:], y_digits[1300:]) > alone.score(X_digits[1300:], y_digits[1300:]) + 0.03


def test_the_teacher_knows_a_class_that_no_label_has():
    kept = y != 2
    model = DistilledClassifier(frozen_logistic(), LogisticRegression(max_iter=1000), alpha=0.2).fit(X[kept], y[kept])
    assert model.classes_.tolist() == [0, 1, 2]
    network = DistilledClassifier(frozen_logistic(), FineTunedClassifier(max_epochs=30, random_state=0), alpha=0)
    network.fit(X[kept], y[kept])
    assert (network.predict(X[~kept]) == 2).mean() > 0.2


def test_without_any_label_frozen_teachers_suffice():
    model = DistilledClassifier(frozen_logistic(), LogisticRegression(), alpha=0)
    model.fit(X, [None] * 400, sample_labeled=np.zeros(400, dtype=bool))
    assert model.score(X, y) > 0.6
    numbers = DistilledRegressor(FrozenEstimator(Ridge().fit(X, y)), Ridge(), alpha=0)
    numbers.fit(X, np.full(400, np.nan), sample_labeled=np.zeros(400, dtype=bool))
    assert numbers.predict(X).shape == (400,)


def test_weights_reach_teacher_and_student():
    weights = (np.arange(400) < 200).astype(float)
    weighted = DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X, y, sample_weight=weights)
    half = DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X[:200], y[:200])
    np.testing.assert_allclose(weighted.predict_proba(X), half.predict_proba(X), atol=1e-4)


# Teachers


@pytest.mark.parametrize(
    "teacher",
    [
        RandomForestClassifier(10, random_state=0),
        GradientBoostingClassifier(n_estimators=5),
        VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
        make_pipeline(StandardScaler(), LogisticRegression()),
        SVC(decision_function_shape="ovr"),
        Perceptron(),
        FineTunedClassifier(**SMALL),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2),
        [LogisticRegression(), GaussianNB()],
        StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], cv=2),
        make_pipeline(StandardScaler(), StackingClassifier([("a", LogisticRegression())], cv=2)),
    ],
    ids=lambda one: type(one).__name__,
)
def test_anything_with_probabilities_or_scores_teaches(teacher):
    model = DistilledClassifier(teacher, LogisticRegression(max_iter=1000), random_state=0).fit(X, y)
    assert model.score(X, y) > 0.6
    assert model.score(X, y) == clone(model).fit(X, y).score(X, y)


def test_frozen_teachers_may_stand_in_any_order():
    two, three = frozen_logistic(y < 2), frozen_logistic()
    for teachers in ([two, three], [three, two], [GaussianNB(), three]):
        model = DistilledClassifier(teachers, LogisticRegression()).fit(X[y < 2], y[y < 2])
        assert model.classes_.tolist() == [0, 1, 2]
        assert model.decision_function(X).shape == model.predict_proba(X).shape == (400, 3)


def test_a_bare_network_reads_a_table():
    torch.manual_seed(0)
    module = nn.Linear(8, 3)
    for teacher in (module, FrozenEstimator(module)):
        assert DistilledClassifier(teacher, LogisticRegression(), alpha=0.5).fit(X, y).classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("routing", [False, True])
def test_weights_reach_the_last_step_of_pipelines(routing):
    weights = (np.arange(400) < 200).astype(float)
    teacher = student = make_pipeline(StandardScaler(), LogisticRegression())
    with sklearn.config_context(enable_metadata_routing=routing):
        model = DistilledClassifier(teacher, student, report_fraction=50, random_state=0)
        if routing:
            model.set_fit_request(sample_weight=True)
        assert model.fit(X, y, sample_weight=weights).score(X, y) > 0.6


def test_balanced_trees_count_classes_and_not_copies():
    rare = (X[:, 0] > 1.5).astype(int)
    tree = DecisionTreeClassifier(max_depth=2, class_weight="balanced", random_state=0)
    alone = clone(tree).fit(X, rare).predict(X).mean()
    model = DistilledClassifier(LogisticRegression(), tree, alpha=0.95).fit(X, rare)
    assert abs(model.predict(X).mean() - alone) < 0.1


def test_several_teachers_are_averaged_by_weight():
    first, second = frozen_logistic(C=0.001), FrozenEstimator(GaussianNB().fit(X, y))
    student = LogisticRegression(C=1e6, max_iter=10_000)
    mean = DistilledClassifier([first, second], student, alpha=0, teacher_weights=[3, 1]).fit(X, y)
    told = 0.75 * first.predict_proba(X) + 0.25 * second.predict_proba(X)

    class Told(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.array([0, 1, 2])
            return self

        def predict_proba(self, X):
            return told

    same = DistilledClassifier(FrozenEstimator(Told().fit(X, y)), student, alpha=0, cache=None).fit(X, y)
    np.testing.assert_allclose(mean.predict_proba(X), same.predict_proba(X), atol=1e-6)


def test_a_network_of_scores_teaches():
    torch.manual_seed(0)
    module = nn.Linear(8, 3).double()
    before = module.weight.detach().clone()
    backbone = ModuleBackbone(module, modality="table")
    model = DistilledClassifier(backbone, LogisticRegression(C=1e6, max_iter=5000), alpha=0).fit(X, y)
    scores = X @ module.weight.detach().numpy().T + module.bias.detach().numpy()
    assert (model.predict(X) == scores.argmax(1)).mean() > 0.97
    assert torch.equal(module.weight, before)
    assert clone(model).teacher is backbone


def test_columns_of_a_frozen_teacher_are_aligned_by_label():
    names = np.array(["low", "middle", "high"])[y]  # sorted: high, low, middle
    teacher = FrozenEstimator(LogisticRegression().fit(X, names))
    model = DistilledClassifier(teacher, LogisticRegression(C=1e6, max_iter=5000), alpha=0).fit(X, names)
    assert model.classes_.tolist() == ["high", "low", "middle"]
    np.testing.assert_allclose(model.predict_proba(X), teacher.predict_proba(X), atol=2e-3)

    class Reversed(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.classes_ = np.array([2, 1, 0])
            return self

        def predict_proba(self, X):
            return teacher_proba(X)[:, ::-1]

    teacher_proba = LogisticRegression().fit(X, y).predict_proba
    turned = DistilledClassifier(
        FrozenEstimator(Reversed().fit(X, y)), LogisticRegression(C=1e6, max_iter=5000), alpha=0
    ).fit(X, y)
    np.testing.assert_allclose(turned.predict_proba(X), teacher_proba(X), atol=2e-3)


def test_out_of_fold_answers_come_from_clones_that_have_not_seen_the_row():
    noise = np.random.default_rng(0).integers(0, 3, 400)
    forest = RandomForestClassifier(random_state=0)
    answers = {}
    for cv in (None, 5):
        model = DistilledClassifier(forest, DecisionTreeClassifier(random_state=0), alpha=0, cv=cv).fit(X, noise)
        answers[cv] = log_loss(noise, np.clip(model.predict_proba(X), 1e-3, 1), labels=[0, 1, 2])
    assert answers[None] < 0.6 < 1.0 < answers[5]  # chance is 1.1


def test_out_of_fold_answers_survive_a_class_that_a_fold_lacks():
    sorted_rows = np.argsort(y, kind="stable")
    model = DistilledClassifier(LogisticRegression(), LogisticRegression(), cv=KFold(3))
    model.fit(X[sorted_rows], y[sorted_rows])
    assert model.predict_proba(X).shape == (400, 3)


def test_the_callers_teacher_student_and_rows_stay_as_they_are():
    teacher, student = LogisticRegression(), LogisticRegression()
    rows, labels = X.copy(), y.copy()
    rows.flags.writeable = labels.flags.writeable = False
    DistilledClassifier(teacher, student).fit(rows, labels)
    assert not hasattr(teacher, "coef_") and not hasattr(student, "coef_")
    state = np.random.get_state()[1].copy()
    DistilledClassifier(teacher, FineTunedClassifier(**SMALL)).fit(rows, labels)
    assert (np.random.get_state()[1] == state).all()


# Once for each row


def test_a_search_asks_a_frozen_teacher_for_each_row_once(counting):
    teacher = counting().fit(X, y)
    counting.asked.clear()
    model = DistilledClassifier(FrozenEstimator(teacher), FineTunedClassifier(max_epochs=1, random_state=0))
    grid = {"temperature": [1, 2, 5], "alpha": [0, 0.5, 0.9]}
    GridSearchCV(model, grid, cv=5).fit(X, y)
    assert len(counting.asked) == len(set(counting.asked)) == 400
    assert counting.fits == 1


def test_rows_that_repeat_are_asked_for_once(counting):
    teacher = FrozenEstimator(counting().fit(X, y))
    counting.asked.clear()
    DistilledClassifier(teacher, LogisticRegression()).fit(np.tile(X, (3, 1)), np.tile(y, 3))
    assert len(counting.asked) == 400


def test_a_teacher_is_fitted_once_for_a_fold(counting):
    model = DistilledClassifier(counting(), LogisticRegression())
    GridSearchCV(model, {"alpha": [0.1, 0.5, 0.9], "student__C": [0.1, 1]}, cv=5).fit(X, y)
    assert counting.fits == 6  # five folds, and the refit
    GridSearchCV(model, {"teacher__C": [0.1, 10.0]}, cv=5).fit(X, y)
    assert counting.fits == 6 + 11  # of two candidates, and one refit


def test_a_teacher_that_was_fitted_again_is_asked_again(counting):
    teacher = counting().fit(X, y)
    model = DistilledClassifier(FrozenEstimator(teacher), LogisticRegression(), alpha=0)
    first = model.fit(X, y).predict_proba(X)
    teacher.fit(X, (y + 1) % 3)
    second = model.fit(X, y).predict_proba(X)
    assert np.abs(first - second).max() > 0.3


def test_answers_of_other_questions_are_not_taken_for_these():
    torch.manual_seed(0)
    module = ModuleBackbone(nn.Linear(8, 3), modality="table")
    numbers = DistilledRegressor(module, Ridge(), alpha=0).fit(X, np.zeros((400, 3))).predict(X)
    DistilledClassifier(module, LogisticRegression()).fit(X, y)
    np.testing.assert_array_equal(
        DistilledRegressor(module, Ridge(), alpha=0).fit(X, np.zeros((400, 3))).predict(X), numbers
    )
    # The same teacher beside one that knows more, and alone.
    two, three = frozen_logistic(y < 2), frozen_logistic()
    DistilledClassifier([two, three], LogisticRegression(), cv=3).fit(X[y < 2], y[y < 2])
    alone = DistilledClassifier(two, LogisticRegression(), cv=3).fit(X[y < 2], y[y < 2])
    assert alone.classes_.tolist() == [0, 1]
    both = DistilledClassifier([LogisticRegression(), three], LogisticRegression(), cv=3).fit(X[y < 2], y[y < 2])
    single = DistilledClassifier(LogisticRegression(), LogisticRegression(), cv=3).fit(X[y < 2], y[y < 2])
    assert (both.classes_.tolist(), single.classes_.tolist()) == ([0, 1, 2], [0, 1])


def test_folds_are_told_apart_by_what_they_hold():
    noise = np.random.default_rng(0).integers(0, 3, 1200)
    rows = np.random.default_rng(1).normal(size=(1200, 3))
    first, second = (np.random.default_rng(seed).integers(0, 3, 1200) for seed in (0, 1))
    second[:4], second[-4:] = first[:4], first[-4:]
    found = []
    for folds in (first, second):
        model = DistilledClassifier(
            DecisionTreeClassifier(random_state=0), LogisticRegression(), cv=PredefinedSplit(folds)
        )
        found.append(model.fit(rows, noise).predict_proba(rows))
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_shared_teacher_that_somebody_fitted_again_is_not_used():
    first = DistilledClassifier(LogisticRegression(), LogisticRegression(), alpha=0).fit(X, y)
    before = first.predict_proba(X)
    first.teacher_.fit(X, (y + 1) % 3)
    again = DistilledClassifier(LogisticRegression(), LogisticRegression(), alpha=0).fit(X, y)
    np.testing.assert_allclose(again.predict_proba(X), before)


def test_a_function_of_the_same_name_is_another_teacher():
    found = []
    for factor in (1.0, -1.0):

        def change(rows):
            return rows * np.array([1, factor, 0, 0, factor, 1, 1, 1])  # noqa: B023

        change.__qualname__, change.__module__ = "change", __name__
        globals()["change"] = change
        teacher = make_pipeline(FunctionTransformer(change), RandomForestClassifier(5, random_state=0))
        found.append(DistilledClassifier(teacher, LogisticRegression(), alpha=0).fit(X, y))
    assert found[0].teacher_ is not found[1].teacher_


def test_a_teacher_that_counts_its_calls_is_asked_once():
    teacher = FrozenEstimator(Neighbours().fit(X, y))
    Neighbours.calls = []
    for alpha in (0.1, 0.5, 0.9):
        DistilledClassifier(teacher, LogisticRegression(), alpha=alpha).fit(X, y)
    assert Neighbours.calls == [400]


def test_without_a_cache_teachers_are_asked_in_each_fit(counting):
    teacher = FrozenEstimator(counting().fit(X, y))
    counting.asked.clear()
    for _ in range(2):
        DistilledClassifier(teacher, LogisticRegression(), cache=None).fit(X, y)
    assert len(counting.asked) == 800


# Rows of all sorts


@pytest.mark.parametrize("make", [list, np.asarray, pd.Series, lambda texts: pd.DataFrame({"t": texts}), pl.Series])
def test_texts(make):
    texts = ["the bin was not emptied", "the lamp is out", "rubbish everywhere", "no light in our street"] * 5
    labels = np.array(["waste", "light"] * 10)
    teacher = FineTunedClassifier(freeze_depth="all")
    model = DistilledClassifier(teacher, FineTunedClassifier(freeze_depth=0, **SMALL)).fit(make(texts), labels)
    assert model.predict(make(texts)).tolist() == labels.tolist()


def test_a_text_teacher_and_a_table_student_on_one_frame():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    labels = (frame["a"] > 0).to_numpy()
    frame["text"] = np.where(labels, "rather high", "quite low")
    teacher = make_pipeline(ColumnTransformer([("t", TfidfVectorizer(), "text")]), LogisticRegression())
    student = Pipeline(
        [
            ("columns", ColumnTransformer([("n", StandardScaler(), ["a", "b"])])),
            ("net", FineTunedClassifier(max_epochs=30, random_state=0)),
        ]
    )
    model = DistilledClassifier(teacher, student, alpha=0.2).fit(frame, labels)
    assert model.score(frame, labels) > 0.9
    assert type(model.student_[-1]) is FineTunedClassifier
    assert model.lineage_[-1]["step"] == "distilled"
    found = cross_val_score(model, frame, labels, cv=3)
    assert found.mean() > 0.8


def test_sparse_rows_and_images():
    rows = sparse.coo_matrix(np.where(np.abs(X) > 1, X, 0))
    model = DistilledClassifier(LogisticRegression(max_iter=1000), LogisticRegression(max_iter=1000)).fit(rows, y)
    assert model.predict(rows.tocsr()).shape == (400,)
    images = load_digits().images[:60] / 16
    flat = make_pipeline(StandardScaler(), LogisticRegression())
    network = FineTunedClassifier("image-resnet", modality="image", max_epochs=1, random_state=0)
    with pytest.raises(ValueError):  # the teacher reads tables
        DistilledClassifier(flat, network).fit(images, load_digits().target[:60])
    seen = DistilledClassifier(clone(network).set_params(freeze_depth="all"), network)
    assert seen.fit(images, load_digits().target[:60]).score(images, load_digits().target[:60]) > 0.9


def test_a_pipeline_of_a_student_prepares_each_row_once_with_its_labels():
    student = make_pipeline(SelectKBest(k=3), LogisticRegression())
    model = DistilledClassifier(frozen_logistic(), student).fit(X, y)
    alone = SelectKBest(k=3).fit(X, y)
    np.testing.assert_array_equal(model.student_[0].scores_, alone.scores_)


# A student afterwards


def test_a_student_lives_without_its_teacher():
    model = DistilledClassifier(RandomForestClassifier(10, random_state=0), FineTunedClassifier(**SMALL)).fit(X, y)
    student = pickle.loads(pickle.dumps(model.student_))
    np.testing.assert_array_equal(student.predict_proba(X), model.predict_proba(X))
    assert type(student) is FineTunedClassifier
    assert [step["step"] for step in student.lineage_] == ["untrained", "distilled"]
    assert student.lineage_[-1]["teacher"] == ["RandomForestClassifier"]
    tuned = FineTunedClassifier(model, max_epochs=1).fit(X, y)
    assert [step["step"] for step in tuned.lineage_] == ["untrained", "distilled", "fine-tuned"]
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.predict(X), model.predict(X))


def test_a_distilled_model_can_teach():
    first = DistilledClassifier(RandomForestClassifier(10, random_state=0), FineTunedClassifier(**SMALL)).fit(X, y)
    second = DistilledClassifier(FrozenEstimator(first), LogisticRegression(max_iter=500)).fit(X, y)
    assert second.score(X, y) > 0.6


# Numbers


def test_a_regressor_minimises_the_mixed_squared_error():
    rows, numbers = load_diabetes(return_X_y=True)
    teacher = FrozenEstimator(RandomForestRegressor(10, random_state=0).fit(rows[:200], numbers[:200]))
    model = DistilledRegressor(teacher, Ridge(0.1), alpha=0.25).fit(rows, numbers)
    mixed = 0.25 * numbers + 0.75 * teacher.predict(rows)
    np.testing.assert_allclose(model.predict(rows), Ridge(0.1).fit(rows, mixed).predict(rows))
    labelled = np.arange(len(rows)) < 100
    partly = DistilledRegressor(teacher, Ridge(0.1), alpha=0.25)
    partly.fit(rows, np.where(labelled, numbers, np.nan), sample_labeled=labelled)
    mixed = np.where(labelled, mixed, teacher.predict(rows))
    expected = Ridge(0.1).fit(rows, mixed, sample_weight=np.where(labelled, 1, 0.75))
    np.testing.assert_allclose(partly.predict(rows), expected.predict(rows))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_networks_learn_numbers_of_a_teacher(shape):
    target = X[:, 0] if not shape else X[:, :2] * [1, 100]
    teacher = FrozenEstimator(Ridge().fit(X, target))
    student = FineTunedRegressor(max_epochs=40, random_state=0)
    model = DistilledRegressor(teacher, student, alpha=0).fit(
        X, np.zeros_like(target) + X[:, :1].reshape(400, *[1] * len(shape))
    )
    assert model.predict(X).shape == target.shape
    assert model.score(X, target) > 0.9


# Hints


def test_hints_bring_the_students_features_closer_to_the_teachers():
    teacher = FrozenEstimator(FineTunedClassifier(max_epochs=20, random_state=0).fit(X, y))
    features = teacher.estimator.transform(X)
    errors = []
    for weight in (0.0, 50.0):
        student = FineTunedClassifier("table-resnet", max_epochs=20, random_state=0)
        model = DistilledClassifier(teacher, student, hint_weight=weight).fit(X, y)
        own = model.student_.transform(X)
        fitted = Ridge(1.0).fit(own[:300], features[:300])
        errors.append(fitted.score(own[300:], features[300:]))
        assert model.predict_proba(X).shape == (400, 3)
        assert set(dict(model.student_._network.named_children())) == {"suffix", "head"}
    assert errors[1] > errors[0] + 0.01


def test_hints_start_from_a_regression_on_a_pretrained_network():
    texts = ["the bin was not emptied", "the lamp is out", "rubbish everywhere", "no light in our street"] * 5
    labels = ["waste", "light"] * 10
    teacher = FineTunedClassifier(freeze_depth="all")
    for depth in (0, "all"):
        model = DistilledClassifier(teacher, FineTunedClassifier(freeze_depth=depth, **SMALL), hint_weight=1.0)
        assert model.fit(texts, labels).score(texts, labels) == 1.0
    with_mlp = DistilledClassifier(teacher, FineTunedClassifier(head="mlp", **SMALL), hint_weight=1.0)
    assert with_mlp.fit(texts, labels).score(texts, labels) == 1.0


# The report


def test_the_report_tells_whether_the_teacher_helped():
    X_digits, y_digits = load_digits(return_X_y=True)
    teacher = RandomForestClassifier(50, random_state=0)
    model = DistilledClassifier(
        teacher, DecisionTreeClassifier(random_state=0), cv=3, report_fraction=0.3, random_state=0
    )
    report = model.fit(X_digits[:900], y_digits[:900]).distillation_report_
    assert (report.n_rows, report.metric) == (270, "accuracy")
    assert report.teacher_score > report.student_score > 0.6
    assert report.teacher_bytes > report.student_bytes > 1000
    assert report.teacher_seconds > report.student_seconds > 0
    assert report.gain == report.student_score - report.alone_score
    assert report.helped == (report.gain > report.gain_error)
    assert 0.6 < report.agreement < 1
    again = clone(model).fit(X_digits[:900], y_digits[:900]).distillation_report_
    assert again.student_score == report.student_score
    display = DistillationDisplay.from_estimator(model)
    assert len(display.points_) == 3
    assert DistillationDisplay.from_estimator(model, cost="seconds").ax_.get_xscale() == "log"
    assert clone(model).set_params(report_fraction=None).fit(X, y).distillation_report_ is None


def test_the_report_of_numbers():
    rows, numbers = load_diabetes(return_X_y=True)
    model = DistilledRegressor(
        RandomForestRegressor(10, random_state=0), Ridge(0.1), report_fraction=100, random_state=0
    )
    report = model.fit(rows, numbers).distillation_report_
    assert (report.n_rows, report.metric) == (100, "r2")
    assert 0.5 < report.agreement <= 1
    assert np.isnan(report.gain_error)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        constant = model.set_params(student=DummyRegressor()).fit(rows, numbers).distillation_report_
    assert np.isnan(constant.agreement), "what never varies has no correlation"


def test_a_stacking_teaches_and_is_taught():
    rows, numbers = load_diabetes(return_X_y=True)
    stacking = StackingRegressor([("a", Ridge(0.1))], cv=2)
    assert DistilledRegressor(stacking, clone(stacking)).fit(rows, numbers).score(rows, numbers) > 0.4
    stacking = StackingClassifier([("a", LogisticRegression())], cv=2)
    model = DistilledClassifier(LogisticRegression(), stacking).fit(X, y)
    assert model.predict_proba(X).shape == (len(X), len(np.unique(y)))


class Elsewhere(ClassifierMixin, BaseEstimator):
    """An estimator of another package, which has no constraints of parameters."""

    def fit(self, X, y, sample_weight=None):
        self.model_ = LogisticRegression().fit(X, y, sample_weight)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        return self.model_.predict(X)

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def test_estimators_of_other_packages_teach_and_are_taught():
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = (X[:, 0] > 0).astype(int)
    expected = DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X, y).predict_proba(X)
    for student in (Elsewhere(), make_pipeline(Elsewhere())):
        found = DistilledClassifier(Elsewhere(), student).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(found, expected)


# Searches


def test_masks_are_routed_through_searches():
    labelled = np.arange(400) % 3 > 0
    model = DistilledClassifier(LogisticRegression(), LogisticRegression())
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(model, {"alpha": [0.2, 0.8]}, cv=3, scoring="accuracy")
        search.fit(X, y, sample_labeled=labelled)
    assert search.best_score_ > 0.5


def test_parameters_of_teacher_and_student_can_be_searched():
    model = DistilledClassifier(RandomForestClassifier(random_state=0), LogisticRegression())
    grid = {"teacher__n_estimators": [3, 5], "student__C": [0.1, 1]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_estimator_.teacher_.n_estimators in (3, 5)


# What is refused


class Broken(ClassifierMixin, BaseEstimator):
    def __init__(self, given=None):
        self.given = given

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.full((len(X), 3), self.given)


BAD = [
    (dict(teacher=Ridge()), TypeError, "Ridge has neither predict_proba nor decision_function, it has predict"),
    (dict(teacher=VotingClassifier([("a", GaussianNB())])), TypeError, "has neither predict_proba"),
    (dict(teacher=LogisticRegression), TypeError, r"write LogisticRegression\(\)"),
    (dict(teacher="forest"), TypeError, "A teacher must be an estimator"),
    (dict(teacher=[]), ValueError, "empty list"),
    (dict(teacher=FrozenEstimator(LogisticRegression())), NotFittedError, "holds an estimator that is not fitted"),
    (dict(temperature=0), ValueError, "'temperature' parameter"),
    (dict(alpha=1.5), ValueError, "'alpha' parameter"),
    (dict(alpha=-0.1), ValueError, "'alpha' parameter"),
    (dict(cache="disk"), ValueError, "'cache' parameter"),
    (dict(teacher_weights=[1, 2]), ValueError, "there are 1 teacher"),
    (dict(teacher_weights=[-1]), ValueError, "not negative"),
    (dict(student=KNeighborsClassifier()), ValueError, "KNeighborsClassifier can't take sample_weight"),
    (dict(student=LogisticRegression(C=-1)), ValueError, "'C' parameter of LogisticRegression"),
    (dict(student=FineTunedClassifier(max_epochs=-1)), ValueError, "'max_epochs' parameter of FineTunedClassifier"),
    (dict(student="no-such-network"), (ValueError, OSError), "no-such-network"),
    (dict(student=OneVsRestClassifier(LogisticRegression())), ValueError, "can't take sample_weight"),
    (dict(student=GridSearchCV(LogisticRegression(), {"C": [1]})), TypeError, "Search outside"),
    (dict(teacher=GaussianMixture(3)), TypeError, "GaussianMixture is a density_estimator"),
    (dict(student=Ridge()), TypeError, "student Ridge is a regressor"),
    (dict(student=FineTunedRegressor()), TypeError, "has to be a FineTunedClassifier"),
    (dict(student=LogisticRegression), TypeError, r"write LogisticRegression\(\)"),
    (dict(teacher=Broken(np.nan)), ValueError, "NaN or infinity for 400 row"),
    (dict(teacher=Broken(0.9)), ValueError, "sum to 2.7 in row 0"),
    (dict(hint_weight=1.0), TypeError, "hint_weight is for students that are networks"),
    (dict(hint_weight=1.0, student="auto"), TypeError, "hint_weight is for teachers that are networks"),
    (dict(report_fraction=1.5), ValueError, "'report_fraction' parameter"),
    (dict(cv=[(np.arange(100), np.arange(100, 200))]), ValueError, "cv leaves labelled rows"),
]


@pytest.mark.parametrize("parameters, error, message", BAD)
def test_bad_parameters(parameters, error, message):
    given = {"teacher": LogisticRegression(), "student": LogisticRegression(), **parameters}
    model = DistilledClassifier(**given)
    with pytest.raises(error, match=message):
        model.fit(X, y)
    assert not hasattr(model, "student_")


def test_errors_come_before_the_teacher_is_fitted(counting):
    bad_students = [
        KNeighborsClassifier(),
        LogisticRegression(C=-1),
        "no-such-network",
        FineTunedClassifier(device="x"),
    ]
    wrongs = [dict(student=student) for student in bad_students] + [dict(temperature=0.0), dict(hint_weight=1.0)]
    wrongs.append(dict(teacher=[counting(), FrozenEstimator(Broken(np.nan).fit(X, y))]))
    for wrong in wrongs:
        with pytest.raises((ValueError, TypeError, OSError, RuntimeError)):
            DistilledClassifier(**{"teacher": counting(), "student": LogisticRegression(), **wrong}).fit(X, y)
    with pytest.raises(ValueError):
        DistilledClassifier(counting(), LogisticRegression()).fit(X, y, sample_labeled=np.zeros(400, bool))
    assert counting.fits == 0


@pytest.mark.parametrize(
    "labels, mask, message",
    [
        (y, np.zeros(400, bool), "No row has a label, but alpha > 0"),
        (y, np.ones(399, bool), "needs one entry for each of the 400 rows"),
        (y, np.full(400, 2), "must hold True"),
        (np.zeros(400, int), None, "only one class, 0"),
        (np.where(y == 0, np.nan, y), None, "NaN"),
        (y[:300], None, "inconsistent numbers of samples"),
        (np.eye(3, dtype=int)[y], None, "y has several columns"),
        (y + 0.5, None, "Unknown label type|continuous"),
    ],
)
def test_bad_labels(labels, mask, message):
    with pytest.raises(ValueError, match=message):
        DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X, labels, sample_labeled=mask)


def test_classes_that_a_frozen_teacher_lacks():
    teacher = frozen_logistic(y < 2)
    with pytest.raises(ValueError, match=r"does not know the class\(es\) 2 of y. It knows 0, 1"):
        DistilledClassifier(teacher, LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="other types"):
        DistilledClassifier(frozen_logistic(), LogisticRegression()).fit(X, y.astype(str))


def test_ovo_scores_are_refused():
    teacher = SVC(decision_function_shape="ovo")
    four = np.arange(400) % 4
    with pytest.raises(ValueError, match="decision_function_shape='ovr'"):
        DistilledClassifier(teacher, LogisticRegression(max_iter=1000)).fit(X, four)


def test_a_teacher_without_weights_is_named():
    with pytest.raises(ValueError, match="teacher KNeighborsClassifier can't take sample_weight"):
        DistilledClassifier(KNeighborsClassifier(), LogisticRegression()).fit(X, y, sample_weight=np.ones(400))


def test_a_failed_fit_leaves_the_estimator_as_it_was():
    model = DistilledClassifier(LogisticRegression(), LogisticRegression()).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError):
        model.fit(X, np.zeros(400, int))
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_students_without_probabilities_say_so():
    model = DistilledClassifier(LogisticRegression(), SGDClassifier(random_state=0)).fit(X, y)
    assert not hasattr(model, "predict_proba") and hasattr(model, "decision_function")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.score(X, y) > 0.4
