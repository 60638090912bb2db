"""DistilledClassifier and DistilledRegressor against scikit-learn's conventions, on the rows that they read."""

import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator
from support.networks import trained_in_contracts

from sktransfer import DistilledClassifier, DistilledRegressor, FineTunedClassifier, FineTunedRegressor
from sktransfer.testing import transfer_estimator_checks

CASES = {
    "classifier": lambda: DistilledClassifier(LogisticRegression(), LogisticRegression()),
    "classifier-network": lambda: DistilledClassifier(LogisticRegression()),
    "classifier-out-of-fold": lambda: DistilledClassifier(LogisticRegression(), LogisticRegression(), cv=2),
    "regressor": lambda: DistilledRegressor(Ridge(), Ridge()),
    "regressor-network": lambda: DistilledRegressor(Ridge()),
}


@pytest.fixture(autouse=True)
def array_api(monkeypatch):
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"


@pytest.mark.parametrize("name", CASES)
def test_scikit_learns_own_checks(name):
    expected = {EQUIVALENCE: "weights are not copies of rows in mini-batches"} if name.endswith("network") else {}
    results = check_estimator(CASES[name](), expected_failed_checks=expected)
    assert len(results) > 58
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(expected)
    assert {result["status"] for result in results} <= {"passed", "xfail"}


@pytest.mark.parametrize(
    "estimator",
    [
        DistilledClassifier(LogisticRegression(), FineTunedClassifier(batch_size=10_000)),
        DistilledRegressor(Ridge(), FineTunedRegressor(batch_size=10_000)),
    ],
    ids=["classifier", "regressor"],
)
def test_weights_are_copies_of_rows_at_full_batch(estimator):
    getattr(estimator_checks, EQUIVALENCE)(type(estimator).__name__, estimator)


def cases():
    pairs = [(DistilledClassifier, FineTunedClassifier), (DistilledRegressor, FineTunedRegressor)]
    for distilled, tuned in pairs:
        for name, (kind, parameters) in trained_in_contracts().items():
            teacher = tuned(**{**parameters, "freeze_depth": "all"})
            for estimator, check in transfer_estimator_checks(distilled(teacher, tuned(**parameters)), kind):
                yield pytest.param(estimator, check, id=f"{distilled.__name__}-{name}-{check}")


@pytest.mark.parametrize("estimator, check", list(cases()))
def test_contract(estimator, check):
    check(estimator)
