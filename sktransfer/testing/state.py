"""Checks of parameters and fitted state: who may change what, and when."""

from __future__ import annotations

import copy
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from unittest import SkipTest

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sktransfer._compat import Interval, StrOptions
from sktransfer.testing.expectations import (
    METHODS,
    answers,
    expect,
    fitted,
    forget,
    fresh,
    methods_of,
    refuses,
    same,
    target_of,
)
from sktransfer.testing.samples import Sample


def check_unfitted(estimator: Any, sample: Sample) -> None:
    """Before fit every method raises NotFittedError, unless the tags say that no fit is needed."""
    copy_ = fresh(estimator)
    if not get_tags(copy_).requires_fit:
        answers(copy_, list(sample.rows))
        return
    names = [*METHODS, "inverse_transform"]
    X = list(sample.rows)
    calls: dict[str, Callable[[], Any]] = {
        name: partial(getattr(copy_, name), X) for name in names if hasattr(copy_, name)
    }
    if hasattr(copy_, "get_feature_names_out"):
        calls["get_feature_names_out"] = copy_.get_feature_names_out
    if hasattr(copy_, "score"):
        calls["score"] = partial(copy_.score, X, target_of(copy_, sample))
    for name, call in calls.items():
        refuses(f"{name} of an unfitted estimator raises NotFittedError", call, NotFittedError)


def check_is_fitted_after_fit(estimator: Any, sample: Sample) -> None:
    """scikit-learn's check_is_fitted raises before fit and passes after it."""
    copy_ = fresh(estimator)
    if get_tags(copy_).requires_fit:
        refuses("check_is_fitted raises NotFittedError before fit", partial(check_is_fitted, copy_), NotFittedError)
    copy_.fit(list(sample.rows), target_of(copy_, sample))
    try:
        check_is_fitted(copy_)
    except NotFittedError as error:
        raise AssertionError(f"check_is_fitted passes after fit. Seen: {error}") from error


def check_fit_returns_self(estimator: Any, sample: Sample) -> None:
    """`fit` returns the estimator itself."""
    copy_ = fresh(estimator)
    seen = copy_.fit(list(sample.rows), target_of(copy_, sample))
    expect(seen is copy_, "fit returns self", f"an object of type {type(seen).__name__}")


def check_fit_keeps_parameters(estimator: Any, sample: Sample) -> None:
    """`fit` changes no constructor parameter, neither the attribute nor the object behind it."""
    copy_ = fresh(estimator)
    before = copy_.get_params(deep=False)
    contents = {name: _content(value) for name, value in before.items()}
    copy_.fit(list(sample.rows), target_of(copy_, sample))
    after = copy_.get_params(deep=False)
    replaced = [name for name in before if after[name] is not before[name]]
    changed = [name for name in before if _content(before[name]) != contents[name]]
    expect(not replaced, "fit leaves parameters as they were set", f"other objects in {', '.join(replaced)}")
    expect(not changed, "fit doesn't change the objects given as parameters", f"changes inside {', '.join(changed)}")


def check_fit_sets_no_public_attributes(estimator: Any, sample: Sample) -> None:
    """What `fit` learns is in attributes that end with an underscore, or in private ones that begin with one."""
    copy_ = fresh(estimator)
    before = set(vars(copy_))
    copy_.fit(list(sample.rows), target_of(copy_, sample))
    added = sorted(name for name in set(vars(copy_)) - before if not name.startswith("_") and not name.endswith("_"))
    expect(not added, "attributes that fit sets end with '_'", ", ".join(added))


def check_methods_keep_state(estimator: Any, sample: Sample) -> None:
    """Methods other than `fit` change, add and remove no attribute."""
    copy_ = fitted(estimator, sample)
    for name in methods_of(copy_):
        before = {key: (id(value), _plain_content(value)) for key, value in vars(copy_).items()}
        getattr(copy_, name)(list(sample.rows) + sample.odd_rows)
        after = {key: (id(value), _plain_content(value)) for key, value in vars(copy_).items()}
        different = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        expect(not different, f"{name} changes no attribute", f"changes of {', '.join(different)}")


