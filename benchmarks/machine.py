"""Describe the machine that a figure was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import psutil
import torch

from sktransfer import __version__


def describe(packages: Sequence[str], device: str) -> dict[str, Any]:
    """Return processor, memory, GPU, load and versions, as JSON can write them."""
    description = {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": joblib.cpu_count(),  # that this process may use
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "load_average": round(psutil.getloadavg()[0], 2),  # of the last minute, so before the measurement
        "python": platform.python_version(),
    }
    names = dict.fromkeys(["torch", "transformers", "scikit-learn", *packages])
    # Ours may be run from a checkout that is not installed.
    return description | {"sktransfer": __version__} | {name: importlib.metadata.version(name) for name in names}


def _processor() -> str:
    """Return the model's name, which Python itself does not know on Linux."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
