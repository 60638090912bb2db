"""Checks of transformers' columns: their names and `set_output`."""

from __future__ import annotations

from functools import partial
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sktransfer.testing.expectations import close, expect, fitted, fresh, refuses, target_of
from sktransfer.testing.samples import Container, Sample, pandas, polars


def check_feature_names_out(estimator: Any, sample: Sample) -> None:
    """`get_feature_names_out` gives one str for each column, no two alike, and raises NotFittedError before fit."""
    refuses("get_feature_names_out needs a fit", fresh(estimator).get_feature_names_out, NotFittedError)
    copy = fitted(estimator, sample)
    names, width = copy.get_feature_names_out(), copy.transform(list(sample.rows)).shape[1]
    expect(isinstance(names, np.ndarray), "get_feature_names_out gives an ndarray", type(names).__name__)
    expect(names.dtype == object, "get_feature_names_out gives an object array", str(names.dtype))
    expect(all(isinstance(name, str) for name in names), "names of columns are str", f"{names[:3]!r}")
    expect(names.shape == (width,), f"there is a name for each of the {width} columns", f"shape {names.shape}")
    expect(
        len(set(names)) == width, "no two columns have the same name", f"{len(set(names))} names for {width} columns"
    )


def check_feature_names_out_of_frame(estimator: Any, sample: Sample, container: Container) -> None:
    """After a fit to a frame, `get_feature_names_out` takes the column's name and refuses another."""
    frame = container.make(sample.rows)
    copy = fresh(estimator).fit(frame, target_of(estimator, sample))
    column = nw.from_native(frame).columns[0]
    names = copy.get_feature_names_out()
    given = copy.get_feature_names_out([column])
    expect(list(names) == list(given), "the column's own name changes no name", f"{given[:2]} instead of {names[:2]}")
    refuses(
        "get_feature_names_out refuses the name of another column",
        partial(copy.get_feature_names_out, ["another"]),
        ValueError,
        "input_features",
    )


def check_set_output_default(estimator: Any, sample: Sample) -> None:
    """`set_output(transform="default")` changes nothing."""
    X = list(sample.rows)
    out = fitted(estimator, sample).set_output(transform="default").transform(X)
    expect(isinstance(out, np.ndarray), "set_output(transform='default') gives an ndarray", type(out).__name__)
    close("set_output(transform='default') changes nothing", fitted(estimator, sample).transform(X), out)


def check_set_output(estimator: Any, sample: Sample, library: str) -> None:
    """`set_output`, on the estimator or for all, gives a frame with the values, the names and the index of X."""
    frame_type = {"pandas": pandas, "polars": polars}[library]().DataFrame
    X, y = list(sample.rows), target_of(estimator, sample)
    plain = fitted(estimator, sample)
    wanted, names = plain.transform(X), list(plain.get_feature_names_out())
    local = fitted(estimator, sample).set_output(transform=library)
    results = {
        "set_output on the estimator": local.transform(X),
        "set_output and clone": clone(local).fit(X, y).transform(X),
    }
    if hasattr(local, "fit_transform"):
        results["set_output and fit_transform"] = fresh(local).fit_transform(X, y)
    with config_context(transform_output=library):
        results["transform_output of scikit-learn's configuration"] = plain.transform(X)
    for how, out in results.items():
        expect(isinstance(out, frame_type), f"{how} gives a {library} DataFrame", type(out).__name__)
        expect(
            list(out.columns) == names, f"{how} takes the names of get_feature_names_out", f"{list(out.columns)[:3]}"
        )
        close(f"{how} keeps the values", wanted, out.to_numpy())
    for container in sample.containers:
        if library == "pandas" and container.is_frame and "pandas" in container.name:
            frame = container.make(sample.rows)
            index = fresh(local).fit(frame, y).transform(frame).index
            expect(index.equals(frame.index), "a pandas frame keeps the index of X", f"{list(index)[:3]}")
