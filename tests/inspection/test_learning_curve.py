import subprocess
import sys

import numpy as np
import pytest
from matplotlib import pyplot
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer.inspection import LearningCurveDisplay


class EpochClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier trained by epochs, with the history that fine-tuned estimators keep."""

    def __init__(self, max_epochs=6, validate=True, running_best=True):
        self.max_epochs = max_epochs
        self.validate = validate
        self.running_best = running_best

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        model = SGDClassifier(loss="log_loss", alpha=1e-5, eta0=0.003, learning_rate="constant", random_state=0)
        held_out = np.arange(len(X)) % 4 == 0
        self.history_ = []
        for epoch in range(self.max_epochs + 1):
            if epoch:
                model.partial_fit(X[~held_out], y[~held_out], self.classes_)
            self.history_.append(
                {
                    "epoch": epoch,
                    "train_loss": log_loss(y[~held_out], model.predict_proba(X[~held_out])) if epoch else None,
                    "valid_loss": self._loss(model, X[held_out], y[held_out], epoch) if self.validate else None,
                    "learning_rate": 0.003,
                    "seconds": 0.0,
                    "best": False,
                }
            )
        if self.validate:
            losses = [row["valid_loss"] for row in self.history_]
            for row in self.history_:
                so_far = losses[: row["epoch"] + 1]
                row["best"] = row["valid_loss"] == min(so_far if self.running_best else losses)
        self.model_ = model
        return self

    def _loss(self, model, X, y, epoch):
        return log_loss(y, model.predict_proba(X)) if epoch else np.log(len(self.classes_))

    def predict(self, X):
        return self.model_.predict(X)


@pytest.fixture
def data():
    return make_classification(160, 60, flip_y=0.3, random_state=0)


@pytest.mark.parametrize("running_best", [True, False])
def test_the_losses_and_the_kept_epoch_are_those_of_the_history(data, running_best):
    estimator = EpochClassifier(running_best=running_best).fit(*data)
    display = LearningCurveDisplay.from_estimator(estimator)
    train, valid = display.lines_
    history = estimator.history_
    assert train.get_xdata().tolist() == list(range(7))
    assert np.isnan(train.get_ydata()[0])
    assert train.get_ydata()[1:].tolist() == [row["train_loss"] for row in history[1:]]
    assert valid.get_ydata().tolist() == [row["valid_loss"] for row in history]
    lowest = int(np.argmin([row["valid_loss"] for row in history]))
    assert 0 < lowest < 6
    assert display.kept_epoch == lowest
    assert display.kept_line_.get_xdata() == [lowest, lowest]
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == [
        "training",
        "validation",
        f"kept: epoch {lowest}",
    ]
    assert display.figure_ is display.ax_.figure
    display.figure_.canvas.draw()


def test_without_validation_the_last_epoch_is_the_kept_one(data):
    display = LearningCurveDisplay.from_estimator(EpochClassifier(validate=False).fit(*data))
    assert len(display.lines_) == 1
    assert display.valid_loss is None
    assert display.kept_epoch == 6


def test_pipelines_and_searches_are_looked_into(data):
    pipeline = make_pipeline(StandardScaler(), EpochClassifier())
    search = GridSearchCV(pipeline, {"epochclassifier__max_epochs": [2, 3]}, cv=2).fit(*data)
    display = LearningCurveDisplay.from_estimator(search)
    assert len(display.epochs) == search.best_params_["epochclassifier__max_epochs"] + 1


def test_it_draws_on_the_callers_axes_in_the_callers_style(data):
    _, ax = pyplot.subplots()
    display = LearningCurveDisplay.from_estimator(EpochClassifier().fit(*data), ax=ax, line_kw={"linewidth": 7})
    assert display.ax_ is ax
    assert {line.get_linewidth() for line in display.lines_} == {7}
    assert display.plot(ax) is display


def test_what_has_no_history_is_refused(data):
    with pytest.raises(NotFittedError):
        LearningCurveDisplay.from_estimator(EpochClassifier())
    with pytest.raises(NotFittedError):
        LearningCurveDisplay.from_estimator(make_pipeline(StandardScaler(), EpochClassifier()))
    with pytest.raises(ValueError, match="SGDClassifier has no epochs in history_.*FineTunedClassifier"):
        LearningCurveDisplay.from_estimator(SGDClassifier().fit(*data))
    search = GridSearchCV(EpochClassifier(), {"max_epochs": [2, 3]}, cv=2, refit=False).fit(*data)
    with pytest.raises(ValueError, match="Set refit=True"):
        LearningCurveDisplay.from_estimator(search)


def test_without_matplotlib_drawing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    display = LearningCurveDisplay(epochs=[0, 1], train_loss=[2.0, 1.0])
    with pytest.raises(ImportError, match=r"LearningCurveDisplay.plot needs.*pip install 'sktransfer\[plot\]'"):
        display.plot()


def test_importing_the_displays_imports_neither_torch_nor_matplotlib():
    code = "import sys, sktransfer.inspection; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
