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


def own_series_network():
    """Make a small network for series of two channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv1d(2, 6, 5, padding=2), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5)).train()
    return ModuleBackbone(module, modality="series", name="own series network")


def own_table_network():
    """Make a small network that reads tables of any width."""
    return ModuleBackbone(ColumnStatistics(), modality="table", name="own table network")


class ColumnStatistics(nn.Module):
    """Sum, sum of squares and largest of each row."""

    def forward(self, rows):
        return torch.stack([rows.sum(1), rows.square().sum(1), rows.amax(1)], dim=1)


def cases():
    backbone = ModuleBackbone(own_network(), preparation=ToTensor(), name="own network")
    estimators = {
        "shipped text network": ("text", PretrainedFeatureExtractor()),
        "no cache": ("text", PretrainedFeatureExtractor(cache=None, normalize=False, batch_size=3)),
        "shipped image network": ("image", PretrainedFeatureExtractor()),
        "own image network": ("image", PretrainedFeatureExtractor(backbone, layer=[0, -1])),
        "convolutions over series": ("series", PretrainedFeatureExtractor("series-cnn")),
        "LSTM over series, no cache": ("series", PretrainedFeatureExtractor("series-lstm", cache=None)),
        "transformer over series": (
            "series",
            PretrainedFeatureExtractor("series-transformer", pooling=["mean", "last"]),
        ),
        "own series network": ("series", PretrainedFeatureExtractor(own_series_network())),
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


TABLES = [
    PretrainedFeatureExtractor("table-mlp"),
    PretrainedFeatureExtractor("table-mlp", cache=None, batch_size=7),
    PretrainedFeatureExtractor("table-resnet"),
    PretrainedFeatureExtractor("table-resnet", cache=None, layer=[0, -1]),
    PretrainedFeatureExtractor(own_table_network()),
]


@pytest.mark.parametrize("estimator", TABLES, ids=str)
def test_scikit_learns_own_checks_of_tables(estimator, monkeypatch):
    # None is expected to fail, and with this none is skipped.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    results = check_estimator(estimator)
    assert len(results) > 40
    assert {result["status"] for result in results} == {"passed"}
