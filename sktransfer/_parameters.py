"""What values parameters may have, and what numpy's scalars among them stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any

import numpy as np

from sktransfer._compat import Interval, Options, RealNotInt
from sktransfer._paths import is_path

# What a number of rows, epochs or tokens is counted in, and what a network computes in.
_LARGEST_INT = 2**63 - 1
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


class _Number(Interval):
    """An interval of finite numbers, of which True and False are none."""

    def is_satisfied_by(self, val: Any) -> bool:
        if not is_number(val):
            return False
        if isinstance(val, Integral):
            return self.type is not RealNotInt and super().is_satisfied_by(val)
        # A fraction, or a number of numpy that is not registered as RealNotInt, is compared as what is computed with.
        return self.type is not Integral and float(val) in self


class Where(Options):
    """Values for which a function holds.

    Parameters
    ----------
    accepts : callable
        Takes a value, and returns whether it is valid.
    words : str
        What valid values are.
    """

    def __init__(self, accepts: Callable[[Any], bool], words: str):
        super().__init__(object, set())
        self.accepts = accepts
        self.words = words

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether a value is valid."""
        return self.accepts(val)

    def __str__(self) -> str:
        return self.words


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold, and neither True nor False."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def is_int(value: Any) -> bool:
    """Whether a value is a whole number of at most 64 bits, and neither True nor False."""
    return isinstance(value, Integral) and not isinstance(value, bool) and -_LARGEST_INT <= int(value) <= _LARGEST_INT


def whole(least: int, most: int = _LARGEST_INT) -> Interval:
    """Return the constraint of a whole number, both ends included."""
    return _Number(Integral, least, most, closed="both")


def real(least: float, most: float = _LARGEST_FLOAT, *, closed: str = "both") -> Interval:
    """Return the constraint of a number."""
    return _Number(Real, least, most, closed=closed)


def share_of_rows() -> list[Interval]:
    """Return the constraints of a number of rows to hold back: a share of them between 0 and 1, or how many."""
    return [_Number(RealNotInt, 0, 1, closed="neither"), whole(1)]


def random_states() -> list[Any]:
    """Return the constraints of a `random_state`."""
    return [whole(0, 2**32 - 1), np.random.RandomState, None]


def path_or_name() -> Where:
    """Return the constraint of a name or a path, which None is not."""
    return Where(
        is_path, "a name or a path (a str or pathlib.Path, not empty, without NUL, and not too long for a path)"
    )


def plain(value: Any) -> Any:
    """Return what a value is in Python's own types: a number, a truth value, a text, or a list or tuple of them.

    A grid made with numpy holds numpy's scalars, which not all of torch takes, and which count in single precision.
    """
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    if isinstance(value, np.floating) or (is_number(value) and not is_int(value)):
        return float(value)  # the item of a longdouble is one; torch takes no fractions, and no int above 64 bits
    return value.item() if isinstance(value, np.bool_ | np.integer | np.str_) else value


def plain_parameters(estimator: Any) -> SimpleNamespace:
    """Return the parameters of an estimator as attributes, in Python's own types; the estimator keeps what it was given."""
    return SimpleNamespace(**{name: plain(value) for name, value in estimator.get_params(deep=False).items()})
