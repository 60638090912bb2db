"""Fine-tune on real data, next to the frozen probe, the naive way and training from scratch.

    python -m benchmarks.evaluate_fine_tuning --data ../shared/data --json scores.json
    python -m benchmarks.evaluate_fine_tuning --data ../shared/data --task digits --task series --seeds 3
    python -m benchmarks.evaluate_fine_tuning --data ../shared/data --task digits --way tuned --set learning_rate=3e-3

``--task`` takes a name or how names begin, ``--set`` a parameter of the safe fine-tuning other than its default. The ways:
"probe" freezes everything, "tuned" has the defaults, "naive" trains all stages at one rate from a random head, "scratch"
does so with an untrained network of the same architecture, for ``--scratch-epochs`` epochs. Where source and target have
the same classes, "source" is the source network as it is, and "logistic" a logistic regression on the target rows alone.
A source network is trained once, whatever the number of seeds; they decide which rows of the target are labelled, the order of
rows, and what is random in training.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_digits
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import get_scorer
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.report import Check, begin, choose, make_parser, write_evaluation
from sktransfer import FineTunedClassifier, ModuleBackbone

NAIVE = {"freeze_depth": 0, "backbone_lr_ratio": 1.0, "layer_decay": 1.0, "head_init": "random"}
WAYS = ("probe", "tuned", "naive", "scratch", "source", "logistic")
# Enough for a source or a network from scratch to learn from few rows, which 20 passes over them are not.
SOURCE_EPOCHS = 50
SOURCE_ROWS_TO_WATCH = 400


@dataclass(frozen=True)
class Split:
    """Rows to learn from, and rows to be judged by."""

    X: Any
    y: np.ndarray
    X_test: Any
    y_test: np.ndarray


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes
    ----------
    protocol : str
        What is learned from how many rows, and how it is scored.
    splits : callable
        From a seed to the splits that the score of this seed is the mean of.
    start : callable
        From a seed to the parameters that name the pretrained network, or the fitted source.
    untrained : callable
        From a seed to those that name the same network untrained.
    n_seeds : int
        Seeds unless told otherwise.
    scoring : str
        Name of a scorer of scikit-learn.
    source_rows : callable or None
        From a seed to rows and classes of the source, on which forgetting is measured.
    same_classes : bool
        Whether the source network answers the target's question already.
    over_probe, over_scratch : float or None
        Gain over the probe and over training from scratch that is asked, up to one standard error.
    """

    protocol: str
    splits: Callable[[int], Iterator[Split]]
    start: Callable[[int], dict[str, Any]]
    untrained: Callable[[int], dict[str, Any]]
    n_seeds: int = 5
    scoring: str = "accuracy"
    source_rows: Callable[[int], tuple[Any, np.ndarray]] | None = None
    same_classes: bool = False
    over_probe: float | None = None
    over_scratch: float | None = None


