"""From a backbone to a tuned network: heads, starts, interrupts, memory that runs out."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict
from support.networks import ThreeLayers, seeded, three_layers
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, ModuleBackbone
from sktransfer.training import probe, tuning
from sktransfer.training.network import TunableNetwork
from sktransfer.training.observers import Bystander


@pytest.fixture
def backbone():
    return three_layers()


@pytest.fixture
def table():
    return make_classification(60, 6, n_informative=4, n_classes=3, random_state=0)


def quick(backbone, **parameters):
    return FineTunedClassifier(backbone, **{"freeze_depth": 1, "max_epochs": 3, "random_state": 0, **parameters})


@pytest.mark.parametrize(
    "head",
    [
        "mlp",
        nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3)),
        lambda n_features, n_outputs: nn.Sequential(nn.Linear(n_features, 9), nn.GELU(), nn.Linear(9, n_outputs)),
        nn.Linear,
    ],
    ids=["mlp", "module", "function", "class"],
)
@pytest.mark.parametrize("depth", [1, "all"])
def test_heads(backbone, table, head, depth):
    X, y = table
    model = quick(backbone, head=head, freeze_depth=depth, max_epochs=15, learning_rate=0.03).fit(X, y)
    assert model.score(X, y) > 0.6
    assert model.n_epochs_ == 15


def test_the_head_starts_as_the_probe_of_scaled_embeddings(backbone, table):
    from sklearn.linear_model import LogisticRegression

    from sktransfer import PretrainedFeatureExtractor
    from sktransfer.training.probe import PRIOR_VARIANCES

    X, y = table
    vectors = PretrainedFeatureExtractor(backbone).fit_transform(X)
    vectors = (vectors - vectors.mean(0)) / np.sqrt(vectors.var(0).mean())
    probes = [LogisticRegression(C=one / 7, max_iter=1000).fit(vectors, y) for one in PRIOR_VARIANCES]
    for depth in (0, 1, "all"):
        model = quick(backbone, freeze_depth=depth, max_epochs=0).fit(X, y)
        shares = model.predict_proba(X)
        assert min(np.abs(one.predict_proba(vectors) - shares).max() for one in probes) < 1e-3


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, rows):
        for _ in range(3):
            rows = torch.tanh(self.layer(rows))
        return rows


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 7))

    def forward(self, rows):
        return rows @ self.weight


@pytest.mark.parametrize("network", [lambda: nn.Linear(6, 7), Loop, Bare], ids=["layer", "loop", "bare"])
def test_a_network_without_blocks_is_one_stage(table, network):
    X, y = table
    module = seeded(network)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    tuned, frozen = (
        quick(module, modality="table", freeze_depth=depth, stability_every=1).fit(X, y) for depth in (0, "all")
    )
    for model, share in ((tuned, 1), (frozen, 0)):
        (stage,) = model.stages_
        assert stage.name == type(module).__name__ and stage.frozen == (share == 0)
        assert stage.n_parameters == sum(one.numel() for one in module.parameters())
        moved = any(
            (value != before[name]).any() for name, value in model._tuned_backbone().snapshot().state_dict().items()
        )
        assert moved == (share == 1)
    assert tuned.n_epochs_ == 3 and tuned.stability_.weight_change[-1, 0] > 0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tuned)).predict_proba(X), tuned.predict_proba(X))
    again = quick(tuned, freeze_depth=0, max_epochs=0).fit(X, y)
    np.testing.assert_allclose(again.transform(X), tuned.transform(X), atol=1e-6)
    assert all((value == before[name]).all() for name, value in module.state_dict().items())


def test_another_default_type_of_torch(table):
    X, y = table
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert FineTunedClassifier(max_epochs=1).fit(X, y).predict_proba(X).shape == (60, 3)
        assert FineTunedClassifier("image-resnet", max_epochs=1).fit(images, [0, 1] * 3).predict(images).shape == (6,)
    finally:
        torch.set_default_dtype(before)


def weights_of(model):
    network = model._network
    return {name: value.clone() for name, value in network.named_parameters() if "head" not in name}


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers", "mlp"])
@pytest.mark.parametrize("coefficient", [0.0, 0.3])
def test_weights_are_interpolated_with_the_initial_ones(backbone, table, kind, coefficient):
    X, y = table
    estimator = FineTunedRegressor if kind == "numbers" else FineTunedClassifier
    y = {"labels": np.column_stack([y > 0, y > 1]).astype(int), "numbers": X[:, :2] @ [1.0, -2.0]}.get(kind, y)
    settings = {"freeze_depth": 1, "random_state": 0, "head": "mlp" if kind == "mlp" else "linear"}

    def fitted(**parameters):
        return estimator(backbone, **{**settings, "max_epochs": 6, **parameters}).fit(X, y)

    start, model = weights_of(fitted(max_epochs=0)), fitted(weight_interpolation=coefficient)
    end = weights_of(fitted())
    assert any((end[name] != start[name]).any() for name in end)
    for name, value in weights_of(model).items():
        torch.testing.assert_close(value, torch.lerp(start[name], end[name], coefficient))


def test_the_best_epoch_is_interpolated_where_there_are_validation_rows(backbone, table):
    X, y = table
    rows = {"X_val": X[40:], "y_val": y[40:]}

    def fitted(coefficient):
        settings = {"learning_rate": 0.03, "max_epochs": 4, "weight_interpolation": coefficient}
        return weights_of(quick(backbone, **settings).fit(X[:40], y[:40], **rows))

    start, half, end = fitted(0.0), fitted(0.5), fitted(1.0)
    assert any((end[name] != start[name]).any() for name in end)
    for name, value in half.items():
        torch.testing.assert_close(value, (start[name] + end[name]) / 2)


@pytest.mark.parametrize(
    "parameters",
    [{"head_init": "random"}, {"backbone": "auto", "modality": "table"}],
    ids=["random head", "untrained network"],
)
def test_where_nothing_is_interpolated(backbone, table, parameters):
    model = quick(**{"backbone": backbone, **parameters}).fit(*table)
    for coefficient in (0.3, 1.0):
        other = clone(model).set_params(weight_interpolation=coefficient).fit(*table)
        np.testing.assert_array_equal(other.predict_proba(table[0]), model.predict_proba(table[0]))


def test_a_fit_that_goes_on_interpolates_nothing(backbone, table):
    first = quick(backbone, warm_start=True).fit(*table)
    other = pickle.loads(pickle.dumps(first)).set_params(weight_interpolation=0.3)
    np.testing.assert_array_equal(other.fit(*table).predict_proba(table[0]), first.fit(*table).predict_proba(table[0]))


def test_stages_that_open_late_are_interpolated_too(backbone, table):
    settings = {"freeze_depth": 0, "unfreeze_every": 1, "learning_rate": 0.01}
    start, half, end = (
        weights_of(quick(backbone, **settings, weight_interpolation=coefficient).fit(*table))
        for coefficient in (0, 0.5, 1)
    )
    assert all((end[name] != start[name]).any() for name in end)
    for name, value in half.items():
        torch.testing.assert_close(value, (start[name] + end[name]) / 2)


def test_statistics_that_move_are_interpolated_too(table):
    module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
    module[1].running_mean.fill_(1.0)
    settings = {"modality": "table", "freeze_depth": 0, "freeze_batch_norm": False}

    def mean(coefficient):
        model = quick(module, **settings, weight_interpolation=coefficient).fit(*table)
        return model._tuned_backbone().snapshot()[1].running_mean

    start, half, end = mean(0), mean(0.5), mean(1)
    assert not torch.equal(start, end)
    torch.testing.assert_close(half, (start + end) / 2)


def test_a_random_head_starts_near_even(backbone, table):
    shares = quick(backbone, head_init="random", max_epochs=0).fit(*table).predict_proba(table[0])
    assert np.abs(shares - 1 / 3).max() < 0.1


def test_an_interrupt_while_the_head_is_trained_ends_it_all(backbone, table):
    def press(module, args):
        if torch.is_grad_enabled() and module.training:
            raise KeyboardInterrupt

    def make_head(n_features, n_outputs):
        head = nn.Linear(n_features, n_outputs)
        head.register_forward_pre_hook(press)
        return head

    model = quick(backbone, head=make_head)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    assert not hasattr(model, "n_epochs_")


def test_an_interrupt_in_an_epoch_leaves_the_last_fit(backbone, table):
    steps = []

    class Head(nn.Linear):
        def forward(self, vectors):
            if self.training and torch.is_grad_enabled():
                steps.append(1)
                if len(steps) == 9:
                    raise KeyboardInterrupt
            return super().forward(vectors)

    X, y = table
    model = quick(backbone, head=Head, head_init="random", batch_size=30, max_epochs=2).fit(X, y)  # four steps
    shares = model.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(max_epochs=9).fit(X[::-1], y[::-1])
    assert model.n_epochs_ == 2 and len(steps) == 9
    np.testing.assert_array_equal(model.predict_proba(X), shares)


def test_a_rate_that_is_far_too_high_ends_with_the_best_weights(backbone, table):
    X, y = table
    model = quick(
        backbone, learning_rate=1e30, optimizer="sgd", max_grad_norm=None, max_epochs=20, n_iter_no_change=None
    )
    with pytest.warns(UserWarning, match="NaN or infinite in epoch .* Try a smaller learning_rate"):
        model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    start = quick(backbone, max_epochs=0).fit(X[:40], y[:40])
    np.testing.assert_allclose(model.predict_proba(X), start.predict_proba(X), atol=1e-6)


def test_a_batch_that_does_not_fit_gives_the_same_estimator(table):
    class Scarce(nn.Linear):
        most = None

        def forward(self, rows):
            if self.most is not None and self.training and len(rows) > self.most:
                raise torch.OutOfMemoryError(f"{len(rows)} rows")
            return super().forward(rows)

    X, y = table
    made = []
    for most in (None, 5):
        module = seeded(ThreeLayers)
        module.third = seeded(lambda: Scarce(8, 7))
        module.third.most = most
        backbone = ModuleBackbone(module, modality="table", stages=["first", "second", "third"], name=f"most {most}")
        made.append(quick(backbone).fit(X, y).predict_proba(X))
    np.testing.assert_allclose(made[1], made[0], atol=1e-5)


def rates_of(model, monkeypatch, X, y):
    """Fit, and return the full rate of each group of weights by its name."""
    seen = {}
    original = TunableNetwork.parameter_groups

    def noting(self, rates, weight_decay):
        groups = original(self, rates, weight_decay)
        seen.update({group["name"]: group["lr"] for group in groups})
        return groups

    monkeypatch.setattr(TunableNetwork, "parameter_groups", noting)
    model.fit(X, y)
    return seen


def test_a_head_that_has_learned_moves_no_faster_than_the_stage_below(backbone, table, monkeypatch):
    rates = {"learning_rate": 1e-3, "layer_decay": 1.0, "freeze_depth": 0}
    started = rates_of(quick(backbone, **rates), monkeypatch, *table)
    assert set(started.values()) == {1e-3}
    at_random = rates_of(quick(backbone, head_init="random", **rates), monkeypatch, *table)
    assert at_random["head"] == 1e-2
    assert {rate for name, rate in at_random.items() if name != "head"} == {1e-3}


@pytest.mark.parametrize(
    ("backbone", "rate"),
    [
        ({"backbone": "auto"}, 1e-3),
        ({"backbone": "image-resnet", "weights": "random"}, 1e-3),
        ({"backbone": "image-resnet"}, 3e-4),
        ({"backbone": three_layers()}, 3e-4),
        ({"backbone": "text-static"}, 1e-4),
    ],
    ids=["untrained table", "random images", "images", "table", "texts"],
)
def test_the_rate_by_kind_of_network(table, backbone, rate):
    X, y = table
    if backbone["backbone"] == "text-static":
        X, y = ["a b", "c d"] * 4, [0, 1] * 4
    elif backbone["backbone"] == "image-resnet":
        X, y = np.random.default_rng(0).integers(0, 256, (8, 12, 12)).astype(np.uint8), [0, 1] * 4
    model = FineTunedClassifier(**backbone, freeze_depth=0, max_epochs=1, random_state=0).fit(X, y)
    assert model.stages_[-1].learning_rate == pytest.approx(rate)


def weight_norms(model, X, y, monkeypatch):
    """Return the norm of the head's weights before training and at the beginning of its first epoch."""
    norms = {}

    class Look(Bystander):
        def on_epoch_begin(self, epoch):
            norms.setdefault("first epoch", float(network.head.weight.detach().norm()))

    original, network = tuning.train, None

    def looking(module, *args, observers=(), **options):
        nonlocal network
        network = module
        norms["start"] = float(module.head.weight.detach().norm())
        return original(module, *args, observers=[*observers, Look()], **options)

    monkeypatch.setattr(tuning, "train", looking)
    model.fit(X, y)
    return norms


