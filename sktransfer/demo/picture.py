"""The demo's picture: accuracy of both methods, split by split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sktransfer._optional import import_optional
from sktransfer.demo.comparison import Comparison

_USUAL, _PRETRAINED, _GREY = "#7a7a7a", "#1f6fb4", "#c8c8c8"


def save_picture(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw the comparisons side by side and write them to a file.

    Parameters
    ----------
    comparisons : sequence of Comparison
        What to draw, a panel each.
    path : Path
        File to write; its ending names the format, which is PNG without one.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError, ValueError
        If the file can't be written, or its ending names no format that matplotlib writes.
    """
    # A bare Figure draws without a window and leaves the caller's backend alone, as pyplot would not.
    figure_module = import_optional("matplotlib.figure", extra="plot", purpose="The demo's picture")
    figure = figure_module.Figure(figsize=(4.4 * len(comparisons), 4.8), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(comparisons), squeeze=False)[0]
    scores = [np.stack([one.usual.scores, one.pretrained.scores]) for one in comparisons]
    # Every panel shows as many points of accuracy, so that slopes compare, around its own middle.
    height = 1.15 * max(0.05, *(np.ptp(both) for both in scores))
    for ax, comparison, both in zip(axes, comparisons, scores, strict=True):
        _draw(ax, comparison, both)
        middle = (both.min() + both.max()) / 2
        lowest, highest = middle - height / 2, middle + height / 2
        # Chosen here, because matplotlib would put ticks at halves, which whole percentages then misname.
        ax.set_yticks(np.arange(np.ceil(lowest / 0.05), np.floor(min(highest, 1) / 0.05) + 1) * 0.05)
        ax.set_ylim(lowest, highest)
    axes[0].set_ylabel("accuracy on the test rows")
    figure.suptitle("Few labels, without and with a pretrained network", fontsize=13)
    figure.supxlabel(
        f"thin lines: {scores[0].shape[1]} random splits; beside them: mean and standard deviation",
        fontsize=9,
        color="#5a5a5a",
    )
    # Given the format, matplotlib adds no ending of its own to a name that has none.
    figure.savefig(path, format=path.suffix.removeprefix(".") or "png")


def _draw(ax: Any, comparison: Comparison, both: np.ndarray) -> None:
    """Draw a panel: a thin line for each split, and mean and standard deviation beside its ends."""
    ax.plot([0, 1], both, color=_GREY, linewidth=0.7, zorder=1)
    for x, scores, color, side in ((0, both[0], _USUAL, -1), (1, both[1], _PRETRAINED, 1)):
        mean, sd = scores.mean(), scores.std()
        ax.scatter(np.full(len(scores), x), scores, s=20, color=color, alpha=0.5, linewidths=0, zorder=2)
        beside = x + 0.13 * side
        ax.errorbar(beside, mean, yerr=sd, fmt="o", markersize=8, color=color, capsize=4, linewidth=1.8, zorder=3)
        ax.annotate(
            f"{mean:.1%}",
            (beside, mean),
            xytext=(9 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=11,
            fontweight="bold",
            color=color,
        )
    ax.set_xlim(-0.55, 1.55)
    ax.set_xticks([0, 1], [comparison.usual.method, comparison.pretrained.method], fontsize=11)
    labels = comparison.n_train // comparison.n_classes
    ax.set_title(f"{comparison.task}: {comparison.n_classes} classes, {labels} labels each", fontsize=11)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.grid(axis="y", color="#ececec")
    ax.set_axisbelow(True)
    ax.tick_params(length=0)
    ax.spines[["top", "right"]].set_visible(False)
