"""Search freeze depth and learning rate: what a `GridSearchCV` over fine-tuning costs here, and with skorch.

    python -m benchmarks.compare_fine_tuning_search --data ../shared/data

Three depths, two rates, three folds and a refit, over texts of all 77 classes of Banking77 and all-MiniLM-L6-v2. The peer
is what one writes with skorch: its tokenizer in a pipeline, padding to the longest of these texts, and a module with frozen
layers. "Equal work" has the same epochs, batches, folds, optimizer, rates and pooling on both sides, and a head that starts
at random. "Defaults" adds what this package does by itself: the probe, its temperature, warm-up, cosine and clipping. Our
cache is emptied before each search.

A head that starts at random on vectors of unit length learns next to nothing in so few steps at this package's usual rates,
so equal work has larger ones for the head, on both sides. Layers have the same rates on all sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from skorch import NeuralNetClassifier
from skorch.hf import HuggingfacePretrainedTokenizer
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from benchmarks.compare_text_encoding import FOLDER
from benchmarks.pairs import time_in_turn
from benchmarks.report import Check, Comparison, Contest, begin, finish, make_parser
from sktransfer import FineTunedClassifier, cache_clear

PEER = "skorch"
N_FOLDS = 3
BATCH_SIZE = 32
DEPTHS = ["all", -1, -2]
RATES = [3e-5, 1e-4]
HEAD_RATIO = 100
ASKED = {"equal work": 6.0, "defaults": 4.0}
Rows = tuple[pd.Series, np.ndarray]


def load_rows(data: Path, rows_per_class: int, n_classes: int) -> Rows:
    """Return texts of the first classes, and the number of the class of each."""
    frame = pd.read_csv(data / "banking77" / "train.csv", keep_default_na=False)
    frame = frame[frame["category"].isin(sorted(set(frame["category"]))[:n_classes])]
    frame = frame.groupby("category").sample(rows_per_class, random_state=0).sample(frac=1, random_state=0)
    return frame["text"].reset_index(drop=True), np.unique(frame["category"], return_inverse=True)[1].astype(np.int64)


def search(pipeline: Pipeline, grid: Any, texts: pd.Series, labels: np.ndarray) -> GridSearchCV:
    """Run a search; all sides see the same folds."""
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    return GridSearchCV(pipeline, grid, cv=folds, error_score="raise").fit(texts, labels)


def search_ours(texts: pd.Series, labels: np.ndarray, epochs: int, *, defaults: bool) -> GridSearchCV:
    """Search with this package, beginning with an empty cache."""
    cache_clear()
    equal = {
        "head_init": "random",
        "head_lr_ratio": HEAD_RATIO,
        "layer_decay": 1.0,
        "weight_decay": 0.0,
        "warmup_ratio": 0.0,
        "lr_scheduler": "constant",
        "max_grad_norm": None,
        "early_stopping": False,
    }
    chosen = {} if defaults else equal
    model = FineTunedClassifier(
        FOLDER, max_epochs=epochs, batch_size=BATCH_SIZE, device="cpu", random_state=0, **chosen
    )
    grid = {"clf__freeze_depth": DEPTHS, "clf__learning_rate": RATES}
    return search(Pipeline([("clf", model)]), grid, texts, labels)


class FrozenMiniLM(nn.Module):
    """MiniLM with its lower layers frozen, mean pooling, unit length, and a linear head.

    Parameters
    ----------
    n_classes : int
        Outputs of the head.
    freeze_depth : "all" or int
        "all" freezes the encoder, -2 all but its last two layers.
    """

    def __init__(self, n_classes: int, freeze_depth: Any = "all"):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(FOLDER, dtype=torch.float32)
        self.head = nn.Linear(self.encoder.config.hidden_size, n_classes)
        # As this package draws it: torch's own larger weights learn more slowly, which is not what is compared.
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.encoder.requires_grad_(False)
        self.open = [] if freeze_depth == "all" else list(self.encoder.encoder.layer[freeze_depth:])
        for layer in self.open:
            layer.requires_grad_(True)

    def train(self, mode: bool = True) -> FrozenMiniLM:
        """Put what is not frozen into training mode."""
        super().train(mode)
        self.encoder.eval()
        for layer in self.open:
            layer.train(mode)
        return self

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **unused: torch.Tensor) -> torch.Tensor:
        """Return the scores of classes."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(2).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return self.head(nn.functional.normalize(pooled, dim=1))