def test_a_probe_that_fits_its_rows_is_tempered_before_the_network_is_trained(backbone, table, monkeypatch):
    X, y = table
    frozen = quick(backbone, freeze_depth="all").fit(X, y)
    norms = weight_norms(quick(backbone, freeze_depth=0, max_epochs=1), X, y, monkeypatch)
    assert norms["start"] == pytest.approx(float(frozen._network.head.weight.detach().norm()))
    assert norms["first epoch"] < 0.9 * norms["start"]


def test_the_tempered_start_has_the_cross_validated_loss(backbone, table):
    X, y = table
    model = quick(backbone, freeze_depth=0, weight_interpolation=0.0, max_epochs=1).fit(X, y)
    frozen = quick(backbone, freeze_depth="all").fit(X, y)
    np.testing.assert_array_equal(model.predict(X), frozen.predict(X))
    scores = log_loss(y, model.predict_proba(X)), log_loss(y, frozen.predict_proba(X))
    folds = cross_val_predict(quick(backbone, freeze_depth="all"), X, y, cv=5, method="predict_proba")
    assert scores[1] < scores[0]
    assert scores[0] == pytest.approx(log_loss(y, folds), rel=0.25)


def test_a_start_that_stays_the_best_is_the_probe(backbone, table):
    X, y = table
    frozen = quick(backbone, freeze_depth="all").fit(X, y)
    # Steps that are far too long: no epoch knows better what the probe says than the probe.
    model = quick(backbone, learning_rate=10.0, optimizer="sgd", max_grad_norm=None)
    model.fit(X, y, X_val=X, y_val=frozen.predict(X))
    (best,) = [entry["epoch"] for entry in model.history_ if entry["best"]]
    assert best == 0
    np.testing.assert_allclose(model.predict_proba(X), frozen.predict_proba(X), atol=1e-6)


