"""Every public estimator under global settings of torch, NumPy and scikit-learn: the same answers, and the settings stay."""

import contextlib
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn
import torch
from support.estimators import ESTIMATORS
from support.networks import own_images, own_series, save_tiny_bert, three_layers

import sktransfer
from sktransfer.backbones.sources.loading import unload_backbones

TEXTS = [
    "how do i reset my card",
    "the delivery was late",
    "thanks a one two",
    "my pin",
    "late again",
    "one two three",
] * 4
TRAINED = {"batch_size": 32, "optimizer": "sgd", "freeze_depth": 1}


@contextlib.contextmanager
def put(get, put, value):
    before = get()
    put(value)
    try:
        yield
    finally:
        put(before)


def default_dtype(dtype):
    return lambda: put(torch.get_default_dtype, torch.set_default_dtype, dtype)


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def errors_from_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


SETTINGS = {
    "float64": default_dtype(torch.float64),
    "float16": default_dtype(torch.float16),
    "bfloat16": default_dtype(torch.bfloat16),
    "default device": default_device,
    "device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "grad disabled": lambda: torch.set_grad_enabled(False),
    "deterministic": lambda: put(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "products": lambda: put(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
    "numpy errors": lambda: np.errstate(all="raise"),
    "frames": lambda: sklearn.config_context(transform_output="pandas"),
    "warnings": errors_from_warnings,
}


def settings():
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.get_float32_matmul_precision(),
        np.geterr(),
        sklearn.get_config(),
        list(warnings.filters),
        torch.random.get_rng_state().tolist() if torch.get_default_device().type == "cpu" else None,
    )


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Rows and a backbone for each, by name."""
    bert = str(save_tiny_bert(tmp_path_factory.mktemp("networks") / "bert"))
    noise = np.random.default_rng(0)
    return {
        "static": (TEXTS, lambda: "text-static"),
        "bert": (TEXTS, lambda: bert),
        "images": (noise.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8), own_images),
        "table": (noise.normal(size=(24, 6)).astype(np.float32), three_layers),
        "series": (noise.normal(size=(24, 2, 20)).astype(np.float32), own_series),
    }


@pytest.fixture(scope="module")
def usual(networks):
    """Answers under the usual settings, by estimator and network, computed when they are asked for."""
    known = {}

    def answers(listed, name):
        if (listed.name, name) not in known:
            X, backbone = networks[name]
            known[listed.name, name] = ask(listed, made(listed, name, backbone(), cache=None), X)
        return known[listed.name, name]

    return answers


def made(listed, name, backbone, **parameters):
    trained = {} if listed.name == "PretrainedFeatureExtractor" else dict(TRAINED)
    if name in ("static", "series"):
        trained.pop("freeze_depth", None)
        trained |= {"freeze_depth": 0} if trained else {}
    return listed.make(backbone=backbone, **trained, **parameters)


def fit(listed, model, X):
    y = listed.targets(len(X))
    return model.fit(X) if y is None else model.fit(X, y)


def ask(listed, model, X):
    return np.asarray(listed.predict(fit(listed, model, X), X))


def some(names, listed, setting):
    """All networks for the extractor; two by turns for those that train."""
    names = list(names)
    if listed.name == "PretrainedFeatureExtractor":
        return names
    turn = ESTIMATORS.index(listed) + list(SETTINGS).index(setting)
    return [names[(turn + 2 * step) % len(names)] for step in range(2)]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda one: one.name)
def test_answers_are_those_without_the_setting(listed, setting, networks, usual):
    for name in some(networks, listed, setting):
        X, backbone = networks[name]
        expected = usual(listed, name)
        sktransfer.cache_clear()
        unload_backbones()
        model = made(listed, name, backbone(), cache="memory")
        with SETTINGS[setting]():
            before = settings()
            inside = ask(listed, model, X)
            assert settings() == before, name
        np.testing.assert_allclose(inside, expected, atol=1e-6, rtol=1e-6, err_msg=name)
        # What was kept in the cache under the setting, and what was learned, serves without it.
        np.testing.assert_allclose(np.asarray(listed.predict(model, X)), expected, atol=1e-6, rtol=1e-6, err_msg=name)


FIRST = """
import os, pickle, sys
import numpy as np, torch
import sktransfer

def work(guard):
    with guard():
        with open(sys.argv[1], "rb") as file:
            kinds = pickle.load(file)
        for name, model, method, X, expected in kinds:
            np.testing.assert_allclose(np.asarray(getattr(model, method)(X)), expected, atol=1e-6, err_msg=name)
        for name, model, method, X, expected in kinds:
            if method != "transform":
                y = np.arange(len(X)) % 2
                model.fit(X, y if "Classifier" in name else y / 2.0)
                assert np.isfinite(getattr(model, method)(X)).all(), name
        assert torch.is_inference_mode_enabled() == (guard is torch.inference_mode) and not torch.is_grad_enabled()

child = os.fork()  # the same first steps in two processes, which import once
work(torch.no_grad if child == 0 else torch.inference_mode)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
METHODS = {"PretrainedFeatureExtractor": "transform", "FineTunedClassifier": "predict_proba"}
METHODS |= {"DistilledClassifier": "predict_proba"}


def test_the_first_that_a_process_does_is_without_gradients(networks, tmp_path):
    kinds = []
    for listed in ESTIMATORS:
        for name in ("bert", "series") if listed.name == "PretrainedFeatureExtractor" else ("static", "table"):
            X, backbone = networks[name]
            model = fit(listed, made(listed, name, backbone()), X)
            expected = np.asarray(listed.predict(model, X))
            kinds.append((f"{listed.name} {name}", model, METHODS.get(listed.name, "predict"), X, expected))
    (tmp_path / "fitted.pkl").write_bytes(pickle.dumps(kinds))
    ran = subprocess.run(
        [sys.executable, "-c", FIRST, str(tmp_path / "fitted.pkl")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
