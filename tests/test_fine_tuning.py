"""What FineTunedClassifier and FineTunedRegressor learn from, and what they give."""

import copy
import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from support.networks import WORDS, save_tiny_bert, seeded
from torch import nn

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    ModuleBackbone,
    PretrainedFeatureExtractor,
)
from sktransfer.fine_tuning import holdout
from sktransfer.training import probe


def make_module():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 7))


def note_nothing(*args):
    """Be a hook that can be pickled."""


class WithDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))
        self.second = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 7))

    def forward(self, rows):
        return self.second(torch.tanh(self.first(rows)))


@pytest.fixture
def backbone():
    return ModuleBackbone(seeded(make_module), modality="table", name="small", stages=["0", "2", "4"])


@pytest.fixture
def table():
    X, y = make_classification(60, 6, n_informative=4, n_classes=3, random_state=0)
    return X, y


def quick(backbone, make=FineTunedClassifier, **parameters):
    return make(backbone, **{"freeze_depth": 1, "max_epochs": 3, "random_state": 0, **parameters})


# Targets


@pytest.mark.parametrize(
    "labels", [["a", "bb", "c"], [-1, 5, 7], [0.0, 1.0, 2.0], pd.array(["x", "y", "z"], dtype="str")], ids=str
)
def test_labels_come_back_as_they_were(backbone, table, labels):
    X, codes = table
    y = np.asarray(labels)[codes]
    model = quick(backbone).fit(X, y)
    assert model.classes_.tolist() == sorted(set(labels))
    assert set(model.predict(X)) <= set(y)
    assert model.predict(X).dtype == y.dtype
    shares = model.predict_proba(X)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_array_equal(model.classes_[shares.argmax(1)], model.predict(X))
    assert model.score(X, y) > 0.5


def test_two_classes_have_one_score(backbone, table):
    X, codes = table
    y = codes > 0
    model = quick(backbone).fit(X, y)
    scores = model.decision_function(X)
    assert scores.shape == (60,)
    assert model.classes_.dtype == bool
    np.testing.assert_array_equal(model.predict(X), scores > 0)
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-scores)))


@pytest.mark.parametrize("container", [np.array, list, scipy.sparse.csr_array, pd.DataFrame])
def test_several_labels_a_row(backbone, table, container):
    X, codes = table
    labels = np.column_stack([codes == 0, codes > 0, X[:, 0] > 0, np.ones(60)]).astype(int)
    given = labels.tolist() if container is list else container(labels)
    model = quick(backbone, max_epochs=10, learning_rate=0.01).fit(X, given)
    assert len(model.classes_) == 4
    assert model.predict_proba(X).shape == model.decision_function(X).shape == (60, 4)
    predicted = model.predict(X)
    assert set(np.unique(predicted)) <= {0, 1}
    assert (predicted[:, 3] == 1).all()
    assert (predicted == labels).mean() > 0.75
    assert 0 <= model.score(X, labels) <= 1


def test_numbers_in_their_own_units(backbone):
    X, Y = make_regression(80, 6, n_targets=2, random_state=0)
    Y = Y * [1.0, 1e4] + [0.0, 1e6]
    model = quick(backbone, FineTunedRegressor, max_epochs=30, learning_rate=0.01).fit(X, Y)
    assert model.predict(X).shape == Y.shape
    assert model.score(X, Y) > 0.7
    flat = quick(backbone, FineTunedRegressor).fit(X, Y[:, 1])
    assert flat.predict(X).shape == (80,)
    # Units don't matter for what is learnt.
    other = quick(backbone, FineTunedRegressor).fit(X, Y[:, 1] / 1e4)
    np.testing.assert_allclose(other.predict(X) * 1e4, flat.predict(X), rtol=1e-5)


def test_a_constant_target_is_predicted(backbone, table):
    model = quick(backbone, FineTunedRegressor).fit(table[0], np.full(60, 7.5))
    np.testing.assert_allclose(model.predict(table[0]), 7.5, atol=1e-3)


@pytest.mark.parametrize("make", [FineTunedClassifier, FineTunedRegressor])
def test_a_column_is_flattened_with_a_warning(backbone, table, make):
    X, y = table
    with pytest.warns(UserWarning, match="column-vector"):
        model = quick(backbone, make).fit(X, y[:, None])
    np.testing.assert_allclose(model.predict(X), quick(backbone, make).fit(X, y).predict(X))
    assert model.predict(X).shape == (60,)


# Weights


def test_a_weight_of_zero_removes_a_row_and_one_of_two_doubles_it(table):
    X, y = table
    counts = np.random.default_rng(0).integers(0, 3, 60)
    for parameters in ({}, {"class_weight": "balanced"}, {"class_weight": {0: 3.0}}):
        model = FineTunedClassifier(batch_size=1000, max_epochs=5, random_state=0, **parameters)
        weighted = clone(model).fit(X, y, sample_weight=counts)
        copied = clone(model).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
        np.testing.assert_allclose(weighted.predict_proba(X), copied.predict_proba(X), atol=1e-8)


