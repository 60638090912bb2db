"""Transfer learning as scikit-learn estimators.

The public names are imported on first use, so that ``import sktransfer`` costs nothing: torch and transformers
are loaded when an estimator is.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Card": "sktransfer.backbones.card",
    "CacheInfo": "sktransfer.caching",
    "DistilledClassifier": "sktransfer.distillation",
    "DistilledRegressor": "sktransfer.distillation",
    "FineTunedClassifier": "sktransfer.fine_tuning",
    "FineTunedRegressor": "sktransfer.fine_tuning",
    "ModuleBackbone": "sktransfer.backbones.sources.modules",
    "PretrainedFeatureExtractor": "sktransfer.feature_extraction",
    "cache_clear": "sktransfer.caching",
    "cache_info": "sktransfer.caching",
    "list_backbones": "sktransfer.backbones.sources.catalogue",
    "set_cache_limit": "sktransfer.caching",
    "unload_backbones": "sktransfer.backbones.sources.loading",
}

__all__ = [
    "CacheInfo",
    "Card",
    "DistilledClassifier",
    "DistilledRegressor",
    "FineTunedClassifier",
    "FineTunedRegressor",
    "ModuleBackbone",
    "PretrainedFeatureExtractor",
    "cache_clear",
    "cache_info",
    "list_backbones",
    "set_cache_limit",
    "unload_backbones",
]

if TYPE_CHECKING:
    from sktransfer.backbones.card import Card
    from sktransfer.backbones.sources.catalogue import list_backbones
    from sktransfer.backbones.sources.loading import unload_backbones
    from sktransfer.backbones.sources.modules import ModuleBackbone
    from sktransfer.caching import CacheInfo, cache_clear, cache_info, set_cache_limit
    from sktransfer.distillation import DistilledClassifier, DistilledRegressor
    from sktransfer.feature_extraction import PretrainedFeatureExtractor
    from sktransfer.fine_tuning import FineTunedClassifier, FineTunedRegressor


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sktransfer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
