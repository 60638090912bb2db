"""How far embeddings of the same rows are apart, and what is asked of each precision."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.report import Check
from sktransfer import PretrainedFeatureExtractor, unload_backbones
from sktransfer.runtime.device import resolve_precision


def largest_difference(ours: np.ndarray, peer: np.ndarray) -> float:
    """Return the largest absolute difference between two values in the same place."""
    return float(np.abs(ours.astype(np.float64) - peer).max())


def smallest_cosine(ours: np.ndarray, peer: np.ndarray) -> float:
    """Return the smallest cosine between two vectors of the same row."""
    a, b = ours.astype(np.float64), peer.astype(np.float64)
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def checks_of(
    name: str, ours: np.ndarray, peer: np.ndarray, *, difference: float | None = None, cosine: float | None = None
) -> list[Check]:
    """Hold our embeddings in the precision `name` against the peer's; `difference` and `cosine` are what is asked."""
    return [
        Check(f"largest difference of {name}", largest_difference(ours, peer), "at most", difference),
        Check(f"smallest cosine of {name}", smallest_cosine(ours, peer), "at least", cosine),
    ]


def asked_on(device: str, kind: str, asked: Mapping[str, float]) -> dict[str, float]:
    """Return the ratios asked of each precision on a device: of a GPU none, of "auto" none where nothing is faster."""
    if device != "cpu":
        return {}
    faster = resolve_precision("auto", torch.device(device), kind) != torch.float32
    return {name: ratio for name, ratio in asked.items() if faster or name != "auto"}


def checks_on_gpu(make: Callable[[str], PretrainedFeatureExtractor], rows: Sequence[Any], device: str) -> list[Check]:
    """Hold a GPU's float32 against the processor's, and look whether the GPU's memory is given back.

    `make` returns an unfitted extractor, without a cache, for a device.
    """
    unload_backbones()
    gc.collect()
    before = torch.cuda.memory_allocated(device)
    extractor = make(device).fit(rows[:1])
    on_gpu = extractor.transform(rows)
    held = torch.cuda.memory_allocated(device) - before
    del extractor
    unload_backbones()
    gc.collect()
    left = torch.cuda.memory_allocated(device) - before
    on_cpu = make("cpu").fit(rows[:1]).transform(rows)
    return [
        Check(
            "largest difference between GPU and processor, float32", largest_difference(on_gpu, on_cpu), "at most", 1e-4
        ),
        Check("MB of GPU memory held by a fitted extractor", held / 1e6),
        # Not 0: cuBLAS keeps a workspace, of 32 MiB on recent GPUs.
        Check("MB of GPU memory left after unload_backbones()", left / 1e6, "at most", 40.0),
    ]
