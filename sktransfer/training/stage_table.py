"""The table of stages in an estimator's HTML picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sktransfer.training.network import StageInfo


def stages_html(stages: Sequence[StageInfo], shift: float | None = None) -> str:
    """Return a table of stages that can be folded away.

    Parameters
    ----------
    stages : sequence of StageInfo
    shift : float or None, default=None
        The shift from the source, shown beside them.

    Returns
    -------
    str
    """
    rows = "".join(
        f"<tr><td>{escape(stage.name)}</td><td>{stage.n_parameters:,}</td>"
        f"<td>{'frozen' if stage.frozen else f'{stage.learning_rate:.2g}'}</td></tr>"
        for stage in stages
    )
    n_trained = sum(not stage.frozen for stage in stages)
    measured = "" if shift is None else f"; shift from the source {shift:.2f}"
    return (
        f"<details><summary>{len(stages)} stages, {n_trained} of them trained{measured}</summary><table>"
        f"<thead><tr><th>stage</th><th>weights</th><th>learning rate</th></tr></thead><tbody>{rows}</tbody></table></details>"
    )
