import numpy as np
import pytest
import torch

from sktransfer.training.settings import LR_SCHEDULERS, OPTIMIZERS, Settings


@pytest.mark.parametrize("scheduler", LR_SCHEDULERS)
def test_rates_rise_then_fall(scheduler):
    settings = Settings(10, 8, lr_scheduler=scheduler, warmup_ratio=0.2)
    factors = [settings.rate_factor(step, 50) for step in range(50)]
    assert all(0 < factor <= 1 for factor in factors)
    assert np.all(np.diff(factors[:11]) > 0)
    assert factors[10] == pytest.approx(1)
    if scheduler == "constant":
        assert factors[10:] == [1.0] * 40
    else:
        assert np.all(np.diff(factors[10:]) < 0)
        assert factors[-1] < 0.05


def test_without_warm_up_the_first_step_is_the_full_rate():
    for scheduler in LR_SCHEDULERS:
        assert Settings(1, 1, lr_scheduler=scheduler, warmup_ratio=0.0).rate_factor(0, 1) == 1.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_the_groups_as_they_are(name):
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in "ab"]
    groups = [
        {"params": [one], "lr": rate, "weight_decay": rate} for one, rate in zip(weights, (0.1, 0.2), strict=True)
    ]
    optimizer = Settings(1, 1, optimizer=name).make_optimizer(groups)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.1, 0.1), (0.2, 0.2)]
