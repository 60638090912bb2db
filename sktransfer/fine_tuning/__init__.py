"""Pretrained networks that are tuned to labelled rows."""

from sktransfer.fine_tuning.estimators import FineTunedClassifier, FineTunedRegressor

__all__ = ["FineTunedClassifier", "FineTunedRegressor"]
