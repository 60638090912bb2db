"""Run the demo: ``python -m sktransfer.demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sktransfer import cache_clear, cache_info
from sktransfer.demo.comparison import Comparison, compare
from sktransfer.demo.picture import save_picture
from sktransfer.demo.report import (
    describe_cache,
    describe_differences,
    describe_tasks,
    explain_columns,
    format_table,
    next_steps,
)
from sktransfer.demo.tasks import image_task, text_task


def run_demo(n_splits: int = 30, seed: int = 0) -> list[Comparison]:
    """Compare the methods on both tasks and print what was found.

    Parameters
    ----------
    n_splits : int, default=30
        Number of random splits of each task.
    seed : int, default=0
        Seed of the splits.

    Returns
    -------
    list of Comparison
        The figures behind the printed table.
    """
    # So that seconds and counts are those of this run.
    cache_clear()
    print("Comparing pretrained networks with the usual scikit-learn way on few labels: about a minute.\n", flush=True)
    comparisons = [compare(task, n_splits, seed) for task in (text_task(), image_task())]
    sections = (
        describe_tasks(comparisons),
        format_table(comparisons),
        describe_differences(comparisons),
        explain_columns(),
        describe_cache(cache_info()),
        next_steps(),
    )
    print("\n\n".join(sections), flush=True)
    return comparisons


def main(arguments: Sequence[str] | None = None, *, n_splits: int = 30) -> int:
    """Run the demo as a program.

    Parameters
    ----------
    arguments : sequence of str, default=None
        The command line, without the program's name; None reads that of the process.
    n_splits : int, default=30
        Number of random splits of each task.

    Returns
    -------
    int
        Exit code: 0, or 1 if the picture could not be written.
    """
    parser = argparse.ArgumentParser(prog="python -m sktransfer.demo", description="What the shipped networks bring.")
    parser.add_argument("--output", type=Path, default=Path("sktransfer-demo.png"), help="where the picture goes")
    parser.add_argument("--seed", type=int, default=0, help="seed of the splits")
    options = parser.parse_args(arguments)
    if not options.output.parent.is_dir():
        parser.error(f"--output: there is no directory {str(options.output.parent)!r}. Create it or name another.")

    comparisons = run_demo(n_splits, options.seed)
    try:
        save_picture(comparisons, options.output)
    except (ImportError, OSError, ValueError) as error:
        print(f"\nThe picture was not written: {error}", file=sys.stderr)
        return 1
    print(f"\nThe picture is in {options.output.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