def test_weights_count_in_the_probe_the_training_and_the_validation(backbone, table):
    X, y = table
    weights = np.where(y == 0, 50.0, 1.0)
    plain = quick(backbone).fit(X, y).predict_proba(X)[:, 0].mean()
    assert quick(backbone).fit(X, y, sample_weight=weights).predict_proba(X)[:, 0].mean() > plain + 0.1
    assert quick(backbone, class_weight={0: 50.0}).fit(X, y).predict_proba(X)[:, 0].mean() > plain + 0.1
    np.testing.assert_allclose(
        quick(backbone, class_weight={0: 50.0}).fit(X, y).predict_proba(X),
        quick(backbone).fit(X, y, sample_weight=weights).predict_proba(X),
    )
    losses = [
        quick(backbone).fit(X, y, X_val=X, y_val=y, sample_weight_val=given).history_[0]["valid_loss"]
        for given in (None, np.ones(60), 7 * np.ones(60), weights)
    ]
    assert losses[0] == losses[1] == pytest.approx(losses[2])
    assert losses[3] != pytest.approx(losses[0], rel=1e-3)


def test_class_weights_of_the_training_rows_judge_the_validation_rows(backbone, table):
    X, y = table
    # Only two of the three classes are among the validation rows.
    some = np.flatnonzero(y < 2)
    model = quick(backbone, class_weight={0: 2.0, 2: 5.0}).fit(X, y, X_val=X[some], y_val=y[some])
    weights = np.array([2.0, 1.0, 5.0])
    given = quick(backbone).fit(X, y, weights[y], X_val=X[some], y_val=y[some], sample_weight_val=weights[y[some]])
    assert [row["valid_loss"] for row in model.history_] == pytest.approx([row["valid_loss"] for row in given.history_])


# Validation


def test_the_start_competes_and_the_best_epoch_is_kept(backbone, table):
    X, y = table
    # A rate that does nothing but harm: the start is the best, and is what is kept.
    model = quick(backbone, learning_rate=30.0, optimizer="sgd", n_iter_no_change=None, max_grad_norm=None)
    model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    assert [row["best"] for row in model.history_] == [True, False, False, False]
    start = quick(backbone, max_epochs=0).fit(X[:40], y[:40])
    np.testing.assert_allclose(model.predict_proba(X), start.predict_proba(X), atol=1e-6)


def test_the_kept_weights_are_those_of_the_best_epoch(backbone, table):
    X, y = table
    model = quick(
        backbone, learning_rate=0.03, max_epochs=25, n_iter_no_change=None, head_lr_ratio=1, head_init="random"
    )
    model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    losses = [row["valid_loss"] for row in model.history_]
    best = int(np.argmin(losses))
    assert 0 < best < 25, "the test needs an epoch in between"
    assert [row["epoch"] for row in model.history_ if row["best"]] == [best]
    shares = model.predict_proba(X[40:])
    assert -np.log(shares[np.arange(20), y[40:]]).mean() == pytest.approx(losses[best], rel=1e-5)


def test_training_ends_when_nothing_gets_better(backbone, table):
    X, y = table
    model = quick(backbone, learning_rate=3.0, optimizer="sgd", n_iter_no_change=2, max_epochs=50)
    model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    best = next(row["epoch"] for row in model.history_ if row["best"])
    assert model.n_epochs_ == best + 2 < 50
    assert len(model.history_) == model.n_epochs_ + 1


def test_early_stopping_is_automatic_from_a_thousand_rows_on(backbone):
    X, y = make_classification(1000, 6, random_state=0)
    model = quick(backbone, max_epochs=1, batch_size=256)
    assert model.fit(X, y).history_[0]["valid_loss"] is not None
    assert model.fit(X[1:], y[1:]).history_[0]["valid_loss"] is None
    assert clone(model).set_params(early_stopping=False).fit(X, y).history_[0]["valid_loss"] is None
    rare = np.where(np.arange(1000) < 3, 2, y)  # too rare to be on both sides
    assert model.fit(X, rare).history_[0]["valid_loss"] is None


@pytest.mark.parametrize("value", [True, np.True_, False, np.False_])
def test_early_stopping_on_request(backbone, table, value):
    model = quick(backbone, early_stopping=value, validation_fraction=0.2, max_epochs=1).fit(*table)
    assert (model.history_[0]["valid_loss"] is not None) == bool(value)


def test_the_probe_sees_the_training_part_only(backbone, table, monkeypatch):
    X, y = table
    seen = []
    fit_probe = probe.fit_probe

    def noting(vectors, *args):
        seen.append(len(vectors))
        return fit_probe(vectors, *args)

    monkeypatch.setattr("sktransfer.training.start.fit_probe", noting)
    quick(backbone, early_stopping=True, validation_fraction=15).fit(X, y)
    quick(backbone).fit(X[:50], y[:50], X_val=X[50:], y_val=y[50:])
    assert seen == [45, 50]


