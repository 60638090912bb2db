"""The one factor of all scores."""

import numpy as np
import pytest
import torch

from sktransfer.losses.supervised import binary_cross_entropy, cross_entropy
from sktransfer.training.scale import best_scale

RNG = np.random.default_rng(0)


def answers(n=4000, n_classes=4):
    """Scores, and classes drawn with the probabilities that they stand for."""
    scores = torch.tensor(RNG.normal(size=(n, n_classes)) * 2)
    return scores, torch.multinomial(scores.softmax(1), 1, generator=torch.Generator().manual_seed(0))[:, 0]


@pytest.mark.parametrize("wrong", [0.2, 1.0, 5.0])
def test_scores_that_are_too_sure_or_too_shy_are_put_right(wrong):
    scores, classes = answers()
    scale, loss = best_scale(cross_entropy, scores * wrong, classes, torch.ones(4000), 4)
    assert scale * wrong == pytest.approx(1.0, rel=0.1)
    assert loss <= float(cross_entropy(scores, classes).mean()) + 1e-6


def test_two_classes():
    scores = torch.tensor(RNG.normal(size=(4000, 1)) * 2)
    targets = (torch.tensor(RNG.uniform(size=(4000, 1))) < scores.sigmoid()).double()
    scale, _ = best_scale(binary_cross_entropy, scores * 3, targets, torch.ones(4000), 1)
    assert scale * 3 == pytest.approx(1.0, rel=0.15)


def test_weights_count():
    scores, classes = answers()
    turned = torch.cat([classes, (classes + 1) % 4])
    twice = torch.cat([scores, scores])
    there = (torch.arange(8000) < 4000).double()
    found = best_scale(cross_entropy, twice, turned, there, 4)
    assert found == pytest.approx(best_scale(cross_entropy, scores, classes, torch.ones(4000), 4))


def test_a_penalty_keeps_scores_small_where_all_are_right():
    scores = torch.eye(3).repeat(20, 1)
    classes = torch.arange(3).repeat(20)
    free, _ = best_scale(cross_entropy, scores, classes, torch.ones(60), 3)
    held, _ = best_scale(cross_entropy, scores, classes, torch.ones(60), 3, penalty=0.01)
    assert free > 20 > held > 1


def test_what_is_no_score_stays():
    scores, classes = answers(100)

    def loss(outputs, targets):
        assert torch.equal(outputs[:, 4:], hints)
        return cross_entropy(outputs[:, :4], targets)

    hints = torch.ones(100, 2).double()
    best_scale(loss, torch.cat([scores, hints], dim=1), classes, torch.ones(100), 4)
