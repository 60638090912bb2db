"""What may be handed in as targets of rows: no missing ones, no masked ones, no container without an order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from enum import Enum
from numbers import Number
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite

from sktransfer._compat import is_pandas_na

# Beyond it squares of differences, and differences themselves, are no numbers any more.
_LARGEST_TARGET = 1e300


def refuse_masked(values: Any, name: str) -> None:
    """Refuse a masked array, whose hidden entries would be read as if they were there.

    Raises
    ------
    ValueError
        If it is one, or a list that holds one.
    """
    parts = values if isinstance(values, Sequence) else ()
    if isinstance(values, np.ma.MaskedArray) or any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise ValueError(
            f"{name} is a masked array, or holds one, and what a mask hides would be read. Leave the masked rows out: with "
            f"keep = ~numpy.ma.getmaskarray({name}) give X[keep] and {name}.data[keep]."
        )


def check_container(y: Any, name: str = "y") -> None:
    """Refuse what holds no targets in the order of the rows.

    Parameters
    ----------
    y : object
        What was handed in; None is left to the caller.
    name : str, default="y"
        What it is called.

    Raises
    ------
    TypeError
        If it is a single text, a generator, a set, a dictionary, a frame that was not computed, or a tensor that is no
        array.
    ValueError
        If it is masked.
    """
    if isinstance(y, str | bytes | bytearray):
        raise TypeError(
            f"{name} is a single {type(y).__name__}, {y!r:.40}. Pass a list or an array with one entry a row."
        )
    if isinstance(y, Iterator):
        raise TypeError(f"{name} is a {type(y).__name__}, which can be read only once. Pass list({name}) instead.")
    if isinstance(y, Set | Mapping):
        raise TypeError(
            f"{name} is a {type(y).__name__}, which does not say which entry belongs to which row. Pass a list or an array "
            "with one entry a row, in their order."
        )
    if isinstance(nw.from_native(y, pass_through=True), nw.LazyFrame):
        raise TypeError(f"{name} is a {type(y).__name__}, which holds no values yet. Pass {name}.collect() instead.")
    refuse_masked(y, name)
    if hasattr(y, "detach"):
        try:
            np.asarray(y)
        except (TypeError, RuntimeError) as error:  # sparse, in half precision, on a device, with a gradient
            raise TypeError(
                f"{name} is a tensor that numpy can't read: {error} Pass {name}.detach().cpu().float().numpy(), of a sparse "
                f"one that of {name}.to_dense()."
            ) from error


def check_targets(
    y: Any, name: str = "y", *, word: str = "label", rows: np.ndarray | None = None, advice: str = "Leave them out."
) -> None:
    """Refuse targets that are missing, and labels that can't be sorted; which are valid otherwise the caller knows.

    Parameters
    ----------
    y : array-like or sparse matrix
        Targets in any container.
    name : str, default="y"
        What they are called.
    word : {"label", "target"}, default="label"
        What one of them is; types of labels have to be alike.
    rows : ndarray of int, optional
        The row of each target, where they are those of some rows only.
    advice : str
        What to do where some are missing.

    Raises
    ------
    TypeError
        If the container is none, or labels are of types that have no common order.
    ValueError
        If some are missing or masked.
    """
    check_container(y, name)
    if issparse(y):
        if y.dtype.kind == "f":
            assert_all_finite(y, input_name=name)
        return
    values = _entries(y)
    _check_dtype(values, name, word)
    missing = [place for place, value in enumerate(values) if _is_missing(value)] if _may_miss(values) else []
    if missing:
        first = missing[0] if rows is None else int(rows[missing[0]])
        raise ValueError(
            f"Input {name} contains NaN or None: {len(missing)} row(s) have no {word}, the first is row {first}. {advice}"
        )
    if getattr(getattr(values, "dtype", None), "kind", "") == "T":
        raise TypeError(
            f"{name} is of the type {values.dtype}, which scikit-learn does not read. Pass {name}.astype(str)."
        )
    if word == "label":
        _check_types(values, name)
    elif getattr(getattr(values, "dtype", None), "kind", "") == "f":
        assert_all_finite(values, input_name=name)


def check_size(y: np.ndarray, name: str = "y") -> None:
    """Refuse numbers that are too large to be compared.

    Raises
    ------
    ValueError
        If one of them is beyond 1e300.
    """
    largest = np.abs(y).max(initial=0.0)
    if largest > _LARGEST_TARGET:
        raise ValueError(
            f"{name} holds {largest:.3g}; targets beyond {_LARGEST_TARGET:.0e} are too large to be computed with. Divide "
            f"{name} by a constant, as sklearn.compose.TransformedTargetRegressor does."
        )


def _entries(y: Any) -> Any:
    """Return targets as an array, or the list that they are: an array of numbers and texts would be one of texts."""
    if isinstance(y, Sequence) and not isinstance(y, np.ndarray):
        return list(y)
    frame = nw.from_native(y, eager_only=True, allow_series=True, pass_through=True)
    if isinstance(frame, nw.Series | nw.DataFrame):
        return frame.to_numpy()
    return np.asarray(y)


def _check_dtype(values: Any, name: str, word: str) -> None:
    kind = getattr(getattr(values, "dtype", None), "kind", "?")
    if kind in "Mm" and np.isnat(values).any():
        return  # which is said by row
    told = {"M": "dates", "m": "durations", "V": "records"}.get(kind)
    if told is not None:
        what = "Pass numbers or texts, as y.astype(str) gives them." if word == "label" else "Pass numbers."
        raise ValueError(f"{name} holds {told} ({values.dtype}), which are no {word}s. {what}")


def _may_miss(values: Any) -> bool:
    return not isinstance(values, np.ndarray) or (values.ndim > 0 and values.dtype.kind in "OTfcMm")


def _scalar(value: Any) -> Any:
    """Return what is in an array or tensor of no dimensions; everything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and not isinstance(value, np.generic) else value