def test_a_search_cuts_validation_rows_of_the_length_of_X(backbone, table):
    X, y = table
    sizes = []

    class Noting(FineTunedClassifier):
        def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
            sizes.append((len(X), len(X_val)))
            return super().fit(X, y, sample_weight, X_val=X_val, y_val=y_val)

    Noting.__init__ = FineTunedClassifier.__init__
    search = GridSearchCV(quick(backbone, Noting, max_epochs=1), {"freeze_depth": [1]}, cv=3, refit=False)
    search.fit(X, y, X_val=X[:20], y_val=y[:20])
    assert sizes == [(40, 20)] * 3
    sizes.clear()
    search.fit(X, y, X_val=X, y_val=y)
    assert sizes == [(40, 40)] * 3


# The caller's things


def state_of_everything():
    return (
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        torch.random.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
        list(warnings.filters),
    )


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_module_the_rows_and_global_state_stay_as_they_were(table, head):
    module = seeded(WithDropout).train()
    module.first[0].weight.requires_grad_(False)
    module.second.register_forward_hook(note_nothing)
    hooks = list(module.second._forward_hooks)
    state = copy.deepcopy(module.state_dict())
    grads = [one.requires_grad for one in module.parameters()]
    X, y = table
    weights = np.linspace(0, 2, 60)
    given = [part.copy() for part in (X, y, weights)]
    for part in (X, y, weights):
        part.flags.writeable = False
    before = state_of_everything()
    for depth in (0, 1, "all"):
        model = quick(ModuleBackbone(module, modality="table"), freeze_depth=depth, head=head, stability_every=1)
        model.fit(X, y, sample_weight=weights).predict(X)
        pickle.loads(pickle.dumps(model)).transform(X)
    assert state_of_everything() == before
    for part, was in zip((X, y, weights), given, strict=True):
        np.testing.assert_array_equal(part, was)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert all(submodule.training for submodule in module.modules())
    assert [one.requires_grad for one in module.parameters()] == grads
    assert all(one.grad is None for one in module.parameters())
    assert list(module.second._forward_hooks) == hooks


def test_a_head_of_the_users_stays_as_it_was(backbone, table):
    head = seeded(lambda: nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))
    state = copy.deepcopy(head.state_dict())
    model = quick(backbone, head=head, max_epochs=2).fit(*table)
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())
    assert head.training
    assert not torch.equal(model._network.head[0].weight, head[0].weight)


def test_gradients_that_a_caller_has_switched_off(backbone, table):
    wanted = quick(backbone).fit(*table).predict_proba(table[0])
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            np.testing.assert_array_equal(quick(backbone).fit(*table).predict_proba(table[0]), wanted)


@pytest.mark.parametrize("parameters", [{}, {"head_init": "random"}, {"head": "mlp"}, {"early_stopping": True}])
def test_the_seed_decides_the_result(tmp_path, parameters):
    bert = save_tiny_bert(tmp_path, hidden_dropout_prob=0.3)
    texts = [" ".join(np.random.default_rng(i).choice(WORDS, 5)) for i in range(30)]
    y = np.arange(30) % 2

    def scores(seed):
        torch.manual_seed(np.random.randint(1000))
        model = FineTunedClassifier(bert, freeze_depth=0, max_epochs=2, batch_size=8, random_state=seed, **parameters)
        return model.fit(texts, y).decision_function(texts)

    np.testing.assert_array_equal(scores(0), scores(0))
    assert np.abs(scores(0) - scores(1)).max() > 1e-6
    one, other = np.random.RandomState(3), np.random.RandomState(3)
    np.testing.assert_array_equal(scores(one), scores(other))
    # A generator is drawn from, so that the next fit is another one.
    assert np.abs(scores(one) - scores(3)).max() > 1e-6


@pytest.mark.parametrize("head_init", ["random", "probe"])
def test_random_labels_are_guessed_at_chance_whatever_was_fitted_before(head_init):
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(60, 6)), generator.integers(0, 2, 60)
    module = seeded(make_module)
    backbone = ModuleBackbone(module, modality="table", name="shared")
    model = FineTunedClassifier(
        backbone,
        freeze_depth=0,
        max_epochs=80,
        learning_rate=0.03,
        head_lr_ratio=1,
        layer_decay=1.0,
        head_init=head_init,
        random_state=0,
    )
    assert model.fit(X, y).score(X, y) > 0.9, "it must be able to memorise the labels"
    fresh = cross_val_score(clone(model), X, y, cv=5)
    assert abs(fresh.mean() - 0.5) < 0.15
    np.testing.assert_array_equal(cross_val_score(model, X, y, cv=5), fresh)
    # Even with warm_start, since clones don't know what was learnt.
    np.testing.assert_array_equal(cross_val_score(model.set_params(warm_start=True), X, y, cv=5), fresh)


# Fits on top of fits