@dataclass
class Scores:
    """What one way reaches on one task, by seed: the mean over its splits."""

    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    drift: list[dict[str, float]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return everything, with means and deviations over seeds."""
        made: dict[str, Any] = {
            "mean": float(np.mean(self.scores)),
            "deviation": float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None,
            "seconds_a_fit": float(np.mean(self.seconds)),
            "scores": self.scores,
        }
        names = self.drift[0] if self.drift else ()
        return made | {name: float(np.mean([one[name] for one in self.drift])) for name in names}


# Tasks


def image_tasks(data: Path) -> dict[str, Task]:
    """Ants and bees from ImageNet's MobileNetV1, digits from the shipped network."""

    @cache
    def photographs() -> tuple[np.ndarray, np.ndarray]:
        paths = sorted((data / "hymenoptera").glob("*/*/*.jp*g"))
        return np.array([str(path) for path in paths]), np.array([path.parent.name for path in paths])

    def folds(seed: int) -> Iterator[Split]:
        X, y = photographs()
        for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
            yield Split(X[train], y[train], X[test], y[test])

    def few_digits(seed: int) -> Iterator[Split]:
        digits = load_digits()
        images = (digits.images / 16).astype(np.float32)
        X, X_test, y, y_test = train_test_split(
            images, digits.target, train_size=100, stratify=digits.target, random_state=seed
        )
        yield Split(X, y, X_test, y_test)

    @cache
    def cifar10() -> tuple[np.ndarray, np.ndarray]:
        from benchmarks.train_image_network import load_cifar10

        images, y = load_cifar10(data, "test")
        return images[:SOURCE_ROWS_TO_WATCH], y[:SOURCE_ROWS_TO_WATCH]

    shipped = {"backbone": "image-resnet", "modality": "image"}
    return {
        "hymenoptera": Task(
            "397 photographs of ants and bees, MobileNetV1 of ImageNet; a seed is one 5-fold cross-validation",
            folds,
            lambda seed: {"backbone": mobilenet(data, None)},
            lambda seed: {"backbone": mobilenet(data, seed)},
            n_seeds=3,
            over_probe=0.0,
            over_scratch=0.1,
        ),
        "digits": Task(
            "scikit-learn's digits, 10 labels a class, the shipped image network; source CIFAR-10",
            few_digits,
            lambda seed: shipped,
            lambda seed: {**shipped, "weights": "random"},
            n_seeds=10,
            source_rows=lambda seed: cifar10(),
            over_scratch=0.0,
        ),
    }


@cache
def mobilenet(data: Path, seed: int | None) -> ModuleBackbone:
    """Return MobileNetV1 with ImageNet's weights, or untrained from a seed, with what it needs to read files."""
    from torchvision import transforms

    from tests.support.mobilenet import load_mobilenet_v1, mobilenet_v1

    if seed is None:
        network = load_mobilenet_v1(data)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = mobilenet_v1().eval()
    read = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    preparation = transforms.Compose([*read, transforms.Normalize([0.5] * 3, [0.5] * 3)])
    return ModuleBackbone(network, preparation=preparation, name=f"mobilenet-v1-{seed}")


def text_tasks(data: Path) -> dict[str, Task]:
    """Intents of Banking77 from all-MiniLM-L6-v2."""
    from benchmarks.compare_text_encoding import FOLDER

    def labels_a_class(most: int | None, seed: int) -> Iterator[Split]:
        train, test = (
            pd.read_csv(data / "banking77" / f"{part}.csv", keep_default_na=False) for part in ("train", "test")
        )
        if most is not None:
            train = train.sample(frac=1, random_state=seed).groupby("category").head(most)
        yield Split(
            list(train["text"]), train["category"].to_numpy(str), list(test["text"]), test["category"].to_numpy(str)
        )

    @cache
    def questions() -> tuple[list[str], np.ndarray]:
        frame = pd.read_csv(data / "trec" / "train.csv", keep_default_na=False)
        frame = frame.sample(SOURCE_ROWS_TO_WATCH, random_state=0)
        return list(frame["text"]), frame["coarse"].to_numpy(str)

    def task(most: int | None, gain: float, n_seeds: int) -> Task:
        return Task(
            f"Banking77, {f'at most {most}' if most else 'all'} labels a class, all-MiniLM-L6-v2; forgetting on TREC",
            partial(labels_a_class, most),
            lambda seed: {"backbone": FOLDER},
            lambda seed: {"backbone": untrained_copy(FOLDER, seed)},
            n_seeds=n_seeds,
            source_rows=lambda seed: questions(),
            over_probe=gain,
        )

    return {"banking77-8": task(8, 0.0, 5), "banking77-64": task(64, 0.01, 3), "banking77-all": task(None, 0.01, 3)}


@cache
def untrained_copy(folder: Path, seed: int) -> str:
    """Write a copy of a text network with random weights, and return its folder."""
    from transformers import AutoConfig, AutoModel

    made = _folder_for_copies() / f"{folder.name}-{seed}"
    # The tokenizer and the pooling stay.
    shutil.copytree(folder, made, ignore=shutil.ignore_patterns("*.safetensors", "*.bin", "*.onnx", "*.h5", "*.ot"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModel.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(made)
    return str(made)


@cache
def _folder_for_copies() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="sktransfer-untrained-")
    _KEPT_FOLDERS.append(folder)  # removed when the process ends
    return Path(folder.name)


_KEPT_FOLDERS: list[tempfile.TemporaryDirectory] = []

# Lightning by two instruments, then spectra of food, heart beats and motion; some of them far apart.
SERIES_PAIRS = [
    ("Lightning2", "Lightning7"),
    ("Coffee", "Beef"),
    ("Beef", "OliveOil"),
    ("GunPoint", "ECG200"),
    ("SyntheticControl", "ECG200"),
]


def series_tasks(data: Path, device: str) -> dict[str, Task]:
    """Pairs of the UCR archive: the source network learns from all rows of one set, the target has the official split."""
    archive = np.load(data / "series" / "ucr.npz")

    def rows(name: str) -> tuple[np.ndarray, np.ndarray]:
        parts = [np.concatenate([archive[f"{name}_{what}_{part}"] for part in ("train", "test")]) for what in "xy"]
        return parts[0], parts[1]

    @cache
    def source(name: str) -> FineTunedClassifier:
        return FineTunedClassifier(
            modality="series", max_epochs=SOURCE_EPOCHS, random_state=0, early_stopping=False, device=device
        ).fit(*rows(name))

    def split(name: str, seed: int) -> Iterator[Split]:
        yield Split(*(archive[f"{name}_{what}_{part}"] for part in ("train", "test") for what in "xy"))

    return {
        f"series-{first}-{second}": Task(
            f"{first} -> {second}, {len(archive[f'{second}_y_train'])} series, tested on {len(archive[f'{second}_y_test'])}",
            partial(split, second),
            lambda seed, first=first: {"backbone": source(first)},
            lambda seed: {"modality": "series"},
            source_rows=lambda seed, first=first: rows(first),
        )
        for first, second in SERIES_PAIRS
    }


HOSPITALS = [
    ("cleveland", "hungarian", 50),
    ("cleveland", "hungarian", None),
    ("cleveland", "va", 50),
    ("cleveland", "va", None),
]
WORK_CLASSES = [("Private", "Self-emp-not-inc", n) for n in (50, 200, None)] + [("Private", "Local-gov", 50)]


def table_tasks(data: Path, device: str) -> dict[str, Task]:
    """Heart disease from one hospital to another, income from one kind of work to another."""

    @cache
    def heart(hospital: str) -> tuple[pd.DataFrame, np.ndarray]:
        frame = pd.read_csv(data / "heart_disease" / "heart_4_hospitals.csv")
        frame = frame[frame["hospital"] == hospital].reset_index(drop=True)
        # The columns that all hospitals have; the few gaps are filled without a look at the labels.
        X = frame[["age", "sex", "cp", "trestbps", "thalach", "exang", "oldpeak"]].astype(float)
        X["trestbps"] = X["trestbps"].where(X["trestbps"] > 0)  # 0 stands for a missing value
        return X.fillna(X.median()), (frame["target"] > 0).to_numpy().astype(int)

    @cache
    def adult(work: str) -> tuple[pd.DataFrame, np.ndarray]:
        parts = [pd.read_csv(data / "adult" / f"{part}.csv.gz") for part in ("train", "test")]
        frame = pd.concat(parts)
        frame = frame[frame["workclass"] == work].reset_index(drop=True)
        return frame.drop(columns=["income", "workclass", "fnlwgt"]), (frame["income"] == ">50K").to_numpy().astype(int)

    @cache
    def source(rows: Callable[[str], Any], name: str) -> FineTunedClassifier:
        # A thousand rows or more are validated, and training then ends by itself.
        return FineTunedClassifier(
            max_epochs=SOURCE_EPOCHS if rows is heart else 20, random_state=0, device=device
        ).fit(*rows(name))

    def split(rows: Callable[[str], Any], name: str, n_labels: int | None, seed: int) -> Iterator[Split]:
        X, y = rows(name)
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
        if n_labels is not None:
            X, _, y, _ = train_test_split(X, y, train_size=n_labels, stratify=y, random_state=seed)
        yield Split(X, y, X_test, y_test)

    def source_rows(rows: Callable[[str], Any], name: str, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
        X, y = rows(name)
        return X[:SOURCE_ROWS_TO_WATCH], y[:SOURCE_ROWS_TO_WATCH]

    def task(rows: Callable[[str], Any], first: str, second: str, n_labels: int | None) -> Task:
        return Task(
            f"{first} -> {second}, {n_labels or 'all'} labels of 70 percent, tested on the other 30, area under the ROC curve",
            partial(split, rows, second, n_labels),
            lambda seed: {"backbone": source(rows, first)},
            lambda seed: {},
            n_seeds=10 if rows is heart else 5,
            scoring="roc_auc",
            source_rows=partial(source_rows, rows, first),
            same_classes=True,
        )

    made = {f"heart-{first}-{second}-{n or 'all'}": task(heart, first, second, n) for first, second, n in HOSPITALS}
    return made | {
        f"adult-{first}-{second}-{n or 'all'}": task(adult, first, second, n) for first, second, n in WORK_CLASSES
    }


def all_tasks(data: Path, device: str = "cpu") -> dict[str, Task]:
    """Return all tasks by name."""
    return {**series_tasks(data, device), **table_tasks(data, device), **image_tasks(data), **text_tasks(data)}


# Ways


def logistic_regression() -> Any:
    """Return the plain thing to do with few rows of a table."""
    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    names = OneHotEncoder(handle_unknown="ignore")
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")), (names, make_column_selector(dtype_exclude="number"))
    )
    return make_pipeline(
        columns,
        LogisticRegressionCV(
            Cs=np.logspace(-4, 1, 6), scoring="roc_auc", max_iter=2000, l1_ratios=(0,), use_legacy_attributes=False
        ),
    )


def make_way(way: str, task: Task, seed: int, options: argparse.Namespace) -> Any:
    """Return the estimator of a way, unfitted but for "source"."""
    common = {"random_state": seed, "device": options.device}
    if way == "logistic":
        return logistic_regression()
    if way == "scratch":
        return FineTunedClassifier(
            **NAIVE,
            **task.untrained(seed),
            max_epochs=options.scratch_epochs,
            learning_rate=options.scratch_rate,
            **common,
        )
    start = task.start(seed)
    if way == "source":
        return start["backbone"]
    if way == "probe":
        return FineTunedClassifier(freeze_depth="all", **start, **common)
    watched = {"stability_every": 1 if options.stability else None}
    if options.stability and task.source_rows is not None:
        watched["source_probe"] = task.source_rows(seed)
    if way == "naive":
        return FineTunedClassifier(**NAIVE, **start, **common, **watched)
    return FineTunedClassifier(**{**start, **common, **watched, **dict(options.set)})


def run_way(way: str, task: Task, seed: int, options: argparse.Namespace, scores: Scores) -> None:
    """Fit and score one way with one seed."""
    found, seconds, drifts = [], [], []
    score = get_scorer(task.scoring)
    for split in task.splits(seed):
        model = make_way(way, task, seed, options)
        started = time.perf_counter()
        if way != "source":
            model.fit(split.X, split.y)
        seconds.append(time.perf_counter() - started)
        found.append(float(score(model, split.X_test, split.y_test)))
        if getattr(model, "stability_", None) is not None and way != "source":
            drifts.append(drift_of(model))
    scores.scores.append(float(np.mean(found)))
    scores.seconds.append(float(np.mean(seconds)))
    if drifts:
        scores.drift.append({name: float(np.mean([one[name] for one in drifts])) for name in drifts[0]})


def drift_of(model: FineTunedClassifier) -> dict[str, float]:
    """Return how far the network that was kept is from its start: means over all stages, frozen ones included."""
    record = model.stability_
    kept = next(entry["epoch"] for entry in model.history_ if entry["best"])
    (place,) = np.flatnonzero(record.epochs == kept)
    found = {
        "weight_change": float(np.nanmean(record.weight_change[place])),
        "mismatch": float(1 - np.nanmean(record.cka[place])),
    }
    return found if record.forgetting is None else found | {"forgetting": float(record.forgetting[place])}


# What came out


def gain(scores: Mapping[str, Scores], way: str, over: str) -> tuple[float, float]:
    """Return the mean of a difference over seeds, and its standard error."""
    difference = np.subtract(scores[way].scores, scores[over].scores)
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()), float(error)


def checks_of(name: str, task: Task, scores: Mapping[str, Scores]) -> list[Check]:
    """Hold a task's scores against what is asked."""
    checks = []
    for over, asked in (("probe", task.over_probe), ("scratch", task.over_scratch)):
        if asked is not None and {"tuned", over} <= scores.keys():
            mean, error = gain(scores, "tuned", over)
            checks.append(Check(f"{name}: tuned over {over}, and one standard error", mean + error, "at least", asked))
    if {"tuned", "naive"} <= scores.keys():
        mean, error = gain(scores, "tuned", "naive")
        checks.append(Check(f"{name}: tuned over naive, and one standard error", mean + error, "at least", 0.0))
        tuned, naive = scores["tuned"].as_json(), scores["naive"].as_json()
        for what in ("weight_change", "mismatch", "forgetting"):
            if what in tuned:
                checks.append(Check(f"{name}: {what}, naive - tuned", naive[what] - tuned[what], "at least", 0.0))
    return checks


def print_task(name: str, task: Task, scores: Mapping[str, Scores]) -> None:
    """Print a task's table."""
    print(f"\n{name}: {task.protocol}")
    for way, one in scores.items():
        made = one.as_json()
        told = f"  {way:<9} {made['mean']:.4f}"
        told += "" if made["deviation"] is None else f" +- {made['deviation']:.4f}"
        told += f"  {made['seconds_a_fit']:8.1f} s a fit"
        for what in ("weight_change", "mismatch", "forgetting"):
            told += f"  {what} {made[what]:.4f}" if what in made else ""
        print(told)
    for over in scores.keys() - {"tuned"} if "tuned" in scores else ():
        mean, error = gain(scores, "tuned", over)
        print(f"  tuned - {over}: {mean:+.4f}, standard error {error:.4f}")


def setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that is no Python literal is a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=0)
    parser.add_argument("--task", action="append", metavar="NAME", help="a task, or how the names of several begin")
    parser.add_argument("--way", action="append", choices=WAYS, help="only these ways")
    parser.add_argument("--seeds", type=int, help="seeds of each task, instead of its own number")
    parser.add_argument("--first-seed", type=int, default=0, help="to run the seeds of a task in several processes")
    parser.add_argument("--set", action="append", type=setting, default=[], metavar="NAME=VALUE", help="for tuned")
    parser.add_argument("--scratch-epochs", type=int, default=SOURCE_EPOCHS)
    parser.add_argument("--scratch-rate", type=float, default=1e-3)
    parser.add_argument(
        "--no-stability", dest="stability", action="store_false", help="measure no drift and forgetting"
    )
    options = parser.parse_args(arguments)
    tasks = choose(parser, all_tasks(options.data, options.device), options.task)
    machine = begin("Fine-tuning", [], options.device)
    results: dict[str, Any] = {}
    checks: list[Check] = []
    for name, task in tasks.items():
        chosen = [way for way in options.way or WAYS if task.same_classes or way not in ("source", "logistic")]
        scores = {way: Scores() for way in chosen}
        results[name] = {"protocol": task.protocol, "scoring": task.scoring}
        for seed in range(options.first_seed, options.first_seed + (options.seeds or task.n_seeds)):
            for way in chosen:
                run_way(way, task, seed, options, scores[way])
                found = f"{scores[way].scores[-1]:.4f}, {scores[way].seconds[-1]:.0f} s a fit"
                print(f"  {name}, seed {seed}, {way}: {found}", file=sys.stderr, flush=True)
            results[name]["ways"] = {way: one.as_json() for way, one in scores.items()}
            # After each seed, since the whole takes long.
            write_evaluation("Fine-tuning on real data", options, machine, results, checks)
        print_task(name, task, scores)
        own = checks_of(name, task, scores)
        checks += own
        for check in own:
            print(f"  {check.what}: {check.value:.4f} ({'met' if check.met else 'MISSED'})", flush=True)
        write_evaluation("Fine-tuning on real data", options, machine, results, checks)
    return 1 if options.strict and not all(check.met for check in checks) else 0


if __name__ == "__main__":
    raise SystemExit(main())