def search_peer(texts: pd.Series, labels: np.ndarray, epochs: int) -> GridSearchCV:
    """Search with skorch."""
    longest = max(map(len, AutoTokenizer.from_pretrained(FOLDER)(list(texts))["input_ids"]))
    net = NeuralNetClassifier(
        FrozenMiniLM,
        module__n_classes=len(np.unique(labels)),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=0.0,
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    tokenizer = HuggingfacePretrainedTokenizer(str(FOLDER), max_length=longest)
    grid = [
        {
            "clf__module__freeze_depth": DEPTHS,
            "clf__lr": [rate * HEAD_RATIO],
            "clf__optimizer__param_groups": [[("encoder.*", {"lr": rate})]],
        }
        for rate in RATES
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return search(Pipeline([("tokens", tokenizer), ("clf", net)]), grid, texts, labels)


def scores_of(made: GridSearchCV) -> dict[tuple[Any, int], float]:
    """Return the mean test score of each depth and rate, the rate by its place."""
    found = {}
    rates = sorted({_one(setting, "learning_rate", "lr") for setting in made.cv_results_["params"]})
    for setting, score in zip(made.cv_results_["params"], made.cv_results_["mean_test_score"], strict=True):
        place = rates.index(_one(setting, "learning_rate", "lr"))
        found[_one(setting, "freeze_depth"), place] = float(score)
    return found


def _one(setting: dict[str, Any], *ends: str) -> Any:
    return next(value for name, value in setting.items() if name.split("__")[-1] in ends)


def compare(texts: pd.Series, labels: np.ndarray, few: Rows, epochs: int, n_pairs: int) -> Comparison:
    """Warm the sides up on a few rows, time them in turn, and hold their scores against each other."""
    searches: dict[str, Callable[..., GridSearchCV]] = {
        PEER: search_peer,
        "equal work": partial(search_ours, defaults=False),
        "defaults": partial(search_ours, defaults=True),
    }
    scores: dict[str, dict[tuple[Any, int], float]] = {}

    def run(name: str) -> None:
        scores[name] = scores_of(searches[name](texts, labels, epochs))

    for one in searches.values():
        one(*few, 1)
    seconds = time_in_turn({name: partial(run, name) for name in searches}, n_rounds=n_pairs)
    gaps = [scores["equal work"][key] - scores[PEER][key] for key in scores[PEER]]
    checks = [
        # The heads of the two sides start at different random weights.
        Check("difference of the average of mean test scores, equal work", abs(float(np.mean(gaps))), "at most", 0.03),
        Check("largest difference of a mean test score, equal work", float(np.abs(gaps).max())),
        *(Check(f"best mean test score, {name}", max(found.values())) for name, found in scores.items()),
    ]
    return Comparison(
        title="GridSearchCV over fine-tuning of all-MiniLM-L6-v2",
        unit="searches",
        seconds=seconds,
        contests=[Contest(name, PEER, asked) for name, asked in ASKED.items()],
        checks=checks,
        settings={
            "texts": len(texts),
            "epochs": epochs,
            "folds": N_FOLDS,
            "depths": DEPTHS,
            "rates of layers": RATES,
            "rates of the head, equal work": [rate * HEAD_RATIO for rate in RATES],
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=3, device=False)
    parser.add_argument("--rows-per-class", type=int, default=4, help="texts of each class, at least 3")
    parser.add_argument("--classes", type=int, default=77, help="of these, the first in the alphabet")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args(arguments)
    disable_progress_bar()  # which shows each time that the peer loads the network
    texts, labels = load_rows(options.data, options.rows_per_class, options.classes)
    few = load_rows(options.data, N_FOLDS, options.classes)
    machine = begin("Searching", ["skorch"], "cpu")
    return finish(compare(texts, labels, few, options.epochs, options.pairs), options, machine)


if __name__ == "__main__":
    raise SystemExit(main())
