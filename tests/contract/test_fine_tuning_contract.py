"""FineTunedClassifier and FineTunedRegressor against scikit-learn's conventions, on the rows that they read."""

import functools
import warnings

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator
from support.networks import trained_in_contracts

from sktransfer import FineTunedClassifier, FineTunedRegressor
from sktransfer.testing import transfer_estimator_checks

BOTH = [FineTunedClassifier, FineTunedRegressor]
# Statistics of batch norm, and dropout, see how many rows there are, and not what they weigh.
NOT_OF_COPIES = "dropout, and batch norm that is trained, count rows, whatever they weigh"


@pytest.fixture(autouse=True)
def array_api(monkeypatch):
    # Without it scikit-learn refuses to switch array API dispatch on.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


@pytest.mark.parametrize("backbone", ["auto", "table-resnet"])
@pytest.mark.parametrize("make", BOTH)
def test_scikit_learns_own_checks(make, backbone):
    # With the variable above none is skipped.
    expected = {}
    if backbone == "table-resnet":
        expected = {"check_sample_weight_equivalence_on_dense_data": NOT_OF_COPIES}
    results = check_estimator(make(backbone), expected_failed_checks=expected)
    assert len(results) > 60
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(expected)
    assert {result["status"] for result in results} <= {"passed", "xfail"}


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("batch_size", [32, 10_000])
def test_weights_are_copies_of_rows_at_full_batch(make, batch_size):
    check = estimator_checks.check_sample_weight_equivalence_on_dense_data
    check(make.__name__, make(batch_size=batch_size))


# Checks that scikit-learn runs on its own estimators only.
FURTHER = (
    "check_dataframe_column_names_consistency",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
    "check_n_features_in_after_fitting",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
)


@pytest.mark.parametrize("name", FURTHER)
@pytest.mark.parametrize("make", BOTH)
def test_checks_of_scikit_learns_own_estimators(make, name):
    check = functools.partial(getattr(estimator_checks, name), make.__name__)
    with warnings.catch_warnings():
        # They hand over frames and arrays by turns, of which scikit-learn warns.
        warnings.simplefilter("ignore")
        check(make(max_epochs=2))


def cases():
    for make in BOTH:
        for name, (kind, parameters) in trained_in_contracts().items():
            for estimator, check in transfer_estimator_checks(make(**parameters), kind):
                yield pytest.param(estimator, check, id=f"{make.__name__}-{name}-{check}")


@pytest.mark.parametrize("estimator, check", list(cases()))
def test_contract(estimator, check):
    check(estimator)
