import math

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer.metrics import linear_cka
from sktransfer.training.stability import StabilityMonitor

STAGES = ("stem", "middle", "top")


class Network(nn.Module):
    """Three stages with batch norm and dropout, the kinds of layer whose mode matters."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.Tanh())
        self.top = nn.Linear(8, 3)

    def forward(self, x):
        return self.top(self.middle(self.stem(x)))


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network()
    network.stem.requires_grad_(False)
    network.train()
    network.stem.eval()
    return network


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    return torch.from_numpy(random.normal(size=(64, 5)).astype(np.float32)), torch.from_numpy(random.integers(0, 3, 64))


def trainable(network):
    return {
        stage: [parameter for parameter in getattr(network, stage).parameters() if parameter.requires_grad]
        for stage in STAGES
    }


def representations_of(network, x):
    """Return a callable that runs probe rows in eval mode and puts each module back into its own mode."""

    def representations():
        modes = {module: module.training for module in network.modules()}
        network.eval()
        found, output = {}, x
        for stage in STAGES:
            output = getattr(network, stage)(output)
            found[stage] = output.numpy()
        for module, mode in modes.items():
            module.training = mode
        return {stage: rows for stage, rows in found.items() if stage != "stem"}

    return representations


def train(network, x, y, n_steps, monitor=None, lr=0.1):
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=lr)
    gradients = []
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for _ in range(n_steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            gradients.append({s: [p.grad.clone() for p in ps] for s, ps in trainable(network).items()})
            if monitor is not None:
                monitor.after_backward()
            optimizer.step()
    return gradients


def flat(tensors):
    return np.concatenate([tensor.detach().double().numpy().ravel() for tensor in tensors])


def test_each_quantity_is_what_it_says(network, rows):
    x, y = rows
    start = {stage: flat(ps) for stage, ps in trainable(network).items() if ps}
    probe = representations_of(network, x[:20])
    with torch.no_grad():
        probe_start = probe()
    monitor = StabilityMonitor(trainable(network), probe)
    monitor.record(0)
    gradients = train(network, x, y, 4, monitor)
    monitor.record(1)
    gradients_later = train(network, x, y, 3, monitor)
    monitor.record(3)
    result = monitor.result()

    assert result.stages == STAGES
    assert result.epochs.tolist() == [0, 1, 3]
    assert result.forgetting is None
    np.testing.assert_array_equal(result.weight_change[0], 0)
    np.testing.assert_allclose(result.cka[0], 1, atol=1e-12)
    np.testing.assert_array_equal(result.gradient_norm[0], [0, np.nan, np.nan])
    np.testing.assert_array_equal(result.weight_change[:, 0], 0)
    np.testing.assert_array_equal(result.gradient_norm[:, 0], 0)
    np.testing.assert_array_equal(result.cka[:, 0], 1)
    with torch.no_grad():
        probe_end = probe()
    for column, stage in ((1, "middle"), (2, "top")):
        end = flat(trainable(network)[stage])
        change = np.linalg.norm(end - start[stage]) / np.linalg.norm(start[stage])
        assert result.weight_change[2, column] == pytest.approx(change, rel=1e-5)
        assert 0 < result.weight_change[1, column] < change
        for record, steps in ((1, gradients), (2, gradients_later)):
            norms = [np.linalg.norm(flat(step[stage])) for step in steps]
            assert result.gradient_norm[record, column] == pytest.approx(np.sqrt(np.mean(np.square(norms))), rel=1e-5)
        assert result.cka[2, column] == pytest.approx(linear_cka(probe_start[stage], probe_end[stage]), abs=1e-9)
        assert result.cka[2, column] < 0.9999


def test_watching_changes_nothing(network, rows):
    x, y = rows
    twin = Network()
    twin.load_state_dict(network.state_dict())
    twin.stem.requires_grad_(False)
    twin.train()
    twin.stem.eval()
    monitor = StabilityMonitor(trainable(network), representations_of(network, x[:20]), lambda: 0.5)
    modes = [module.training for module in network.modules()]
    generator = torch.get_rng_state()
    for epoch in range(3):
        train(network, x, y, 2, monitor)
        gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
        monitor.record(epoch)
        for before, parameter in zip(gradients, network.parameters(), strict=True):
            assert (before is None) == (parameter.grad is None)
            assert before is None or torch.equal(before, parameter.grad)
        train(twin, x, y, 2)
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()
    for watched, alone in zip(network.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(watched, alone)


def test_the_callables_run_without_gradients_and_their_arrays_are_copied(network, rows):
    x, y = rows
    shared = np.empty((64, 3), dtype=np.float32)
    enabled = []

    def representations():
        enabled.append(torch.is_grad_enabled())
        np.copyto(shared, network.top(network.middle(network.stem(x))).detach().numpy())
        return {"top": shared}

    monitor = StabilityMonitor({"top": list(network.top.parameters())}, representations)
    train(network, x, y, 20, monitor, lr=1.0)
    monitor.record(1)
    # Had the start been the caller's own array, it would be equal to what stands there now.
    assert monitor.result().cka[0, 0] < 0.999
    assert enabled == [False, False]


def test_nothing_of_the_graph_is_kept(network, rows):
    x, y = rows
    monitor = StabilityMonitor(trainable(network), representations_of(network, x))
    parameters = [parameter for of_stage in trainable(network).values() for parameter in of_stage]
    loss = nn.functional.cross_entropy(network(x), y)
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, create_graph=True), strict=True):
        parameter.grad = gradient
    assert network.top.weight.grad.requires_grad
    monitor.after_backward()
    for parameter in parameters:
        parameter.grad = None
    held = [value for value in vars(monitor).values() if isinstance(value, torch.Tensor)]
    assert held and not any(tensor.requires_grad for tensor in held)


def test_forgetting_is_how_far_the_score_on_the_source_fell(network, rows):
    x, y = rows
    source_x, source_y = torch.randn(200, 5, generator=torch.Generator().manual_seed(3)), None

    def accuracy():
        nonlocal source_y
        predicted = network.top(torch.tanh(network.middle[0](network.stem(source_x)))).argmax(1)
        if source_y is None:
            source_y = predicted
        return (predicted == source_y).float().mean().item()

    monitor = StabilityMonitor(trainable(network), representations_of(network, x), accuracy)
    monitor.record(0)
    train(network, x, y, 60, monitor, lr=0.5)
    monitor.record(1)
    forgetting = monitor.result().forgetting
    assert forgetting[0] == 0
    assert forgetting[1] == pytest.approx(1 - accuracy()) and forgetting[1] > 0.1


def test_a_stage_that_opens_later_has_no_gradient_until_then(network, rows):
    x, y = rows
    parameters = trainable(network)
    network.middle.requires_grad_(False)
    monitor = StabilityMonitor(parameters, representations_of(network, x))
    monitor.record(0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for epoch in (1, 2):
        nn.functional.cross_entropy(network(x), y).backward()
        monitor.after_backward()
        optimizer.step()
        monitor.record(epoch)
        network.middle.requires_grad_(True)
    result = monitor.result()
    assert result.gradient_norm[1, 1] == 0 < result.gradient_norm[1, 2]
    assert result.weight_change[1, 1] == 0 < result.weight_change[2, 1]
    assert result.gradient_norm[2, 1] > 0
    assert result.cka[1, 1] == pytest.approx(1, abs=1e-12)


def test_steps_that_overflow_are_left_out(network, rows):
    x, _ = rows
    monitor = StabilityMonitor(trainable(network), representations_of(network, x))
    for scale in (3.0, math.inf, 4.0):
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        network.top.bias.grad[0] = scale
        network.middle[0].bias.grad[1] = 1.0
        monitor.after_backward()
    monitor.record(1)
    np.testing.assert_allclose(monitor.result().gradient_norm, [[0, 1, math.sqrt((9 + 16) / 2)]])


def test_a_stage_that_broke_is_recorded_as_such(network, rows):
    x, _ = rows
    monitor = StabilityMonitor(trainable(network), representations_of(network, x))
    with torch.no_grad():
        network.middle[0].weight.zero_()  # all rows the same from here on
        network.top.weight.fill_(math.nan)
    monitor.record(1)
    result = monitor.result()
    np.testing.assert_array_equal(result.cka, [[1, math.nan, math.nan]])
    assert 0.5 < result.weight_change[0, 1] < 1
    assert math.isnan(result.weight_change[0, 2])


def test_weights_that_start_at_zero(network, rows):
    x, _ = rows
    nn.init.zeros_(network.top.weight)
    nn.init.zeros_(network.top.bias)
    monitor = StabilityMonitor({"top": list(network.top.parameters())}, dict)
    monitor.record(0)
    nn.init.ones_(network.top.bias)
    monitor.record(1)
    np.testing.assert_array_equal(monitor.result().weight_change, [[0], [math.inf]])
    # Trained, but nobody says how it represents the rows.
    np.testing.assert_array_equal(monitor.result().cka, [[math.nan], [math.nan]])


def test_half_precision_weights_are_compared_in_single_precision():
    weight = nn.Parameter(torch.full((1000,), 300.0, dtype=torch.float16))  # their squares overflow
    monitor = StabilityMonitor({"top": [weight]}, dict)
    with torch.no_grad():
        weight += 3
    weight.grad = torch.full_like(weight, 0.5)
    monitor.after_backward()
    monitor.record(1)
    assert monitor.result().weight_change[0, 0] == pytest.approx(0.01)
    assert monitor.result().gradient_norm[0, 0] == pytest.approx(0.5 * math.sqrt(1000), rel=1e-3)


def test_results_stay_as_they_are_and_are_whole_from_the_first(network, rows):
    x, _ = rows
    monitor = StabilityMonitor(trainable(network), representations_of(network, x), lambda: 1.0)
    empty = monitor.result()
    assert empty.epochs.shape == empty.forgetting.shape == (0,)
    assert empty.weight_change.shape == empty.gradient_norm.shape == empty.cka.shape == (0, 3)
    monitor.record(0)
    first = monitor.result()
    monitor.record(1)
    assert len(first.epochs) == 1 and len(monitor.result().epochs) == 2


def test_an_interrupt_leaves_whole_records(network, rows):
    x, _ = rows
    calls = []

    def interrupted():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 1.0

    monitor = StabilityMonitor(trainable(network), representations_of(network, x), interrupted)
    monitor.record(0)
    with pytest.raises(KeyboardInterrupt):
        monitor.record(1)
    result = monitor.result()
    assert len(result.epochs) == len(result.cka) == len(result.weight_change) == len(result.forgetting) == 1


def test_unknown_and_changing_stages_are_refused(network, rows):
    x, _ = rows
    with pytest.raises(ValueError, match=r"representations of \['tpo'\].*stages are: stem, middle, top"):
        StabilityMonitor(trainable(network), lambda: {"tpo": np.eye(3)})
    answers = iter([{"top": np.eye(3)}, {"middle": np.eye(3)}])
    monitor = StabilityMonitor(trainable(network), lambda: next(answers))
    with pytest.raises(ValueError, match=r"at the start for \['top'\], now for \['middle'\]"):
        monitor.record(0)
    assert len(monitor.result().epochs) == 0
