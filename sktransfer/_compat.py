"""Private names of scikit-learn that the package depends on, and nothing else.

When scikit-learn moves one of them, this is the file to change. Of its estimators the package also reads
``_validate_params``, ``_parameter_constraints``, ``_metadata_request`` and ``_skl_callbacks``.
"""

from typing import Any

from sklearn.utils import _safe_indexing
from sklearn.utils._metadata_requests import UNUSED, _MetadataRequester
from sklearn.utils._missing import is_pandas_na
from sklearn.utils._param_validation import HasMethods, Interval, Options, RealNotInt, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _check_sample_weight, _check_y, _num_samples

__all__ = [
    "UNUSED",
    "HasMethods",
    "Interval",
    "Options",
    "RealNotInt",
    "StrOptions",
    "_MetadataRequester",
    "_check_sample_weight",
    "_check_y",
    "_get_output_config",
    "_num_samples",
    "_safe_indexing",
    "is_pandas_na",
    "set_random_state",
]


def set_random_state(estimator: Any, random_state: int = 0) -> None:
    """Fix all parameters ``random_state`` of an estimator; scikit-learn's module for it is slow to import."""
    from sklearn.utils._testing import set_random_state as of_sklearn

    of_sklearn(estimator, random_state)
