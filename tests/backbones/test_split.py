"""A network that is cut at any depth is the same network; the traps are tested one by one."""

import copy
import pickle
import threading

import pytest
import torch
from support.architectures import ARCHITECTURES
from torch import nn
from torch.nn import functional as F

from sktransfer.backbones.splitting.split import SplitError, split_network
from sktransfer.backbones.splitting.split_check import check_split, light_inputs, pad_rows, trim
from sktransfer.backbones.splitting.stages import find_stages, resolve_stages
from sktransfer.backbones.splitting.trace import tensors_in

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}


def _cut(name, depth, **options):
    """A network, its split, and a batch."""
    architecture = BY_NAME[name]
    network, (args, kwargs) = architecture.build(), architecture.batches()[0]
    stages = find_stages(network, args, kwargs)
    return network, split_network(network, stages, depth, args, kwargs, **options), (args, kwargs)


def _first(output):
    return next(tensors_in(output))


# ---------------------------------------------------------------------------------------------------------
# Every architecture at every depth


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_split_is_the_whole_network_at_every_depth(architecture):
    network, batches = architecture.build(), architecture.batches()
    stages = find_stages(network, *batches[0])
    used = set()
    for depth in range(len(stages) + 1):
        check = check_split(network, stages, depth, batches, length_multiple=architecture.length_multiple)
        assert check.difference < 1e-5
        used.add(check.auxiliary)
    assert architecture.auxiliary in used


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_suffix_reads_the_stored_activation_and_trains_what_is_behind_the_cut(architecture):
    """Without this, a network that ignores its input would pass the comparison."""
    network, (args, kwargs) = architecture.build(), architecture.batches()[0]
    stages = find_stages(network, args, kwargs)
    depth = len(stages) - 1
    split = split_network(network, stages, depth, args, kwargs, auxiliary=architecture.auxiliary)
    activation = split.prefix(*args, **kwargs)
    light_args, light_kwargs = light_inputs(args, kwargs)
    right = _first(split.suffix(activation, *light_args, **light_kwargs))
    wrong = _first(
        split.suffix(activation + activation.abs().max() * torch.randn_like(activation), *light_args, **light_kwargs)
    )
    assert (right - wrong).abs().max() > 1e-3 * right.abs().max()
    right.square().sum().backward()
    last = split.suffix.network.get_submodule(stages[-1].modules[-1])
    trained = [p for name in stages[-1].modules for p in split.suffix.network.get_submodule(name).parameters()]
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trained), last
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("name", ["bert", "llama", "resnet18", "vit"])
def test_suffix_has_no_parameter_of_the_frozen_stages(name):
    network, split, (args, kwargs) = _cut(name, 2)
    frozen = sum(p.numel() for stage in split.stages for m in stage.modules for p in _parameters(network, m))
    assert frozen > 0
    assert _count(split.suffix) == _count(network) - frozen


def _parameters(network, module):
    return network.get_submodule(module).parameters()


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_depth_zero_is_a_copy_of_the_whole_network():
    network, split, (args, kwargs) = _cut("bert", 0)
    assert _count(split.suffix) == _count(network)
    assert not set(split.suffix.parameters()) & set(network.parameters())
    assert torch.equal(_first(split.suffix(None, *args, **kwargs)), _first(network(*args, **kwargs)))
    with pytest.raises(SplitError, match="depth 0 has no prefix"):
        split.prefix(*args, **kwargs)


def test_full_depth_leaves_only_the_top():
    _, split, _ = _cut("resnet18", 9)
    assert {name for name, _ in split.suffix.named_parameters()} == {"network.fc.weight", "network.fc.bias"}


# ---------------------------------------------------------------------------------------------------------
# The prefix


def test_prefix_stops_at_the_cut():
    network, split, (args, kwargs) = _cut("resnet18", 2)
    ran = []
    network.layer1[0].register_forward_hook(lambda *_: ran.append("frozen"))
    network.layer1[1].register_forward_hook(lambda *_: ran.append("behind"))
    split.prefix(*args, **kwargs)
    assert ran == ["frozen"]


def test_prefix_can_be_trained_on_when_made_in_inference_mode():
    _, split, (args, kwargs) = _cut("mlp", 1)
    with torch.inference_mode():
        activation = split.prefix(*args, **kwargs)
    assert not activation.is_inference() and not activation.requires_grad
    split.suffix(activation, *args, **kwargs).sum().backward()


