"""Fitted scikit-learn models as backbones."""
