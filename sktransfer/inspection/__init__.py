"""Displays of what fine-tuning and distillation did: they hold finished arrays, and draw them on demand."""

from sktransfer.inspection.distillation import DistillationDisplay
from sktransfer.inspection.freeze_depth import FreezeDepthDisplay
from sktransfer.inspection.learning_curve import LearningCurveDisplay
from sktransfer.inspection.stability import StabilityDisplay

__all__ = ["DistillationDisplay", "FreezeDepthDisplay", "LearningCurveDisplay", "StabilityDisplay"]
