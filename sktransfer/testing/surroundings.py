"""Checks that an estimator leaves the rest of the process alone."""

from __future__ import annotations

import logging
import os
import random
import warnings
from typing import Any
from unittest import SkipTest

import numpy as np
import PIL.Image
import PIL.ImageFile
import sklearn
import torch

from sktransfer.testing.expectations import answers, fitted, forget, fresh, same, target_of
from sktransfer.testing.samples import Sample


def check_global_state(estimator: Any, sample: Sample) -> None:
    """`fit` and the methods leave generators, settings, log levels, warning filters and the environment alone."""
    forget()
    X, y = list(sample.rows), target_of(estimator, sample)
    copy = fresh(estimator)
    before = global_state()
    copy.fit(X, y)
    _compare("fit", before, global_state())
    forget()
    before = global_state()
    answers(copy, X + sample.odd_rows)
    _compare("the methods after fit", before, global_state())


def check_no_deprecated_calls(estimator: Any, sample: Sample) -> None:
    """`fit` and the methods call nothing that is deprecated."""
    forget()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answers(fitted(estimator, sample), list(sample.rows))
    kinds = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
    old = [
        f"{one.category.__name__}: {one.message} ({one.filename}:{one.lineno})"
        for one in caught
        if issubclass(one.category, kinds)
    ]
    if old:
        raise AssertionError(f"fit and methods call nothing that is deprecated. Seen: {'; '.join(old)}")


def check_array_api_dispatch(estimator: Any, sample: Sample) -> None:
    """With scikit-learn's array API dispatch on, NumPy arrays give what they give with it off."""
    X, y = np.array(sample.rows), target_of(estimator, sample)
    wanted = answers(fresh(estimator).fit(X, y), X)
    try:
        context = sklearn.config_context(array_api_dispatch=True)
        context.__enter__()
    except (RuntimeError, ImportError) as error:
        raise SkipTest(f"array API dispatch can't be switched on: {error}") from error
    try:
        same("array API dispatch changes nothing for NumPy arrays", wanted, answers(fresh(estimator).fit(X, y), X))
    finally:
        context.__exit__(None, None, None)


def global_state() -> dict[str, Any]:
    """Take down the state of the process that no estimator may change, by what it is called."""
    numpy_state = np.random.get_state(legacy=False)
    state: dict[str, Any] = {
        "Python's global random generator": random.getstate(),
        "NumPy's global random generator": repr(numpy_state["state"]["key"].tobytes())
        + repr(numpy_state["state"]["pos"]),
        "torch's global random generator": torch.random.get_rng_state().numpy().tobytes(),
        "torch.get_num_threads()": torch.get_num_threads(),
        "torch.get_num_interop_threads()": torch.get_num_interop_threads(),
        "torch.is_grad_enabled()": torch.is_grad_enabled(),
        "torch.is_inference_mode_enabled()": torch.is_inference_mode_enabled(),
        "torch.is_autocast_enabled('cpu')": torch.is_autocast_enabled("cpu"),
        "torch.get_default_dtype()": torch.get_default_dtype(),
        "torch.get_default_device()": torch.get_default_device(),
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
        "torch.backends.cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "torch.backends.mkldnn.enabled": torch.backends.mkldnn.enabled,
        "sklearn.get_config()": sklearn.get_config(),
        "numpy.geterr()": np.geterr(),
        "numpy.get_printoptions()": repr(np.get_printoptions()),
        "PIL.Image.MAX_IMAGE_PIXELS": PIL.Image.MAX_IMAGE_PIXELS,
        "PIL.ImageFile.LOAD_TRUNCATED_IMAGES": PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        "warnings.filters": list(warnings.filters),
        "the working directory": os.getcwd(),
        "logging.disable": logging.root.manager.disable,
    }
    if torch.cuda.is_initialized():
        state["torch's CUDA generators"] = [one.numpy().tobytes() for one in torch.cuda.get_rng_state_all()]
    state.update({f"os.environ[{name!r}]": value for name, value in os.environ.items()})
    loggers = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    for name, logger in {"root": logging.root, **loggers}.items():
        state[f"the logger {name!r}"] = (
            logger.level,
            logger.disabled,
            logger.propagate,
            tuple(map(repr, logger.handlers)),
        )
    return state


def _compare(what: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    changes = []
    for name in sorted(before.keys() | after.keys()):
        # A library that is imported on first use brings its own loggers; those that were there must stay as they were.
        if name not in before and name.startswith("the logger"):
            continue
        old, new = before.get(name, "nothing"), after.get(name, "nothing")
        if old != new:
            shown = f": {old!r} became {new!r}" if len(repr(old)) + len(repr(new)) < 300 else ""
            changes.append(name + (shown or _difference(old, new)))
    if changes:
        raise AssertionError(f"{what} leaves the state of the process alone. Changed: {'; '.join(changes)}.")


def _difference(old: Any, new: Any) -> str:
    """Say in what two long values differ, as far as they can be taken apart."""
    if isinstance(old, dict) and isinstance(new, dict):
        return ": " + ", ".join(f"{key} = {new.get(key)!r}" for key in new if old.get(key) != new.get(key))
    if isinstance(old, list) and isinstance(new, list):
        return f": added {[one for one in new if one not in old]!r}, gone {[one for one in old if one not in new]!r}"
    return ""
