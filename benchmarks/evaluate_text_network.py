"""Measure the shipped text network against TF-IDF with few labels, and its speed against its bare tokenizer.

python -m benchmarks.evaluate_text_network --data ../shared/data --json scores.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from tokenizers import Tokenizer

from sktransfer import PretrainedFeatureExtractor, cache_clear

FOLDER = Path(__file__).parents[1] / "sktransfer" / "weights" / "text-static"
LABELS_PER_CLASS = 8
GRID = {"logisticregression__C": np.logspace(-2, 4, 7)}
PROTOCOL = (
    f"{LABELS_PER_CLASS} labels a class drawn from the training part, scored on the test part (AG News: the rest of "
    "its file); C by 4-fold cross-validation on those labels over 1e-2, 1e-1, ..., 1e4; TF-IDF of single words or of "
    "words and pairs, whichever is better on average; accuracy, mean and standard deviation over seeds"
)


# The network under test


def features(texts: list[str]) -> np.ndarray:
    """Turn texts into vectors, ``(n_texts, dimension)``, as a user does."""
    return PretrainedFeatureExtractor("text-static").fit_transform(texts)


# Accuracy with few labels


def load(data: Path) -> dict[str, tuple]:
    """Return texts and labels of each data set: training part, test part (None: the training part's rest)."""
    sets = {}
    for name, label in (("banking77", "category"), ("trec", "coarse")):
        parts = [pd.read_csv(data / name / f"{part}.csv", keep_default_na=False) for part in ("train", "test")]
        sets[name] = tuple((list(part["text"]), part[label].to_numpy(str)) for part in parts)
    news = pd.read_csv(data / "ag_news" / "test.csv.gz", keep_default_na=False)
    sets["ag_news"] = ((list(news["title"] + ". " + news["description"]), news["label"].to_numpy(str)), None)
    return sets


def draw(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of a few random examples of each class."""
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(np.flatnonzero(labels == c), LABELS_PER_CLASS, replace=False) for c in np.unique(labels)]
    return np.concatenate(chosen)


def searched(*steps: BaseEstimator) -> GridSearchCV:
    """Return the given steps and a logistic regression whose C is found by cross-validation."""
    pipeline = make_pipeline(*steps, LogisticRegression(max_iter=1000))
    return GridSearchCV(pipeline, GRID, cv=StratifiedKFold(4, shuffle=True, random_state=0))


def compare(train: tuple, test: tuple | None, vectors: tuple, seed: int) -> dict[str, float]:
    """Score every contender on one draw of labels."""
    texts, labels = np.array(train[0], dtype=object), train[1]
    rows = draw(labels, seed)
    if test is None:
        rest = np.setdiff1d(np.arange(len(labels)), rows)
        test_texts, test_labels, test_vectors = texts[rest], labels[rest], vectors[0][rest]
    else:
        test_texts, test_labels, test_vectors = test[0], test[1], vectors[1]
    few_texts, few_labels, few_vectors = texts[rows], labels[rows], vectors[0][rows]

    ours = searched().fit(few_vectors, few_labels)
    scores = {
        "network": ours.score(test_vectors, test_labels),
        "network C=1": LogisticRegression(max_iter=1000).fit(few_vectors, few_labels).score(test_vectors, test_labels),
        "network C found": ours.best_params_["logisticregression__C"],
    }
    for name, longest in (("tf-idf words", 1), ("tf-idf words and pairs", 2)):
        found = searched(TfidfVectorizer(ngram_range=(1, longest))).fit(few_texts, few_labels)
        scores[name] = found.score(test_texts, test_labels)
    return scores


def accuracy(data: Path, n_seeds: int, n_jobs: int) -> dict[str, dict]:
    """Return mean and standard deviation over seeds, per data set and contender, and the difference."""
    results = {}
    for name, (train, test) in load(data).items():
        vectors = (features(train[0]), None if test is None else features(test[0]))
        runs = Parallel(n_jobs)(delayed(compare)(train, test, vectors, seed) for seed in range(n_seeds))
        runs = pd.DataFrame(runs)
        best = max(("tf-idf words", "tf-idf words and pairs"), key=lambda column: runs[column].mean())
        columns = {
            "network": runs["network"],
            "network C=1": runs["network C=1"],
            "tf-idf": runs[best],
            "difference": runs["network"] - runs[best],
        }
        results[name] = {k: {"mean": round(v.mean(), 4), "std": round(v.std(), 4)} for k, v in columns.items()}
        results[name]["tf-idf kind"] = best
        results[name]["network median C"] = float(runs["network C found"].median())
        print_row(name, results[name])
    return results


def print_row(name: str, result: dict) -> None:
    """Print one line of the table."""
    cells = [f"{result[k]['mean']:.3f} +- {result[k]['std']:.3f}" for k in ("network", "network C=1", "tf-idf")]
    difference = f"{100 * result['difference']['mean']:+.1f} +- {100 * result['difference']['std']:.1f}"
    print(f"{name:<12}" + "".join(f"{cell:>18}" for cell in [*cells, difference]), flush=True)


# Speed


def throughput(texts: list[str], n_repeats: int = 15) -> dict[str, float]:
    """Return texts per second of the bare tokenizer and of `transform`, and the median of their ratios."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    extractor = PretrainedFeatureExtractor("text-static").fit(texts)

    def tokenise(texts: list[str]) -> None:
        tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    seconds = []
    for _ in range(n_repeats + 1):
        pair = []
        for work in (tokenise, extractor.transform):
            cache_clear()  # every text is new, as on the first pass over a data set
            started = time.perf_counter()
            work(texts)
            pair.append(time.perf_counter() - started)
        seconds.append(pair)
    seconds = np.array(seconds[1:])  # the first round warms up
    # Ratio by ratio: what else the machine does then strikes both alike.
    bare, whole = len(texts) / np.median(seconds, axis=0)
    ratio = np.median(seconds[:, 0] / seconds[:, 1])
    return {
        "tokenizer_texts_per_s": round(bare),
        "transform_texts_per_s": round(whole),
        "ratio": round(float(ratio), 3),
    }


def main() -> None:
    """Print the table and the ratio, and write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=10, help="number of draws of labels")
    parser.add_argument("--jobs", type=int, default=2, help="draws scored at a time")
    parser.add_argument("--json", type=Path, help="file to write the scores to")
    parser.add_argument("--card", action="store_true", help="store the scores in the card of the network, too")
    options = parser.parse_args()

    speed = throughput(load(options.data)["banking77"][0][0])
    print(
        f"texts per second: tokenizer {speed['tokenizer_texts_per_s']:,}, transform {speed['transform_texts_per_s']:,}"
    )
    print(f"ratio {speed['ratio']:.2f}\n")
    print(f"{'accuracy':<12}{'network':>18}{'network, C=1':>18}{'TF-IDF':>18}{'difference':>18}")
    results = accuracy(options.data, options.seeds, options.jobs)
    scores = {"protocol": f"{PROTOCOL}; {options.seeds} seeds", "accuracy": results}
    scores["throughput"] = {"texts": "Banking77, training part", **speed}
    if options.card:
        path = FOLDER / "card.json"
        card = json.loads(path.read_text(encoding="utf-8")) | {"scores": scores}
        path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
