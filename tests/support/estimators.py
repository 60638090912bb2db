"""The public estimators, listed once: contract tests run over all of them, so a new one is held to them by being listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sktransfer import (
    DistilledClassifier,
    DistilledRegressor,
    FineTunedClassifier,
    FineTunedRegressor,
    PretrainedFeatureExtractor,
)


@dataclass(frozen=True)
class Listed:
    """One public estimator as the contract tests use it.

    Attributes
    ----------
    estimator : type
        The class.
    make : callable
        Takes parameters of the part that reads rows through a network (`backbone`, `modality`, `max_length`, `cache`,
        ...) and returns an unfitted estimator that is quick to fit.
    targets : callable
        Takes a number of rows and returns targets to fit on, of two classes by turns or numbers; None where none are needed.
    predict : callable
        Takes the fitted estimator and rows, and returns an array with one entry a row.
    """

    estimator: type
    make: Callable[..., Any]
    targets: Callable[[int], Any]
    predict: Callable[[Any, Any], np.ndarray]

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.estimator.__name__

    def fit(self, X: Any, **parameters: Any) -> Any:
        """Fit a quick one to `X`, with targets as above."""
        made = self.make(**parameters)
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        y = self.targets(n_rows)
        return made.fit(X) if y is None else made.fit(X, y)


def _classes(n: int) -> np.ndarray:
    return np.array(["no", "yes"])[np.arange(n) % 2]


def _numbers(n: int) -> np.ndarray:
    return np.arange(n) % 5 / 2.0


# Few steps, the same for everyone.
_QUICK: dict[str, Any] = {"max_epochs": 1, "random_state": 0}


def _distilled(estimator: type, tuned: type) -> Callable[..., Any]:
    def make(**parameters: Any) -> Any:
        teacher = tuned(**{**_QUICK, **parameters, "freeze_depth": "all"})
        return estimator(teacher, tuned(**{**_QUICK, **parameters}), random_state=0)

    return make


ESTIMATORS = [
    Listed(
        PretrainedFeatureExtractor,
        PretrainedFeatureExtractor,
        lambda n: None,
        lambda fitted, X: fitted.transform(X),
    ),
    Listed(
        FineTunedClassifier,
        lambda **parameters: FineTunedClassifier(**{**_QUICK, **parameters}),
        _classes,
        lambda fitted, X: fitted.predict_proba(X),
    ),
    Listed(
        FineTunedRegressor,
        lambda **parameters: FineTunedRegressor(**{**_QUICK, **parameters}),
        _numbers,
        lambda fitted, X: fitted.predict(X),
    ),
    Listed(
        DistilledClassifier,
        _distilled(DistilledClassifier, FineTunedClassifier),
        _classes,
        lambda fitted, X: fitted.predict_proba(X),
    ),
    Listed(
        DistilledRegressor,
        _distilled(DistilledRegressor, FineTunedRegressor),
        _numbers,
        lambda fitted, X: fitted.predict(X),
    ),
]
