"""The losses against a teacher, next to other ways to compute them."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from sktransfer.losses.distillation import hint_loss, soft_target_loss, two_sided

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, 5, 4))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_targets_are_a_divergence_times_the_squared_temperature(temperature):
    found = soft_target_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), temperature)
    told, said = softmax(TEACHER / temperature, axis=1), softmax(STUDENT / temperature, axis=1)
    np.testing.assert_allclose(found, temperature**2 * entropy(told, said, axis=1))


def test_probabilities_in_logarithms_are_as_good_as_scores():
    logs = np.log(softmax(TEACHER, axis=1))
    for temperature in (1.0, 3.0):
        found = soft_target_loss(torch.tensor(STUDENT), torch.tensor(logs), temperature)
        torch.testing.assert_close(found, soft_target_loss(torch.tensor(STUDENT), torch.tensor(TEACHER), temperature))


def test_gradients_at_high_temperature_are_those_of_matched_scores():
    # Hinton et al. 2015, equation 4: for scores of mean zero, (student - teacher) / n_classes.
    scores = torch.tensor(STUDENT - STUDENT.mean(1, keepdims=True), requires_grad=True)
    teacher = torch.tensor(TEACHER - TEACHER.mean(1, keepdims=True))
    soft_target_loss(scores, teacher, 1e4).sum().backward()
    torch.testing.assert_close(scores.grad, (scores.detach() - teacher) / 4, rtol=1e-3, atol=1e-3)


def test_two_sided_scores_have_the_same_probabilities():
    outputs = torch.tensor([[-2.0], [0.0], [3.0]])
    torch.testing.assert_close(two_sided(outputs).softmax(1)[:, 1:], outputs.sigmoid())


def test_hints():
    found = hint_loss(torch.tensor(STUDENT), torch.tensor(TEACHER))
    np.testing.assert_allclose(found, ((STUDENT - TEACHER) ** 2).mean(1))
