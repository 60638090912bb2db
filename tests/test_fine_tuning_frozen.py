"""Frozen is frozen: no gradient, no dropout, no moving statistics, in networks that people use."""

import warnings

import numpy as np
import pytest
import torch
from support.networks import save_tiny_bert, seeded
from torch import nn

from sktransfer import FineTunedClassifier, ModuleBackbone, PretrainedFeatureExtractor

LABELS = np.array([0, 1, 0, 1, 0, 1])
TEXTS = ["how do i reset my card", "thanks", "the delivery was late", "one two three", "a pin", "again late thanks"]


def spied(monkeypatch):
    """Note, for each step of a training, the mode of every module of the network that is trained."""
    from sktransfer.training.network import TunableNetwork

    steps, forward = [], TunableNetwork.forward

    def noting(self, chunk):
        if self.training:
            steps.append({name: module.training for name, module in self.suffix.network.named_modules()})
        return forward(self, chunk)

    monkeypatch.setattr(TunableNetwork, "forward", noting)
    return steps


def stage_of(name, stages):
    """Place of the stage that a module or tensor belongs to, None outside of all."""
    for place, stage in enumerate(stages):
        if any(name == module or name.startswith(module + ".") for module in stage.modules):
            return place
    return None


def assert_frozen(estimator, steps, depth):
    """Tensors of the stages before `depth` are those of the pretrained network, and their modules never trained."""
    stages = estimator.backbone_.stages
    start = estimator.backbone_.network_to_read().state_dict()
    tuned = estimator.__sktransfer_backbone__().network_to_read().state_dict()
    moved = {name for name in start if not torch.equal(start[name], tuned[name])}
    places = {stage_of(name, stages) for name in moved} - {None}
    assert all(place >= depth for place in places), sorted(moved)
    assert places, "nothing was trained, so that nothing is shown"
    assert steps
    for modes in steps:
        wrong = [name for name, mode in modes.items() if mode and (stage_of(name, stages) or 0) < depth]
        # What holds trained stages is in training mode too.
        wrong = [name for name in wrong if stage_of(name, stages) is not None]
        assert not wrong
    return moved


@pytest.mark.parametrize("depth", [0, 1, 3, -1])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_convolutional_networks_of_torchvision(name, depth, monkeypatch):
    import torchvision

    steps = spied(monkeypatch)
    module = seeded(lambda: getattr(torchvision.models, name)(num_classes=5)).train()
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    quick = {"max_epochs": 1, "batch_size": 6, "random_state": 0}
    model = FineTunedClassifier(module, freeze_depth=depth, freeze_batch_norm=False, **quick)
    model.fit(images, LABELS)
    n_stages = len(model.stages_)
    resolved = depth % n_stages if depth < 0 else depth
    moved = assert_frozen(model, steps, resolved)
    assert [stage.frozen for stage in model.stages_] == [place < resolved for place in range(n_stages)]
    # Statistics of trained stages do move, which is how the test would see frozen ones move.
    assert any("running_mean" in one for one in moved) or resolved == n_stages - 1


