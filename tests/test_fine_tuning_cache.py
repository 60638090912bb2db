"""Nothing frozen is computed twice, and the result does not depend on it."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from support.networks import TinyImage, save_tiny_bert, seeded
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier, ModuleBackbone, cache_info
from sktransfer.caching.memory import memory_cache
from sktransfer.training import loop
from sktransfer.training.rows import NetworkRows

WORDS = "how do i reset my card s pin the delivery was late again thanks a one two three".split()


def sentences(n):
    random = np.random.default_rng(1)
    return [" ".join(random.choice(WORDS, size=random.integers(1, 12))) + f" {i}" for i in range(n)]


class Counting(nn.Module):
    """Three stages; the first writes down how many rows it runs, over all its copies."""

    class Stem(nn.Linear):
        rows_seen = 0

        def forward(self, rows):
            type(self).rows_seen += len(rows)
            return torch.tanh(super().forward(rows))

    def __init__(self):
        super().__init__()
        self.stem, self.middle, self.top = self.Stem(4, 6), nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, rows):
        return self.top(torch.relu(self.middle(self.stem(rows))))


@pytest.fixture
def counting():
    backbone = ModuleBackbone(seeded(Counting), modality="table", stages=["stem", "middle", "top"], name="counting")
    X = np.random.default_rng(0).normal(size=(40, 4))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    Counting.Stem.rows_seen = 0
    return backbone, X, y


def own_images():
    """Make convolutions whose biases matter, unlike those in front of batch norm, where a gradient is nothing but rounding."""
    first = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5))
    third = nn.Sequential(nn.Conv2d(5, 6, 3), nn.ReLU())
    return nn.Sequential(first, second, third)


@pytest.fixture(params=["bert", "images"])
def case(request, tmp_path):
    y = np.arange(24) % 3
    if request.param == "bert":
        settings = {"hidden_dropout_prob": 0.2, "num_hidden_layers": 3}
        return save_tiny_bert(tmp_path / "bert", **settings), sentences(24), y
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    return ModuleBackbone(seeded(own_images), name="tiny images"), images, y


@pytest.mark.parametrize("depth", [1, -1, "all"])
def test_predictions_are_equal_with_and_without_a_cache(case, depth, tmp_path):
    backbone, X, y = case
    made = {}
    for name, cache in {"none": None, "memory": "memory", "directory": tmp_path / "cache"}.items():
        model = FineTunedClassifier(
            backbone, freeze_depth=depth, max_epochs=3, batch_size=7, learning_rate=0.01, cache=cache, random_state=0
        )
        made[name] = model.fit(X, y).decision_function(X)
        # What the cache now holds gives the same once more.
        np.testing.assert_allclose(model.fit(X, y).decision_function(X), made[name], atol=1e-5)
    np.testing.assert_allclose(made["memory"], made["none"], atol=1e-5)
    np.testing.assert_allclose(made["directory"], made["none"], atol=1e-5)


@pytest.mark.parametrize("limit", [0, 2_000, 8_000])
def test_a_limit_that_is_too_small_is_kept_and_changes_nothing(case, limit):
    backbone, X, y = case
    model = FineTunedClassifier(backbone, freeze_depth=1, max_epochs=2, batch_size=7, cache=None, random_state=0)
    wanted = model.fit(X, y).decision_function(X)
    sktransfer.set_cache_limit(limit)
    model.set_params(cache="memory").fit(X, y)
    np.testing.assert_allclose(model.decision_function(X), wanted, atol=1e-5)
    assert cache_info().n_bytes <= limit


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.top = nn.Linear(4, 2500), nn.Linear(2500, 3)

    def forward(self, rows):
        return self.top(torch.tanh(self.stem(rows)))


def arrays_held(owners):
    """Return the bytes of all arrays that the cache and rows of a fit hold, each counted once."""
    held = {}
    for row in [*memory_cache._rows.values(), *(row for owner in owners for row in owner._kept or [])]:
        while row.base is not None:
            row = row.base
        held[id(row)] = row.nbytes
    return sum(held.values())


@pytest.mark.parametrize("n_val", [None, 50, 300])
def test_what_a_fit_and_the_cache_hold_together_stays_under_the_limit(monkeypatch, n_val):
    owners, most = [], []
    keep, write = NetworkRows._keep_activations, loop._Monitor._write

    def noted(self):
        keep(self)
        owners.append(self)

    def measured(self, *entry):
        most.append(arrays_held(owners))
        return write(self, *entry)

    monkeypatch.setattr(NetworkRows, "_keep_activations", noted)
    monkeypatch.setattr(loop._Monitor, "_write", measured)
    limit = 4_000_000
    sktransfer.set_cache_limit(limit)
    X = np.random.default_rng(0).normal(size=(300 + (n_val or 0), 4))
    y = (X[:, 0] > 0).astype(int)
    given = {} if n_val is None else {"X_val": X[300:], "y_val": y[300:]}
    backbone = ModuleBackbone(seeded(Wide), modality="table", stages=["stem", "top"], name="wide")
    model = FineTunedClassifier(backbone, freeze_depth=1, max_epochs=2, head_init="random", random_state=0)
    model.fit(X[:300], y[:300], **given)
    # Rows of 10 kB: 300 of them fit, 350 too, 600 do not.
    assert 3_000_000 < max(most) <= limit
    assert [owner._kept is not None for owner in owners] == [True] + [n_val == 50] * (n_val is not None)
    wanted = model.predict_proba(X)
    np.testing.assert_allclose(
        model.set_params(cache=None).fit(X[:300], y[:300], **given).predict_proba(X), wanted, atol=1e-5
    )


def test_epochs_and_later_fits_run_each_row_through_the_frozen_part_once(counting):
    backbone, X, y = counting
    model = FineTunedClassifier(backbone, freeze_depth=1, max_epochs=8, head_init="random", random_state=0)
    model.fit(X, y)
    # Finding the stages, checking the cut and the length of an embedding take a few made-up rows.
    overhead = Counting.Stem.rows_seen - len(X)
    assert 0 <= overhead < 40
    Counting.Stem.rows_seen = 0
    model.set_params(learning_rate=0.01, head="mlp").fit(X, y)
    model.predict(X)
    assert Counting.Stem.rows_seen <= 20


def test_a_search_runs_each_row_through_the_frozen_part_once_for_each_depth(counting):
    backbone, X, y = counting
    grid = {"clf__freeze_depth": ["all", 1, 2], "clf__learning_rate": [1e-3, 1e-2]}
    pipeline = Pipeline([("clf", FineTunedClassifier(backbone, max_epochs=3, batch_size=8, random_state=0))])
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(X, y)
    search.predict(X)
    # The embedding, and the activations at two depths; the rest are made-up rows of the checks of the cut.
    assert 3 * len(X) <= Counting.Stem.rows_seen < 3 * len(X) + 200
    Counting.Stem.rows_seen = 0
    GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(X, y)
    # Nothing but the trace of 13 fits, on three made-up rows each, and the checks of the copies.
    assert Counting.Stem.rows_seen < 200


def test_without_a_cache_every_epoch_runs_the_rows(counting):
    backbone, X, y = counting
    FineTunedClassifier(backbone, freeze_depth=1, max_epochs=8, cache=None, random_state=0).fit(X, y)
    assert Counting.Stem.rows_seen >= 8 * len(X)


def test_rows_that_repeat_run_once(counting):
    backbone, X, y = counting
    model = FineTunedClassifier(backbone, freeze_depth=1, max_epochs=1, head_init="random", random_state=0)
    model.fit(np.vstack([X, X, X]), np.hstack([y, y, y]))
    assert Counting.Stem.rows_seen < len(X) + 40


def test_augmentation_runs_the_frozen_part_in_each_epoch_and_caches_nothing():
    backbone = ModuleBackbone(seeded(TinyImage), name="augmented")
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    y = np.arange(12) % 2
    seen = []

    def flip(image):
        seen.append(image)
        return image.flip(-1)

    model = FineTunedClassifier(
        backbone, freeze_depth=1, max_epochs=4, head_init="random", augment=flip, random_state=0
    ).fit(images, y)
    # One image is tried first.
    assert len(seen) == 1 + 4 * len(images)
    model.fit(images, y)
    assert len(seen) == 2 + 8 * len(images)
    # Predictions see the images as they are.
    before = len(seen)
    model.predict(images)
    assert len(seen) == before


def test_another_network_gets_nothing_of_the_first_ones_rows(counting):
    _, X, y = counting
    made = []
    for seed in (1, 2):
        module = seeded(Counting, seed)
        backbone = ModuleBackbone(module, modality="table", stages=["stem", "middle", "top"], name="same name")
        model = FineTunedClassifier(backbone, freeze_depth=2, max_epochs=2, random_state=0)
        made.append(model.fit(X, y).decision_function(X))
        np.testing.assert_allclose(model.set_params(cache=None).fit(X, y).decision_function(X), made[-1], atol=1e-5)
    assert np.abs(made[0] - made[1]).max() > 1e-3


def test_stored_activations_are_read_only_for_operations_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.relu, self.top = nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)

        def forward(self, rows):
            return self.top(self.relu(self.stem(rows)))

    backbone = ModuleBackbone(seeded(InPlace), modality="table", stages=["stem", "top"], name="in place")
    X = np.random.default_rng(0).normal(size=(10, 4))
    y = np.arange(10) % 2
    model = FineTunedClassifier(backbone, freeze_depth=1, max_epochs=3, random_state=0)
    model.fit(X, y)
    kept = {key: row.copy() for key, row in memory_cache._rows.items()}
    model.fit(X, y)
    model.predict(X)
    assert kept
    assert any((row < 0).any() for row in kept.values())
    for key, row in kept.items():
        np.testing.assert_array_equal(memory_cache._rows[key], row)
