"""Run the checks."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import SkipTest

from sklearn.exceptions import EstimatorCheckFailedWarning

from sktransfer._nearest import did_you_mean
from sktransfer.testing.kinds import KINDS
from sktransfer.testing.selection import checks_for


@dataclass(frozen=True)
class Check:
    """One contract, ready to be held against an estimator: call it with the estimator.

    Attributes
    ----------
    name : str
        Its name, with what it was made for in brackets: ``check_container[polars Series]``.
    contract : str
        What is asked, in a sentence.
    run : callable
        Takes an estimator and a folder for files.
    """

    name: str
    contract: str
    run: Callable[[Any, Path], None]

    def __call__(self, estimator: Any) -> None:
        """Raise an error, an AssertionError in most cases, if the estimator breaks the contract."""
        try:
            with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
                # So few rows make solvers warn; what a check wants to know of warnings it records itself.
                warnings.simplefilter("ignore")
                self.run(estimator, Path(folder))
        except Exception as error:
            if not isinstance(error, SkipTest):
                error.add_note(f"In {self.name} of sktransfer.testing: {self.contract}")
            raise

    def __str__(self) -> str:
        return self.name


def transfer_estimator_checks(estimator: Any, kind: str) -> list[tuple[Any, Check]]:
    """Return the checks for an estimator, for a parametrised test.

    Parameters
    ----------
    estimator : estimator
        An instance; the checks work on clones of it.
    kind : {"text", "image", "series"}
        Kind of row that it reads.

    Returns
    -------
    list of (estimator, Check)
        The estimator itself, and a check to be called with it; ``str(check)`` is the check's name.

    Raises
    ------
    TypeError
        If `estimator` is a class.
    ValueError
        If `kind` is not known.

    See Also
    --------
    check_transfer_estimator : Run them all.

    Examples
    --------
    >>> import pytest
    >>> from sktransfer import PretrainedFeatureExtractor
    >>> from sktransfer.testing import transfer_estimator_checks
    >>> checks = transfer_estimator_checks(PretrainedFeatureExtractor(), "text")
    >>> @pytest.mark.parametrize("estimator, check", checks, ids=str)
    ... def test_contract(estimator, check):
    ...     check(estimator)
    """
    if isinstance(estimator, type):
        raise TypeError(f"The checks take an instance, not the class: {estimator.__name__}().")
    if kind not in KINDS:
        raise ValueError(
            f"kind must be one of {', '.join(map(repr, KINDS))}. Got {kind!r}.{did_you_mean(str(kind), KINDS)}"
        )
    return [(estimator, Check(*selected)) for selected in checks_for(estimator, kind)]


def check_transfer_estimator(
    estimator: Any,
    *,
    kind: str,
    expected_failed_checks: dict[str, str] | None = None,
    on_fail: Literal["raise", "warn"] | None = "raise",
    callback: Callable[..., None] | None = None,
) -> list[dict[str, Any]]:
    """Hold an estimator that reads texts, images or time series against scikit-learn's conventions.

    scikit-learn's own `check_estimator` hands over tables of numbers, and skips estimators that read anything else.
    These checks ask the same of them, with rows that they read, and some things that matter more for networks: that
    random generators and other global settings stay as they were, that a row's result does not depend on its batch
    mates, that nothing stale is left after `set_params`.

    Parameters
    ----------
    estimator : estimator
        An instance; the checks work on clones of it.
    kind : {"text", "image", "series"}
        Kind of row that it reads.
    expected_failed_checks : dict of str to str, default=None
        Names of checks that are expected to fail, with the reason. ``check_container`` stands for all of its cases,
        ``check_container[tuple]`` for one.
    on_fail : {"raise", "warn"} or None, default="raise"
        Whether a failure that is not expected is raised at once, shown as a warning, or only reported.
    callback : callable, default=None
        Called after each check with the entries of its result as keyword arguments. Goes with `on_fail` "warn" or
        None.

    Returns
    -------
    list of dict
        For each check "estimator", "check_name", "exception", "status" ("passed", "failed", "skipped" or "xfail"),
        "expected_to_fail" and "expected_to_fail_reason", as `sklearn.utils.estimator_checks.check_estimator` gives
        them. The exception of a skipped check says why it was skipped.

    Raises
    ------
    TypeError
        If `estimator` is a class.
    ValueError
        If `kind` or a name in `expected_failed_checks` is not known, or a callback is given with ``on_fail="raise"``.
    Exception
        With ``on_fail="raise"``, the first failure that is not expected: an AssertionError that says what is asked
        and what was seen, or what the estimator itself raised.

    See Also
    --------
    transfer_estimator_checks : The same for a parametrised test.

    Notes
    -----
    The memory cache of the process is emptied many times.

    Examples
    --------
    >>> from sktransfer import PretrainedFeatureExtractor
    >>> from sktransfer.testing import check_transfer_estimator
    >>> results = check_transfer_estimator(PretrainedFeatureExtractor(), kind="text")
    >>> sorted({result["status"] for result in results})
    ['passed', 'skipped']
    """
    if on_fail not in ("raise", "warn", None):
        raise ValueError(f"on_fail must be 'raise', 'warn' or None. Got {on_fail!r}.")
    if on_fail == "raise" and callback is not None:
        raise ValueError("callback can't be given together with on_fail='raise'; use on_fail='warn' or None.")
    pairs = transfer_estimator_checks(estimator, kind)
    expected = expected_failed_checks or {}
    _check_names(expected, [check.name for _, check in pairs])
    outcomes = []
    for one, check in pairs:
        base = check.name.split("[")[0]
        reason = expected.get(check.name, expected.get(base))
        outcome = _outcome(one, check, reason, on_fail)
        outcomes.append(outcome)
        if callback is not None:
            callback(**outcome)
    return outcomes


def _check_names(expected: dict[str, str], names: list[str]) -> None:
    known = {*names, *(name.split("[")[0] for name in names)}
    for name in expected:
        if name not in known:
            raise ValueError(
                f"expected_failed_checks names {name!r}, but this estimator gets no such check.{did_you_mean(name, known)}"
            )


def _outcome(estimator: Any, check: Check, reason: str | None, on_fail: str | None) -> dict[str, Any]:
    outcome = {
        "estimator": estimator,
        "check_name": check.name,
        "exception": None,
        "status": "passed",
        "expected_to_fail": reason is not None,
        "expected_to_fail_reason": reason or "Check is not expected to fail",
    }
    try:
        check(estimator)
    except SkipTest as error:
        outcome.update(exception=error, status="skipped")
    except Exception as error:
        if reason is None and on_fail == "raise":
            raise
        outcome.update(exception=error, status="failed" if reason is None else "xfail")
        if on_fail == "warn":
            warnings.warn(EstimatorCheckFailedWarning(**outcome), stacklevel=3)
    return outcome
