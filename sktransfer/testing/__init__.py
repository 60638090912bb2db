"""scikit-learn's checks of estimators, for estimators that read texts, images and time series.

`check_transfer_estimator` runs them, `transfer_estimator_checks` lists them for a parametrised test. `MAPPING` says
which checks here stand for which of scikit-learn's, and `LEFT_OUT` which have no meaning for such rows.
"""

from sktransfer.testing.harness import Check, check_transfer_estimator, transfer_estimator_checks
from sktransfer.testing.mapping import LEFT_OUT, MAPPING

__all__ = ["LEFT_OUT", "MAPPING", "Check", "check_transfer_estimator", "transfer_estimator_checks"]