def test_warm_start_goes_on(backbone, table):
    X, y = table
    once = quick(backbone, warm_start=True, lr_scheduler="constant", learning_rate=0.01).fit(X, y)
    first = once.predict_proba(X)
    loss = once.history_[-1]["train_loss"]
    once.fit(X, y)
    assert once.history_[-1]["train_loss"] < loss
    assert np.abs(once.predict_proba(X) - first).max() > 1e-4
    assert [step["step"] for step in once.lineage_] == ["pretrained", "fine-tuned", "fine-tuned"]
    # No epochs: what there was, exactly.
    before = once.predict_proba(X)
    np.testing.assert_allclose(once.set_params(max_epochs=0).fit(X, y).predict_proba(X), before, atol=1e-6)
    for depth in (0, 2, "all"):
        once.set_params(freeze_depth=depth, max_epochs=0).fit(X, y)
        np.testing.assert_allclose(once.predict_proba(X), before, atol=1e-6)
        assert [stage.frozen for stage in once.stages_] == [
            place < (3 if depth == "all" else depth) for place in range(3)
        ]
    cold = once.set_params(warm_start=False, max_epochs=3, freeze_depth=1).fit(X, y)
    np.testing.assert_allclose(cold.predict_proba(X), first, atol=1e-6)


def test_warm_start_of_fewer_classes_keeps_them_all_and_unseen_ones_are_refused(backbone, table):
    X, y = table
    model = quick(backbone, warm_start=True).fit(X, y)
    model.fit(X[y < 2], y[y < 2])
    assert model.classes_.tolist() == [0, 1, 2]
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=r"classes that the fit has not seen: 3, 4. The classes are 0, 1, 2"):
        model.fit(X, y + 2)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_warm_start_of_an_untrained_network_goes_on_with_all_stages(table):
    X, y = table
    model = FineTunedClassifier(warm_start=True, max_epochs=3, random_state=0).fit(X, y)
    rates = [stage.learning_rate for stage in model.stages_]
    model.fit(X, y)
    assert [stage.learning_rate for stage in model.stages_] == rates == [1e-3] * len(rates)
    assert not any(stage.frozen for stage in model.stages_)


def test_warm_start_from_another_network_is_refused(backbone, table):
    X, y = table
    model = quick(backbone, warm_start=True).fit(X, y)
    before = model.predict_proba(X)
    other = ModuleBackbone(seeded(make_module, seed=5), modality="table", name="another", stages=["0", "2", "4"])
    with pytest.raises(ValueError, match="goes on from .*, but backbone now names another"):
        model.set_params(backbone=other).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    model.set_params(warm_start=False).fit(X, y)
    untrained = FineTunedClassifier(warm_start=True, max_epochs=1, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="goes on from 'table-mlp', but backbone now names another"):
        untrained.set_params(backbone="table-resnet").fit(X, y)


@pytest.mark.parametrize("name", ["table-mlp", "table-resnet", "series-cnn", "series-lstm", "series-transformer"])
def test_the_seed_decides_where_an_untrained_network_starts(name, table):
    X, y = table
    X = X[:, None, :] if name.startswith("series") else X

    def start(seed, **parameters):
        model = FineTunedClassifier(name, max_epochs=0, random_state=seed, **parameters)
        return model.fit(X, y)

    one, again, other = start(0), start(0), start(1)
    np.testing.assert_array_equal(one.transform(X), again.transform(X))
    assert np.abs(one.transform(X) - other.transform(X)).max() > 1e-3
    # What is known of the network before training stays the same: it says what it was made for.
    assert one.backbone_.fingerprint == other.backbone_.fingerprint
    copied = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(copied.transform(X), other.transform(X))
    reused = FineTunedClassifier(other, freeze_depth="all", random_state=0).fit(X, y)
    np.testing.assert_allclose(reused.transform(X), other.transform(X), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("depth", [0, 1, "all"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_copies_predict_the_same(backbone, table, depth, head, tmp_path):
    X, y = table
    model = quick(backbone, freeze_depth=depth, head=head).fit(X, y)
    joblib.dump(model, tmp_path / "model")
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), joblib.load(tmp_path / "model")):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(other.transform(X), model.transform(X))
        assert other.lineage_ == model.lineage_
        assert [row["epoch"] for row in other.history_] == [row["epoch"] for row in model.history_]
    cloned = clone(model)
    assert not hasattr(cloned, "history_")
    np.testing.assert_array_equal(cloned.fit(X, y).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("kind", ["text", "image", "series", "table"])
def test_pickles_of_all_kinds_of_rows(kind, tmp_path):
    y = np.arange(6) % 2
    generator = np.random.default_rng(0)
    X, name = {
        "text": (["how do i", "reset", "my card", "thanks a", "late again", "pin"], save_tiny_bert(tmp_path)),
        "image": (generator.integers(0, 256, (6, 8, 8)).astype(np.uint8), "image-resnet"),
        "series": (generator.normal(size=(6, 2, 20)), "series-cnn"),
        "table": (pd.DataFrame({"a": generator.normal(size=6), "b": list("xyxyxz")}), "auto"),
    }[kind]
    model = FineTunedClassifier(name, freeze_depth=-1, max_epochs=2, random_state=0, cache=None).fit(X, y)
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), atol=1e-7)
    assert model.modality_ == other.modality_ == kind


