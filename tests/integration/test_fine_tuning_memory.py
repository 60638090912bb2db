"""Fit after fit, resident memory stays where it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATM = Path("/proc/self/statm")

pytestmark = pytest.mark.skipif(not STATM.exists(), reason="the resident memory is read from /proc, which Linux has")

# In a process of its own, since what a process once took it rarely gives back. 2 MB of trained weights in each fit, and
# other labels, so that nothing of an earlier fit is of use.
SCRIPT = """
import gc, json, os
from pathlib import Path
import numpy as np
import torch
from torch import nn
from sktransfer import FineTunedClassifier, ModuleBackbone

torch.set_num_threads(1)

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

layers = [nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.1)) for _ in range(3)]
module = nn.Sequential(nn.Linear(10, 512), *layers)
backbone = ModuleBackbone(module, modality="table", stages=["0", "1", "2", "3"])
random = np.random.default_rng(0)
X = random.normal(size=(120, 10))
sizes = []
for i in range(55):
    y = random.integers(0, 3, 120)
    model = FineTunedClassifier(backbone, freeze_depth=2, max_epochs=1, stability_every=1, early_stopping=True, random_state=i)
    model.fit(X, y).predict(X)
    sizes.append(resident())
print(json.dumps(sizes))
"""


def test_fifty_fits_leave_memory_flat():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    sizes = json.loads(result.stdout)
    growth = (sizes[-1] - sizes[4]) / 1e6
    # One kept copy of the trained weights a fit would be 100 MB.
    assert growth < 25, f"{growth:.0f} MB after 50 fits"
