"""Displays of what fine-tuning did: they hold finished arrays, and draw them on demand."""

from sktransfer.inspection.freeze_depth import FreezeDepthDisplay
from sktransfer.inspection.learning_curve import LearningCurveDisplay
from sktransfer.inspection.stability import StabilityDisplay

__all__ = ["FreezeDepthDisplay", "LearningCurveDisplay", "StabilityDisplay"]