def test_the_tuned_embedding_and_its_names(backbone, table):
    X, y = table
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = quick(backbone).fit(frame, y)
    assert model.feature_names_in_.tolist() == list("abcdef")
    assert model.get_feature_names_out().tolist() == [f"finetunedclassifier{i}" for i in range(7)]
    made = model.set_output(transform="pandas").transform(frame)
    assert isinstance(made, pd.DataFrame)
    assert made.shape == (60, 7)
    assert (made.dtypes == np.float32).all()
    tuned = model.__sktransfer_backbone__().network_to_read()
    with torch.no_grad():
        wanted = tuned(torch.from_numpy(X).float()).numpy()
    np.testing.assert_allclose(made.to_numpy(), wanted, atol=1e-5)
    pipeline = make_pipeline(quick(backbone), LogisticRegression()).fit(X, y)
    assert pipeline.score(X, y) > 0.5


def test_a_tuned_network_is_the_source_of_another(backbone, table):
    X, y = table
    source = quick(backbone, learning_rate=0.01).fit(X, y)
    extractor = PretrainedFeatureExtractor(source).fit(X)
    np.testing.assert_allclose(extractor.transform(X), source.transform(X), atol=1e-5)
    weights = copy.deepcopy(source._network.state_dict())
    target = quick(source, freeze_depth=2).fit(X[:30], np.where(X[:30, 0] > 0, "up", "down"))
    assert target.classes_.tolist() == ["down", "up"]
    numbers = quick(target, FineTunedRegressor).fit(X, X[:, 0])
    assert numbers.predict(X).shape == (60,)
    steps = [(step["step"], step.get("estimator"), step.get("targets")) for step in numbers.lineage_]
    assert steps == [
        ("pretrained", None, None),
        ("fine-tuned", "FineTunedClassifier", "classes"),
        ("fine-tuned", "FineTunedClassifier", "classes"),
        ("fine-tuned", "FineTunedRegressor", "numbers"),
    ]
    assert [step.get("freeze_depth") for step in numbers.lineage_] == [None, 1, 2, 1]
    assert all(torch.equal(value, weights[name]) for name, value in source._network.state_dict().items())
    # A frozen stage of the source is the source's, not that of the network it came from.
    frozen = quick(source, freeze_depth="all").fit(X, y)
    np.testing.assert_allclose(frozen.transform(X), source.transform(X), atol=1e-5)
    search = GridSearchCV(quick(source, max_epochs=1), {"freeze_depth": [1, "all"]}, cv=2).fit(X, y)
    assert search.best_estimator_.backbone is source


def test_lineage_of_an_untrained_network_says_so(table):
    model = FineTunedClassifier(max_epochs=2, random_state=0).fit(*table)
    assert [step["step"] for step in model.lineage_] == ["untrained", "fine-tuned"]
    assert model.lineage_[1] | {"n_epochs": 2, "n_samples": 60} == model.lineage_[1]


# What can't be right


@pytest.mark.parametrize(
    "match, change",
    [
        ("only one class, 0", {"y": np.zeros(60, int)}),
        ("single row.*early_stopping=False", {"y": np.r_[9, np.zeros(30), np.ones(29)], "early_stopping": True}),
        ("inconsistent numbers of samples", {"y": np.zeros(59)}),
        ("NaN", {"y": np.r_[np.nan, np.zeros(30), np.ones(29)]}),
        ("infinity", {"y": np.r_[np.inf, np.zeros(30), np.ones(29)]}),
        ("Unknown label type", {"y": np.linspace(0, 1.5, 60)}),
        ("MultiOutputClassifier", {"y": np.column_stack([np.arange(60) % 3, np.arange(60) % 4])}),
        (r"freeze_depth must be .* The 3 stages are: 0, 2, 4. Got 7", {"freeze_depth": 7}),
        (r"freeze_depth must be .* Got 1.5", {"freeze_depth": 1.5}),
        (r"Use 0 to train all of them", {"freeze_depth": None}),
        ("optimizer.*adamw.*Got 'lion'", {"optimizer": "lion"}),
        ("lr_scheduler.*cosine.*Got 'step'", {"lr_scheduler": "step"}),
        ("validation_fraction", {"validation_fraction": 1.0}),
        ("learning_rate", {"learning_rate": 0.0}),
        ("classes that the fit has not seen: 5", {"X_val": np.zeros((2, 6)), "y_val": [0, 5]}),
        ("belong together", {"X_val": np.zeros((2, 6))}),
        ("without X_val", {"sample_weight_val": [1.0]}),
        ("early_stopping=False", {"X_val": np.zeros((2, 6)), "y_val": [0, 1], "early_stopping": False}),
        ("[Nn]egative", {"sample_weight": np.r_[-1.0, np.ones(59)]}),
        ("[Zz]ero", {"sample_weight": np.zeros(60)}),
        ("sample_weight.shape", {"sample_weight": np.ones(59)}),
        ("classes, which must all be on both sides", {"early_stopping": True, "validation_fraction": 2}),
        ("The head Linear can't read embeddings", {"head": nn.Linear(3, 3)}),
        (r"The head Linear gives an output of shape \(2, 5\)", {"head": nn.Linear(7, 5)}),
        ("source_probe", {"source_probe": (1, 2, 3), "stability_every": 1}),
        ("backbone__|not a valid|is for texts", {"max_length": 3}),
    ],
)
def test_bad_input_is_refused_with_words_that_help(backbone, table, match, change):
    X, y = table
    fit_names = ("y", "sample_weight", "X_val", "y_val", "sample_weight_val")
    given = {"y": y, **{name: value for name, value in change.items() if name in fit_names}}
    model = quick(backbone, **{name: value for name, value in change.items() if name not in fit_names})
    with pytest.raises((ValueError, TypeError), match=match):
        model.fit(X, **given)
    assert not hasattr(model, "history_")


