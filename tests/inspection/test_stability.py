import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from torch import nn

from sktransfer.inspection import StabilityDisplay
from sktransfer.training.stability import StabilityMonitor


class LayeredClassifier(ClassifierMixin, BaseEstimator):
    """Layers of which the first are frozen, trained with a stability record as fine-tuned estimators have it."""

    def __init__(self, n_layers=4, freeze_depth=1, stability_every=None, source=True):
        self.n_layers = n_layers
        self.freeze_depth = freeze_depth
        self.stability_every = stability_every
        self.source = source

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        X, y = torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(self.n_layers)))
        for layer in layers[: self.freeze_depth]:
            layer.requires_grad_(False)
        parameters = {
            f"layer.{place}": [p for p in layer.parameters() if p.requires_grad] for place, layer in enumerate(layers)
        }

        def representations():
            found, rows = {}, X[:30]
            for stage, layer in zip(parameters, layers, strict=True):
                rows = layer(rows)
                found[stage] = rows.numpy()
            return dict(list(found.items())[self.freeze_depth :])

        monitor = None
        if self.stability_every:
            score = (lambda: layers(X).mean().item()) if self.source else None
            monitor = StabilityMonitor(parameters, representations, score)
            monitor.record(0)
        optimizer = torch.optim.SGD(layers.parameters(), lr=0.5)
        for epoch in range(1, 7):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layers(X), y).backward()
            if monitor is not None:
                monitor.after_backward()
            optimizer.step()
            if monitor is not None and epoch % self.stability_every == 0:
                monitor.record(epoch)
        self.stability_ = None if monitor is None else monitor.result()
        return self


@pytest.fixture
def data():
    return make_classification(80, 6, random_state=0)


@pytest.mark.parametrize("quantity", ["cka", "weight_change", "gradient_norm"])
def test_there_is_a_line_for_each_stage(data, quantity):
    estimator = LayeredClassifier(stability_every=2).fit(*data)
    display = StabilityDisplay.from_estimator(estimator, quantity=quantity)
    assert [line.get_label() for line in display.lines_] == ["layer.0", "layer.1", "layer.2", "layer.3"]
    for column, line in enumerate(display.lines_):
        assert line.get_xdata().tolist() == [0, 2, 4, 6]
        np.testing.assert_array_equal(line.get_ydata(), getattr(estimator.stability_, quantity)[:, column])
    assert display.heatmap_ is None
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["layer.3", "layer.2", "layer.1", "layer.0"]
    assert len({line.get_color().tobytes() for line in display.lines_}) == 4
    display.figure_.canvas.draw()


def test_many_stages_become_a_heat_map_with_the_last_on_top(data):
    estimator = LayeredClassifier(n_layers=40, freeze_depth=35, stability_every=1).fit(*data)
    display = StabilityDisplay.from_estimator(estimator)
    assert display.lines_ is None
    np.testing.assert_array_equal(display.heatmap_.get_array(), estimator.stability_.cka.T)
    lowest, highest = display.ax_.get_ylim()
    assert lowest < highest
    ticks = {
        label.get_text(): place
        for label, place in zip(display.ax_.get_yticklabels(), display.ax_.get_yticks(), strict=True)
    }
    assert len(ticks) <= 24
    assert all(estimator.stability_.stages[int(place)] == stage for stage, place in ticks.items())
    display.figure_.canvas.draw()
    as_lines = display.plot(kind="lines")
    assert as_lines is display and len(display.lines_) == 40 and display.heatmap_ is None


def test_ten_stages_are_lines_unless_a_heat_map_is_asked_for(data):
    display = StabilityDisplay.from_estimator(LayeredClassifier(n_layers=10, stability_every=3).fit(*data))
    assert len(display.lines_) == 10
    assert display.plot(kind="heatmap").heatmap_.get_array().shape == (10, 3)
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["0", "3", "6"]


@pytest.mark.parametrize("kind", ["lines", "heatmap"])
def test_norms_far_apart_are_drawn_on_a_logarithmic_scale_that_has_frozen_stages(kind):
    values = [[0, np.nan, np.nan], [0, 1e-4, 1.0], [0, 1e-3, 2.0]]
    display = StabilityDisplay(
        stages=["a", "b", "c"], epochs=[0, 1, 2], weight_change=values, gradient_norm=values, cka=np.ones((3, 3))
    ).plot(quantity="gradient_norm", kind=kind)
    display.figure_.canvas.draw()
    if kind == "lines":
        assert display.ax_.get_yscale() == "symlog"
        assert display.lines_[0].get_ydata().tolist() == [0, 0, 0]
        assert display.plot(quantity="cka").ax_.get_yscale() == "linear"
    else:
        assert (display.heatmap_.norm.vmin, display.heatmap_.norm.vmax) == (1e-4, 2.0)
        assert display.heatmap_.get_array().mask[:, 0].all()


def test_a_record_of_frozen_stages_alone_can_be_drawn(data):
    estimator = LayeredClassifier(stability_every=1, freeze_depth=3).fit(*data)
    record = estimator.stability_
    for quantity in ("cka", "weight_change", "gradient_norm"):
        for kind in ("lines", "heatmap"):
            display = StabilityDisplay(
                stages=record.stages[:3],
                epochs=record.epochs,
                weight_change=record.weight_change[:, :3],
                gradient_norm=record.gradient_norm[:, :3],
                cka=record.cka[:, :3],
            ).plot(quantity=quantity, kind=kind)
            display.figure_.canvas.draw()
            drawn = display.heatmap_.get_array() if kind == "heatmap" else [line.get_ydata() for line in display.lines_]
            assert set(np.ravel(drawn)) == {1.0 if quantity == "cka" else 0.0}


def test_forgetting_is_one_line(data):
    estimator = LayeredClassifier(stability_every=1).fit(*data)
    display = StabilityDisplay.from_estimator(estimator, quantity="forgetting")
    (line,) = display.lines_
    np.testing.assert_array_equal(line.get_ydata(), estimator.stability_.forgetting)
    assert line.get_ydata()[0] == 0 and np.any(line.get_ydata() != 0)
    assert display.ax_.get_xlabel() == "epoch"


def test_what_cannot_be_drawn_is_refused_before_a_figure_is_made(data):
    from matplotlib import pyplot

    with pytest.raises(NotFittedError):
        StabilityDisplay.from_estimator(LayeredClassifier())
    with pytest.raises(ValueError, match="LayeredClassifier was fitted without.*Set stability_every=1"):
        StabilityDisplay.from_estimator(LayeredClassifier().fit(*data))
    estimator = LayeredClassifier(stability_every=1, source=False).fit(*data)
    with pytest.raises(ValueError, match="without source rows"):
        StabilityDisplay.from_estimator(estimator, quantity="forgetting")
    with pytest.raises(ValueError, match="quantity must be one of 'cka', .*is 'drift'"):
        StabilityDisplay.from_estimator(estimator, quantity="drift")
    with pytest.raises(ValueError, match="kind must be 'auto', 'lines' or 'heatmap', but is 'bars'"):
        StabilityDisplay.from_estimator(estimator, kind="bars")
    assert not pyplot.get_fignums()
