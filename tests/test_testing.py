import ast
import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import pytest
import torch
from sklearn.exceptions import EstimatorCheckFailedWarning
from sklearn.utils import estimator_checks as of_scikit_learn
from support.sins import SINS, FitReturnsNone, PublicAttribute
from support.toys import (
    SeriesClassifier,
    SeriesRegressor,
    SeriesTransformer,
    ToyClassifier,
    ToyRegressor,
    ToyTransformer,
)

from sktransfer.testing import LEFT_OUT, MAPPING, check_transfer_estimator, transfer_estimator_checks

TOYS = (ToyTransformer(), ToyClassifier(), ToyRegressor())
SERIES_TOYS = (SeriesTransformer(), SeriesClassifier(), SeriesRegressor())


def base_name(check):
    return check.name.split("[")[0]


def all_checks(*kinds):
    return [
        pair
        for kind in kinds
        for toy in (SERIES_TOYS if kind == "series" else TOYS)
        for pair in transfer_estimator_checks(toy, kind)
    ]


@pytest.fixture
def restored_process(monkeypatch):
    """Undo what the estimators that break things do to the process."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    environment = dict(os.environ)
    threads, levels = torch.get_num_threads(), {name: logging.getLogger(name).level for name in (None, "PIL")}
    yield
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]


@pytest.mark.parametrize("estimator, check", all_checks("text"), ids=str)
def test_honest_estimators_of_texts_pass(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator, check", all_checks("image"), ids=str)
def test_honest_estimators_of_images_pass(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator, check", all_checks("series"), ids=str)
def test_honest_estimators_of_series_pass(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name, sinner, kind", SINS, ids=lambda value: getattr(value, "__name__", value))
def test_the_check_notices(name, sinner, kind, restored_process):
    estimator = sinner()
    failures = []
    for _, check in transfer_estimator_checks(estimator, kind):
        if base_name(check) == name:
            try:
                check(estimator)
            except SkipTest:
                continue
            except Exception as error:
                failures.append(error)
    assert failures, f"{sinner.__name__} got through {name}"
    assert all(str(error) and name in "".join(error.__notes__) for error in failures)


def test_every_check_has_an_estimator_that_fails_it():
    assert {base_name(check) for _, check in all_checks("text", "image", "series")} == {name for name, _, _ in SINS}


def test_no_check_of_scikit_learn_is_forgotten():
    source = ast.parse(inspect.getsource(of_scikit_learn))
    functions = {one.name: one for one in source.body if isinstance(one, ast.FunctionDef)}
    yielded = {
        name.id
        for generator in functions
        if generator.startswith("_yield_") or generator == "estimator_checks_generator"
        for name in ast.walk(functions[generator])
        if isinstance(name, ast.Name) and name.id.startswith("check_") and name.id in functions
    }
    # Not yielded to other packages' estimators: what takes a name and an estimator is a check too.
    others = {
        name
        for name, function in functions.items()
        if name.startswith("check_")
        and len(function.args.args) - len(function.args.defaults) == 2
        and function.args.args[0].arg == "name"
    }
    accounted = MAPPING.keys() | LEFT_OUT.keys()
    assert not (yielded | others) - accounted
    assert accounted <= functions.keys()
    assert not MAPPING.keys() & LEFT_OUT.keys()


def test_what_stands_for_a_check_of_scikit_learn_exists():
    ours = {base_name(check) for _, check in all_checks("text")}
    assert {name for names in MAPPING.values() for name in names} <= ours


@pytest.mark.parametrize("estimator", TOYS, ids=str)
def test_names_of_checks_are_unique(estimator):
    for kind in ("text", "image", "series"):
        names = [check.name for _, check in transfer_estimator_checks(estimator, kind)]
        assert len(names) == len(set(names))


def test_results_are_those_of_check_estimator():
    results = check_transfer_estimator(ToyTransformer(), kind="text")
    assert {result["status"] for result in results} == {"passed", "skipped"}
    assert all(str(result["exception"]) for result in results if result["status"] == "skipped")
    theirs = {"estimator", "check_name", "exception", "status", "expected_to_fail", "expected_to_fail_reason"}
    assert all(result.keys() == theirs for result in results)


def test_first_failure_is_raised():
    with pytest.raises(AssertionError, match="end with '_'. Seen: vectors"):
        check_transfer_estimator(PublicAttribute(), kind="text")


def test_failures_are_reported_and_warned_of():
    seen = []
    with pytest.warns(EstimatorCheckFailedWarning, match="check_fit_sets_no_public_attributes"):
        results = check_transfer_estimator(
            PublicAttribute(), kind="text", on_fail="warn", callback=lambda **result: seen.append(result)
        )
    failed = [result["check_name"] for result in results if result["status"] == "failed"]
    assert failed == ["check_fit_sets_no_public_attributes"]
    assert seen == results


def test_expected_failure_is_not_raised():
    expected = {"check_fit_sets_no_public_attributes": "the reason", "check_container[tuple]": "passes anyway"}
    results = check_transfer_estimator(PublicAttribute(), kind="text", expected_failed_checks=expected)
    by_name = {result["check_name"]: result for result in results}
    failed = by_name["check_fit_sets_no_public_attributes"]
    assert (failed["status"], failed["expected_to_fail_reason"]) == ("xfail", "the reason")
    assert by_name["check_container[tuple]"]["status"] == "passed"


def test_expected_failure_stands_for_all_cases():
    results = check_transfer_estimator(
        FitReturnsNone(), kind="text", expected_failed_checks={"check_container": "no chain"}, on_fail=None
    )
    cases = [result for result in results if result["check_name"].startswith("check_container[")]
    assert len(cases) > 5
    assert {result["status"] for result in cases} == {"xfail"}


def test_misuse_is_explained():
    toy = ToyTransformer()
    with pytest.raises(
        ValueError, match="kind must be one of 'text', 'image', 'series'. Got 'texts'. Did you mean 'text'"
    ):
        check_transfer_estimator(toy, kind="texts")
    with pytest.raises(TypeError, match=r"not the class: ToyTransformer\(\)"):
        check_transfer_estimator(ToyTransformer, kind="text")
    with pytest.raises(ValueError, match="'check_pikle'.*Did you mean 'check_pickle'"):
        check_transfer_estimator(toy, kind="text", expected_failed_checks={"check_pikle": "typo"})
    with pytest.raises(ValueError, match="on_fail must be"):
        check_transfer_estimator(toy, kind="text", on_fail="ignore")
    with pytest.raises(ValueError, match="callback"):
        check_transfer_estimator(toy, kind="text", callback=print)


def test_missing_packages_skip_their_checks():
    program = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def without(name, *args):
    return None if name.split(".")[0] in ("pytest", "pandas", "polars") else find(name, *args)
PathFinder.find_spec = without
from unittest import SkipTest
from support.toys import ToyTransformer
from sktransfer.testing import check_transfer_estimator
for result in check_transfer_estimator(ToyTransformer(), kind="text"):
    if result["status"] == "skipped":
        print(result["check_name"], result["exception"])
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "check_container[pandas Series] pandas is not installed" in run.stdout
    assert "check_set_output[polars] polars is not installed" in run.stdout
