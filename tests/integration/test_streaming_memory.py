"""Many rows stream through: resident memory grows by the result and little else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
STATM = Path("/proc/self/statm")

pytestmark = pytest.mark.skipif(not STATM.exists(), reason="the resident memory is read from /proc, which Linux has")

# In a process of its own, since what a process once took it rarely gives back. One pass without a cache, one that fills
# a directory, and one that finds all rows there.
SCRIPT = """
import json, os, sys, threading
from pathlib import Path
from sktransfer import PretrainedFeatureExtractor, cache_info

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

kind, folder, cache = sys.argv[1:]
if kind == "text":
    words = ("card", "payment", "delivery", "account")
    X = [f"my {word} number {i} was late again" for i in range(25_000) for word in words]
else:
    X = sorted(Path(folder).iterdir())
extractor = PretrainedFeatureExtractor(cache=None).fit(X[:8])
extractor.transform(X[:8])
growth = []
for place in (None, cache, cache):
    extractor.set_params(cache=place)
    peak = before = resident()
    done = threading.Event()

    def watch():
        global peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    E = extractor.transform(X)
    done.set()
    watcher.join()
    growth.append((max(peak, resident()) - before - E.nbytes) / 1e6)
    del E
info = cache_info(cache)
print(json.dumps({"growth": growth, "rows": info.rows, "hits": info.hits}))
"""


def measure(kind, folder, cache):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(folder), str(cache)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_hundred_thousand_texts(tmp_path):
    measured = measure("text", tmp_path, tmp_path / "cache")
    assert (measured["rows"], measured["hits"]) == (100_000, 100_000)
    assert max(measured["growth"]) < 300, measured


def test_a_folder_of_photographs(tmp_path):
    """Held at once, the 200 decoded pictures would take 460 MB."""
    random = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(200):
        blocks = Image.fromarray(random.integers(0, 256, (12, 16, 3)).astype(np.uint8))
        blocks.resize((1024, 750), Image.Resampling.BILINEAR).save(folder / f"{i:03}.jpg", quality=80)
    measured = measure("image", folder, tmp_path / "cache")
    assert (measured["rows"], measured["hits"]) == (200, 200)
    assert max(measured["growth"]) < 300, measured
