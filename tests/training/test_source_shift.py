"""The shift from the source: what it measures, and what is decided by it."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from support.networks import seeded
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, ModuleBackbone
from sktransfer.training import source_shift as measuring
from sktransfer.training import start
from sktransfer.training.source_shift import source_shift


def make_network():
    return nn.Sequential(
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()),
        nn.Linear(8, 5),
    )


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(60, 6))


@pytest.fixture
def network(rows):
    """A network whose statistics are those of the rows."""
    made = seeded(make_network)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = None
    with torch.no_grad():
        made.train()(torch.from_numpy(rows).float())
    return made.eval()


def shift_of(network, rows):
    handle = FineTunedClassifier(network, modality="table", max_epochs=0).fit(rows, np.arange(len(rows)) % 2)
    return handle.source_shift_


def test_nothing_for_the_rows_that_the_statistics_are_of(network, rows):
    assert shift_of(network, rows) == pytest.approx(0, abs=1e-3)


def test_the_divergence_of_normal_distributions(rows):
    network = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))
    network[0].running_mean.fill_(1.0)
    network[0].running_var.fill_(4.0)
    mean, variance = rows.mean(axis=0), rows.var(axis=0)
    expected = 0.5 * (np.log(4 / variance) + (variance + (mean - 1) ** 2) / 4 - 1)
    # Of six channels torch's median is the lower of the two in the middle.
    assert shift_of(network, rows) == pytest.approx(np.sort(expected)[2], rel=1e-4)


def test_farther_rows_have_more_and_their_order_does_not_count(network, rows):
    shifts = [shift_of(network, rows + offset) for offset in (0, 1, 3)]
    assert shifts == sorted(shifts) and shifts[2] > 1
    shuffled = np.random.default_rng(1).permutation(rows)
    assert shift_of(network, shuffled) == pytest.approx(shifts[0], abs=1e-9)


def test_few_rows_tell_nearly_the_same(network):
    rows = np.random.default_rng(2).normal(loc=2.0, size=(400, 6))
    assert shift_of(network, rows[:20]) == pytest.approx(shift_of(network, rows), rel=0.3)


@pytest.mark.parametrize(
    "backbone", [nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8)), "auto"], ids=["none stored", "untrained"]
)
def test_none_where_nothing_is_stored(backbone, rows):
    model = FineTunedClassifier(backbone, modality="table", max_epochs=1).fit(rows, np.arange(60) % 2)
    assert model.source_shift_ is None
    assert model.lineage_[-1]["source_shift"] is None


def test_it_decides_on_depth_and_batch_norm(network, rows):
    def fitted(X, **parameters):
        model = FineTunedClassifier(network, modality="table", max_epochs=2, random_state=0, **parameters)
        return model.fit(X, np.arange(60) % 2)

    def moved(model):
        before, now = model.backbone_.network_to_read(), model._tuned_backbone().network_to_read()
        return [not torch.equal(before[i][1].running_mean, now[i][1].running_mean) for i in (0, 1)]

    near, middle, far = fitted(rows), fitted(rows + 1), fitted(rows + 3)
    assert near.source_shift_ < 0.1 < middle.source_shift_ < 0.35 < far.source_shift_
    assert [[stage.frozen for stage in one.stages_] for one in (near, middle, far)] == [
        [True, False, False],
        [False, False, False],
        [False, False, False],
    ]
    assert [moved(one) for one in (near, middle, far)] == [[False, False], [False, False], [True, True]]
    assert [one.stages_[-1].learning_rate for one in (near, middle, far)] == pytest.approx([1e-4, 3e-4, 3e-4])
    assert fitted(rows, learning_rate=1e-3).stages_[-1].learning_rate == pytest.approx(1e-3)
    assert far.lineage_[-1]["source_shift"] == far.source_shift_
    assert f"{far.source_shift_:.2f}" in far._repr_html_()
    # What is asked for goes before.
    asked = fitted(rows + 3, freeze_depth=1, freeze_batch_norm=True)
    assert asked.stages_[0].frozen and moved(asked) == [False, False]


def test_a_probe_is_tempered_unless_rows_are_near(network, rows, monkeypatch):
    tempered = []
    on_start = start.TemperedHead.on_start
    monkeypatch.setattr(
        start.TemperedHead, "on_start", lambda self, n: tempered.append(self.temperature) or on_start(self, n)
    )
    y = (rows[:, 0] + np.random.default_rng(0).normal(size=60) > rows[:, 0].mean()).astype(int)
    for offset in (0, 3):
        FineTunedClassifier(network, modality="table", max_epochs=1, random_state=0).fit(rows + offset, y)
        assert (len(tempered) > 0) == (offset == 3)
    assert tempered[0] > 1


def test_the_network_and_its_hooks_stay_as_they_are(network, rows):
    before = copy.deepcopy(network.state_dict())
    backbone = ModuleBackbone(network, modality="table")
    model = FineTunedRegressor(backbone, max_epochs=1).fit(rows, rows[:, 0])
    shared = model.backbone_.network_to_read()
    source_shift(model.backbone_, model._preparation, list(rows))
    assert not any(one._forward_pre_hooks for one in shared.modules())
    for name, value in shared.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_the_rows_of_a_fold_are_measured_once_in_a_search(network, rows, monkeypatch):
    passes = []
    measure = measuring._moments
    monkeypatch.setattr(measuring, "_moments", lambda *args: passes.append(1) or measure(*args))
    backbone = ModuleBackbone(network, modality="table")
    model = FineTunedClassifier(backbone, max_epochs=1, cache="memory")
    grid = {"learning_rate": [1e-4, 1e-3], "freeze_depth": ["auto", 1]}
    search = GridSearchCV(model, grid, cv=2).fit(rows, np.arange(60) % 2)
    assert len(passes) == 3
    found = search.best_estimator_.source_shift_
    assert clone(model).set_params(cache=None).fit(rows, np.arange(60) % 2).source_shift_ == found
    assert len(passes) == 4
    assert FineTunedClassifier(backbone, max_epochs=1).fit(rows + 1, np.arange(60) % 2).source_shift_ > found
