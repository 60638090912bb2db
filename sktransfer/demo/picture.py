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
        File to write; its ending names the format.

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
    axes = figure.subplots(1, len(comparisons), sharey=True, squeeze=False)[0]
    for ax, comparison in zip(axes, comparisons, strict=True):
        _draw(ax, comparison)
    axes[0].set_ylabel("accuracy on the test rows")
    n_splits = len(comparisons[0].usual.scores)
    figure.suptitle(f"With and without a pretrained network, few labels, {n_splits} splits", fontsize=13)
    figure.savefig(path)


def _draw(ax: Any, comparison: Comparison) -> None:
    """Draw a panel: a thin line for each split, and mean and standard deviation beside its ends."""
    both = np.stack([comparison.usual.scores, comparison.pretrained.scores])
    ax.plot([0, 1], both, color=_GREY, linewidth=0.9, zorder=1)
    for x, scores, color, side in ((0, both[0], _USUAL, -1), (1, both[1], _PRETRAINED, 1)):
        mean, sd = scores.mean(), scores.std()
        ax.scatter(np.full(len(scores), x), scores, s=20, color=color, alpha=0.6, linewidths=0, zorder=2)
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
