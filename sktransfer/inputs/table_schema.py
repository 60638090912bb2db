"""What a network knows of a table's columns: means, deviations, medians, categories, where values were missing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sktransfer.inputs.table_columns import levels_to_caller, refuse_texts
from sktransfer.inputs.table_rows import Table


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers.

    Attributes
    ----------
    mean, scale : float
        Mean and standard deviation of the values seen in the fit; 1 where they were all alike.
    missing : bool
        Whether values were missing in the fit.
    empty : bool, default=False
        Whether all of them were, so that they may have been meant as strings, and a number says nothing.
    median : float or None, default=None
        Median of the values seen in the fit, which stands for a missing one where none was missing there; None where
        some were, which have an indicator instead.
    """

    mean: float
    scale: float
    missing: bool
    empty: bool = False
    median: float | None = None

    @property
    def stand_in(self) -> float:
        """What stands for a missing value where none was missing in the fit."""
        return self.mean if self.median is None else self.median  # pickles of former versions have no median


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of strings.

    Attributes
    ----------
    categories : tuple of str
        Those seen in the fit, in alphabetical order; the code of one is its place. The next code is for strings
        not seen in the fit, the one after that for missing values, where the fit saw some.
    missing : bool
        Whether values were missing in the fit.
    """

    categories: tuple[str, ...]
    missing: bool

    @property
    def codes(self) -> int:
        """Number of codes."""
        return len(self.categories) + 2


@dataclass(frozen=True)
class TableSchema:
    """What is known of a table's columns from the rows of a fit.

    Attributes
    ----------
    names : tuple of str or None
        Names of the columns, where they had some.
    columns : tuple of NumericColumn or CategoricalColumn
        One for each column.
    """

    names: tuple[str, ...] | None
    columns: tuple[NumericColumn | CategoricalColumn, ...]

    @classmethod
    def learnt_from(cls, table: Table, weights: np.ndarray | None = None) -> TableSchema:
        """Take down the columns of a table.

        Parameters
        ----------
        table : Table
            The rows of a fit.
        weights : ndarray of shape (n_rows,), optional
            Weights of the rows in means and deviations; a row of weight 2 counts as two. Medians are those of all rows
            with a weight.

        Raises
        ------
        ValueError
            If a value is infinite, or a column holds free text.
        """
        refuse_texts(table)
        check_infinite(table)
        scaled = iter(_numeric_columns(np.delete(table.numbers, list(table.strings), axis=1), weights))
        columns = [
            _categorical_column(table.strings[place]) if place in table.strings else next(scaled)
            for place in range(table.width)
        ]
        return cls(table.names, tuple(columns))

    def places(self, kind: type) -> list[int]:
        """Return the places of the columns of one kind."""
        return [place for place, column in enumerate(self.columns) if isinstance(column, kind)]

    def read(self, table: Table) -> np.ndarray:
        """Turn a table into one row of numbers and codes for each row.

        Parameters
        ----------
        table : Table
            With the columns of the fit, in their order.

        Returns
        -------
        ndarray of shape (n_rows, n_columns), float64
            Numbers as they are; codes of strings. A missing number is NaN, or the fit's median where none was missing in
            the fit; a missing string has its code, or there that of strings not seen in the fit.

        Raises
        ------
        ValueError
            If the columns are others, hold strings instead of numbers or the other way round, or a number is infinite.
        """
        self._check_columns(table)
        check_infinite(table)
        out = table.numbers.copy()
        for place, column in enumerate(self.columns):
            if isinstance(column, CategoricalColumn):
                out[:, place] = _encode(table.strings.get(place, [None] * len(table)), column)
            elif column.empty:
                out[:, place] = np.nan  # without a mean and a deviation a number says nothing
            elif not column.missing:
                out[np.isnan(out[:, place]), place] = column.stand_in
        return out

    def _check_columns(self, table: Table) -> None:
        if self.names is not None and table.names is not None and self.names != table.names:
            raise ValueError(
                "The feature names should match those that were passed during fit. The backbone knows the columns "
                f"{_shortened(self.names)}; X has {_shortened(table.names)}. Bring the same columns, in the same order."
            )
        if table.width != len(self.columns):
            raise ValueError(
                f"X has {table.width} features, but the backbone is expecting {len(self.columns)} features."
            )
        for place, column in enumerate(self.columns):
            if isinstance(column, NumericColumn) == (place in table.strings):
                if place not in table.strings and np.isnan(table.numbers[:, place]).all():
                    continue  # nothing but missing values is of no type
                held, holds, to = ("numbers", "strings", "a number type")
                if place not in table.strings:
                    held, holds, to = "strings or categories", "numbers", "str or 'category'"
                if isinstance(column, NumericColumn) and column.empty:
                    raise ValueError(
                        f"X holds strings in {table.label(place)}, which held only missing values in the fit, so that nothing "
                        "is known of strings there. Fit to rows that hold some, or leave the column out."
                    )
                raise ValueError(
                    f"X holds {holds} in {table.label(place)}, which held {held} in the fit. Convert the column "
                    f"with .astype to {to}, as it was there."
                )

    def check_fit(self, table: Table) -> None:
        """Refuse the rows of another fit whose strings are free text, not categories; warn of values that are not read.

        Raises
        ------
        ValueError
            If there are columns of free text.

        Warns
        -----
        UserWarning
            If there are values in columns that held none when the network was made.
        """
        unread = [
            table.label(place)
            for place, column in enumerate(self.columns)
            if isinstance(column, NumericColumn) and column.empty and not np.isnan(table.numbers[:, place]).all()
        ]
        if unread:
            warnings.warn(
                f"X holds values in {', '.join(unread)}, of which the backbone's fit saw none: they are read as missing. "
                "Leave such columns out, or begin with a network that was made for them.",
                UserWarning,
                stacklevel=levels_to_caller(),
            )
        refuse_texts(
            table, {i: set(c.categories) for i, c in enumerate(self.columns) if isinstance(c, CategoricalColumn)}
        )

    def describe(self) -> dict[str, object]:
        """Return everything that decides what a row becomes."""
        # Not `empty`, which only decides what is said, nor a median that stands for nothing.
        columns = [
            {k: v for k, v in asdict(column).items() if k != "empty" and (k != "median" or v is not None)}
            for column in self.columns
        ]
        return {"names": self.names, "columns": columns}


def _shortened(names: Sequence[str]) -> str:
    return f"[{', '.join(map(repr, names[:8]))}{', ...' if len(names) > 8 else ''}]"


def check_infinite(table: Table) -> None:
    """Raise a ValueError that names the first infinite value."""
    if not np.isinf(table.numbers).any():
        return
    rows, places = np.nonzero(np.isinf(table.numbers))
    raise ValueError(
        f"Row {rows[0]} of X has infinity in {table.label(places[0])} ({len(rows)} such values in all). No network reads it: "
        "replace it with a finite number, or with NaN where the value is unknown."
    )


def check_complete(table: Table, advice: str) -> None:
    """Raise a ValueError that names the first missing value, and goes on with the advice."""
    missing = np.isnan(table.numbers)
    for place, values in table.strings.items():
        missing[:, place] = [value is None for value in values]
    rows, places = np.nonzero(missing)
    if len(rows):
        raise ValueError(
            f"Row {rows[0]} of X has NaN, a missing value, in {table.label(places[0])} ({len(rows)} such values in all). "
            + advice
        )


def _numeric_columns(numbers: np.ndarray, weights: np.ndarray | None) -> list[NumericColumn]:
    """Mean and standard deviation of each column, without overflow whatever the values."""
    seen = ~np.isnan(numbers)
    share = seen.astype(np.float64) if weights is None else seen * weights[:, None]
    total = share.sum(axis=0)
    count = np.where(total > 0, total, 1.0)
    largest = np.abs(numbers, where=seen, out=np.zeros_like(numbers)).max(axis=0, initial=0.0)
    unit = np.where(largest > 0, largest, 1.0)
    small = np.where(seen, numbers / unit, 0.0)
    mean = (small * share).sum(axis=0) / count
    deviation = np.sqrt((np.where(seen, small - mean, 0.0) ** 2 * share).sum(axis=0) / count)
    # What is left of equal values after rounding is no spread.
    constant = deviation <= 10 * np.finfo(np.float64).eps * np.maximum(np.abs(mean), 1.0)
    scale = np.where(constant, 1.0, deviation * unit)
    complete = seen.all(axis=0)
    median = np.full(len(mean), np.nan)
    counted = slice(None) if weights is None or not (weights > 0).any() else weights > 0
    # Halves, since the sum of the two in the middle could overflow.
    median[complete] = np.median(numbers[counted][:, complete] * 0.5, axis=0) * 2
    return [
        NumericColumn(float(m), float(s) or 1.0, not bool(c), not bool(some), float(middle) if c else None)
        for m, s, c, some, middle in zip(mean * unit, scale, complete, seen.any(axis=0), median, strict=True)
    ]


def _categorical_column(values: list[str | None]) -> CategoricalColumn:
    categories = {value for value in set(values) if value is not None}
    return CategoricalColumn(tuple(sorted(categories)), None in values)


def _encode(values: list[str | None], column: CategoricalColumn) -> np.ndarray:
    unseen = len(column.categories)
    codes: dict[str | None, int] = {category: code for code, category in enumerate(column.categories)}
    # Distinct strings that are new get their code here, so that the rows below only look up.
    codes.update({value: unseen for value in set(values) - codes.keys()})
    codes[None] = unseen + 1 if column.missing else unseen
    return np.fromiter(map(codes.__getitem__, values), dtype=np.float64, count=len(values))
