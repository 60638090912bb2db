"""Search C by cross-validation in one process and in two, to see when processes pay.

    python -m benchmarks.compare_processes --data ../shared/data

Four values of C, five folds and a refit over texts of Banking77 and all-MiniLM-L6-v2, with a directory as cache. Once with
a directory that is empty, so that the network has to run, and once with one that holds all rows, so that the heads are what is
left. The two processes are new in every round: they import torch and load the network, as in any search that comes first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib.externals.loky import get_reusable_executor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from benchmarks.compare_search import GRID, N_FOLDS
from benchmarks.compare_text_encoding import FOLDER
from benchmarks.pairs import time_in_turn
from benchmarks.report import Check, Comparison, Contest, begin, finish, make_parser
from sktransfer import PretrainedFeatureExtractor


def load_rows(data: Path, n_classes: int, n_per_class: int) -> tuple[list[str], list[str]]:
    """Return texts and labels of the first classes."""
    frame = pd.read_csv(data / "banking77" / "train.csv", keep_default_na=False)
    frame = frame[frame["category"].isin(frame["category"].unique()[:n_classes])].groupby("category").head(n_per_class)
    return frame["text"].tolist(), frame["category"].tolist()


def search(texts: Sequence[str], labels: Sequence[str], n_jobs: int, cache: Path | None) -> GridSearchCV:
    """Search with a filled directory, or with an empty one where `cache` is None."""
    with tempfile.TemporaryDirectory() as empty:
        embed = PretrainedFeatureExtractor(FOLDER, cache=cache or empty)
        model = Pipeline([("embed", embed), ("head", LogisticRegression(max_iter=1000))])
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
        found = GridSearchCV(model, GRID, cv=folds, n_jobs=n_jobs).fit(texts, labels)
        # Killed, because waiting for their end is no part of a search.
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
    return found


def compare(texts: list[str], labels: list[str], n_pairs: int) -> Comparison:
    """Time one process and two, each with an empty and with a filled directory."""
    with tempfile.TemporaryDirectory() as filled:
        PretrainedFeatureExtractor(FOLDER, cache=filled).fit(texts).transform(texts)
        caches = {"empty": None, "filled": Path(filled)}
        sides = {
            f"{directory}, n_jobs={n_jobs}": partial(search, texts, labels, n_jobs, cache)
            for directory, cache in caches.items()
            for n_jobs in (1, 2)
        }
        scores = [search(texts, labels, n_jobs, caches["filled"]).cv_results_["mean_test_score"] for n_jobs in (1, 2)]
        seconds = time_in_turn(sides, n_rounds=n_pairs)
    return Comparison(
        title="GridSearchCV over all-MiniLM-L6-v2 in one process and in two",
        unit="searches",
        seconds=seconds,
        contests=[Contest(f"{directory}, n_jobs=2", f"{directory}, n_jobs=1") for directory in caches],
        checks=[Check("largest difference of a mean score", float(np.abs(scores[0] - scores[1]).max()))],
        settings={"texts": len(texts), "classes": len(set(labels)), "folds": N_FOLDS, "C": GRID["head__C"]},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=3, device=False)
    parser.add_argument("--classes", type=int, default=20, help="classes to tell apart")
    parser.add_argument("--rows-per-class", type=int, default=50, help="texts of each class")
    options = parser.parse_args(arguments)
    texts, labels = load_rows(options.data, options.classes, options.rows_per_class)
    machine = begin("Searching", [], "cpu")
    return finish(compare(texts, labels, options.pairs), options, machine)


if __name__ == "__main__":
    raise SystemExit(main())
