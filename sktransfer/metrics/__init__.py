"""Measures of representations: arrays in, numbers out."""

from sktransfer.metrics.similarity import linear_cka

__all__ = ["linear_cka"]
