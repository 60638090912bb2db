"""The stages are what a practitioner would list, whatever the network."""

import math

import numpy as np
import pytest
import torch
from support.architectures import ARCHITECTURES, SharedReLU
from torch import nn

from sktransfer.backbones.splitting.stages import Stage, find_stages, resolve_depth, resolve_stages

STAGES = tuple(Stage(name, (name,)) for name in ("stem", "block1", "block2", "block3"))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_stages_are_embeddings_or_stem_and_then_every_block(architecture):
    network = architecture.build()
    stages = find_stages(network, *architecture.batches()[0])
    assert [stage.name for stage in stages] == architecture.stages
    for stage in stages:
        for name in stage.modules:
            network.get_submodule(name)


def _modules(name):
    architecture = next(entry for entry in ARCHITECTURES if entry.name == name)
    stages = find_stages(architecture.build(), *architecture.batches()[0])
    return {stage.name: stage.modules for stage in stages}


def test_normalisation_activation_and_pooling_belong_to_the_stage_before_them():
    assert _modules("resnet18")["stem"] == ("conv1", "bn1", "relu", "maxpool")
    assert _modules("vgg-bn")["features.0"] == ("features.0", "features.1", "features.2", "features.3")


def test_leading_normalisation_belongs_to_the_first_stage():
    assert _modules("mlp")["1"] == ("0", "1", "2", "3")


def test_rotary_tables_belong_to_no_stage():
    assert _modules("llama")["embed_tokens"] == ("embed_tokens",)


def test_tables_of_position_biases_belong_to_no_stage():
    assert "encoder.relative_attention_bias" not in _modules("mpnet")
    assert _modules("debertav2")["embeddings"] == ("embeddings",)


def test_module_between_two_layers_of_a_list_belongs_to_the_layer_before_it():
    assert _modules("debertav2-conv")["encoder.layer.0"] == ("encoder.layer.0", "encoder.conv")


def test_boundary_of_a_stem_is_what_the_first_block_reads():
    assert _modules("gpt2")["stem"] == ("wte", "wpe", "drop")
    assert _modules("vit")["conv_proj"] == ("conv_proj", "encoder.dropout")


def test_module_that_runs_more_than_once_is_in_no_stage():
    stages = find_stages(SharedReLU().eval(), (torch.zeros(1, 3, 8, 8),), {})
    assert [stage.modules for stage in stages] == [("conv1",), ("conv2",), ("conv3",), ("out",)]


def test_stages_end_before_weights_that_run_more_than_once():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.cell, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            x = self.first(x)
            for _ in range(3):
                x = torch.tanh(self.cell(x))
            return self.out(x)

    assert [stage.name for stage in find_stages(Recurrent(), (torch.zeros(1, 3),), {})] == ["first"]


def test_network_without_parameters_has_no_stages():
    assert find_stages(nn.ReLU(), (torch.zeros(1, 3),), {}) == ()


def test_forward_order_counts_and_not_the_order_of_the_attributes():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)

        def forward(self, x):
            return self.last(self.first(x))

    assert [stage.name for stage in find_stages(Backwards(), (torch.zeros(1, 3),), {})] == ["first", "last"]


class _Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout()

    def forward(self, x):
        if x.isnan().any():
            raise RuntimeError("not a number")
        return self.dropout(self.norm(self.linear(x) + torch.rand(3)))


def test_finding_stages_leaves_no_trace():
    network = _Noisy().train()
    network.norm.eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.get_rng_state()
    find_stages(network, (torch.ones(2, 3),), {})
    assert torch.equal(torch.get_rng_state(), generator)
    assert network.training and network.dropout.training and not network.norm.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_hooks_and_modes_are_restored_after_an_error():
    network = _Noisy().train()
    with pytest.raises(RuntimeError, match="not a number"):
        find_stages(network, (torch.full((2, 3), math.nan),), {})
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


# ---------------------------------------------------------------------------------------------------------
# Names that users give


def test_user_names_become_stages_in_the_order_given():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert resolve_stages(network, ["0", "2"]) == (Stage("0", ("0",)), Stage("2", ("2",)))


def test_unknown_names_are_listed_with_the_nearest():
    network = nn.ModuleDict({"layer1": nn.Linear(1, 1), "layer2": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match=r"'layr2' \(nearest: 'layer2', 'layer1'\)"):
        resolve_stages(network, ["layer1", "layr2"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer", "layer"], "more than once"),
        (["layer", "layer.0"], "inside each other"),
        ("layer", "must be a list"),
        ([0], "must be a list"),
    ],
)
def test_names_that_are_no_list_of_blocks_are_refused(names, message):
    network = nn.ModuleDict({"layer": nn.Sequential(nn.Linear(1, 1))})
    with pytest.raises(ValueError, match=message):
        resolve_stages(network, names)


# ---------------------------------------------------------------------------------------------------------
# Depth


@pytest.mark.parametrize(
    ("freeze_depth", "depth"),
    [(0, 0), (4, 4), (-1, 3), (-4, 0), (0.0, 0), (0.5, 2), (0.74, 2), (1.0, 4), ("all", 4),
     (np.int64(2), 2), (np.float32(0.5), 2)],
)  # fmt: skip
def test_depth_is_a_slice_bound_a_share_or_all(freeze_depth, depth):
    assert resolve_depth(freeze_depth, STAGES) == depth


def test_share_is_not_lost_to_rounding():
    assert resolve_depth(0.29, STAGES * 25) == 29


@pytest.mark.parametrize(
    "freeze_depth", [5, -5, 1.5, -0.1, math.nan, math.inf, None, True, np.True_, "half", [1], 1j], ids=repr
)
def test_other_depths_are_errors_that_name_the_stages(freeze_depth):
    with pytest.raises(ValueError, match="freeze_depth must be .* stem, block1, block2, block3.* Got .* instead"):
        resolve_depth(freeze_depth, STAGES)


def test_none_is_answered_with_what_was_probably_meant():
    with pytest.raises(ValueError, match="Use 0 to train all"):
        resolve_depth(None, STAGES)
