"""Progress, scikit-learn's callbacks and the stability record, through the estimators."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.networks import seeded
from torch import nn

from sktransfer import FineTunedClassifier, ModuleBackbone


def make_module():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 7))


@pytest.fixture
def model():
    backbone = ModuleBackbone(seeded(make_module), modality="table", name="small", stages=["0", "2", "4"])
    return FineTunedClassifier(backbone, freeze_depth=1, max_epochs=3, random_state=0)


@pytest.fixture
def table():
    return make_classification(60, 6, random_state=0)


class Noting:
    """A callback that writes down what it is told, and may end the training."""

    max_propagation_depth = None

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.events = []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, fitted_estimator=None):
        self.events.append(("end", context.task_name))
        if fitted_estimator is not None and context.task_name == "epoch":
            self.shapes = fitted_estimator.predict_proba(np.zeros((2, 6))).shape
        return self.stop_after is not None and self.count("end") >= self.stop_after

    def count(self, what):
        return sum(event == (what, "epoch") for event in self.events)


def test_each_epoch_is_a_task(model, table):
    noting = Noting()
    model.set_callbacks(noting).fit(*table)
    assert noting.events[0] == "setup"
    assert noting.events[-1] == "teardown"
    assert noting.count("begin") == noting.count("end") == 3
    # Looking on changes nothing.
    other = clone(model).set_callbacks().fit(*table)
    np.testing.assert_array_equal(other.predict_proba(table[0]), model.predict_proba(table[0]))


def test_a_callback_ends_training(model, table):
    model.set_callbacks(Noting(stop_after=2)).fit(*table)
    assert model.n_epochs_ == 2
    assert [row["epoch"] for row in model.history_] == [0, 1, 2]
    assert model.predict(table[0]).shape == (60,)


@pytest.mark.parametrize("where", ["alone", "pipeline", "search"])
def test_progress_bar_of_scikit_learn(model, table, where, capsys):
    pytest.importorskip("rich")
    if where == "pipeline":
        model = make_pipeline(StandardScaler(), model)
    if where == "search":
        model = GridSearchCV(
            make_pipeline(StandardScaler(), model), {"finetunedclassifier__freeze_depth": [1, 2]}, cv=2
        )
    model.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(*table)
    shown = capsys.readouterr().out
    # In the search each of two candidates in two folds, and the refit.
    n_fits = 5 if where == "search" else 1
    bars = [line for line in shown.splitlines() if "FineTunedClassifier - fit" in line and "100%" in line]
    assert len(bars) >= n_fits
    assert model.predict(table[0]).shape == (60,)


def test_scores_of_each_epoch(model, table):
    monitor = ScoringMonitor(scoring="neg_log_loss")
    model.set_params(learning_rate=0.01).set_callbacks(monitor).fit(*table)
    log = monitor.get_logs()
    scores = [entry for entry in log.data if "neg_log_loss" in entry or "score" in entry]
    assert len(scores) >= 3


def test_a_bar_with_verbose(model, table, capsys):
    model.set_params(verbose=1).fit(*table)
    shown = capsys.readouterr().err
    assert "FineTunedClassifier" in shown
    assert "3/3" in shown
    assert "train_loss" in shown
    model.set_params(verbose=0).fit(*table)
    assert capsys.readouterr().err == ""


def test_the_stability_record(model, table):
    X, y = table
    model.set_params(stability_every=2, max_epochs=5, learning_rate=0.001)
    model.set_params(source_probe=(X, y)).fit(X, y)
    record = model.stability_
    assert record.stages == ("0", "2", "4")
    assert record.epochs.tolist() == [0, 2, 4, 5]
    np.testing.assert_allclose(record.cka[0], 1)
    np.testing.assert_array_equal(record.cka[:, 0], 1)
    np.testing.assert_array_equal(record.weight_change[:, 0], 0)
    np.testing.assert_array_equal(record.gradient_norm[:, 0], 0)
    assert (record.weight_change[1:, 1:] > 0).all()
    assert (np.diff(record.weight_change[:-1, 2]) > 0).all()
    assert (record.gradient_norm[1:, 1:] > 0).all()
    assert ((record.cka[1:, 1:] > 0) & (record.cka[1:, 1:] <= 1 + 1e-9)).all()
    assert record.cka[-1, 2] < 1
    assert record.forgetting[0] == 0
    assert record.forgetting.shape == (4,)
    # Looking on changes nothing.
    plain = clone(model).set_params(stability_every=None, source_probe=None).fit(X, y)
    assert plain.stability_ is None
    np.testing.assert_array_equal(plain.predict_proba(X), model.predict_proba(X))


def test_the_last_record_is_of_the_weights_that_are_kept(model, table):
    model.set_params(stability_every=1, learning_rate=0.01, source_probe=table)
    halfway, whole = (clone(model).set_params(weight_interpolation=one).fit(*table).stability_ for one in (0.5, 1))
    for name in ("weight_change", "gradient_norm", "cka", "forgetting"):
        np.testing.assert_allclose(getattr(halfway, name)[:-1], getattr(whole, name)[:-1], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(halfway.weight_change[-1], whole.weight_change[-1] / 2, rtol=1e-4)
    np.testing.assert_allclose(halfway.gradient_norm[-1], whole.gradient_norm[-1], rtol=1e-5)
    assert halfway.cka[-1, 2] > whole.cka[-1, 2]


def test_the_stability_record_of_gradual_unfreezing(model, table):
    model.set_params(stability_every=1, unfreeze_every=1, freeze_depth=0, learning_rate=0.01).fit(*table)
    change = model.stability_.weight_change
    assert [int((row > 0).sum()) for row in change] == [0, 1, 2, 3]


def test_the_record_holds_the_last_epoch_wherever_training_ends(model, table):
    X, y = table
    settings = {"max_epochs": 40, "n_iter_no_change": 1, "learning_rate": 1.0, "stability_every": 5}
    model.set_params(early_stopping=True, **settings).fit(X, y)
    last = model.n_epochs_
    assert last < 40
    assert last % 5, "the record would be due anyway"
    assert model.stability_.epochs.tolist() == [*range(0, last, 5), last]


def test_no_record_without_request(model, table):
    assert model.fit(*table).stability_ is None


def test_the_history(model, table):
    model.set_params(lr_scheduler="linear").fit(*table)
    assert [row["epoch"] for row in model.history_] == [0, 1, 2, 3]
    assert all(
        set(row) == {"epoch", "train_loss", "valid_loss", "learning_rate", "seconds", "best"} for row in model.history_
    )
    assert model.history_[0]["train_loss"] is None
    assert all(row["seconds"] >= 0 for row in model.history_)
    rates = [row["learning_rate"] for row in model.history_[1:]]
    assert 1e-3 >= rates[0] > rates[1] > rates[2] > 0
    assert model.n_epochs_ == 3
    assert not torch.is_inference_mode_enabled()
