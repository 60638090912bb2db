"""Score the image network shipped as ``image-resnet`` on images it was not trained for.

Run it from the root of the repository::

    python -m benchmarks.evaluate_image_network --data ../shared/data --json scores.json

Two questions are asked. Do the default features beat the raw pixels on scikit-learn's digits with 10 labels a class?
Do they beat, on photographs of ants and bees, those of the same network with random weights? The classifier is
always a logistic regression whose C is chosen by cross-validation inside the training part.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold, StratifiedKFold, train_test_split
from threadpoolctl import threadpool_limits

from benchmarks.train_image_network import (
    BLOCKS,
    N_READOUT_IMAGES,
    WEIGHTS,
    WIDTHS,
    load_cifar10,
    pooled_features,
    readout_constants,
)
from sktransfer import PretrainedFeatureExtractor
from sktransfer.backbones.networks.small_resnet import SmallResNet

STRENGTHS = np.logspace(-4, 2, 7)
N_SEEDS, N_SPLITS, N_REPEATS, N_RANDOM = 10, 5, 5, 3


def features(images: Any) -> np.ndarray:
    """Compute the default features of the shipped network: (n_images, n_features)."""
    return PretrainedFeatureExtractor("image-resnet", cache=None).fit_transform(images)


def random_features(images: Any, reference: np.ndarray, seed: int) -> np.ndarray:
    """Compute the same features with random weights, standardised by constants of the same reference images."""
    torch.manual_seed(seed)
    network = SmallResNet(WIDTHS, BLOCKS)
    mean, scale = readout_constants(network, reference)
    return (pooled_features(network, images) - mean) * scale


def tuned() -> GridSearchCV:
    """Make the classifier: logistic regression, its C chosen by stratified cross-validation."""
    inner = StratifiedKFold(5, shuffle=True, random_state=0)
    return GridSearchCV(LogisticRegression(max_iter=2000), {"C": STRENGTHS}, cv=inner)


def few_label_scores(classifier: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Accuracy on all other rows after training on 10 a class, for each seed."""
    scores = []
    for seed in range(N_SEEDS):
        train, test = train_test_split(np.arange(len(y)), train_size=100, stratify=y, random_state=seed)
        scores.append(classifier.fit(x[train], y[train]).score(x[test], y[test]))
    return np.array(scores)


def fold_scores(classifier: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Accuracy on each fold of repeated stratified cross-validation: (n_repeats, n_splits)."""
    folds = RepeatedStratifiedKFold(n_splits=N_SPLITS, n_repeats=N_REPEATS, random_state=0)
    scores = [classifier.fit(x[train], y[train]).score(x[test], y[test]) for train, test in folds.split(x, y)]
    return np.array(scores).reshape(N_REPEATS, N_SPLITS)


def digits_scores() -> dict[str, Any]:
    """Compare the features with raw pixels on the digits, 10 labels a class."""
    digits = load_digits()
    y, pixels = digits.target, digits.data / 16
    x = features(digits.images / 16)
    plain = LogisticRegression(max_iter=2000)
    found = {
        "features": few_label_scores(tuned(), x, y),
        "features, C = 1": few_label_scores(plain, x, y),
        "raw pixels": few_label_scores(tuned(), pixels, y),
        "raw pixels, C = 1": few_label_scores(plain, pixels, y),
    }
    gain = found["features"] - found["raw pixels"]
    return {
        "protocol": f"scikit-learn digits, 10 labels a class, tested on all others, {N_SEEDS} seeds, mean accuracy of "
        "logistic regression, C by 5-fold cross-validation unless told",
        "accuracy": {name: round(float(scores.mean()), 4) for name, scores in found.items()},
        "gain": round(float(gain.mean()), 4),
        "gain_standard_error": round(float(gain.std(ddof=1) / np.sqrt(len(gain))), 4),
        "smallest_gain": round(float(gain.min()), 4),
    }


def hymenoptera_scores(data: Path) -> dict[str, Any]:
    """Compare the network with the same one with random weights on ants and bees."""
    paths = sorted((data / "hymenoptera").glob("*/*/*.jp*g"))
    y = np.array([path.parent.name for path in paths])
    reference = load_cifar10(data, "train")[0][:N_READOUT_IMAGES]
    trained = fold_scores(tuned(), features(paths), y)
    random = np.stack([fold_scores(tuned(), random_features(paths, reference, seed), y) for seed in range(N_RANDOM)])
    gain = trained - random.mean(0)
    n = gain.size
    # The folds share training images, so the plain error of their mean is too small; Nadeau and Bengio (2003)
    # add the ratio of the sizes of the test and the training part.
    corrected = np.sqrt((1 / n + 1 / (N_SPLITS - 1)) * gain.var(ddof=1))
    return {
        "protocol": f"397 images, {N_REPEATS} times stratified {N_SPLITS}-fold cross-validation, mean accuracy of "
        f"logistic regression, C by 5-fold cross-validation; {N_RANDOM} random networks",
        "accuracy": {
            "features": round(float(trained.mean()), 4),
            "random weights": round(float(random.mean()), 4),
            "random weights, each": [round(float(scores.mean()), 4) for scores in random],
        },
        "gain": round(float(gain.mean()), 4),
        "gain_standard_error": round(float(gain.mean(1).std(ddof=1) / np.sqrt(N_REPEATS)), 4),
        "gain_standard_error_corrected": round(float(corrected), 4),
    }


def main() -> None:
    """Measure, print a table and write the scores where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--json", type=Path, help="file to write the scores to")
    parser.add_argument("--card", action="store_true", help="store the scores in the card of the network, too")
    args = parser.parse_args()
    # The problems are small; more threads would only wait for each other.
    torch.set_num_threads(1)
    with threadpool_limits(1):
        scores = {"digits": digits_scores(), "hymenoptera": hymenoptera_scores(args.data)}
    for name, entry in scores.items():
        print(f"{name}: {entry['protocol']}")
        for key, value in (entry["accuracy"] | {k: v for k, v in entry.items() if "gain" in k}).items():
            print(f"  {key.replace('_', ' '):32}{value}")
    if args.json:
        args.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    if args.card:
        path = WEIGHTS / "card.json"
        card = json.loads(path.read_text(encoding="utf-8"))
        card["scores"] |= scores
        path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
