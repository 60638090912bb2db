"""Knowledge distillation: a student learns from labels and from what a teacher predicts."""

from sktransfer.distillation.estimators import DistilledClassifier, DistilledRegressor

__all__ = ["DistilledClassifier", "DistilledRegressor"]
