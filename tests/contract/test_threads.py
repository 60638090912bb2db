"""Every public estimator under threads: each row is that of one thread without a cache, and each answer of one fit."""

import itertools
import pickle
import sys
import threading

import numpy as np
import pytest
from support.estimators import ESTIMATORS
from support.networks import WORDS, TinyText, seeded, three_layers, tiny_tokenizer

from sktransfer import ModuleBackbone, PretrainedFeatureExtractor

BY_NAME = {listed.name: listed for listed in ESTIMATORS}
TEXTS = [" ".join(words) for n in (1, 3, 6, 9) for words in itertools.islice(itertools.permutations(WORDS, n), 7, 12)]


@pytest.fixture(autouse=True)
def threads_in_short_turns():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*works):
    """Run functions in threads, and raise what one of them raises."""
    errors = []

    def run(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _fitted(backbone, directory):
    """Estimators of all kinds over one network, with settings of their own and both caches by turns."""
    settings = [
        {"max_length": 3},
        {"max_length": 5},
        {"max_length": 9, "prompt": "how do "},
        {},
        {"pooling": "max", "max_length": 4},
        {"precision": "bfloat16", "max_length": 4},
    ]
    caches = itertools.cycle(["memory", directory])
    for listed, (number, parameters) in itertools.product(ESTIMATORS, enumerate(settings)):
        if number >= 3 and listed.estimator is not PretrainedFeatureExtractor:
            continue
        yield listed, {**parameters, "backbone": backbone, "cache": next(caches)}
    for layer in (0, "mix", [0, 1]):
        yield BY_NAME["PretrainedFeatureExtractor"], {"backbone": backbone, "layer": layer, "cache": next(caches)}


def _close(found, expected, parameters):
    np.testing.assert_allclose(found, expected, atol=3e-2 if parameters.get("precision") else 1e-5)


def test_estimators_with_other_settings_over_one_network(tmp_path):
    backbone = ModuleBackbone(
        seeded(TinyText), modality="text", preparation=tiny_tokenizer(), stages=["table", "mix"], name="shared"
    )
    estimators = []
    for listed, parameters in _fitted(backbone, tmp_path):
        alone = listed.fit(TEXTS, **{**parameters, "cache": None})
        estimators.append((listed, parameters, listed.fit(TEXTS, **parameters), listed.predict(alone, TEXTS)))
    from sktransfer import cache_clear

    cache_clear()
    cache_clear(tmp_path)

    def asks(seed):
        random = np.random.default_rng(seed)
        for _ in range(2):
            for place in random.permutation(len(estimators)):
                listed, parameters, fitted, expected = estimators[place]
                rows = random.permutation(len(TEXTS))[:12]
                _close(listed.predict(fitted, [TEXTS[row] for row in rows]), expected[rows], parameters)

    together(*(lambda seed=seed: asks(seed) for seed in range(6)))
    for listed, parameters, fitted, expected in estimators:  # what was written to the caches
        _close(listed.predict(fitted, TEXTS), expected, parameters)


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)
def test_predictions_while_it_is_fitted_anew(listed):
    random = np.random.default_rng(0)
    X = random.normal(size=(24, 6))
    y = listed.targets(len(X))
    model = listed.make(backbone=three_layers(), modality="table")
    if y is None:
        fits = [lambda: model.set_params(layer=0).fit(X), lambda: model.set_params(layer=2).fit(X)]
    else:
        # The opposite of the first, under other names where there are names.
        other = y[::-1] if y.dtype.kind == "f" else np.where(y == "no", "b", "a")
        fits = [lambda: model.fit(X, y), lambda: model.fit(X, other)]

    def answers(one):
        rows = [listed.predict(one, X)]
        return rows + [one.predict(X), np.array([one.score(X, y)])] if hasattr(one, "predict_proba") else rows

    expected = []
    for fit in fits:
        fit()
        expected.append(answers(model))
    done = threading.Event()

    def refit():
        try:
            for number in range(16):
                fits[number % 2]()
        finally:
            done.set()

    def same(found, wanted):
        return found.shape == wanted.shape and (
            np.allclose(found, wanted, atol=1e-5) if found.dtype.kind == "f" else np.array_equal(found, wanted)
        )

    def predict():
        while not done.is_set():
            for place, found in enumerate(answers(model)):
                assert any(same(found, one[place]) for one in expected)
            found = listed.predict(pickle.loads(pickle.dumps(model)), X)
            assert any(same(found, one[0]) for one in expected)
            tuned = PretrainedFeatureExtractor(model).fit_transform(X)
            assert tuned.shape[1] in (7, 8)

    together(refit, predict, predict)


def test_frames_while_it_is_fitted_anew():
    X = np.random.default_rng(0).normal(size=(8, 6))
    model = PretrainedFeatureExtractor(three_layers(), layer=0).set_output(transform="pandas").fit(X)
    done = threading.Event()

    def refit():
        try:
            for number in range(200):
                model.set_params(layer=2 * (number % 2)).fit(X)
        finally:
            done.set()

    def transform():
        while not done.is_set():
            assert model.transform(X).shape[1] in (7, 8)

    together(refit, transform)


def test_parameters_set_while_it_is_fitted_stay_and_are_seen_together():
    X = np.random.default_rng(0).normal(size=(8, 6))
    model = PretrainedFeatureExtractor(three_layers()).fit(X)
    done = threading.Event()

    def refit():
        try:
            for _ in range(300):
                model.fit(X)
        finally:
            done.set()

    def set_both():
        for number in itertools.count(1):
            model.set_params(batch_size=number, truncate_dim=1 + number % 2)
            assert model.batch_size == number
            if done.is_set():
                return

    model.set_params(batch_size=2, truncate_dim=1)

    def look():
        while not done.is_set():
            found = model.get_params()
            assert found["truncate_dim"] == 1 + found["batch_size"] % 2

    together(refit, look, set_both)


def test_one_handle_of_a_tuned_network_is_made():
    X = np.random.default_rng(0).normal(size=(8, 6))
    model = BY_NAME["FineTunedRegressor"].fit(X, backbone=three_layers(), modality="table")
    handles = []
    together(*(lambda: handles.append(model.__sktransfer_backbone__()) for _ in range(6)))
    assert len(set(map(id, handles))) == 1