def test_prefix_is_frozen_in_eval_mode_and_puts_the_mode_back():
    network, split, (args, kwargs) = _cut("mlp", 2)
    network.train()
    network[6].eval()
    before = network[0].running_mean.clone()
    first, second = split.prefix(*args, **kwargs), split.prefix(*args, **kwargs)
    assert torch.equal(first, second)
    assert torch.equal(network[0].running_mean, before)
    assert network.training and network[3].training and not network[6].training


def test_no_hook_stays_on_the_network():
    network, split, (args, kwargs) = _cut("mlp", 2)
    split.prefix(*args, **kwargs)
    with pytest.raises(RuntimeError):
        split.prefix(torch.zeros(3, 7))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_another_thread_that_runs_the_whole_network_is_not_stopped():
    network, split, (args, kwargs) = _cut("mlp", 1)
    inside, finished, results = threading.Event(), threading.Event(), []

    def wait(module, args):
        if threading.current_thread() is not threading.main_thread():
            return
        inside.set()
        finished.wait(10)

    def whole():
        inside.wait(10)
        results.append(network(*args, **kwargs))
        finished.set()

    network[0].register_forward_pre_hook(wait)  # the prefix holds its hooks while the other thread runs
    other = threading.Thread(target=whole)
    other.start()
    split.prefix(*args, **kwargs)
    other.join()
    assert results[0].shape == (3, 5)


def test_network_that_catches_exceptions_is_stopped_all_the_same():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            try:
                return self.second(self.first(x))
            except Exception:
                return x

    network, x = Careful(), torch.ones(2, 3)
    split = split_network(network, resolve_stages(network, ["first", "second"]), 1, (x,), {})
    assert torch.equal(split.prefix(x), network.first(x))


# ---------------------------------------------------------------------------------------------------------
# The suffix


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "shared-relu"])
def test_in_place_operation_behind_the_cut_leaves_the_store_alone(name):
    _, split, (args, kwargs) = _cut(name, 1)
    activation = split.prefix(*args, **kwargs)
    kept = activation.clone()
    split.suffix(activation, *args, **kwargs)
    assert torch.equal(activation, kept)


def test_in_place_relu_right_behind_the_cut_leaves_the_store_alone():
    network, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)), torch.randn(5, 3)
    split = split_network(network, resolve_stages(network, ["0", "2"]), 1, (x,), {})
    activation = split.prefix(x)
    assert (activation < 0).any()
    kept = activation.clone()
    assert torch.equal(split.suffix(activation, torch.zeros_like(x)), network(x))
    assert torch.equal(activation, kept)


class _InPlaceBetweenStages(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu_(self.first(x))
        return self.third(F.relu_(self.second(x)))


def test_what_comes_before_the_activation_takes_no_memory():
    network, x = nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)]), torch.randn(32, 64)
    split = split_network(network, find_stages(network, (x,), {}), 3, (x,), {})
    made = []
    for name in ("0", "1"):
        split.suffix.network.get_submodule(name).register_forward_hook(lambda module, args, output: made.append(output))
    split.suffix(split.prefix(x), x)
    assert [one.shape for one in made] == [(32, 64)] * 2
    assert [one.untyped_storage().nbytes() for one in made] == [4, 4]
    assert not any(one.any() for one in made)


def test_in_place_operation_between_frozen_stages():
    network, x = _InPlaceBetweenStages(), torch.randn(5, 3)
    stages = resolve_stages(network, ["first", "second", "third"])
    assert check_split(network, stages, 2, [((x,), {}), ((torch.randn(3, 3),), {})]).difference < 1e-6
    split = split_network(network, stages, 2, (x,), {})
    activation = split.prefix(x)
    for _ in range(2):
        torch.testing.assert_close(split.suffix(activation, x), network(x))
    runs = []
    split.suffix.network.third.register_forward_pre_hook(lambda module, args: runs.append(1))
    split.suffix(activation, x)
    assert len(runs) == 1, "once it is known that zeros have to be whole, nothing is run twice"


def test_an_error_behind_the_cut_is_the_network_s_own():
    def refuse(module, args):
        raise RuntimeError("not today")

    network, x = nn.Sequential(*[nn.Linear(3, 3) for _ in range(3)]), torch.randn(5, 3)
    split = split_network(network, find_stages(network, (x,), {}), 2, (x,), {})
    split.suffix.network[2].register_forward_pre_hook(refuse)
    with pytest.raises(RuntimeError, match="not today"):
        split.suffix(split.prefix(x), x)