def test_a_head_that_makes_no_module(backbone, table):
    with pytest.raises(TypeError, match="has to return a torch.nn.Module"):
        quick(backbone, head=lambda n_features, n_outputs: "linear").fit(*table)


def test_a_failed_fit_leaves_a_fitted_estimator_as_it_was(backbone, table):
    X, y = table
    model = quick(backbone).fit(X, y)
    before, history = model.predict_proba(X), model.history_
    with pytest.raises(ValueError, match="only one class"):
        model.fit(X, np.zeros(60))
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.history_ is history


def test_validation_rows_of_another_width_are_refused(backbone, table):
    X, y = table
    for name, words in ((backbone, "failed on an input of shape"), ("auto", "X_val: X has 5 features")):
        with pytest.raises(ValueError, match=words):
            quick(name).fit(X, y, X_val=np.zeros((3, 5)), y_val=[0, 1, 2])
    names = [f"column {place}" for place in range(6)]
    frame = pd.DataFrame(X, columns=names)
    with pytest.raises(ValueError, match="X_val: The columns are .* they have to be the same, in the same order"):
        quick(backbone).fit(frame, y, X_val=frame[names[::-1]], y_val=y)


def test_a_fitted_scikit_learn_model_has_no_network_to_tune(table):
    X, y = table
    with pytest.raises((ValueError, TypeError), match="LogisticRegression"):
        quick(LogisticRegression().fit(X, y)).fit(X, y)


def test_the_stability_record_looks_at_rows_without_augmentation():
    X = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3), torch.nn.ReLU())
    model = FineTunedClassifier(
        ModuleBackbone(module), freeze_depth=0, augment=_with_noise, stability_every=1, max_epochs=1, random_state=0
    ).fit(X, np.arange(12) % 2)
    # The start is compared with itself: other pixels would show.
    np.testing.assert_allclose(model.stability_.cka[0], 1.0, atol=1e-6)


def _with_noise(image):
    return torch.randint(0, 256, image.shape).to(image.dtype)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_order_in_memory_changes_nothing_but_speed(depth, monkeypatch):
    from sktransfer.training.network import TunableNetwork

    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    y = np.arange(12) % 2
    module = seeded(Convolving)
    model = FineTunedClassifier(module, freeze_depth=depth, max_epochs=2, random_state=0, learning_rate=0.01)
    fast = model.fit(images, y)
    assert fast._network._channels_last == (depth < 2)
    made = fast.decision_function(images)
    fingerprint = fast.__sktransfer_backbone__().fingerprint
    again = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(again.decision_function(images), made)
    assert again.__sktransfer_backbone__().fingerprint == fingerprint
    monkeypatch.setattr(TunableNetwork, "_lay_out", lambda self, channels_last: None)
    np.testing.assert_allclose(clone(model).fit(images, y).decision_function(images), made, atol=1e-4)


class Convolving(nn.Module):
    def __init__(self, flatten=None):
        super().__init__()
        self.first, self.second, self.top = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16 * 4 * 4, 5)
        self.flatten = flatten or nn.Flatten()

    def forward(self, pixels):
        return self.top(self.flatten(torch.relu(self.second(torch.relu(self.first(pixels))))))


class View(nn.Module):
    def forward(self, features):
        return features.view(len(features), -1)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_network_that_flattens_with_view_is_tuned(depth):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    y = np.arange(12) % 2
    made = []
    for flatten in (View(), nn.Flatten()):
        module = seeded(lambda flatten=flatten: Convolving(flatten))
        backbone = ModuleBackbone(module, stages=["first", "second", "top"], name="flattening")
        model = FineTunedClassifier(backbone, freeze_depth=depth, max_epochs=2, random_state=0, learning_rate=0.01)
        made.append(model.fit(images, y).decision_function(images))
    np.testing.assert_allclose(made[0], made[1], atol=1e-4)