def check_fit_idempotent(estimator: Any, sample: Sample) -> None:
    """A second `fit` to the same rows with the same seed gives the same estimator."""
    copy_ = fitted(estimator, sample)
    first = answers(copy_, list(sample.rows))
    forget()
    # Again fixed, because a generator object given as random_state has moved on.
    again = fresh(copy_)
    copy_.set_params(**again.get_params(deep=False))
    copy_.fit(list(sample.rows), target_of(copy_, sample))
    same("a second fit to the same rows gives the same answers", first, answers(copy_, list(sample.rows)))


def check_second_fit_forgets_first(estimator: Any, sample: Sample) -> None:
    """`fit` starts anew: nothing is left of an earlier fit to other rows."""
    y = target_of(estimator, sample)
    first, second = slice(0, 12), slice(12, None)
    frame = next((container for container in sample.containers if container.is_frame), None)
    earlier = list(sample.rows)[first]
    twice = fresh(estimator)
    try:
        earlier = earlier if frame is None else frame.make(earlier)
    except SkipTest:
        pass  # without a frame the check still says something
    twice.fit(earlier, y[first])
    twice.fit(sample.rows[second], y[second])
    once = fresh(estimator)
    once.fit(sample.rows[second], y[second])
    seen, wanted = _public_attributes(twice), _public_attributes(once)
    expect(
        seen == wanted,
        "a fit leaves the attributes that it would leave on a new estimator",
        f"left over: {sorted(seen - wanted)}, missing: {sorted(wanted - seen)}",
    )
    same("a fit forgets an earlier one", answers(once, list(sample.rows)), answers(twice, list(sample.rows)))


def check_set_params_takes_effect(estimator: Any, sample: Sample) -> None:
    """After `set_params`, `fit` gives what a new estimator with those parameters gives."""
    X, y = list(sample.rows), target_of(estimator, sample)
    for name, value in _other_settings(estimator):
        new = fresh(estimator).set_params(**{name: value})
        try:
            wanted = answers(new.fit(X, y), X)
        except Exception:
            continue  # not every setting goes with the others; what counts is where it does
        changed = fitted(estimator, sample)
        answers(changed, X)
        changed.set_params(**{name: value}).fit(X, y)
        same(f"set_params({name}={value!r}) takes effect at the next fit", wanted, answers(changed, X))


def check_clone_of_fitted(estimator: Any, sample: Sample) -> None:
    """The clone of a fitted estimator has its parameters and is not fitted."""
    original = fitted(estimator, sample)
    copy_ = clone(original)
    left = sorted(_public_attributes(copy_))
    expect(not left, "a clone has no fitted attributes", ", ".join(left))
    if get_tags(copy_).requires_fit:
        refuses("a clone of a fitted estimator is not fitted", partial(check_is_fitted, copy_), NotFittedError)
    before, after = original.get_params(deep=False), copy_.get_params(deep=False)
    different = [name for name in before if _content(before[name]) != _content(after[name])]
    expect(before.keys() == after.keys() and not different, "a clone has equal parameters", ", ".join(different))


def check_pickle(estimator: Any, sample: Sample) -> None:
    """A pickled and a deep-copied estimator answer as the original does."""
    original = fitted(estimator, sample)
    X = list(sample.rows)
    wanted = answers(original, X)
    content = pickle.dumps(original)
    duplicate = copy.deepcopy(original)
    del original
    forget()
    same("a pickled estimator gives equal answers", wanted, answers(pickle.loads(content), X))
    same("a deep copy gives equal answers", wanted, answers(duplicate, X))


def check_pickle_unfitted(estimator: Any, sample: Sample) -> None:
    """An unfitted estimator can be pickled, and fitted afterwards."""
    restored = pickle.loads(pickle.dumps(fresh(estimator)))
    wanted = answers(fitted(estimator, sample), list(sample.rows))
    same(
        "an estimator that was pickled unfitted gives equal answers",
        wanted,
        answers(fitted(restored, sample), sample.rows),
    )


