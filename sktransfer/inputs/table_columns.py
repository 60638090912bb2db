"""Columns of a table that no network for tables can learn from: free texts, identifiers, dates."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from sktransfer.inputs.table_rows import Table

# Words of a value on average from which on values that differ are texts, and from which on some may repeat.
_WORDS_OF_A_TEXT, _WORDS_OF_A_LONG_TEXT = 4, 10
_FEWEST_LONG_TEXTS = 20
# Share of values that differ from which on a column identifies its rows. In a small table all names or countries may
# differ, so there the values have to look like identifiers, too.
_UNIQUE = 0.9
_FEWEST_UNIQUE, _FEWEST_IDENTIFIERS = 20, 5
_LOOKED_AT = 1000

# Scripts without spaces: three characters (of Thai, Lao, Burmese, Khmer, Japanese and Chinese) count as a word.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_CHARACTERS_PER_WORD = 3
_WORD = re.compile(r"\S*[^\W\d_]\S*")

_MONTH = r"(?:0?[1-9]|1[0-2])"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:1[5-9]|20|21)\d\d"
_NAMED_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_TIME = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?\s*(?:[AP]\.?M\.?)?\s*(?:Z|UTC|GMT|[+-]\d\d:?(?:\d\d)?)?"
_DATE = re.compile(
    rf"""(?:[A-Z][a-z]{{2,8}},?\s+)?              # day of the week
    (?:{_YEAR}([-/.]){_MONTH}\1{_DAY}             # 2024-01-31
    |{_YEAR}-(?:0[1-9]|1[0-2])                    # 2024-01
    |{_MONTH}[/.-]{_YEAR}                         # 01/2024
    |{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])
    |{_YEAR}-?W[0-5]\d(?:-?[1-7])?                # 2024-W05
    |{_YEAR}\s?年\s?{_MONTH}\s?月(?:\s?{_DAY}\s?日)?
    |{_YEAR}-{_NAMED_MONTH}-{_DAY}                # 2024-Jan-31
    |{_NAMED_MONTH}\s+{_DAY}\s+{_TIME}\s+{_YEAR}   # as time.ctime has it
    |(?:{_DAY}([-/.]){_MONTH}|{_MONTH}([-/.]){_DAY})(?:\2|\3)(?:{_YEAR}|\d\d)
    |{_DAY}(?:st|nd|rd|th)?[-\s.]+(?:of\s+)?{_NAMED_MONTH}[-,\s]+(?:{_YEAR}|\d\d)
    |{_NAMED_MONTH}\s+{_DAY}(?:st|nd|rd|th)?,?\s+{_YEAR})
    (?:[T,\s]+{_TIME})?""",
    re.VERBOSE | re.IGNORECASE,
)
# "grid" and "paid" end with "id", too.
_NAMED_IDENTIFIER = re.compile(r"(?i:(?:.*[^a-z])?(?:id|index|idx|uuid|guid|rowid)|unnamed: 0)|.*[a-z](?:Id|ID)")

# Columns that a fit has warned of; the estimators inside of it don't repeat them.
_warned_of: ContextVar[set[int | str] | None] = ContextVar("_warned_of", default=None)


def refuse_texts(table: Table, known: Mapping[int, Collection[str]] | None = None) -> None:
    """Refuse columns of free text, which are no categories.

    A column is free text if its values have four words or more on average and most of them differ; of values with ten
    words or more some may repeat.

    Parameters
    ----------
    table : Table
        The rows of a fit.
    known : dict of int to collection of str, optional
        Categories that a network has learnt already, by place of the column. A column that holds mostly those is none of
        free text.

    Raises
    ------
    ValueError
        If there is a column of free text; it names all of them.
    """
    found = {}
    for place, values in table.strings.items():
        present = [value for value in values if value is not None and not value.isspace() and value]
        learnt = (known or {}).get(place, ())
        if not present or sum(value in learnt for value in present) * 2 >= len(present):
            continue
        distinct, words = len(set(present)), _mean_words(present)
        mostly_differ = distinct * 2 > len(present)
        if words >= _WORDS_OF_A_LONG_TEXT and distinct >= _FEWEST_LONG_TEXTS:
            mostly_differ = distinct * 10 > len(present)
        if words >= _WORDS_OF_A_TEXT and mostly_differ:
            found[place] = (
                f"{table.label(place)} ({words:.0f} words on average, {distinct} of {len(present)} values differ)"
            )
    if not found:
        return
    names = [repr(table.names[place]) if table.names is not None else str(place) for place in found]
    columns = [f"X[{name}]" if table.names is not None else f"X[:, {name}]" for name in names]
    steps = ", ".join(f"('text{i}', PretrainedFeatureExtractor(), {name})" for i, name in enumerate(names[:3]))
    steps += ", ..." * (len(names) > 3)
    rest = set(range(table.width)) - found.keys()
    remainder = ", remainder='passthrough'" if rest and not rest & table.strings.keys() else ""
    joined = ' + " " + '.join(columns) if len(columns) > 1 else None
    raise ValueError(
        f"X holds free text in {', '.join(found.values())}. A table's strings are categories, and nothing can be learnt from "
        "categories that hardly repeat. Embed each text column with a network for texts, "
        f"ColumnTransformer([{steps}]{remainder}); or give one column of texts as X, {columns[0]}"
        f"{f'; or join them, {joined}' if joined else ''}; or leave {'them' if joined else 'it'} out."
    )


@contextmanager
def one_warning() -> Iterator[None]:
    """Let the fits inside warn of each column once."""
    token = _warned_of.set(set()) if _warned_of.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _warned_of.reset(token)


def warn_of_columns(table: Table) -> None:
    """Warn of columns that identify their rows, and of dates that are read as categories, once for all of them.

    Parameters
    ----------
    table : Table
        The rows of a fit.

    Warns
    -----
    UserWarning
        If there are such columns.
    """
    warned_of = _warned_of.get()
    dates: list[str] = []
    identifiers: list[str] = []
    for place in range(table.width):
        key = table.names[place] if table.names is not None else place
        if warned_of is not None and key in warned_of:
            continue
        values: list[str] | list[int] = []
        listed = identifiers
        if place in table.strings:
            present = [value for value in table.strings[place] if value is not None]
            if _are_dates(present):
                values, listed = present, dates
            elif _identify(present):
                values = present
        elif isinstance(key, str) and _count_rows(key, table.numbers[:, place]):
            values = [int(value) for value in table.numbers[:, place]]
        if not values:
            continue
        shown = f"{values[0]!r}, {values[1]!r}, ..."
        listed.append(f"{table.label(place)} ({len(set(values))} of {len(values)} values differ: {shown})")
        if warned_of is not None:
            warned_of.add(key)
    parts = []
    if identifiers:
        parts.append(
            f"X holds what looks like identifiers in {', '.join(identifiers)}. Every value occurs once, or nearly so, so that "
            "nothing can be learnt from it for other rows. Leave such a column out, for example X.drop(columns=[...]); convert "
            "strings that are numbers with .astype(float); embed texts with PretrainedFeatureExtractor in a ColumnTransformer."
        )
    if dates:
        parts.append(
            f"X holds dates as strings in {', '.join(dates)}. Each is a category of its own, and a date not seen in fit is an "
            "unknown one. Turn them into numbers, such as year, month, day of the week, or days since the first."
        )
    if parts:
        warnings.warn(" ".join(parts), UserWarning, stacklevel=levels_to_caller())


def _mean_words(values: list[str]) -> float:
    looked_at = values[:: max(1, len(values) // _LOOKED_AT)]
    return sum(map(_n_words, looked_at)) / len(looked_at)


def _n_words(value: str) -> float:
    spaced, n_unspaced = _UNSPACED.subn(" ", value)
    return len(_WORD.findall(spaced)) + n_unspaced / _CHARACTERS_PER_WORD


def _are_dates(values: list[str]) -> bool:
    looked_at = values[:: max(1, len(values) // _LOOKED_AT)]
    if len(set(looked_at)) < 2:
        return False
    return sum(_DATE.fullmatch(value.strip()) is not None for value in looked_at) >= 0.95 * len(looked_at)


def _identify(values: list[str]) -> bool:
    """Whether strings differ from row to row, in few rows only if they look as if they were made to."""
    if len(values) < _FEWEST_IDENTIFIERS or len(set(values)) < _UNIQUE * len(values):
        return False
    return len(values) >= _FEWEST_UNIQUE or all(re.search(r"\d|@", value) for value in values)


def _count_rows(name: str, numbers: np.ndarray) -> bool:
    """Whether a column of numbers is an identifier by its name and its values, which are whole and all differ."""
    if len(numbers) < _FEWEST_IDENTIFIERS or not _NAMED_IDENTIFIER.fullmatch(name):
        return False
    whole = bool(np.isfinite(numbers).all() and (numbers == np.trunc(numbers)).all())
    return whole and len(np.unique(numbers)) == len(numbers)


def levels_to_caller() -> int:
    """Return the `stacklevel` of the first caller that is no library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _package(frame.f_globals) in (
        "sktransfer",
        "sklearn",
        "torch",
        "contextlib",
        "joblib",
    ):
        level, frame = level + 1, frame.f_back
    return level


def _package(module: dict[str, object]) -> str:
    return str(module.get("__name__", "")).partition(".")[0]