def test_threads_predict_with_one_network(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    model = FineTunedClassifier("image-resnet", freeze_depth=1, max_epochs=1, random_state=0, cache=None)
    model.fit(images, np.arange(40) % 2)
    parts = [images[start : start + 5] for start in range(0, 40, 5)] * 3
    alone = [model.decision_function(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model.decision_function, parts))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_threads_fit_one_after_the_other():
    X, y = make_classification(40, 6, random_state=0)
    backbone = ModuleBackbone(seeded(WithDropout), modality="table", name="dropping")

    def scores(seed):
        model = FineTunedClassifier(backbone, freeze_depth=0, max_epochs=4, learning_rate=0.05, random_state=seed)
        return model.fit(X, y).decision_function(X)

    seeds = [0, 1, 2, 0, 1, 2]
    alone = [scores(seed) for seed in seeds[:3]] * 2
    before = torch.random.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(scores, seeds))
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_table_source_with_a_head_that_is_not_trained(table):
    X, y = table
    source = FineTunedClassifier(max_epochs=2, random_state=0).fit(X, y)
    model = FineTunedClassifier(source, head="mlp", max_epochs=0, random_state=0).fit(X, y)
    assert model.predict_proba(X).shape == (60, 3)


def test_a_split_that_would_lose_a_class_is_refused(table):
    X = np.random.default_rng(0).normal(size=(100, 4))
    y = np.array([0] * 49 + [1] * 49 + [2] * 2)
    with pytest.raises(ValueError, match="holds back all rows of the class 2|holds back 90 of them|class"):
        for seed in range(10):
            quick("auto", early_stopping=True, validation_fraction=0.97, random_state=seed).fit(X, y)


def test_a_probe_alone_holds_nothing_back(backbone):
    X, y = make_classification(1200, 6, random_state=0)
    model = quick(backbone, freeze_depth="all").fit(X, y)
    assert model.lineage_[-1]["n_samples"] == 1200
    assert quick(backbone, freeze_depth="all", head="mlp").fit(X, y).lineage_[-1]["n_samples"] == 1080


def test_a_head_on_frozen_vectors_is_trained_once(backbone, table):
    seen = []
    head = nn.Sequential(nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3))

    class Noting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = head

        def forward(self, vectors):
            if self.training:
                seen.append(len(vectors))
            return self.inner(vectors)

    quick(backbone, freeze_depth="all", head=Noting(), max_epochs=5).fit(*table)
    assert sum(seen) == 5 * 60


def test_losses_of_training_and_validation_are_of_one_kind(backbone, table):
    X, y = table
    weak = {"l2_sp": 100.0, "freeze_depth": 0, "batch_size": 60, "lr_scheduler": "constant", "head_init": "random"}
    model = quick(backbone, max_epochs=2, learning_rate=1e-9, **weak).fit(X, y, X_val=X, y_val=y)
    assert model.history_[1]["train_loss"] == pytest.approx(model.history_[0]["valid_loss"], rel=1e-3)


def test_a_known_class_that_is_missing_among_weighted_ones(backbone, table):
    X, y = table
    model = quick(backbone, warm_start=True, class_weight="balanced").fit(X, y)
    model.fit(X[y < 2], y[y < 2], X_val=X, y_val=y)
    assert np.isfinite(model.history_[-1]["valid_loss"])


def test_callbacks_see_rows_and_weights_of_one_length(backbone, table):
    from sklearn.callback import ScoringMonitor

    X, y = table
    weights = np.ones(60)
    weights[3] = 0
    model = quick(backbone, early_stopping=True, validation_fraction=0.2)
    model.set_callbacks(ScoringMonitor(scoring="accuracy")).fit(X, y, sample_weight=weights)


def test_a_source_probe_without_a_record(backbone, table):
    with pytest.raises(ValueError, match="source_probe is for the stability record"):
        quick(backbone, source_probe=table).fit(*table)


