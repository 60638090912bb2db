"""PretrainedFeatureExtractor against scikit-learn's conventions, on the rows that it reads."""

import pytest
import torch
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator
from torch import nn
from torchvision.transforms import ToTensor

from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.testing import transfer_estimator_checks


def own_network():
    """Make a small image network with what state can hide in: batch norm and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5)).train()


def cases():
    backbone = ModuleBackbone(own_network(), preparation=ToTensor(), name="own network")
    estimators = {
        "shipped text network": ("text", PretrainedFeatureExtractor()),
        "no cache": ("text", PretrainedFeatureExtractor(cache=None, normalize=False, batch_size=3)),
        "shipped image network": ("image", PretrainedFeatureExtractor()),
        "own image network": ("image", PretrainedFeatureExtractor(backbone, layer=[0, -1])),
    }
    for name, (kind, estimator) in estimators.items():
        for _, check in transfer_estimator_checks(estimator, kind):
            yield pytest.param(estimator, check, id=f"{name}-{check}")


@pytest.mark.parametrize("estimator, check", list(cases()))
def test_contract(estimator, check, monkeypatch):
    # Without it scikit-learn refuses to switch array API dispatch on.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    check(estimator)


def test_scikit_learns_own_checks():
    # It hands over tables of numbers; the tags say that these are not read, so all but one check are left out.
    with pytest.warns(SkipTestWarning, match="Can't test estimator PretrainedFeatureExtractor"):
        results = check_estimator(PretrainedFeatureExtractor())
    assert [(result["check_name"], result["status"]) for result in results] == [("check_estimator_cloneable", "passed")]
