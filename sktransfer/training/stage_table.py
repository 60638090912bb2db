"""The table of stages in an estimator's HTML picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sktransfer.training.tunable import StageInfo


def stages_html(stages: Sequence[StageInfo]) -> str:
    """Return a table of stages that can be folded away.

    Parameters
    ----------
    stages : sequence of StageInfo

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
    return (
        f"<details><summary>{len(stages)} stages, {n_trained} of them trained</summary><table>"
        f"<thead><tr><th>stage</th><th>weights</th><th>learning rate</th></tr></thead><tbody>{rows}</tbody></table></details>"
    )
