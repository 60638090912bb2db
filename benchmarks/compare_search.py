"""Search C by cross-validation over sentence embeddings: what a `GridSearchCV` costs here, and with a peer in the pipeline.

    python -m benchmarks.compare_search --data ../shared/data
    python -m benchmarks.compare_search --data ../shared/data --peer skrub

Four values of C, five folds and a refit over texts of Banking77 and all-MiniLM-L6-v2. The plain peer is sentence-transformers
in a `FunctionTransformer`, its network loaded once and outside of the time; skrub's encoder loads it in every fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from transformers.models.bert.modeling_bert import BertEmbeddings
from transformers.utils.logging import disable_progress_bar

from benchmarks.compare_text_encoding import FOLDER
from benchmarks.pairs import time_in_turn
from benchmarks.report import Check, Comparison, Contest, begin, finish, make_parser
from sktransfer import PretrainedFeatureExtractor, cache_clear

GRID = {"head__C": [0.1, 1, 10, 100]}
N_FOLDS = 5
TEXTS_PER_CLASS = 20


def load_rows(data: Path, n_rows: int) -> tuple[pd.Series, np.ndarray]:
    """Return texts and labels of as many classes as `n_rows` texts have room for."""
    frame = pd.read_csv(data / "banking77" / "train.csv", keep_default_na=False)
    frame = frame.groupby("category").head(min(TEXTS_PER_CLASS, n_rows // 2)).head(n_rows)
    return frame["text"].astype("str").reset_index(drop=True), frame["category"].to_numpy(str)


def search(make: Callable[[], Any], texts: pd.Series, labels: np.ndarray) -> GridSearchCV:
    """Run the search over an encoder and a logistic regression."""
    model = Pipeline([("embed", make()), ("head", LogisticRegression(max_iter=1000))])
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    return GridSearchCV(model, GRID, cv=folds).fit(texts, labels)


def make_ours(device: str) -> PretrainedFeatureExtractor:
    """Return our encoder, with nothing in the cache."""
    cache_clear()
    return PretrainedFeatureExtractor(FOLDER, device=device)


def make_peer(name: str, device: str) -> Callable[[], Any]:
    """Return what makes the peer's encoder."""
    if name == "skrub":
        from skrub import LLMEncoder

        return partial(LLMEncoder, str(FOLDER), n_components=None, device=device)
    network = SentenceTransformer(str(FOLDER), device=device)

    def encode(
        texts: pd.Series,
    ) -> np.ndarray:  # a function, which clones share; a method would be copied with its network
        return network.encode(list(texts))

    return partial(FunctionTransformer, encode)


@contextmanager
def counted() -> Iterator[list[int]]:
    """Collect how many texts pass through networks of BERT's kind, batch by batch, whoever runs them.

    Seen at their first module, since sentence-transformers runs the networks themselves past their hooks.
    """
    sizes: list[int] = []

    def note(module: torch.nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, BertEmbeddings):
            sizes.append(len(output))

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        yield sizes
    finally:
        handle.remove()


def compare(texts: pd.Series, labels: np.ndarray, peer: str, device: str, n_pairs: int) -> Comparison:
    """Count the rows that each side encodes, then time them in turn."""
    makers = {peer: make_peer(peer, device), "sktransfer": partial(make_ours, device)}
    sides = {name: partial(search, make, texts, labels) for name, make in makers.items()}
    n_encoded, scores = {}, {}
    for name, side in sides.items():  # warms them up, too
        with counted() as sizes:
            scores[name] = side().cv_results_["mean_test_score"]
        n_encoded[name] = sum(sizes)
    checks = [
        Check("texts encoded by sktransfer", n_encoded["sktransfer"], "at most", texts.nunique()),
        Check(f"texts encoded by {peer}", n_encoded[peer]),
        # skrub scales its embeddings, which is another problem for the same C.
        Check("largest difference of a mean score", float(np.abs(scores["sktransfer"] - scores[peer]).max())),
    ]
    return Comparison(
        title="GridSearchCV over all-MiniLM-L6-v2",
        unit="searches",
        seconds=time_in_turn(sides, n_rounds=n_pairs),
        contests=[Contest("sktransfer", peer)],
        checks=checks,
        settings={
            "device": device,
            "texts": len(texts),
            "classes": len(set(labels)),
            "folds": N_FOLDS,
            "C": GRID["head__C"],
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=5)
    parser.add_argument("--rows", type=int, default=240, help="texts to search over")
    parser.add_argument("--peer", choices=["sentence-transformers", "skrub"], default="sentence-transformers")
    options = parser.parse_args(arguments)
    disable_progress_bar()  # which shows each time that a peer loads the network
    texts, labels = load_rows(options.data, options.rows)
    machine = begin("Searching", dict.fromkeys(["sentence-transformers", options.peer]), options.device)
    return finish(compare(texts, labels, options.peer, options.device, options.pairs), options, machine)


if __name__ == "__main__":
    raise SystemExit(main())
