"""What looks on while a network is trained: progress, scikit-learn's callbacks, unfreezing, the stability record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from sktransfer.runtime.progress import progress_bar
from sktransfer.training.network import TunableNetwork
from sktransfer.training.rows import NetworkRows
from sktransfer.training.settings import Settings
from sktransfer.training.stability import StabilityMonitor, StabilityRecord


class Bystander:
    """An observer that does nothing; others say what they do."""

    def on_start(self, n_epochs: int) -> None:
        """Do nothing before training."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Do nothing before an epoch."""

    def after_backward(self) -> None:
        """Do nothing in a step."""

    def on_epoch_end(self, epoch: int, entry: dict[str, Any]) -> bool | None:
        """Do nothing after an epoch."""

    def on_last_epoch(self, epoch: int) -> None:
        """Do nothing after the last epoch."""

    def close(self) -> None:
        """Do nothing at the end."""


class ProgressBar(Bystander):
    """Shows epochs and losses.

    Parameters
    ----------
    description : str
        What stands in front.
    """

    def __init__(self, description: str):
        self.description = description
        self.bar: Any = None

    def on_start(self, n_epochs: int) -> None:
        """Show an empty bar."""
        self.bar = progress_bar(n_epochs, self.description, "epoch")

    def on_epoch_end(self, epoch: int, entry: dict[str, Any]) -> None:
        """Show the losses of an epoch."""
        shown = {name: f"{entry[name]:.4g}" for name in ("train_loss", "valid_loss") if entry[name] is not None}
        self.bar.set_postfix(shown)
        self.bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()


class EpochTasks(Bystander):
    """Makes each epoch a task of scikit-learn's callbacks.

    Parameters
    ----------
    context : CallbackContext
        Of the estimator's `fit`.
    arguments : dict
        What callbacks are told: the estimator, X, y, metadata.
    attributes : callable
        Gives the fitted attributes with which the estimator could predict at this moment.
    """

    def __init__(self, context: Any, arguments: dict[str, Any], attributes: Callable[[], Mapping[str, Any]]):
        self.context = context
        self.arguments = arguments
        self.attributes = attributes

    def on_epoch_begin(self, epoch: int) -> None:
        """Begin the task."""
        self.task = self.context.subcontext(task_name="epoch")
        self.task.call_on_fit_task_begin(**self.arguments, reconstruction_attributes=dict(self.attributes()))

    def on_epoch_end(self, epoch: int, entry: dict[str, Any]) -> bool:
        """End the task, and say whether a callback wants training to end."""
        made = dict(self.attributes())
        return bool(self.task.call_on_fit_task_end(**self.arguments, reconstruction_attributes=made))


class GradualUnfreezing(Bystander):
    """Opens one more stage every few epochs, from the top (Howard and Ruder 2018, arXiv:1801.06146).

    Parameters
    ----------
    network : TunableNetwork
        In the first epochs only its top stage and head are trained.
    every : int
        Epochs after which one more stage is.
    """

    def __init__(self, network: TunableNetwork, every: int):
        self.network = network
        self.every = every

    def on_epoch_begin(self, epoch: int) -> None:
        """Open the stages that are due."""
        top = len(self.network.stage_names) - 1
        self.network.open_from(top - (epoch - 1) // self.every)


class StabilityObserver(Bystander):
    """Keeps the stability record.

    Parameters
    ----------
    network : TunableNetwork
        What is trained.
    rows : NetworkRows
        The training rows, of which some are looked at again and again.
    places : list of int
        Which ones.
    settings : Settings
        Where the network is.
    every : int
        Epochs between records.
    source_score : callable, optional
        Score on the source at this moment.
    """

    def __init__(
        self,
        network: TunableNetwork,
        rows: NetworkRows,
        places: list[int],
        settings: Settings,
        every: int,
        source_score: Callable[[], float] | None = None,
    ):
        self.network = network
        self.rows = rows
        self.places = places
        self.settings = settings
        self.every = every
        self.source_score = source_score
        self.monitor: StabilityMonitor | None = None

    def on_start(self, n_epochs: int) -> None:
        """Record the start."""
        depth = self.network.cut.depth
        parameters = {
            name: self.network.stage_parameters[place] if place >= depth else []
            for place, name in enumerate(self.network.stage_names)
        }
        self.monitor = StabilityMonitor(parameters, self._representations, self.source_score)
        self.monitor.record(0)

    def after_backward(self) -> None:
        """Add up gradients."""
        if self.monitor is not None:
            self.monitor.after_backward()

    def on_epoch_end(self, epoch: int, entry: dict[str, Any]) -> None:
        """Record what is due."""
        if self.monitor is not None and epoch % self.every == 0:
            self.monitor.record(epoch)

    def on_last_epoch(self, epoch: int) -> None:
        """Record the end, wherever it is."""
        if self.monitor is not None and epoch % self.every:
            self.monitor.record(epoch)

    def measure_again(self) -> None:
        """Record the end as it is now, with the network in eval mode, if training got as far as an end."""
        if self.monitor is not None and self.monitor.last_epoch:
            self.monitor.measure_again()

    def result(self) -> StabilityRecord | None:
        """Return the record, None where none was asked for."""
        return None if self.monitor is None else self.monitor.result()

    def _representations(self) -> dict[str, np.ndarray]:
        training = self.network.training
        self.network.eval()
        parts: dict[str, list[tuple[int, np.ndarray]]] = {}
        try:
            for positions, chunk in self.rows.chunks(self.places):
                device = next(self.network.parameters()).device
                made = self.network.representations(chunk.to(device, self.settings.dtype))
                for name, vectors in made.items():
                    if self.network.stage_names.index(name) >= self.network.cut.depth:
                        parts.setdefault(name, []).extend(zip(positions, vectors.double().cpu().numpy(), strict=True))
        finally:
            self.network.train(training)
        return {name: np.stack([row for _, row in sorted(rows, key=_place)]) for name, rows in parts.items()}


def _place(entry: tuple[int, Any]) -> int:
    return entry[0]


def stable_places(n_rows: int, most: int, seed: int) -> list[int]:
    """Choose rows to look at again and again."""
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order[:most])
