"""The tasks of `evaluate_fine_tuning`: rows of real data, the network to start from, and how it is scored."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

from sktransfer import FineTunedClassifier, ModuleBackbone

# Enough for a source or a network from scratch to learn from few rows, which 20 passes over them are not.
SOURCE_EPOCHS = 50
SOURCE_ROWS_TO_WATCH = 400
Rows = tuple[Any, np.ndarray]


@dataclass(frozen=True)
class Split:
    """Rows to learn from, and rows to be tested on."""

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
    source_rows: Callable[[int], Rows] | None = None
    same_classes: bool = False
    over_probe: float | None = None
    over_scratch: float | None = None


def image_tasks(data: Path) -> dict[str, Task]:
    """Ants and bees, digits and CIFAR-10, from ImageNet's MobileNetV1 and the shipped network."""

    @cache
    def photographs() -> Rows:
        paths = sorted((data / "hymenoptera").glob("*/*/*.jp*g"))
        return np.array([str(path) for path in paths]), np.array([path.parent.name for path in paths])

    @cache
    def mnist(part: str) -> Rows:
        archive = np.load(data / "mnist.npz")
        return archive[f"x_{part}"], archive[f"y_{part}"]

    @cache
    def cifar10(part: str) -> Rows:
        from benchmarks.train_image_network import load_cifar10

        return load_cifar10(data, part)

    def folds(seed: int) -> Iterator[Split]:
        X, y = photographs()
        for train, test in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
            yield Split(X[train], y[train], X[test], y[test])

    def few_photographs(seed: int) -> Iterator[Split]:
        X, y = photographs()
        chosen = few_a_class(y, 20, seed)
        others = np.setdiff1d(np.arange(len(y)), chosen)
        yield Split(X[chosen], y[chosen], X[others], y[others])

    def few_digits(seed: int) -> Iterator[Split]:
        digits = load_digits()
        images = (digits.images / 16).astype(np.float32)
        X, X_test, y, y_test = train_test_split(
            images, digits.target, train_size=100, stratify=digits.target, random_state=seed
        )
        yield Split(X, y, X_test, y_test)

    def few(rows: Callable[[str], Rows], n: int, n_test: int, seed: int) -> Iterator[Split]:
        (X, y), (X_test, y_test) = rows("train"), rows("test")
        chosen = few_a_class(y, n, seed)
        yield Split(X[chosen], y[chosen], X_test[:n_test], y_test[:n_test])

    def learned(seed: int) -> Rows:
        X, y = cifar10("test")
        return X[:SOURCE_ROWS_TO_WATCH], y[:SOURCE_ROWS_TO_WATCH]

    shipped = {"backbone": "image-resnet", "modality": "image"}
    from_shipped = {
        "start": lambda seed: shipped,
        "untrained": lambda seed: {**shipped, "weights": "random"},
        "source_rows": learned,
    }
    from_imagenet = {
        "start": lambda seed: {"backbone": mobilenet(data, None)},
        "untrained": lambda seed: {"backbone": mobilenet(data, seed)},
    }
    return {
        "digits": Task(
            "scikit-learn's digits, 10 labels a class, the shipped image network",
            few_digits,
            **from_shipped,
            n_seeds=10,
            over_scratch=0.0,
        ),
        **{
            f"mnist-{n}": Task(
                f"MNIST, {n} labels a class, the shipped image network", partial(few, mnist, n, 2000), **from_shipped
            )
            for n in (10, 50)
        },
        "ants-bees-20": Task(
            "photographs of ants and bees, 20 labels a class, the shipped image network",
            few_photographs,
            **from_shipped,
        ),
        "hymenoptera-20": Task(
            "photographs of ants and bees, 20 labels a class, MobileNetV1", few_photographs, **from_imagenet
        ),
        "cifar10-20": Task(
            "CIFAR-10, 20 labels a class, MobileNetV1", partial(few, cifar10, 20, 1000), **from_imagenet
        ),
        "hymenoptera": Task(
            "397 photographs of ants and bees, MobileNetV1 of ImageNet; a seed is one 5-fold cross-validation",
            folds,
            **from_imagenet,
            n_seeds=3,
            over_probe=0.0,
            over_scratch=0.1,
        ),
    }


def few_a_class(y: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return indices of some rows of each class."""
    shuffled = pd.Series(y).sample(frac=1, random_state=seed)
    return shuffled.groupby(shuffled).head(n).index.to_numpy()


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
    """Intents of Banking77, questions of TREC and news of AG, from all-MiniLM-L6-v2."""
    from benchmarks.compare_text_encoding import FOLDER

    def read(name: str, label: str) -> pd.DataFrame:
        return pd.read_csv(data / name, keep_default_na=False).rename(columns={label: "label"})

    @cache
    def banking77(part: str) -> pd.DataFrame:
        return read(f"banking77/{part}.csv", "category")

    @cache
    def cards(part: str) -> pd.DataFrame:
        """Ten intents that have to do with cards."""
        frame = banking77(part)
        named = [name for name in sorted(set(frame["label"])) if "card" in name]
        return frame[frame["label"].isin(named[:10])]

    @cache
    def trec(part: str) -> pd.DataFrame:
        return read(f"trec/{part}.csv", "coarse")

    @cache
    def ag_news(part: str) -> pd.DataFrame:
        # The training part is not among the data.
        frame = read("ag_news/test.csv.gz", "label").sample(frac=1, random_state=0)
        frame["text"] = frame["title"] + ". " + frame["description"]
        return frame[2000:] if part == "train" else frame[:2000]

    def labels_a_class(frames: Callable[[str], pd.DataFrame], most: int | None, seed: int) -> Iterator[Split]:
        train, test = frames("train"), frames("test")
        if most is not None:
            train = train.sample(frac=1, random_state=seed).groupby("label").head(most)
        yield Split(list(train["text"]), train["label"].to_numpy(str), list(test["text"]), test["label"].to_numpy(str))

    def questions(seed: int) -> Rows:
        frame = trec("train").sample(SOURCE_ROWS_TO_WATCH, random_state=0)
        return list(frame["text"]), frame["label"].to_numpy(str)

    def task(what: str, frames: Callable[[str], pd.DataFrame], most: int | None, **others: Any) -> Task:
        return Task(
            f"{what}, {f'at most {most}' if most else 'all'} labels a class, all-MiniLM-L6-v2",
            partial(labels_a_class, frames, most),
            lambda seed: {"backbone": FOLDER},
            lambda seed: {"backbone": untrained_copy(FOLDER, seed)},
            **others,
        )

    forgets = {"source_rows": questions}
    return {
        **{f"cards-{most}": task("10 intents of Banking77", cards, most, **forgets) for most in (8, 32)},
        **{f"trec-{most}": task("TREC", trec, most) for most in (16, 64)},
        "ag-news-16": task("AG News", ag_news, 16, **forgets),
        "banking77-8": task("Banking77", banking77, 8, **forgets, over_probe=0.0),
        "banking77-64": task("Banking77", banking77, 64, **forgets, n_seeds=3, over_probe=0.01),
        "banking77-all": task("Banking77", banking77, None, **forgets, n_seeds=3, over_probe=0.01),
    }


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

    def rows(name: str) -> Rows:
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