def test_an_interrupt_before_the_first_epoch(backbone, table, monkeypatch):
    from sktransfer.training.stability import StabilityMonitor

    def press(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(StabilityMonitor, "record", press)
    model = quick(backbone, stability_every=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    assert not hasattr(model, "history_")


def test_warm_start_with_a_module_for_a_named_head(backbone, table):
    model = quick(backbone, warm_start=True).fit(*table)
    with pytest.raises(ValueError, match="goes on with the head of the last fit"):
        model.set_params(head=nn.Linear(7, 3)).fit(*table)


# Validation rows


@pytest.mark.parametrize("depth", ["all", 3, 1.0])
def test_a_network_that_is_frozen_whole_learns_from_all_rows(backbone, depth):
    X, y = make_classification(1200, 6, random_state=0)
    model = quick(backbone, freeze_depth=depth).fit(X, y)
    assert model.lineage_[-1]["n_samples"] == 1200
    assert all(stage.frozen for stage in model.stages_)
    np.testing.assert_array_equal(
        model.predict_proba(X), quick(backbone, freeze_depth="all").fit(X, y).predict_proba(X)
    )


def test_without_epochs_nothing_is_held_back(backbone):
    X, y = make_classification(1200, 6, random_state=0)
    assert quick(backbone, max_epochs=0).fit(X, y).lineage_[-1]["n_samples"] == 1200


@pytest.mark.parametrize("parameters", [{"freeze_depth": "all"}, {"max_epochs": 0}])
def test_validation_rows_judge_a_probe_too(backbone, table, parameters):
    X, y = table
    model = quick(backbone, **parameters).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    (entry,) = model.history_
    assert entry["valid_loss"] == pytest.approx(log_loss(y[40:], model.predict_proba(X[40:])), rel=1e-5)


def test_several_labels_with_validation_rows(backbone, table):
    X, _ = table
    y = (X[:, :3] > 0).astype(int)
    model = quick(backbone, learning_rate=0.01).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    losses = [entry["valid_loss"] for entry in model.history_]
    assert np.isfinite(losses).all() and model.history_[int(np.argmin(losses))]["best"]


def test_a_class_without_weight_may_stand_among_validation_rows(backbone):
    X = np.random.default_rng(0).normal(size=(60, 6))
    y = np.array(list("abc") * 20)
    model = quick(backbone, class_weight={"a": 0.0}).fit(X, y, X_val=X, y_val=y)
    assert model.classes_.tolist() == ["b", "c"]
    without = quick(backbone, class_weight={"a": 0.0}).fit(X, y, X_val=X[y != "a"], y_val=y[y != "a"])
    assert model.history_[1]["valid_loss"] == without.history_[1]["valid_loss"]


def test_a_warm_start_holds_back_the_same_rows(backbone, table, monkeypatch):
    drawn = []

    def split(places, **options):
        parts = train_test_split(places, **options)
        drawn.append(parts[1].tolist())
        return parts

    monkeypatch.setattr(holdout, "train_test_split", split)
    model = quick(backbone, warm_start=True, early_stopping=True, validation_fraction=0.3, random_state=None)
    model.fit(*table).fit(*table)
    assert sorted(drawn[0]) == sorted(drawn[1])
    model.set_params(warm_start=False).fit(*table)
    assert sorted(drawn[2]) != sorted(drawn[0])


def test_a_warm_start_may_lack_a_class_that_class_weight_names(backbone, table):
    X, y = table
    model = quick(backbone, warm_start=True, class_weight={0: 2.0, 2: 5.0}).fit(X, y)
    assert model.fit(X[y < 2], y[y < 2]).classes_.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="class_weight"):
        quick(backbone, class_weight={7: 2.0}).fit(X, y)


# What surrounds a fit


def test_scores_of_each_epoch_on_a_frame_without_a_warning(backbone, table):
    from sklearn.callback import ScoringMonitor

    X, y = table
    frame = pd.DataFrame(X, columns=list("abcdef"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quick(backbone).set_callbacks(ScoringMonitor(scoring="accuracy")).fit(frame, y)
    assert model.feature_names_in_.tolist() == list("abcdef")


def test_the_stages_stand_below_the_picture_of_the_estimator(backbone, table):
    model = quick(backbone)
    assert "of them trained" not in model._repr_html_()
    shown = model.fit(*table)._repr_html_()
    assert "3 stages, 2 of them trained" in shown and "<td>0</td><td>56</td><td>frozen</td>" in shown


def test_displays_of_a_fitted_estimator(backbone, table):
    pytest.importorskip("matplotlib").use("Agg")
    from sktransfer.inspection import FreezeDepthDisplay, LearningCurveDisplay, StabilityDisplay

    X, y = table
    model = quick(backbone, stability_every=1, source_probe=(X, y)).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    curve = LearningCurveDisplay.from_estimator(model)
    assert max(len(line.get_xdata()) for line in curve.ax_.lines) == 4
    assert StabilityDisplay.from_estimator(model).figure_.axes
    grid = {"freeze_depth": [1, 2, "all"], "learning_rate": [1e-3, 1e-2]}
    search = GridSearchCV(quick(backbone, max_epochs=1), grid, cv=2).fit(X, y)
    assert FreezeDepthDisplay.from_search(search).ax_ is not None


def test_a_search_in_several_processes(backbone, table):
    grid = {"freeze_depth": ["all", 1]}
    alone, together = (
        GridSearchCV(quick(backbone), grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(*table) for n_jobs in (1, 2)
    )
    np.testing.assert_allclose(alone.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"])


def test_validation_rows_through_a_pipeline(backbone, table):
    X, y = table
    pipeline = Pipeline([("scale", StandardScaler()), ("clf", quick(backbone))], transform_input=["X_val"])
    with config_context(enable_metadata_routing=True):
        pipeline.set_params(clf=quick(backbone).set_fit_request(X_val=True, y_val=True))
        pipeline.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    scaled = StandardScaler().fit(X[:40])
    wanted = quick(backbone).fit(scaled.transform(X[:40]), y[:40], X_val=scaled.transform(X[40:]), y_val=y[40:])
    assert pipeline[-1].history_[0]["valid_loss"] == wanted.history_[0]["valid_loss"]


@pytest.mark.parametrize(("n_rows", "untrained", "wanted"), [(990, False, 20), (1000, False, 6), (1000, True, 20)])
def test_a_pretrained_network_with_many_rows_needs_fewer_epochs(backbone, n_rows, untrained, wanted):
    X, y = make_classification(n_rows, 6, random_state=0)
    model = quick("auto" if untrained else backbone, max_epochs="auto", early_stopping=False)
    assert model.fit(X, y).n_epochs_ == wanted
