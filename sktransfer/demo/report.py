"""The demo's words: a table, what the cache saved, and what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from sktransfer.caching import CacheInfo
from sktransfer.demo.comparison import GRID, INNER_FOLDS, Comparison, Outcome

_COLUMNS = "{:<32} {:>8} {:>7} {:>10} {:>9} {:>9}"

_NEXT_STEPS = """\
What to try next:
  Another layer: name="pretrainedfeatureextractor__layer"; GridSearchCV(model, {name: [None, -1, -2, -3]})
      for images. Which layer transfers best depends on how far the task is from what the network has learned.
  A larger network: PretrainedFeatureExtractor("path/to/all-MiniLM-L6-v2"), the directory of any
      sentence-transformers model. It is slower and usually much better than the small one shipped.
  sktransfer.list_backbones() shows what else can be named, and the licence of each."""


def format_table(comparisons: Sequence[Comparison]) -> str:
    """Return a table with a row for each method and a line on each difference.

    Parameters
    ----------
    comparisons : sequence of Comparison
        What to print.

    Returns
    -------
    str
    """
    header = _COLUMNS.format("", "accuracy", "sd", "difference", "C chosen", "seconds")
    lines = [header, "-" * len(header)]
    for comparison in comparisons:
        difference = comparison.pretrained.scores - comparison.usual.scores
        lines.append(_row(comparison.task, comparison.usual, ""))
        lines.append(_row(comparison.task, comparison.pretrained, f"{difference.mean():+.3f}"))
    return "\n".join(lines)


def _row(task: str, outcome: Outcome, difference: str) -> str:
    return _COLUMNS.format(
        f"{task}: {outcome.method}",
        f"{outcome.scores.mean():.3f}",
        f"{outcome.scores.std():.3f}",
        difference,
        f"{median_low(outcome.chosen_C):g}",
        f"{outcome.seconds:.1f}",
    )


def describe_tasks(comparisons: Sequence[Comparison]) -> str:
    """Say what was learned from how many rows."""
    return "\n".join(
        f"{one.task}: {one.n_classes} classes, {one.n_train // one.n_classes} labels each to learn from, "
        f"{one.n_test:,} rows to test on."
        for one in comparisons
    )


def describe_differences(comparisons: Sequence[Comparison]) -> str:
    """Say which method is ahead, by how much, and on how many of the splits."""
    return "\n".join(_describe_difference(one) for one in comparisons)


def _describe_difference(comparison: Comparison) -> str:
    difference = comparison.pretrained.scores - comparison.usual.scores
    points = 100 * difference.mean()
    result = "on a par" if abs(points) < 0.05 else f"{abs(points):.1f} points {'ahead' if points > 0 else 'behind'}"
    return (
        f"{comparison.task}: the pretrained network is {result} on average; "
        f"it is better in {(difference > 0).sum()} of {len(difference)} splits."
    )


def explain_columns() -> str:
    """Say how the figures of the table came about."""
    values = GRID["logisticregression__C"]
    return (
        "sd is the standard deviation over splits; the splits share rows, so it is no confidence interval.\n"
        "Another --seed draws other splits and moves the averages.\n"
        f"C of LogisticRegression was chosen by {INNER_FOLDS}-fold cross-validation on the labelled rows of each split,"
        f"\namong {len(values)} values from {values.min():g} to {values.max():g}; "
        "the table shows the median. How strongly C regularises depends\n"
        "on the scale of the features, so an embedding of unit length or a standardised one needs another C\n"
        "than word weights or pixels do, and one C for all would favour one side.\n"
        "seconds are for all splits and searches, loading and running the network included."
    )


def describe_cache(info: CacheInfo) -> str:
    """Say in one sentence what the cache saved.

    Parameters
    ----------
    info : CacheInfo
        Of this run.

    Returns
    -------
    str
    """
    asked = info.hits + info.misses
    return (
        f"In all searches, folds and predictions the pretrained networks were asked for {asked:,} rows, and really "
        f"encoded {info.misses:,}."
    )


def next_steps() -> str:
    """Return what the reader may want to try."""
    return _NEXT_STEPS
