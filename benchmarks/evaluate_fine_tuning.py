"""Fine-tune on real data, next to the frozen probe, full fine-tuning and training from scratch.

    python -m benchmarks.evaluate_fine_tuning --data ../shared/data --json scores.json
    python -m benchmarks.evaluate_fine_tuning --data ../shared/data --task mnist --task trec --way probe --way tuned --way full
    python -m benchmarks.evaluate_fine_tuning --data ../shared/data --task digits --way tuned --set learning_rate=1e-3

``--task`` takes a name or how names begin, ``--set`` a parameter of "tuned" other than its default. The ways: "probe"
freezes everything, "tuned" has the defaults. "full" and "full-fast" are full fine-tuning: all stages at one rate under a
random head, batch norm learning; "full" at the usual rate for the network and the head ten times as fast, "full-fast" all at
1e-3. "scratch" does the latter with an untrained network of the same architecture, for ``--scratch-epochs`` epochs. Where
source and target have the same classes, "source" is the source network as it is, and "logistic" a logistic regression on
the target rows alone. A source network is trained once, whatever the number of seeds; they decide which rows of the target
are labelled, the order of rows, and what is random in training.

Prints for each task the mean of each way, the seconds of a fit, and the paired difference of "tuned" to the others with its
standard error; at the end, a line for each task and the means over tasks. The cache is emptied before each fit.
``--stability`` also measures drift and forgetting, which takes part of the seconds.
"""

from __future__ import annotations

import argparse
import ast
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import get_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.fine_tuning_tasks import SOURCE_EPOCHS, Task, all_tasks
from benchmarks.report import Check, begin, choose, make_parser, write_evaluation
from sktransfer import FineTunedClassifier, cache_clear

FULL = {"freeze_depth": 0, "layer_decay": 1.0, "head_init": "random"}
WAYS: dict[str, dict[str, Any]] = {
    "probe": {"freeze_depth": "all"},
    "tuned": {},
    "full": FULL,
    "full-fast": {**FULL, "learning_rate": 1e-3, "head_lr_ratio": 1.0},
    "scratch": {},
    "source": {},
    "logistic": {},
}
FULL_WAYS = ("full", "full-fast")


@dataclass
class Scores:
    """What one way reaches on one task, by seed: the mean over its splits."""

    scores: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    drift: list[dict[str, float]] = field(default_factory=list)
    source_shift: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return everything, with means and deviations over seeds."""
        made: dict[str, Any] = {
            "mean": float(np.mean(self.scores)),
            "deviation": float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else None,
            "seconds_a_fit": float(np.mean(self.seconds)),
            "scores": self.scores,
            "source_shift": self.source_shift,
        }
        names = self.drift[0] if self.drift else ()
        return made | {name: float(np.mean([one[name] for one in self.drift])) for name in names}


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
        rates = {**WAYS["full-fast"], "learning_rate": options.scratch_rate, "max_epochs": options.scratch_epochs}
        return FineTunedClassifier(**rates, **task.untrained(seed), **common)
    start = task.start(seed)
    if way == "source":
        return start["backbone"]
    made = {**WAYS[way], **start, **common}
    if options.stability and way != "probe":
        made["stability_every"] = 1
        if task.source_rows is not None:
            made["source_probe"] = task.source_rows(seed)
    return FineTunedClassifier(**{**made, **dict(options.set if way == "tuned" else ())})


def run_way(way: str, task: Task, seed: int, options: argparse.Namespace, scores: Scores) -> None:
    """Fit and score one way with one seed."""
    found, seconds, drifts = [], [], []
    score = get_scorer(task.scoring)
    for split in task.splits(seed):
        model = make_way(way, task, seed, options)
        cache_clear()
        started = time.perf_counter()
        if way != "source":
            model.fit(split.X, split.y)
        seconds.append(time.perf_counter() - started)
        found.append(float(score(model, split.X_test, split.y_test)))
        if way not in ("source", "logistic"):
            scores.source_shift = model.source_shift_
            drifts += [] if model.stability_ is None else [drift_of(model)]
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
    simple = [way for way in ("probe", *FULL_WAYS) if way in scores]
    if "tuned" in scores and simple:
        best = max(simple, key=lambda way: np.mean(scores[way].scores))
        mean, error = gain(scores, "tuned", best)
        checks.append(
            Check(f"{name}: tuned over the better, {best}, and one standard error", mean + error, "at least", 0.0)
        )
    if {"tuned", "full-fast"} <= scores.keys():
        tuned, full = scores["tuned"].as_json(), scores["full-fast"].as_json()
        for what in ("weight_change", "mismatch", "forgetting"):
            if what in tuned:
                checks.append(Check(f"{name}: {what}, full-fast - tuned", full[what] - tuned[what], "at least", 0.0))
    return checks


def print_task(name: str, task: Task, scores: Mapping[str, Scores]) -> None:
    """Print a task's table."""
    print(f"\n{name}: {task.protocol}")
    for way, one in scores.items():
        made = one.as_json()
        line = f"  {way:<9} {made['mean']:.4f}"
        line += "" if made["deviation"] is None else f" +- {made['deviation']:.4f}"
        line += f"  {made['seconds_a_fit']:8.1f} s a fit"
        for what in ("weight_change", "mismatch", "forgetting"):
            line += f"  {what} {made[what]:.4f}" if what in made else ""
        print(line)
    for over in scores.keys() - {"tuned"} if "tuned" in scores else ():
        mean, error = gain(scores, "tuned", over)
        print(f"  tuned - {over}: {mean:+.4f}, standard error {error:.4f}")