@pytest.mark.parametrize("parameters, fixed", [({"freeze_batch_norm": True}, True), ({}, False)])
def test_statistics_of_trained_stages_stay_where_that_is_asked_for(parameters, fixed, monkeypatch):
    import torchvision

    steps = spied(monkeypatch)
    module = seeded(lambda: torchvision.models.resnet18(num_classes=5))
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    model = FineTunedClassifier(module, freeze_depth=0, max_epochs=1, random_state=0, **parameters).fit(images, LABELS)
    moved = assert_frozen(model, steps, 0)
    assert any(one.endswith("bn1.weight") for one in moved)
    assert any("running_mean" in one for one in moved) == (not fixed)
    assert any(mode for name, mode in steps[0].items() if "bn" in name) == (not fixed)
    monkeypatch.undo()
    # The head's own batch norm has everything to learn.
    head = nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 1))
    trained = FineTunedClassifier(module, freeze_depth="all", head=head, max_epochs=1, random_state=0).fit(
        images, LABELS
    )
    assert trained._network.head[0].num_batches_tracked > 0


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_transformer(tmp_path, depth, monkeypatch):
    steps = spied(monkeypatch)
    bert = save_tiny_bert(tmp_path, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    model = FineTunedClassifier(bert, freeze_depth=depth, max_epochs=2, learning_rate=0.01, random_state=0)
    model.fit(TEXTS, LABELS)
    assert_frozen(model, steps, depth)


def test_dropout_of_frozen_stages_is_off(tmp_path):
    # A BERT all of whose dropout is in frozen stages gives the same loss whatever the seed of dropout.
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.9))
            self.between = nn.Dropout(0.9)
            self.norm = nn.BatchNorm1d(6)
            self.top = nn.Linear(6, 3)

        def forward(self, rows):
            return self.top(self.norm(self.between(self.stem(rows))))

    backbone = ModuleBackbone(seeded(Network), modality="table", stages=["stem", "top"], name="dropout between")
    X = np.random.default_rng(0).normal(size=(6, 4))
    losses = []
    for seed in (0, 1):
        model = FineTunedClassifier(backbone, freeze_depth=1, max_epochs=1, batch_size=6, random_state=seed)
        losses.append(model.fit(X, LABELS).history_[1]["train_loss"])
        start = model.backbone_.network_to_read()
        tuned = model.__sktransfer_backbone__().network_to_read()
        assert torch.equal(start.norm.running_mean, tuned.norm.running_mean)
        assert torch.equal(start.norm.weight, tuned.norm.weight)
        assert not torch.equal(start.top.weight, tuned.top.weight)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_what_stands_before_the_first_stage_is_frozen_but_at_depth_0():
    import torchvision

    def vit():
        return torchvision.models.VisionTransformer(
            image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, dropout=0.3, num_classes=3
        )

    module = seeded(vit)
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    for depth in (0, 1, -1):
        model = FineTunedClassifier(module, freeze_depth=depth, max_epochs=1, batch_size=6, random_state=0)
        model.fit(images, LABELS)
        tuned = model.__sktransfer_backbone__().network_to_read()
        assert torch.equal(tuned.class_token, module.class_token) == (depth != 0)


def test_gradual_unfreezing_opens_stages_from_the_top(tmp_path, monkeypatch):
    steps = spied(monkeypatch)
    bert = save_tiny_bert(tmp_path, num_hidden_layers=3, hidden_dropout_prob=0.3)
    model = FineTunedClassifier(bert, freeze_depth=1, unfreeze_every=2, max_epochs=6, batch_size=6, random_state=0)
    model.fit(TEXTS, LABELS)
    stages = model.backbone_.stages
    assert len(stages) == 4
    opened = []
    for modes in steps:
        training = {stage_of(name, stages) for name, mode in modes.items() if mode} - {None}
        opened.append(min(training))
        assert training == set(range(opened[-1], 4))
    # The embeddings stay frozen, since training goes down to freeze_depth.
    epochs = [opened[i] for i in range(0, len(opened), len(opened) // 6)]
    assert epochs == [3, 3, 2, 2, 1, 1]
    assert_frozen(model, steps, 1)


class Tied(nn.Module):
    """Its last stage uses the weights of the first once more, so that it can't be cut between them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.second = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.third = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.third[0].weight = self.first[0].weight

    def forward(self, rows):
        return self.third(torch.relu(self.second(torch.relu(self.first(rows)))))


@pytest.mark.parametrize("unfreeze_every", [None, 1])
def test_a_network_that_cannot_be_cut_runs_whole_and_stays_frozen_all_the_same(unfreeze_every, monkeypatch):
    steps = spied(monkeypatch)
    module = seeded(Tied)
    with torch.no_grad():
        module(torch.randn(32, 4, generator=torch.Generator().manual_seed(0)))  # statistics that are not 0 and 1
    backbone = ModuleBackbone(module, modality="table", stages=["first", "second", "third"], name="tied")
    X = np.random.default_rng(0).normal(size=(6, 4))
    quick = {"max_epochs": 3, "batch_size": 6, "random_state": 0, "freeze_batch_norm": False}
    model = FineTunedClassifier(backbone, freeze_depth=1, unfreeze_every=unfreeze_every, **quick)
    with pytest.warns(UserWarning, match="run whole"):
        model.fit(X, LABELS)
    moved = assert_frozen(model, steps, 1)
    # What two stages share is frozen with the lower one.
    assert "third.0.weight" not in moved
    assert {"third.0.bias", "second.1.running_mean"} <= moved
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.predict_proba(X).shape == (6, 2)


def test_all_frozen_changes_nothing_and_is_a_probe(tmp_path):
    bert = save_tiny_bert(tmp_path)
    model = FineTunedClassifier(bert, freeze_depth="all", random_state=0).fit(TEXTS, LABELS)
    np.testing.assert_allclose(model.transform(TEXTS), PretrainedFeatureExtractor(bert).fit_transform(TEXTS), atol=1e-6)
    assert model.n_epochs_ == 0
    assert all(stage.frozen and stage.learning_rate == 0 for stage in model.stages_)