def check_memory_mapped_pickle(estimator: Any, sample: Sample) -> None:
    """An estimator loaded with read-only, memory-mapped arrays answers as the original does."""
    original = fitted(estimator, sample)
    wanted = answers(original, list(sample.rows))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "estimator"
        joblib.dump(original, path)
        restored = joblib.load(path, mmap_mode="r")
        forget()
        same("a memory-mapped estimator gives equal answers", wanted, answers(restored, list(sample.rows)))
        del restored


def check_documentation(estimator: Any, sample: Sample) -> None:
    """The docstring of the class names every parameter and every public fitted attribute."""
    text = type(estimator).__doc__
    if not text:
        raise SkipTest(f"{type(estimator).__name__} has no docstring")
    # scikit-learn documents these two for all estimators, and sets them on some inputs only.
    common = {"n_features_in_", "feature_names_in_"}
    names = {*estimator.get_params(deep=False), *(_public_attributes(fitted(estimator, sample)) - common)}
    missing = sorted(name for name in names if not re.search(rf"\b{re.escape(name)}\b", text))
    expect(not missing, "the class's docstring describes parameters and fitted attributes", f"no {', '.join(missing)}")


def check_html_repr(estimator: Any, sample: Sample) -> None:
    """The HTML shown in notebooks names the class, before and after fit."""
    for state, one in (("unfitted", fresh(estimator)), ("fitted", fitted(estimator, sample))):
        html = one._repr_html_() if hasattr(one, "_repr_html_") else ""
        name = type(one).__name__
        expect(name in html, f"the HTML of the {state} estimator names {name}", f"{len(html)} characters without it")


def _public_attributes(estimator: Any) -> set[str]:
    return {name for name in vars(estimator) if name.endswith("_") and not name.startswith("_")}


def _content(value: Any) -> Any:
    """Something to compare the inside of a parameter by."""
    if isinstance(value, nn.Module):
        tensors = {name: joblib.hash(tensor.detach().cpu().numpy()) for name, tensor in value.state_dict().items()}
        modes = [module.training for module in value.modules()]
        gradients = [(name, parameter.requires_grad) for name, parameter in value.named_parameters()]
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in value.modules())
        return tensors, modes, gradients, hooks
    inside = list(vars(value).values()) if hasattr(value, "__dict__") and not isinstance(value, type) else []
    if any(isinstance(part, nn.Module) for part in inside):
        return [_content(part) for part in inside]
    return joblib.hash(value)


def _plain_content(value: Any) -> str | None:
    """Hash of what is plain data; other objects are known by their identity alone."""
    if isinstance(value, dict):
        plain = all(_plain_content(part) is not None for part in value.values())
    elif isinstance(value, list | tuple | set):
        plain = all(_plain_content(part) is not None for part in value)
    else:
        plain = value is None or isinstance(value, str | bytes | Real | np.ndarray)
    return joblib.hash(value) if plain else None


def _other_settings(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yield parameters and values that they could have instead, one change at a time."""
    constraints = getattr(estimator, "_parameter_constraints", {})
    for name, value in estimator.get_params(deep=False).items():
        if name in ("verbose", "n_jobs", "random_state", "warm_start"):
            continue
        allowed = constraints.get(name)
        if isinstance(allowed, list):
            candidates = [new for constraint in allowed for new in _values_of(constraint, value)]
        else:
            candidates = _neighbours(value)
        for candidate in candidates:
            if type(candidate) is not type(value) or candidate != value:
                yield name, candidate


def _values_of(constraint: Any, value: Any) -> list[Any]:
    """Values that one of scikit-learn's parameter constraints allows."""
    if constraint is None:
        return [None]
    if isinstance(constraint, str) and constraint == "boolean":
        return [True, False]
    if isinstance(constraint, StrOptions):
        return sorted(constraint.options)
    if isinstance(constraint, Interval):
        if isinstance(value, Real) and not isinstance(value, bool):
            return [new for new in _neighbours(value) if new in constraint]
        low = 1 if constraint.left is None else int(constraint.left)
        return [new for new in (low + 1, 0.5) if new in constraint][:1]
    if constraint is Integral:
        return [0]
    return []


def _neighbours(value: Any) -> list[Any]:
    """Values of the same type near a value."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, Integral):
        return [value + 1]
    if isinstance(value, Real):
        return [value / 2]
    return []
