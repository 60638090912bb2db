import pytest
import torch
from torch import nn

from sktransfer.backbones.frozen_copy import frozen_copy, watched


def trained(network):
    """Give batch norms the statistics of a training: not zero and one."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(module.bias, generator=generator)
    return network.eval().requires_grad_(False)


def simple(**settings):
    torch.manual_seed(0)
    return trained(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False),
            nn.BatchNorm2d(6, **settings),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 4, 3),
            nn.BatchNorm2d(4),
        )
    )


def pixels(n=3):
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(2))


def norms(network):
    """Return the batch norms that still do something."""
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and "forward" not in module.__dict__
    ]


def copied(network, boundaries=(), share=True):
    with torch.no_grad(), watched(network) as watch:
        network(pixels())
    return frozen_copy(network, watch.pairs, boundaries=boundaries, share=share)


@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"eps": 0.1}])
def test_batch_norms_go_into_the_convolutions_before_them(settings):
    network = simple(**settings)
    folded = copied(network)
    assert norms(folded) == []
    torch.testing.assert_close(folded(pixels()), network(pixels()), rtol=1e-5, atol=1e-5)


def test_the_original_is_not_changed():
    network = simple()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = network(pixels())
    copied(network)
    assert len(norms(network)) == 2
    assert torch.equal(network(pixels()), expected)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(tensor.is_contiguous() for tensor in network.parameters())


def test_a_norm_that_follows_a_batch_of_other_things_stays():
    torch.manual_seed(0)
    network = trained(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6)))
    folded = copied(network)
    assert len(norms(folded)) == 1
    torch.testing.assert_close(folded(pixels()), network(pixels()), rtol=1e-5, atol=1e-5)


class UsedTwice(nn.Module):
    """The convolution's output is read by the norm and by something else."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class RunsTwice(nn.Module):
    """One convolution, two norms."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))


class ReadInPlace(nn.Module):
    """Something reads a view of the convolution's output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x):
        x = self.conv(x)
        gate = x[:, :1].sigmoid()
        return self.norm(x) * gate


class Asks(nn.Module):
    """The convolution's output is asked for its shape, and for the attributes of its norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x):
        x = self.conv(x)
        assert x.shape[1] == x.size(1) == self.norm.num_features and x.dim() == 4
        return self.norm(x)


def test_questions_about_the_output_and_the_norms_attributes_do_no_harm():
    network = trained(Asks())
    folded = copied(network)
    assert norms(folded) == []
    torch.testing.assert_close(folded(pixels()), network(pixels()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [UsedTwice, RunsTwice, ReadInPlace])
def test_a_network_that_cannot_be_folded_runs_as_it_is(make):
    network = trained(make())
    assert len(norms(copied(network))) == len(norms(network))
    torch.testing.assert_close(copied(network)(pixels()), network(pixels()), rtol=1e-5, atol=1e-5)


def test_a_norm_without_running_statistics_stays():
    network = simple(track_running_stats=False)
    assert len(norms(copied(network))) == 1


@pytest.mark.parametrize(("boundary", "kept"), [("0", 1), ("1", 0), ("3", 1)])
def test_the_output_of_a_boundary_stays_what_it_is(boundary, kept):
    network = simple()
    folded = copied(network, [boundary])
    assert len(norms(folded)) == kept
    seen = []
    for one in (network, folded):
        handle = one.get_submodule(boundary).register_forward_hook(
            lambda module, args, output: seen.append(output.clone())
        )
        one(pixels())
        handle.remove()
    torch.testing.assert_close(*seen, rtol=1e-5, atol=1e-5)


def test_a_norm_with_a_hook_of_the_user_stays_and_the_hook_fires():
    network = simple()
    calls = []
    network[1].register_forward_hook(lambda *args: calls.append(1))
    folded = copied(network)
    calls.clear()
    folded(pixels())
    assert calls == [1]


def test_what_is_the_same_is_shared_and_weights_of_convolutions_are_not():
    torch.manual_seed(0)
    network = trained(nn.Sequential(simple(), nn.Flatten(), nn.Linear(256, 5)))
    folded = copied(network)
    assert folded[2].weight is network[2].weight
    assert folded[0][0].weight is not network[0][0].weight
    alone = copied(network, share=False)
    assert alone[2].weight is not network[2].weight


def test_weights_of_convolutions_lie_with_channels_last():
    folded = copied(simple())
    assert folded[0].weight.is_contiguous(memory_format=torch.channels_last)