def _is_missing(value: Any) -> bool:
    value = _scalar(value)
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return any(_is_missing(one) for one in value)
    if value is None or is_pandas_na(value):
        return True
    # NaN and NaT of every library are not equal to themselves.
    return isinstance(value, Number | np.generic) and bool(value != value) or type(value).__name__ == "NaTType"


def _check_types(values: Any, name: str) -> None:
    """Refuse labels of which some are texts and others are not, which have no order, and what is neither text nor number."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        if values.dtype.kind == "f":
            assert_all_finite(values, input_name=name)
        return
    examples: dict[str, tuple[int, Any]] = {}
    floats = []
    for place, value in enumerate(values):
        value = _scalar(value)
        for part in value if isinstance(value, list | tuple | np.ndarray) else (value,):
            examples.setdefault(_family(part), (place, part))
            if isinstance(part, float | np.floating):
                floats.append(part)
    if len(examples) > 1:
        told = ", ".join(f"{type(value).__name__} ({value!r:.40} in row {place})" for place, value in examples.values())
        raise TypeError(
            f"Labels in {name} are of mixed types: {told}. Give labels of one type, for example all as str: "
            f"[str(label) for label in {name}]."
        )
    assert_all_finite(np.array(floats, dtype=float), input_name=name)
    for family, (place, value) in examples.items():
        if family not in ("str", "bytes", "number"):
            raise TypeError(
                f"Labels in {name} are of the type {family} ({value!r:.40} in row {place}). Give numbers or texts, for example "
                f"[str(label) for label in {name}]."
            )


def _family(label: Any) -> str:
    """Return what a label can be sorted with: truth values are numbers."""
    if isinstance(label, Enum) and not isinstance(label, int) and str(label) != label.value:
        return type(label).__name__  # numpy would take its name, cut to the length of its value
    if isinstance(label, str | bytes):
        return "str" if isinstance(label, str) else "bytes"
    number = isinstance(label, int | float | np.bool_ | np.integer | np.floating)
    return "number" if number else type(label).__name__
