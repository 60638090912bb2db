"""Choose the defaults of fine-tuning on the tasks of `evaluate_fine_tuning`: rates, depth, batch norm, epochs.

    python -m benchmarks.calibrate_fine_tuning --data ../shared/data --json calibration.json
    python -m benchmarks.calibrate_fine_tuning --data ../shared/data --task series --seeds 1
    python -m benchmarks.calibrate_fine_tuning --data ../shared/data --task trec --seeds 1 --set learning_rate

Prints, for each setting, what it gains over the frozen probe on each task, the mean over tasks, and the largest loss. A
setting is the defaults but for what its name says; ``--set`` takes names or how they begin. The seeds are not those of the
evaluation: they choose other target rows, or another order of them where the split is official.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer

from benchmarks.evaluate_fine_tuning import FULL_WAYS, WAYS
from benchmarks.fine_tuning_tasks import Task, all_tasks
from benchmarks.report import begin, choose, make_parser, write_evaluation
from sktransfer import FineTunedClassifier

FIRST_SEED = 100
OTHERS: dict[str, tuple[Any, ...]] = {
    "learning_rate": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "layer_decay": (1.0,),
    "max_epochs": (10, 40),
    "weight_interpolation": (0.25, 0.5, 0.75),
}
DEPTHS = (-1, 0.5, 0)
# Photographs and texts take minutes a fit.
CHEAP = ("series", "heart", "adult", "digits", "mnist")


def settings() -> dict[str, dict[str, Any]]:
    """Return the settings to try, by name."""
    made: dict[str, dict[str, Any]] = {way: WAYS[way] for way in ("probe", *FULL_WAYS)} | {"defaults": {}}
    for depth, fixed in itertools.product(DEPTHS, (True, False)):
        name = f"freeze_depth {depth:g}, freeze_batch_norm {fixed}"
        made[name] = {"freeze_depth": depth, "freeze_batch_norm": fixed}
    return made | {f"{name} {value:g}": {name: value} for name, values in OTHERS.items() for value in values}


def gains(task: Task, tried: dict[str, dict[str, Any]], n_seeds: int, device: str) -> dict[str, float]:
    """Return what each setting gains over the probe, on average over seeds; the probe's own entry is its score."""
    score = get_scorer(task.scoring)
    found: dict[str, list[float]] = {name: [] for name in tried}
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        for split in task.splits(seed):
            for name, setting in tried.items():
                model = FineTunedClassifier(**{**task.start(seed), "random_state": seed, "device": device, **setting})
                model.fit(split.X, split.y)
                found[name].append(float(score(model, split.X_test, split.y_test)))
    means = {name: float(np.mean(scores)) for name, scores in found.items()}
    return {name: mean if name == "probe" else mean - means["probe"] for name, mean in means.items()}


def print_table(found: dict[str, dict[str, float]], tried: Sequence[str]) -> None:
    """Print gains by setting and task."""
    names = list(found)
    for place, name in enumerate(names):
        print(f"{place:3d}  {name}: probe {found[name]['probe']:.3f}")
    print(f"{'':46}" + "".join(f"{place:8d}" for place in range(len(names))) + "    mean   worst")
    for setting in tried:
        if setting != "probe":
            row = np.array([found[name][setting] for name in names])
            print(f"{setting:46}" + "".join(f"{one:+8.3f}" for one in row) + f"{row.mean():+8.3f}{row.min():+8.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all settings, print the table, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=0)
    parser.add_argument(
        "--task", action="append", metavar="NAME", help="how the names of tasks begin; cheap ones if not given"
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument(
        "--set", action="append", metavar="NAME", help="only settings whose names begin so, beside the probe"
    )
    options = parser.parse_args(arguments)
    tasks = choose(parser, all_tasks(options.data, options.device), options.task or CHEAP)
    machine = begin("Calibration", [], options.device)
    chosen = ("probe", *options.set) if options.set else ("",)
    tried = {name: one for name, one in settings().items() if name.startswith(chosen)}
    found: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        started = time.perf_counter()
        found[name] = gains(task, tried, options.seeds, options.device)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        write_evaluation("Calibration of fine-tuning", options, machine, found)
    print_table(found, list(tried))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
