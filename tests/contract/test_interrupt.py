"""An interrupt ends what runs, wherever it comes, and leaves everything as it was before."""

import copy
import inspect
import itertools
import random
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from support.estimators import ESTIMATORS
from support.networks import own_images, seeded
from torch import nn

import sktransfer
from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.backbones.sources.loading import unload_backbones

PACKAGE = str(Path(sktransfer.__file__).parent)
# From the first look at parameters to the last epoch: what is called at such shares of all calls.
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Pressed:
    """Counts calls of functions of the package, and raises at one of them."""

    def __init__(self, at=None, press=lambda: signal.raise_signal(signal.SIGINT)):
        self.at, self.press, self.n_calls = at, press, 0

    def __enter__(self):
        sys.setprofile(self._look)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)

    def _look(self, frame, event, argument):
        code = frame.f_code
        # Not generators, which are called once more when they are dropped, where nobody hears what is raised.
        # Nor what puts generators back, which an interrupt in that moment would cut short.
        inside = code.co_filename.startswith(PACKAGE) and not code.co_filename.endswith("seeding.py")
        if event == "call" and inside and not code.co_flags & inspect.CO_GENERATOR:
            self.n_calls += 1
            if self.n_calls - 1 == self.at:
                sys.setprofile(None)
                self.press()


@pytest.fixture(autouse=True)
def interruptible():
    """Python's own handler, which a process that was started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def raising(error):
    def press():
        raise error

    return press


def forget():
    """Let everything be loaded and computed anew, so that a fit makes the same calls each time."""
    unload_backbones()
    sktransfer.cache_clear()


def surroundings():
    return (
        torch.random.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        np.geterr(),
        torch.get_num_threads(),
    )


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)


def quick(listed, **parameters):
    trained = (
        {} if listed.name == "PretrainedFeatureExtractor" else {"freeze_depth": 1, "batch_size": 64, "optimizer": "sgd"}
    )
    return listed.make(backbone=own_images(), **trained, **parameters)


def fit(model, X, listed):
    y = listed.targets(len(X))
    return model.fit(X) if y is None else model.fit(X, y)


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda one: one.name)
def test_a_fit_that_is_interrupted_leaves_everything_as_it_was(listed, images):
    model = quick(listed)
    expected = listed.predict(fit(clone(model), images, listed), images)
    old = listed.predict(fit(model, images[::-2], listed), images)
    attributes = dict(vars(model))
    n_calls = []
    for given in (clone(model), copy.copy(model)):
        forget()
        with Pressed() as whole:
            fit(given, images, listed)
        n_calls.append(whole.n_calls)
    # By turns one that was never fitted, and one that was.
    for place, share in enumerate(SHARES):
        given = model if place % 2 else clone(model)
        known, outside = dict(vars(given)), surroundings()
        forget()
        with pytest.raises(KeyboardInterrupt), Pressed(int(share * n_calls[place % 2])):
            fit(given, images, listed)
        assert surroundings() == outside, share
        assert vars(given).keys() == known.keys(), share
        assert all(vars(given)[name] is value for name, value in known.items()), share
    assert all(vars(model)[name] is value for name, value in attributes.items())
    answers = []  # in another thread, for which no lock is held
    thread = threading.Thread(target=lambda: answers.append(listed.predict(model, images)), daemon=True)
    thread.start()
    thread.join(20)
    np.testing.assert_allclose(answers[0], old, atol=1e-5)
    np.testing.assert_allclose(listed.predict(fit(model, images, listed), images), expected, atol=1e-5)


def test_no_lock_stays_held():
    texts = ["one", "two three"]
    model = PretrainedFeatureExtractor("text-static").fit(texts)
    expected = model.transform(texts)
    forget()
    with Pressed() as whole:
        model.fit_transform(texts)
    for at in range(0, whole.n_calls - 5, 3):
        forget()
        with pytest.raises(KeyboardInterrupt), Pressed(at):
            model.fit_transform(texts)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(model.transform(texts)), daemon=True)  # noqa: B023
        thread.start()
        thread.join(20)
        assert answers, at
        np.testing.assert_array_equal(answers[0], expected)


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda one: one.name)
@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_an_interrupted_prediction_is_made_again(listed, images, error):
    model = fit(quick(listed), images[:16], listed)
    expected = listed.predict(model, images)
    forget()
    with Pressed() as whole:
        listed.predict(model, images)
    for share in (0.2, 0.6, 0.9):
        forget()
        with pytest.raises(error), Pressed(int(share * whole.n_calls), raising(error)):
            listed.predict(model, images)
        np.testing.assert_allclose(listed.predict(model, images), expected, atol=1e-5)


class Users(nn.Module):
    """A part of a user's, which raises at one of its calls in which it learns or gives values."""

    at = error = None
    n_calls = 0

    @classmethod
    def called(cls):
        cls.n_calls += 1
        if cls.n_calls - 1 == cls.at:
            raise cls.error


