"""Rows for the checks: what a kind of input has to bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np


@dataclass(frozen=True)
class Container:
    """One of the forms in which the same rows can be handed over.

    Attributes
    ----------
    name : str
        Shown in the name of the check.
    make : callable
        From a list of plain rows to the container; raises SkipTest where a package is missing.
    tells_kind : bool
        Whether an estimator that is not told the kind of row can see it. Strings with file names can't: they are
        read as images only by an estimator that was fitted on images.
    is_frame : bool
        Whether it has a column with a name.
    """

    name: str
    make: Callable[[list[Any]], Any]
    tells_kind: bool = True
    is_frame: bool = False


@dataclass(frozen=True)
class Sample:
    """Rows of one kind and everything that the checks do with them.

    A further kind of input is one function that makes a `Sample`, put into `sktransfer.testing.kinds.KINDS`.

    Attributes
    ----------
    kind : str
        Its name.
    rows : list
        Plain rows, all of the same type and shape, as many of each topic.
    topics : ndarray of int
        0, 1 or 2 for each row: what a classifier has to find, and can.
    containers : list of Container
        Other forms of the plain rows. They must give the same result as the list.
    odd_rows : list
        Rows that are valid, but hard to read.
    missing : list
        What stands for a row that is not there.
    wrong_rows : list
        Values that are no row of this kind.
    wrong_inputs : dict of str to object
        Whole inputs of another kind, by what they are.
    bare_rows : list
        Single rows that somebody forgot to put into a list.
    """

    kind: str
    rows: list[Any]
    topics: np.ndarray
    containers: list[Container]
    odd_rows: list[Any]
    missing: list[Any]
    wrong_rows: list[Any]
    wrong_inputs: dict[str, Any]
    bare_rows: list[Any]

    @property
    def labels(self) -> np.ndarray:
        """Names of the topics; their order in the alphabet is not the order of the numbers."""
        return np.array(["sea", "kitchen", "music"])[self.topics]

    @property
    def targets(self) -> np.ndarray:
        """Numbers to regress on: one level for each topic, and a little of their own for each row."""
        return 2.0 * self.topics - 2.0 + 0.01 * np.arange(len(self.topics))

    def pick(self, *topics: int) -> tuple[list[Any], np.ndarray]:
        """Return the rows of some topics, and the places they had."""
        places = np.flatnonzero(np.isin(self.topics, topics))
        return [self.rows[place] for place in places], places


MakeSample = Callable[[Path], Sample]


class ArrayProtocol:
    """Something that is no array, but can be made into one."""

    def __init__(self, values: Any):
        self._values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._values, dtype=dtype)


def objects(rows: list[Any]) -> np.ndarray:
    """Put rows into an object array of shape (n,), whatever they are."""
    out = np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows):
        out[place] = row
    return out


def pandas() -> Any:
    """Import pandas, or skip the check."""
    try:
        import pandas
    except ImportError as error:
        raise SkipTest("pandas is not installed") from error
    return pandas


def polars() -> Any:
    """Import polars, or skip the check."""
    try:
        import polars
    except ImportError as error:
        raise SkipTest("polars is not installed") from error
    return polars
