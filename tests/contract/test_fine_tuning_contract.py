"""FineTunedClassifier and FineTunedRegressor against scikit-learn's conventions, on the rows that they read."""

import functools

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator
from support.networks import TinyImage, seeded

from sktransfer import FineTunedClassifier, FineTunedRegressor, ModuleBackbone
from sktransfer.testing import transfer_estimator_checks

BOTH = [FineTunedClassifier, FineTunedRegressor]
# The only check that may be declared: steps on mini-batches see copies of a row in other batches than one row of weight k.
MINI_BATCHES = "weights in mini-batches are not copies of rows"


@pytest.fixture(autouse=True)
def array_api(monkeypatch):
    # Without it scikit-learn refuses to switch array API dispatch on.
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


@pytest.mark.parametrize("backbone", ["auto", "table-resnet"])
@pytest.mark.parametrize("make", BOTH)
def test_scikit_learns_own_checks(make, backbone):
    # None is expected to fail, and with the variable above none is skipped.
    results = check_estimator(make(backbone))
    assert len(results) > 60
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("batch_size", [32, 10_000])
def test_weights_are_copies_of_rows_at_full_batch(make, batch_size):
    check = estimator_checks.check_sample_weight_equivalence_on_dense_data
    check(make.__name__, make(batch_size=batch_size))


# Checks that scikit-learn runs on its own estimators only.
FURTHER = (
    "check_dataframe_column_names_consistency",
    "check_estimator_get_tags_default_keys",
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
    check(make(max_epochs=2))


def own_images():
    return ModuleBackbone(seeded(TinyImage), name="own image network")


def cases():
    # Full batches, which leave no check expected to fail; a high rate, since the steps are few.
    full = {"batch_size": 64, "max_epochs": 3}
    networks = {
        "static text": ("text", {"backbone": "text-static", "freeze_depth": 0, **full}),
        "static text, frozen": ("text", {"backbone": "text-static", "freeze_depth": "all"}),
        "own image network": ("image", {"backbone": own_images(), "freeze_depth": 1, **full}),
        "series": ("series", {"backbone": "series-cnn", "max_epochs": 12, "learning_rate": 3e-3}),
    }
    for make in BOTH:
        for name, (kind, parameters) in networks.items():
            for estimator, check in transfer_estimator_checks(make(**parameters), kind):
                yield pytest.param(estimator, check, id=f"{make.__name__}-{name}-{check}")


@pytest.mark.parametrize("estimator, check", list(cases()))
def test_contract(estimator, check):
    check(estimator)