class UsersNetwork(Users):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))

    def forward(self, pixels):
        Users.called()
        return self.second(self.first(pixels))


class UsersHead(Users):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.linear = nn.Linear(n_features, n_outputs)

    def forward(self, vectors):
        Users.called()
        return self.linear(vectors)


def users_augment(pixels):
    Users.called()
    return pixels


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda one: one.name)
def test_what_a_users_code_raises_comes_through(listed, images, monkeypatch):
    module, X = seeded(UsersNetwork), images[:24]
    before = copy.deepcopy(module.state_dict())
    trained = {"head": UsersHead, "augment": users_augment, "validation_fraction": 0.25, "stability_every": 1}
    trained |= {"freeze_depth": 1, "batch_size": 8, "max_epochs": 2, "optimizer": "sgd"}
    if listed.name == "PretrainedFeatureExtractor":
        trained = {"batch_size": 8}
    model = listed.make(backbone=ModuleBackbone(module), cache=None, **trained)
    monkeypatch.setattr(Users, "n_calls", 0)
    expected = listed.predict(fit(clone(model), X, listed), X)
    Users.n_calls = 0
    fit(clone(model), X, listed)
    # Not quite to the last call, as a first fit looks at kernels that later ones know.
    places = sorted({int(share * Users.n_calls) for share in np.linspace(0, 0.9, 12)})
    for place, error in zip(places, itertools.cycle([KeyboardInterrupt, SystemExit])):
        outside = surroundings()
        monkeypatch.setattr(Users, "at", place)
        monkeypatch.setattr(Users, "error", error())
        Users.n_calls = 0
        with pytest.raises(error):
            fit(clone(model), X, listed)
        assert surroundings() == outside, place
        assert module.training and all(one.requires_grad for one in module.parameters())
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), name
    monkeypatch.setattr(Users, "at", None)
    np.testing.assert_allclose(listed.predict(fit(model, X, listed), X), expected, atol=1e-6)


SEARCHED = [one for one in ESTIMATORS if one.name != "PretrainedFeatureExtractor"]
AROUND = {
    "search": lambda model, X, y: GridSearchCV(model, {"random_state": [0, 1]}, cv=2, error_score=0.0).fit(X, y),
    "cross-validation": lambda model, X, y: cross_val_score(model, X, y, cv=2, error_score=0.0),
    "pipeline": lambda model, X, y: make_pipeline(FunctionTransformer(), model).fit(X, y),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("listed", SEARCHED, ids=lambda one: one.name)
def test_what_is_around_a_fit_ends_with_it(listed, images, around):
    model, y = quick(listed), listed.targets(24)
    forget()
    with Pressed() as whole:
        AROUND[around](clone(model), images[:24], y)
    for share in (0.3, 0.7):
        forget()
        with pytest.raises(KeyboardInterrupt), Pressed(int(share * whole.n_calls)):
            AROUND[around](model, images[:24], y)
        assert not hasattr(model, "n_epochs_") and not hasattr(model, "student_")
