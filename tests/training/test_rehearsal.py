"""The rehearsal: what rows that are held back for a trial say of how far to go."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from support.networks import seeded, three_layers
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, ModuleBackbone
from sktransfer.training import probe, rehearsal


@pytest.fixture
def backbone():
    return three_layers()


@pytest.fixture
def table():
    return make_classification(80, 6, n_informative=4, n_classes=2, random_state=0)


@pytest.fixture
def curved():
    """Classes that no linear model of the features tells apart, but the network behind them can learn."""
    X = np.random.default_rng(0).normal(size=(400, 6))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def quick(backbone, estimator=FineTunedClassifier, **parameters):
    return estimator(backbone, **{"freeze_depth": 0, "max_epochs": 3, "random_state": 0, **parameters})


def kept(model):
    return next(entry["share"] for entry in model.history_ if entry["best"])


def test_all_of_the_way_is_kept_where_it_is_clearly_better(backbone, curved):
    X, y = curved
    settings = {"max_epochs": 40, "learning_rate": 0.1, "early_stopping": False}
    model = quick(backbone, **settings).fit(X[:200], y[:200])
    assert kept(model) == 1
    half = quick(backbone, **settings, weight_interpolation=0.5).fit(X[:200], y[:200])
    assert model.score(X[200:], y[200:]) > half.score(X[200:], y[200:]) + 0.05


def test_the_start_is_kept_where_training_does_harm(backbone, table, monkeypatch):
    X, y = table
    monkeypatch.setattr(rehearsal, "_best_share", lambda *args: 0.0)
    model = quick(backbone, learning_rate=0.1).fit(X, y)
    assert kept(model) == 0
    start = quick(backbone, max_epochs=0).fit(X, y)
    np.testing.assert_allclose(model.transform(X), start.transform(X), rtol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X), start.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize(
    "none, all_, best",
    [(0.0, 0.0, 0.5), (0.5, -0.15, 1.0), (0.5, -0.05, 0.5), (-0.15, 0.5, 0.5), (-0.25, 0.5, 0.0), (-1.0, -1.0, 1.0)],
)
def test_what_is_clearly_better(none, all_, best):
    noise = np.random.default_rng(0).normal(size=100)
    noise = (noise - noise.mean()) / noise.std(ddof=1)  # the error of a mean is 0.1
    half = np.ones(100)
    losses = {0.0: half + none + noise, 0.5: half, 1.0: half + all_ + noise}
    assert rehearsal._best_share(losses, np.ones(100), np.arange(100)) == best
    tiny = {share: 1e-4 * one for share, one in losses.items()}
    assert rehearsal._best_share(tiny, np.ones(100), np.arange(100)) == 0.5


def test_half_of_the_way_is_kept_where_nothing_is_clear(backbone, table):
    assert kept(quick(backbone, learning_rate=1e-6).fit(*table)) == 0.5


def test_a_rehearsal_leaves_the_training_as_it_is(backbone, table):
    model = quick(backbone, stability_every=1).fit(*table)
    told = quick(backbone, stability_every=1, weight_interpolation=kept(model)).fit(*table)
    np.testing.assert_array_equal(model.predict_proba(table[0]), told.predict_proba(table[0]))
    np.testing.assert_array_equal(model.stability_.weight_change, told.stability_.weight_change)


@pytest.mark.parametrize("n_rows, rehearses", [(31, False), (33, True)])
def test_few_rows_are_not_rehearsed(backbone, table, monkeypatch, n_rows, rehearses):
    trained = []
    course_of = rehearsal.course_of
    monkeypatch.setattr(rehearsal, "course_of", lambda *args: trained.append(1) or course_of(*args))
    X, y = table
    model = quick(backbone).fit(X[:n_rows], y[:n_rows])
    assert bool(trained) == rehearses
    assert rehearses or kept(model) == 0.5


def test_classes_of_one_row_are_not_rehearsed(backbone):
    X = np.random.default_rng(0).normal(size=(40, 6))
    y = np.r_[np.arange(18), np.full(22, 18)]  # of which five judge
    model = quick(backbone, max_epochs=60, learning_rate=0.3, backbone_lr_ratio=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "course_of", None)
        assert kept(model.fit(X, y)) == 0.5
        assert kept(model.fit(X, np.arange(40) % 11)) == 0.5
        with pytest.raises(TypeError):
            model.fit(X, np.arange(40) % 10)


@pytest.mark.parametrize("kind", ["labels", "numbers", "outputs", "mlp", "weights", "unfreezing"])
def test_all_kinds_of_targets_and_heads(backbone, table, kind):
    X, y = table
    targets = {
        "labels": np.column_stack([y, X[:, 0] > 0]).astype(int),
        "numbers": X[:, 0],
        "outputs": X[:, :2],
    }
    estimator = FineTunedRegressor if kind in ("numbers", "outputs") else FineTunedClassifier
    parameters = {"mlp": {"head": "mlp"}, "unfreezing": {"unfreeze_every": 1}}.get(kind, {})
    weights = np.random.default_rng(0).uniform(0.5, 2, len(X)) if kind == "weights" else None
    model = quick(backbone, estimator, **parameters).fit(X, targets.get(kind, y), sample_weight=weights)
    assert kept(model) in (0, 0.5, 1)


def test_weights_are_copies(backbone, table):
    """Rows that weigh two, and the same rows twice: the same rows judge, and say the same."""
    X, y = table
    seen = []

    def noting(values, weights, groups):
        seen.append(mean_and_error(values, weights, groups))
        return seen[-1]

    mean_and_error = rehearsal._mean_and_error
    settings = {"batch_size": 1000, "optimizer": "sgd", "learning_rate": 0.1, "max_epochs": 10}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "_mean_and_error", noting)
        twice = np.arange(len(X)) % 3 == 0
        quick(backbone, **settings).fit(X, y, sample_weight=1.0 + twice)
        weighted, seen[:] = list(seen), []
        order = np.random.default_rng(0).permutation(len(X) + twice.sum())
        quick(backbone, **settings).fit(np.concatenate([X, X[twice]])[order], np.concatenate([y, y[twice]])[order])
    assert weighted
    np.testing.assert_allclose(seen, weighted, rtol=1e-4, atol=1e-7)


def test_rows_that_judge_are_of_each_class_and_no_copies_of_others():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 60, 100)
    groups = rehearsal._groups([bytes([row]) for row in rows])
    classes = rows % 3
    judges = rehearsal._judges(groups, classes)
    assert not set(rows[judges]) & set(rows[~judges])
    for one in range(3):
        distinct = len(set(rows[classes == one]))
        assert len(set(rows[judges & (classes == one)])) == pytest.approx(distinct / 4, abs=1)
    order = rng.permutation(100)
    again = rehearsal._judges(rehearsal._groups([bytes([row]) for row in rows[order]]), classes[order])
    np.testing.assert_array_equal(again, judges[order])


def test_rows_that_judge_are_the_same_in_any_order_where_equal_rows_have_several_classes():
    rng = np.random.default_rng(0)
    rows, classes = rng.integers(0, 60, 120), rng.integers(0, 3, 120)
    order = rng.permutation(120)
    judges, again = (
        rehearsal._judges(rehearsal._groups([bytes([row]) for row in some]), of)
        for some, of in ((rows, classes), (rows[order], classes[order]))
    )
    np.testing.assert_array_equal(again, judges[order])


def test_the_only_row_of_a_class_does_not_judge():
    classes = np.array([0] * 8 + [1, 2, 3, 4])
    judges = rehearsal._judges(np.arange(12), classes)
    assert not judges[classes > 0].any()
    assert judges.sum() == 2


def test_the_error_of_a_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    mean, error = rehearsal._mean_and_error(values, np.full(50, 3.0), np.arange(50))
    assert (mean, error) == pytest.approx((values.mean(), values.std(ddof=1) / np.sqrt(50)))
    # A row k times is a row of weight k.
    counts = rng.integers(1, 4, 50)
    copies = rehearsal._mean_and_error(*(np.repeat(one, counts) for one in (values, np.ones(50), np.arange(50))))
    assert copies == pytest.approx(rehearsal._mean_and_error(values, counts.astype(float), np.arange(50)))


def test_a_search_fits_the_probe_of_a_rehearsal_once_a_fold(backbone, table, monkeypatch):
    fits = []
    for kind, fit in list(probe._FIT.items()):
        monkeypatch.setitem(probe._FIT, kind, lambda *args, fit=fit: fits.append(1) or fit(*args))
    search = GridSearchCV(quick(backbone, random_state=None), {"learning_rate": [1e-3, 2e-3, 3e-3]}, cv=2, refit=False)
    search.fit(*table)
    assert len(fits) == 2 * 2


def test_an_interrupt_in_the_rehearsal_leaves_the_last_fit(backbone, table, monkeypatch):
    def press(*args, **kwargs):
        raise KeyboardInterrupt

    X, y = table
    model = quick(backbone, max_epochs=0).fit(X, y)
    shares = model.predict_proba(X)
    monkeypatch.setattr(rehearsal, "run_network", press)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(max_epochs=3).fit(X, y)
    assert [entry["epoch"] for entry in model.history_] == [0]
    np.testing.assert_array_equal(model.predict_proba(X), shares)


def test_an_interrupt_within_an_epoch_of_the_rehearsal(backbone, table):
    steps = []

    class Head(nn.Linear):
        def forward(self, vectors):
            if self.training and torch.is_grad_enabled():
                steps.append(len(vectors))
                if len(steps) == 10 + 4:  # the head alone on all rows, then on a part of them
                    raise KeyboardInterrupt
            return super().forward(vectors)

    model = quick(backbone, head=Head, batch_size=40, max_epochs=5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    assert not hasattr(model, "n_epochs_")


def test_losses_that_explode_are_told_once(backbone, table):
    model = quick(backbone, learning_rate=1e30, optimizer="sgd", max_grad_norm=None, max_epochs=20)
    with pytest.warns(UserWarning, match="NaN or infinite") as told:
        model.fit(*table)
    assert len(told) == 1
    assert np.isfinite(model.predict_proba(table[0])).all()


def test_a_start_that_is_kept_is_whole(backbone, table):
    model = quick(backbone, learning_rate=1e30, optimizer="sgd", max_grad_norm=None)
    with pytest.warns(UserWarning, match="the weights are those of epoch 0"):
        model.fit(*table)
    assert [entry["share"] for entry in model.history_] == [1.0]


class Remembering(nn.Module):
    """Keeps buffers that have nothing half way."""

    def __init__(self, what):
        super().__init__()
        self.what, self.first, self.second = what, nn.Linear(6, 8), nn.Linear(8, 8)
        kept = {"mask": torch.full((2,), -torch.inf), "shared": torch.ones(1).expand(8)}
        self.register_buffer("kept", kept.get(what, torch.zeros(1, 8)))

    def forward(self, rows):
        rows = torch.tanh(self.first(rows))
        if self.what == "last":
            self.kept = rows.detach()
        if self.what == "growing" and len(self.kept) < len(rows):
            self.kept = torch.zeros(len(rows), 8)
        return self.second(rows)


@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize("what", ["mask", "shared", "last", "growing"])
def test_buffers_that_are_no_statistics(table, what, validates):
    X, y = table
    backbone = ModuleBackbone(seeded(lambda: Remembering(what)), modality="table", stages=["first", "second"])
    model = quick(backbone, early_stopping=validates, validation_fraction=20).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()


def test_a_head_that_is_handed_out_twice_is_not_trained_twice(backbone, table):
    head = seeded(lambda: nn.Linear(7, 1))
    before = head.weight.detach().clone()
    model, told = (
        quick(backbone, head=lambda n_features, n_outputs: head, weight_interpolation=share).fit(*table)
        for share in ("auto", 0.5)
    )
    assert model.history_[1]["train_loss"] == told.history_[1]["train_loss"]
    torch.testing.assert_close(head.weight, before)


def test_random_weights_are_not_gone_back_to(table):
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 12)).astype(np.uint8)
    model = FineTunedClassifier("image-resnet", weights="random", max_epochs=1, random_state=0)
    assert kept(model.fit(images, np.arange(40) % 2)) == 1


def test_an_interrupt_after_the_last_epoch_keeps_nothing(backbone, table, monkeypatch):
    def press(self):
        raise KeyboardInterrupt

    X, y = table
    model = quick(backbone, stability_every=1, weight_interpolation=0.5)
    monkeypatch.setattr("sktransfer.training.stability.StabilityMonitor.measure_again", press)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert not hasattr(model, "n_epochs_")


def test_an_interrupt_while_the_last_epoch_is_judged(backbone, table, monkeypatch):
    def press(self, share):
        raise KeyboardInterrupt

    X, y = table
    monkeypatch.setattr("sktransfer.training.interpolation.Start.at", press)
    with pytest.raises(KeyboardInterrupt):
        quick(backbone).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])


def test_the_rehearsal_has_a_bar_of_its_own(backbone, table, capsys):
    quick(backbone, verbose=1).fit(*table)
    shown = capsys.readouterr().err
    assert "FineTunedClassifier, rehearsal" in shown
    assert "FineTunedClassifier:" in shown


@pytest.mark.parametrize("share", [-0.1, 1.1, "half", None, float("nan")])
def test_a_share_that_is_none(backbone, table, share):
    with pytest.raises(ValueError, match="weight_interpolation"):
        quick(backbone, weight_interpolation=share).fit(*table)