def test_training_the_suffix_leaves_the_network_alone():
    network, split, (args, kwargs) = _cut("t5", 2, auxiliary="recompute")
    before = copy.deepcopy(network.state_dict())
    activation = split.prefix(*args, **kwargs)
    optimizer = torch.optim.SGD(split.suffix.parameters(), lr=1.0)
    first = _first(split.suffix.train()(activation, *args, **kwargs))
    first.square().mean().backward()
    optimizer.step()
    assert not torch.equal(_first(split.suffix.eval()(activation, *args, **kwargs)), _first(network(*args, **kwargs)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training


def test_frozen_network_gives_a_suffix_that_can_be_trained():
    architecture = BY_NAME["mlp"]
    network, (args, kwargs) = architecture.build().requires_grad_(False), architecture.batches()[0]
    split = split_network(network, find_stages(network, args, kwargs), 1, args, kwargs)
    assert all(parameter.requires_grad for parameter in split.suffix.parameters())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_frozen_batch_norm_does_not_move_in_train_mode():
    network, split, (args, kwargs) = _cut("resnet18", 2)
    activation = split.prefix(*args, **kwargs)
    before = copy.deepcopy(network.state_dict())
    split.suffix.train()(activation, *args, **kwargs)
    names = [name for name, module in split.suffix.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert names and not any(name.startswith(("network.bn1", "network.layer1.0")) for name in names)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_batch_size_and_padded_length_may_differ_from_the_example():
    architecture = BY_NAME["t5"]
    network, (_, kwargs) = architecture.build(), architecture.batches()[0]
    stages = find_stages(network, (), kwargs)
    split = split_network(network, stages, 3, (), kwargs, auxiliary="recompute")
    other = {"input_ids": torch.randint(2, 40, (5, 17)), "attention_mask": torch.ones(5, 17, dtype=torch.long)}
    activation = split.prefix(**other)
    torch.testing.assert_close(_first(split.suffix(activation, **other)), _first(network(**other)))


@pytest.mark.parametrize("name", ["bert", "t5", "debertav2", "resnet18"])
def test_suffix_can_be_copied_without_the_frozen_stages(name):
    network, split, (args, kwargs) = _cut(name, 2, auxiliary="recompute")
    activation = split.prefix(*args, **kwargs)
    memo = {}
    copied = copy.deepcopy(split.suffix, memo)
    assert torch.equal(_first(copied(activation, *args, **kwargs)), _first(split.suffix(activation, *args, **kwargs)))
    frozen = {id(p) for stage in split.stages for m in stage.modules for p in _parameters(network, m)}
    assert not frozen & set(memo)
    assert not set(copied.parameters()) & set(split.suffix.parameters())


@pytest.mark.parametrize("name", ["bert", "t5", "resnet18"])
def test_split_can_be_pickled(name):
    _, split, (args, kwargs) = _cut(name, 2, auxiliary="recompute")
    restored = pickle.loads(pickle.dumps(split))
    activation = restored.prefix(*args, **kwargs)
    assert torch.equal(activation, split.prefix(*args, **kwargs))
    assert torch.equal(
        _first(restored.suffix(activation, *args, **kwargs)), _first(split.suffix(activation, *args, **kwargs))
    )


def test_threads_do_not_mix_up_their_activations():
    _, split, (args, kwargs) = _cut("mlp", 1)
    inputs = [torch.randn(2, 6) for _ in range(4)]
    activations = [split.prefix(x) for x in inputs]
    expected = [split.suffix(activation, inputs[0]) for activation in activations]
    barrier, results = threading.Barrier(4), {}

    def meet(module, args):
        barrier.wait(10)  # all threads are behind the cut before any goes on

    split.suffix.network[6].register_forward_pre_hook(meet)

    def work(number):
        results[number] = split.suffix(activations[number], inputs[0])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(results[number], expected[number]) for number in range(4))


def test_frozen_stage_outside_of_its_suffix_is_an_error():
    _, split, (args, kwargs) = _cut("mlp", 1)
    with pytest.raises(RuntimeError, match="outside of its suffix"):
        split.suffix.network(*args, **kwargs)


def test_stand_in_shows_the_attributes_of_the_original():
    network, split, _ = _cut("modernbert", 3)
    copied = copy.deepcopy(split.suffix.network)
    for stand_in in (split.suffix.network.layers[0], copied.layers[0]):
        assert stand_in.attention_type == network.layers[0].attention_type
        assert not list(stand_in.parameters())
        with pytest.raises(AttributeError):
            stand_in.no_such_attribute  # noqa: B018


def test_user_hooks_fire_once_on_frozen_stages_and_stay_on_the_network():
    architecture = BY_NAME["mlp"]
    network, (args, kwargs) = architecture.build(), architecture.batches()[0]
    stages = find_stages(network, args, kwargs)
    seen = []
    handle = network[1].register_forward_hook(lambda *_: seen.append(1))
    split = split_network(network, stages, 1, args, kwargs)
    seen.clear()
    activation = split.prefix(*args, **kwargs)
    assert seen == [1]
    split.suffix(activation, *args, **kwargs)
    assert seen == [1]
    assert handle.id in network[1]._forward_hooks


def test_user_hook_that_changes_the_boundary_is_part_of_the_network():
    architecture = BY_NAME["mlp"]
    network, batches = architecture.build(), architecture.batches()
    plain = network(*batches[0][0])
    network[3].register_forward_hook(lambda module, args, output: 2 * output)
    assert not torch.equal(network(*batches[0][0]), plain)
    assert check_split(network, find_stages(network, *batches[0]), 1, batches).difference < 1e-5


def test_tied_embedding_table_is_copied_under_neither_of_its_names():
    network, split, _ = _cut("t5", 1)
    assert network.shared.weight is network.encoder.embed_tokens.weight
    assert not any(p.shape == network.shared.weight.shape for p in split.suffix.parameters())


# ---------------------------------------------------------------------------------------------------------
# What can't be cut


def _refuse(network, names, depth, batches, message):
    with pytest.raises(SplitError, match=message):
        check_split(network.eval(), resolve_stages(network, names), depth, batches)


def _images():
    return [((torch.randn(rows, 3, 8, 8),), {}) for rows in (3, 2)]


class _UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x):
        first = F.relu(self.down1(x))
        second = F.relu(self.down2(F.max_pool2d(first, 2)))
        return self.up(torch.cat([first, F.interpolate(second, scale_factor=2)], 1))


def test_network_that_reads_an_earlier_stage_behind_the_cut_is_refused():
    network = _UNet()
    names = ["down1", "down2", "up"]
    _refuse(network, names, 2, _images(), "can't be cut behind 'down2': the result differs by .* earlier stage")
    for depth in (0, 1, 3):
        assert check_split(network, resolve_stages(network, names), depth, _images()).difference < 1e-5


class _SkipFromInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.second(self.first(x)) + x


def test_network_that_reads_the_raw_input_behind_the_cut_is_refused():
    batches = [((torch.randn(3, 4),), {})]
    _refuse(_SkipFromInput(), ["first", "second"], 1, batches, "the raw input")


class _PreActivation(nn.Module):
    """The shortcut of a block is taken before the boundary of the stage before it."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        before = self.conv1(x)
        return before + self.conv2(F.relu(self.norm1(before)))


def test_preactivation_shortcut_across_stages_is_refused():
    network = _PreActivation().eval()
    stages = find_stages(network, *_images()[0])
    assert stages[0].modules == ("conv1", "norm1")
    with pytest.raises(SplitError, match="differs"):
        check_split(network, stages, 1, _images())


def test_rows_that_depend_on_their_company_are_refused():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(F.relu(self.first(x - x.mean(0))))

    batches = [((torch.randn(3, 4),), {})]
    _refuse(Centred(), ["first", "second"], 1, batches, "rows of a batch depend on each other")


def test_last_state_of_a_recurrent_network_is_not_stored_and_refused():
    class LastState(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.lstm(x)[1][0][-1])

    _refuse(LastState(), ["lstm", "out"], 1, [((torch.randn(3, 5, 4),), {})], "can't be cut behind 'lstm'")


def test_zeros_in_place_of_position_biases_are_found_out():
    architecture = BY_NAME["t5"]
    network, batches = architecture.build(), architecture.batches()
    check = check_split(network, find_stages(network, *batches[0]), 2, batches)
    assert check.auxiliary == "recompute"


def test_shared_layer_of_albert_is_refused():
    architecture = BY_NAME["albert"]
    network, batches = architecture.build(), architecture.batches()
    names = ["embeddings", "encoder.albert_layer_groups.0"]
    _refuse(network, names, 2, batches, "runs 3 times in one pass")


def test_weights_tied_across_the_cut_are_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    batches = [((torch.randn(3, 4),), {})]
    _refuse(Tied(), ["first", "second"], 1, batches, "'first' would be frozen, but 'second' .* shares")
    assert check_split(Tied(), resolve_stages(Tied(), ["first", "second"]), 2, batches).difference < 1e-5


def test_stages_out_of_order_are_refused():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    _refuse(network, ["1", "0"], 2, [((torch.randn(3, 3),), {})], "forward order")


def test_stage_that_does_not_run_is_refused():
    network = BY_NAME["googlenet"].build()
    with pytest.raises(SplitError, match="'aux1' runs 0 times"):
        split_network(network, resolve_stages(network, ["conv1", "aux1"]), 2, (torch.zeros(1, 3, 32, 32),), {})


def test_batch_that_is_not_the_first_dimension_is_refused():
    network = nn.Sequential(nn.LSTM(4, 4))

    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = network[0], nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.lstm(x.transpose(0, 1))[0][-1])

    _refuse(TimeFirst(), ["lstm", "out"], 1, [((torch.randn(3, 5, 4),), {})], "rows must come first")


def test_left_padding_is_refused():
    architecture = BY_NAME["bert"]
    network, (_, kwargs) = architecture.build(), architecture.batches()[0]
    kwargs = {name: tensor.flip(1) for name, tensor in kwargs.items()}
    with pytest.raises(ValueError, match="padded on the right"):
        check_split(network, find_stages(network, (), kwargs), 1, [((), kwargs)])


def test_depth_out_of_range_is_refused():
    network, x = nn.Sequential(nn.Linear(3, 3)), torch.zeros(1, 3)
    with pytest.raises(SplitError, match=r"depth must be in \[0, 1\]"):
        split_network(network, resolve_stages(network, ["0"]), 2, (x,), {})


def test_half_precision_network_is_checked_in_float32():
    architecture = BY_NAME["bert"]
    network, batches = architecture.build().bfloat16(), architecture.batches()
    stages = find_stages(network, *batches[0])
    assert check_split(network, stages, 2, batches).difference < 1e-5
    assert next(network.parameters()).dtype == torch.bfloat16


# ---------------------------------------------------------------------------------------------------------
# Rows


def test_rows_of_texts_are_trimmed_and_padded_with_zeros():
    activation = torch.randn(3, 6, 2)
    rows = trim(activation, [6, 2, 4])
    assert [row.shape for row in rows] == [(6, 2), (2, 2), (4, 2)]
    batch = pad_rows(rows[1:], 5)
    assert batch.shape == (2, 5, 2)
    assert torch.equal(batch[0, :2], activation[1, :2]) and not batch[0, 2:].any()
    assert pad_rows(rows).shape == (3, 6, 2)


def test_rows_without_a_dimension_of_tokens_are_kept_whole():
    activation = torch.randn(2, 4)
    assert torch.equal(pad_rows(trim(activation, None)), activation)


def test_width_that_equals_the_padded_length_is_not_taken_for_tokens():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear, self.out = nn.Embedding(40, 6), nn.Linear(6, 9), nn.Linear(9, 2)

        def forward(self, input_ids, attention_mask):
            hidden = self.embedding(input_ids) * attention_mask[..., None]
            return self.out(F.relu(self.linear(hidden.sum(1))))

    network, batches = Pooled(), BY_NAME["bert"].batches()
    assert batches[0][1]["input_ids"].shape == (3, 9)  # as wide as the output of linear
    stages = resolve_stages(network, ["embedding", "linear", "out"])
    assert [check_split(network, stages, depth, batches).has_tokens for depth in (1, 2)] == [True, False]


def test_rows_have_memory_of_their_own():
    activation = torch.zeros(2, 3, 2)
    rows = trim(activation, [3, 2])
    activation += 1
    assert not any(row.any() for row in rows)
    assert rows[1].untyped_storage().nbytes() == 2 * 2 * 4


def test_light_inputs_keep_token_ids_and_blank_pixels():
    (pixels,), kwargs = light_inputs((torch.ones(2, 3),), {"input_ids": torch.ones(2, 4, dtype=torch.long)})
    assert not pixels.any() and kwargs["input_ids"].all()
