import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error

from sktransfer.losses.l2_sp import l2_sp_penalty
from sktransfer.losses.supervised import binary_cross_entropy, cross_entropy, squared_error


@pytest.fixture
def outputs():
    return torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_cross_entropy_is_scikit_learns_log_loss(outputs):
    codes = torch.arange(20) % 4
    losses = cross_entropy(outputs, codes)
    assert losses.shape == (20,)
    assert losses.mean().item() == pytest.approx(log_loss(codes, torch.softmax(outputs, 1)))


def test_binary_cross_entropy_is_the_mean_over_labels(outputs):
    labels = (torch.arange(80).reshape(20, 4) % 3 == 0).double()
    losses = binary_cross_entropy(outputs, labels)
    assert losses.shape == (20,)
    wanted = [log_loss(labels[:, i], torch.sigmoid(outputs[:, i])) for i in range(4)]
    assert losses.mean().item() == pytest.approx(np.mean(wanted))


def test_squared_error_is_the_mean_over_outputs(outputs):
    losses = squared_error(outputs, outputs.flip(0))
    assert losses.shape == (20,)
    assert losses.mean().item() == pytest.approx(mean_squared_error(outputs, outputs.flip(0)))


def test_huge_scores_give_finite_losses():
    scores = torch.tensor([[1e4, -1e4]])
    assert torch.isfinite(cross_entropy(scores, torch.tensor([1]))).all()
    assert torch.isfinite(binary_cross_entropy(scores, torch.tensor([[0.0, 1.0]]))).all()


def test_l2_sp_is_half_the_squared_distance_and_pulls_back():
    weights = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]
    start = [torch.tensor([0.0, 2.0]), torch.tensor([[1.0]])]
    penalty = l2_sp_penalty(weights, start)
    assert penalty.item() == pytest.approx(0.5 * (1 + 4))
    penalty.backward()
    for now, then in zip(weights, start, strict=True):
        torch.testing.assert_close(now.grad, (now - then).detach())


def test_l2_sp_wants_as_many_starts_as_weights():
    with pytest.raises(ValueError, match="shorter"):
        l2_sp_penalty([torch.zeros(1), torch.zeros(1)], [torch.zeros(1)])