class Remembering(nn.Module):
    """Keeps buffers that can't be interpolated."""

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
def test_buffers_that_are_no_statistics_are_not_interpolated(table, what, validates):
    X, y = table
    backbone = ModuleBackbone(seeded(lambda: Remembering(what)), modality="table", stages=["first", "second"])
    settings = {"early_stopping": validates, "validation_fraction": 20, "weight_interpolation": 0.5}
    assert np.isfinite(quick(backbone, **settings).fit(X, y).predict_proba(X)).all()


def test_an_interrupt_after_the_last_epoch_keeps_nothing(backbone, table, monkeypatch):
    def press(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("sktransfer.training.stability.StabilityMonitor.measure_again", press)
    model = quick(backbone, stability_every=1, weight_interpolation=0.5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*table)
    assert not hasattr(model, "n_epochs_")


def test_a_search_fits_the_probe_once_a_fold(backbone, table, monkeypatch):
    fits = []
    for kind, fit in list(probe._FIT.items()):
        monkeypatch.setitem(probe._FIT, kind, lambda *args, fit=fit: fits.append(1) or fit(*args))
    search = GridSearchCV(quick(backbone, random_state=None), {"learning_rate": [1e-3, 2e-3, 3e-3]}, cv=2, refit=False)
    search.fit(*table)
    assert len(fits) == 2
