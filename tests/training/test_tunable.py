"""What is trained at which rate, and what the copy of the network computes."""

import numpy as np
import pytest
import torch
from support.networks import save_tiny_bert, seeded
from torch import nn

from sktransfer import FineTunedClassifier, ModuleBackbone

TEXTS = ["how do i reset my card", "thanks", "the delivery was late", "one two three", "a pin", "again late thanks"]
LABELS = np.array([0, 1, 0, 1, 0, 1])


class Network(nn.Module):
    """Three stages, with normalisation and a parameter that stands before them."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 4))
        self.stem = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6))
        self.middle = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        self.top = nn.Linear(6, 5)

    def forward(self, rows):
        return self.top(torch.relu(self.middle(self.stem(rows + self.shift))))


@pytest.fixture
def backbone():
    return ModuleBackbone(seeded(Network), modality="table", stages=["stem", "middle", "top"], name="three stages")


@pytest.fixture
def table():
    X = np.random.default_rng(0).normal(size=(30, 4))
    return X, (X[:, 0] > 0).astype(int)


def fit(backbone, table, **parameters):
    settings = {"freeze_depth": 0, "max_epochs": 1, "random_state": 0, "learning_rate": 0.01}
    return FineTunedClassifier(backbone, **{**settings, **parameters}).fit(*table)


def test_rates_fall_from_stage_to_stage(backbone, table):
    model = fit(backbone, table, learning_rate=0.005, layer_decay=0.8, freeze_depth=1)
    assert [stage.name for stage in model.stages_] == ["stem", "middle", "top"]
    assert [stage.frozen for stage in model.stages_] == [True, False, False]
    assert [stage.learning_rate for stage in model.stages_] == pytest.approx([0, 0.01 * 0.5 * 0.8, 0.01 * 0.5])
    assert [stage.n_parameters for stage in model.stages_] == [4 * 6 + 6 + 12, 36 + 6 + 12, 35]


@pytest.mark.parametrize("head_init", ["probe", "random"])
def test_groups_hold_each_weight_once_and_biases_and_norms_do_not_decay(backbone, table, head_init):
    from sktransfer.training.network import StageRates

    network = fit(backbone, table, head_init=head_init)._network
    groups = network.parameter_groups(StageRates(0.01, 0.005, 0.8), weight_decay=0.1)
    names = {id(one): name for name, one in network.named_parameters()}
    listed = [names[id(one)] for group in groups for one in group["params"]]
    assert sorted(listed) == sorted(names.values())
    decaying = ("0.weight", "top.weight", "shift", "head.weight")
    for group in groups:
        for one in group["params"]:
            name = names[id(one)]
            assert group["weight_decay"] == (0.1 if name.endswith(decaying) else 0)
    assert groups[0]["name"] == "head"
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == pytest.approx(
        {"head": 0.01, "stem": 0.01 * 0.5 * 0.64, "middle": 0.01 * 0.5 * 0.8, "top": 0.01 * 0.5}
    )


def test_rates_are_what_weights_move_by(backbone, table):
    # One step of Adam moves a weight by its rate, whatever the gradient's size.
    model = fit(
        backbone,
        table,
        batch_size=30,
        optimizer="adam",
        weight_decay=0.0,
        warmup_ratio=0.0,
        learning_rate=0.001,
        layer_decay=0.5,
        head_init="random",
    )
    start, tuned = model.backbone_.network_to_read(), model.__sktransfer_backbone__().network_to_read()
    for place, name in enumerate(("stem", "middle", "top")):
        weight = "weight" if name == "top" else "0.weight"
        moved = (
            (tuned.get_parameter(f"{name}.{weight}") - start.get_parameter(f"{name}.{weight}")).abs().median().item()
        )
        assert moved == pytest.approx(0.01 * 0.1 * 0.5 ** (2 - place), rel=0.01)


def test_weight_decay_shrinks_matrices_alone(backbone, table):
    # Rates of the network without a gradient would be decay alone; here it dwarfs the gradient.
    model = fit(
        backbone,
        table,
        weight_decay=1000.0,
        learning_rate=0.0005,
        batch_size=30,
        warmup_ratio=0.0,
        layer_decay=1.0,
        head_init="random",
    )
    start, tuned = model.backbone_.network_to_read(), model.__sktransfer_backbone__().network_to_read()
    assert tuned.top.weight.norm() < 0.6 * start.top.weight.norm()
    assert tuned.stem[1].weight.norm() > 0.99 * start.stem[1].weight.norm()
    assert tuned.middle[1].weight.norm() > 0.99 * start.middle[1].weight.norm()


def drift(model):
    start, tuned = model.backbone_.network_to_read(), model.__sktransfer_backbone__().network_to_read()
    pairs = zip(start.parameters(), tuned.parameters(), strict=True)
    return sum((now - then).square().sum().item() for then, now in pairs) ** 0.5


def test_l2_sp_pulls_towards_the_start(backbone, table):
    drifts = [
        drift(
            fit(
                backbone,
                table,
                l2_sp=strength,
                max_epochs=20,
                optimizer="sgd",
                max_grad_norm=None,
            )
        )
        for strength in (0.0, 10.0, 100.0)
    ]
    assert drifts[0] > 1.3 * drifts[1] > 1.3**2 * drifts[2] > 0


def test_l2_sp_where_the_open_stages_have_no_weights():
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid())
    backbone = ModuleBackbone(network, modality="table", stages=["0", "2", "3"], name="sigmoid on top")
    X = np.random.default_rng(0).normal(size=(12, 4))
    model = fit(backbone, (X, np.arange(12) % 2), l2_sp=1.0, unfreeze_every=1, max_epochs=3, stability_every=1)
    assert drift(model) > 0
    assert model.stages_[2].n_parameters == 0


def test_full_fine_tuning_forgets_more(backbone, table):
    careful = fit(backbone, table, max_epochs=10, learning_rate="auto")
    full = fit(backbone, table, max_epochs=10, head_lr_ratio=1, layer_decay=1.0, head_init="random")
    assert drift(full) > 3 * drift(careful)


@pytest.mark.parametrize("depth", [0, 1, 2, "all"])
@pytest.mark.parametrize("pooling", ["auto", "max", ["cls", "mean"]])
def test_before_training_the_cut_network_embeds_like_the_whole(tmp_path, depth, pooling):
    from sktransfer import PretrainedFeatureExtractor

    bert = save_tiny_bert(tmp_path)
    model = FineTunedClassifier(bert, freeze_depth=depth, pooling=pooling, max_epochs=0).fit(TEXTS, LABELS)
    wanted = PretrainedFeatureExtractor(bert, pooling=pooling).fit_transform(TEXTS)
    np.testing.assert_allclose(model.transform(TEXTS), wanted, atol=1e-5)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_tuned_copy_embeds_like_what_was_trained(tmp_path, depth):
    from sktransfer import PretrainedFeatureExtractor

    bert = save_tiny_bert(tmp_path)
    model = FineTunedClassifier(bert, freeze_depth=depth, max_epochs=3, learning_rate=0.05).fit(TEXTS, LABELS)
    np.testing.assert_allclose(
        model.transform(TEXTS), PretrainedFeatureExtractor(model).fit_transform(TEXTS), atol=1e-5
    )
    assert np.abs(model.transform(TEXTS) - PretrainedFeatureExtractor(bert).fit_transform(TEXTS)).max() > 1e-3
