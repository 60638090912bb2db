"""Choose the defaults of fine-tuning: rates, their ratio and the depth, on the tasks of `evaluate_fine_tuning`.

    python -m benchmarks.calibrate_fine_tuning --data ../shared/data --json calibration.json
    python -m benchmarks.calibrate_fine_tuning --data ../shared/data --task series --seeds 1

Prints, for each setting, what it gains over the frozen probe on each task, the mean over tasks, and the largest loss. Its
seeds are not those of the evaluation: they choose other target rows, or another order of them where the split is official.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import get_scorer

from benchmarks.evaluate_fine_tuning import NAIVE, Task, all_tasks
from benchmarks.report import begin, make_parser
from sktransfer import FineTunedClassifier

FIRST_SEED = 100
RATES, RATIOS, DEPTHS = (3e-4, 1e-3, 3e-3), (0.03, 0.1, 0.3, 1.0), (0.5, 0)
# Photographs and 77 intents take minutes a fit.
CHEAP = ("series", "heart", "adult", "digits")


def settings() -> dict[str, dict[str, Any]]:
    """Return the settings to try, by name."""
    made: dict[str, dict[str, Any]] = {"probe": {"freeze_depth": "all"}, "naive": dict(NAIVE)}
    for rate, ratio, depth in itertools.product(RATES, RATIOS, DEPTHS):
        name = f"rate {rate:g}, ratio {ratio:g}, depth {depth:g}"
        made[name] = {"learning_rate": rate, "backbone_lr_ratio": ratio, "freeze_depth": depth}
    return made


def gains(task: Task, tried: dict[str, dict[str, Any]], n_seeds: int, device: str) -> dict[str, float]:
    """Return what each setting gains over the probe, on average over seeds; the probe's own entry is its score."""
    score = get_scorer(task.scoring)
    found: dict[str, list[float]] = {name: [] for name in tried}
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        for split in task.splits(seed):
            for name, setting in tried.items():
                model = FineTunedClassifier(**{**task.start(seed), "random_state": seed, "device": device, **setting})
                found[name].append(float(score(model.fit(split.X, split.y), split.X_test, split.y_test)))
    means = {name: float(np.mean(scores)) for name, scores in found.items()}
    return {name: mean if name == "probe" else mean - means["probe"] for name, mean in means.items()}


def print_table(found: dict[str, dict[str, float]], tried: Sequence[str]) -> None:
    """Print gains by setting and task."""
    names = list(found)
    for place, name in enumerate(names):
        print(f"{place:3d}  {name}: probe {found[name]['probe']:.3f}")
    print(f"{'':32}" + "".join(f"{place:8d}" for place in range(len(names))) + "    mean   worst")
    for setting in tried:
        if setting != "probe":
            row = np.array([found[name][setting] for name in names])
            print(f"{setting:32}" + "".join(f"{one:+8.3f}" for one in row) + f"{row.mean():+8.3f}{row.min():+8.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all settings, print the table, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=0)
    parser.add_argument(
        "--task", action="append", metavar="NAME", help="how the names of tasks begin; cheap ones if not given"
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--set", action="append", metavar="NAME", help="only these settings, beside the probe")
    options = parser.parse_args(arguments)
    machine = begin("Calibration", [], options.device)
    prefixes = tuple(options.task or CHEAP)
    tried = {name: one for name, one in settings().items() if not options.set or name in {"probe", *options.set}}
    found: dict[str, dict[str, float]] = {}
    for name, task in all_tasks(Path(options.data), options.device).items():
        if name.startswith(prefixes):
            started = time.perf_counter()
            found[name] = gains(task, tried, options.seeds, options.device)
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
            if options.json:  # after each task, since the whole takes long
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(
                    json.dumps({"machine": dict(machine), "tasks": found}, indent=2), encoding="utf-8"
                )
    print_table(found, list(tried))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