def print_summary(results: Mapping[str, Mapping[str, Scores]]) -> None:
    """Print a line for each task, and the means over those that were scored in each way."""
    ways = [way for way in WAYS if all(way in scores for scores in results.values())]
    over = [way for way in ways if way != "tuned"] if "tuned" in ways else []
    head = "".join(f"{way:>11}" for way in ways) + "".join(f"{'- ' + way:>18}" for way in over)
    print(f"\n{'task':<32}{head}    shift   seconds of {', '.join(ways)}")
    for name, scores in results.items():
        line = f"{name:<32}" + "".join(f"{np.mean(scores[way].scores):>11.3f}" for way in ways)
        for way in over:
            mean, error = gain(scores, "tuned", way)
            line += f"{mean:>+11.3f} ({error:.3f})"
        shift = next((one.source_shift for one in scores.values() if one.source_shift is not None), None)
        line += f"{'-' if shift is None else f'{shift:.2f}':>9}   "
        print(line + ", ".join(f"{np.mean(scores[way].seconds):.1f}" for way in ways))
    means = {way: np.mean([np.mean(scores[way].scores) for scores in results.values()]) for way in ways}
    seconds = {way: np.mean([np.mean(scores[way].seconds) for scores in results.values()]) for way in ways}
    line = f"{'mean':<32}" + "".join(f"{means[way]:>11.3f}" for way in ways)
    line += "".join(f"{means['tuned'] - means[way]:>+11.3f}{'':7}" for way in over)
    print(f"{line}{'':12}" + ", ".join(f"{seconds[way]:.1f}" for way in ways))


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
    parser.add_argument("--stability", action="store_true", help="measure drift and forgetting too")
    options = parser.parse_args(arguments)
    tasks = choose(parser, all_tasks(options.data, options.device), options.task)
    machine = begin("Fine-tuning", [], options.device)
    results: dict[str, Any] = {}
    checks: list[Check] = []
    found: dict[str, dict[str, Scores]] = {}
    for name, task in tasks.items():
        chosen = [way for way in options.way or WAYS if task.same_classes or way not in ("source", "logistic")]
        scores = found[name] = {way: Scores() for way in chosen}
        results[name] = {"protocol": task.protocol, "scoring": task.scoring}
        for seed in range(options.first_seed, options.first_seed + (options.seeds or task.n_seeds)):
            for way in chosen:
                run_way(way, task, seed, options, scores[way])
                last = f"{scores[way].scores[-1]:.4f}, {scores[way].seconds[-1]:.0f} s a fit"
                print(f"  {name}, seed {seed}, {way}: {last}", file=sys.stderr, flush=True)
            results[name]["ways"] = {way: one.as_json() for way, one in scores.items()}
            # After each seed, since the whole takes long.
            write_evaluation("Fine-tuning on real data", options, machine, results, checks)
        print_task(name, task, scores)
        own = checks_of(name, task, scores)
        checks += own
        for check in own:
            print(f"  {check.what}: {check.value:.4f} ({'met' if check.met else 'MISSED'})", flush=True)
        write_evaluation("Fine-tuning on real data", options, machine, results, checks)
    print_summary(found)
    return 1 if options.strict and not all(check.met for check in checks) else 0


if __name__ == "__main__":
    raise SystemExit(main())
