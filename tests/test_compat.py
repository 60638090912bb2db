"""Private names of scikit-learn: a test for each, which says what broke when scikit-learn moves one."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.linear_model import LogisticRegression

import sktransfer
from sktransfer import _compat

PACKAGE = Path(sktransfer.__file__).parent


def test_no_other_module_imports_a_private_name():
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("sklearn"):
                continue
            private = "._" in node.module or any(name.name.startswith("_") for name in node.names)
            if private and path.name != "_compat.py":
                found.append(f"{path.relative_to(PACKAGE)}: {node.module}")
    assert not found


def test_rows_are_counted_and_picked():
    frame = pd.DataFrame({"a": [1, 2, 3]})
    assert _compat._num_samples(frame) == 3
    assert _compat._safe_indexing(frame, np.array([2, 0]))["a"].tolist() == [3, 1]
    assert _compat._safe_indexing([1, 2, 3], np.array([1])) == [2]


def test_targets_and_weights_are_checked():
    assert _compat._check_y([1, 2], estimator=None).tolist() == [1, 2]
    with pytest.raises(ValueError, match="NaN"):
        _compat._check_y([1.0, np.nan], y_numeric=True, estimator=None)
    assert _compat._check_sample_weight(None, [[1], [2]]).tolist() == [1, 1]
    assert _compat.is_pandas_na(pd.NA)
    assert not _compat.is_pandas_na(None)


def test_parameters_are_constrained():
    assert _compat.Interval(_compat.RealNotInt, 0, 1, closed="both").is_satisfied_by(0.5)
    assert not _compat.Interval(_compat.RealNotInt, 0, 1, closed="both").is_satisfied_by(1.5)
    assert _compat.StrOptions({"a"}).is_satisfied_by("a")
    assert _compat.Options(int, {1}).is_satisfied_by(1)
    assert _compat.HasMethods(["fit"]).is_satisfied_by(LogisticRegression())
    assert isinstance(LogisticRegression._parameter_constraints, dict)
    with pytest.raises(ValueError, match="'C' parameter"):
        LogisticRegression(C=-1)._validate_params()


def test_metadata_is_requested_and_output_configured():
    assert issubclass(BaseEstimator, _compat._MetadataRequester)
    with config_context(enable_metadata_routing=True):
        assert LogisticRegression().set_fit_request(sample_weight=True)._metadata_request is not None
    assert isinstance(_compat.UNUSED, str)
    assert _compat._get_output_config("transform", None)["dense"] == "default"
    assert hasattr(CallbackSupportMixin, "_init_callback_context")


def test_random_states_are_fixed():
    model = LogisticRegression()
    _compat.set_random_state(model, 3)
    assert model.random_state == 3
