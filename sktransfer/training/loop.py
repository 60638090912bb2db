"""The training loop: epochs, validation, the best epoch kept. Steps are taken in `skorch_adapter`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from sktransfer.runtime.device import free_memory
from sktransfer.runtime.global_settings import known_settings
from sktransfer.runtime.seeding import preserved_generators
from sktransfer.training.inference import BatchSource, evaluate, is_finite
from sktransfer.training.objective import Objective
from sktransfer.training.settings import Settings
from sktransfer.training.skorch_adapter import Diverged, Net


@dataclass
class Training:
    """What came out of a training.

    Attributes
    ----------
    history : list of dict
        One entry for each epoch, the start among them: ``epoch``, ``train_loss``, ``valid_loss``, ``learning_rate`` (of the
        head at the end of the epoch), ``seconds``, ``best`` (whether the weights are those of this epoch).
    n_epochs : int
        Epochs that ran.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    n_epochs: int = 0


def history_entry(
    epoch: int, train_loss: float | None, valid_loss: float | None, rate: float, seconds: float
) -> dict[str, Any]:
    """Return what is known of an epoch, 0 for the start, as described in `Training`."""
    return {
        "epoch": epoch,
        "train_loss": train_loss,
        "valid_loss": valid_loss,
        "learning_rate": rate,
        "seconds": seconds,
        "best": False,
    }


class Observer(Protocol):
    """Looks on while a network is trained."""

    def on_start(self, n_epochs: int) -> None:
        """Take note that training is about to begin."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Take note that an epoch, counted from 1, is about to begin."""

    def after_backward(self) -> None:
        """Take note that the gradients of a step are there."""

    def on_epoch_end(self, epoch: int, entry: dict[str, Any]) -> bool | None:
        """Take note that an epoch has ended; returning True ends the training."""

    def on_last_epoch(self, epoch: int) -> None:
        """Take note that the epoch that has just ended was the last one; weights are still those of its end."""

    def close(self) -> None:
        """Let go of what is held, whatever ended the training."""


def train(
    module: nn.Module,
    rows: BatchSource,
    objective: Objective,
    groups: list[dict[str, Any]],
    settings: Settings,
    *,
    validation: BatchSource | None = None,
    sample: BatchSource | None = None,
    penalty: Callable[[], torch.Tensor] | None = None,
    observers: Sequence[Observer] = (),
) -> Training:
    """Train a module in place.

    Parameters
    ----------
    module : nn.Module
        From the chunks of `rows` to `Outputs`; the caller's own, not a user's.
    rows : BatchSource
        The training samples.
    objective : Objective
        What is learned from them. Its modules are trained too.
    groups : list of dict
        Weights to train with their rates, as optimizers of torch take them; the head's come first.
    settings : Settings
        How to train.
    validation : BatchSource, optional
        Validation samples: the weights with the lowest loss on them, the initial ones included, are kept.
    sample : BatchSource, optional
        A few rows for which the weights have to give numbers after each epoch, where there is no `validation` that shows it:
        the loss of a step is that of the weights before it.
    penalty : callable, optional
        Gives a term that is added to the loss of every step.
    observers : sequence of Observer
        Told of epochs and steps.

    Returns
    -------
    Training
        What happened. The module is in eval mode, on the processor.

    Warns
    -----
    UserWarning
        If the loss became NaN or infinite: the best weights so far are kept.
    """
    learned = nn.ModuleList([module, objective.modules]).to(settings.device, settings.dtype)
    result = Training()
    best = _BestWeights(learned)

    def after_backward() -> None:
        for observer in observers:
            observer.after_backward()

    def validate() -> float | None:
        return None if validation is None else evaluate(module, validation, objective, settings)

    def check() -> bool:
        return sample is None or validation is not None or is_finite(module, sample, settings)

    monitor = _Monitor(result, best, settings, observers, validate, check)
    net = Net(module, rows, objective, groups, settings, penalty, after_backward, [("monitor", monitor)])
    # Dropout draws from torch's global generator.
    with known_settings(), preserved_generators(seed=settings.seed), torch.enable_grad():
        try:
            net.initialize()
            monitor.start()
            net.fit_loop(rows)
        except _StopTraining:
            pass
        except Diverged:
            best.restore()
            _warn(
                f"The loss became NaN or infinite in epoch {result.n_epochs + 1}, so training stopped; the weights are those "
                f"of epoch {best.epoch}. Try a smaller learning_rate, a tenth of it say."
            )
        finally:
            learned.zero_grad(set_to_none=True)
            learned.to("cpu").eval()
            del net
            free_memory(settings.device)
    if validation is not None:
        best.restore()
    for entry in result.history:
        entry["best"] = entry["epoch"] == best.epoch
    return result


def _warn(message: str) -> None:
    """Warn whoever has called `train`."""
    warnings.warn(message, UserWarning, stacklevel=4)


class _StopTraining(Exception):
    """Training is over before the last epoch."""


class _BestWeights:
    """Keeps a copy of the best weights."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.epoch = 0
        self._state: dict[str, torch.Tensor] = {}

    def keep(self, epoch: int) -> None:
        self.epoch = epoch
        # All that training may change: statistics of batch norm move too.
        changing: dict[str, torch.Tensor] = dict(self.module.named_buffers())
        changing |= {name: value for name, value in self.module.named_parameters() if value.requires_grad}
        self._state |= {name: value.detach().to("cpu", copy=True) for name, value in changing.items()}

    def restore(self) -> None:
        values: dict[str, torch.Tensor] = dict(self.module.named_buffers())
        values |= dict(self.module.named_parameters())
        with torch.no_grad():
            for name, kept in self._state.items():
                now = values[name]
                if now.shape == kept.shape and 0 not in now.stride():
                    now.copy_(kept)
                else:  # a buffer that grew, or one whose values share a place
                    now.data = kept.to(now.device)


class _Monitor(Callback):
    """Writes the history, keeps the best weights, ends the training, tells observers."""

    def __init__(
        self,
        result: Training,
        weights: _BestWeights,
        settings: Settings,
        observers: Sequence[Observer],
        validate: Callable[[], float | None],
        is_finite: Callable[[], bool],
    ):
        self.result = result
        self.weights = weights
        self.settings = settings
        self.observers = observers
        self.validate = validate
        self.is_finite = is_finite

    def start(self) -> None:
        began = time.perf_counter()
        valid_loss = self.validate()
        # Initial weights whose loss is no number must not win over any epoch.
        self.best = np.inf if valid_loss is None or not np.isfinite(valid_loss) else valid_loss
        self.weights.keep(0)
        self.stale = 0
        self._write(0, None, valid_loss, 0.0, time.perf_counter() - began)
        for observer in self.observers:
            observer.on_start(self.settings.max_epochs)

    def _write(
        self, epoch: int, train_loss: float | None, valid_loss: float | None, rate: float, seconds: float
    ) -> dict[str, Any]:
        entry = history_entry(epoch, train_loss, valid_loss, rate, seconds)
        self.result.history.append(entry)
        return entry

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()
        for observer in self.observers:
            observer.on_epoch_begin(self.result.n_epochs + 1)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        epoch = self.result.n_epochs + 1
        losses, sizes = zip(
            *((row["train_loss"], row["train_batch_size"]) for row in net.history[-1]["batches"]), strict=True
        )
        train_loss = float(np.average(losses, weights=sizes))
        valid_loss = self.validate() if np.isfinite(train_loss) else None
        shown = train_loss if valid_loss is None else valid_loss
        if not np.isfinite(shown) or not self.is_finite():
            raise Diverged
        rate = net.optimizer_.param_groups[0]["lr"]
        entry = self._write(epoch, train_loss, valid_loss, rate, time.perf_counter() - self.began)
        self.result.n_epochs = epoch
        stop = False
        if valid_loss is None:
            self.weights.keep(epoch)
        else:
            self.stale = 0 if self._keep_if_best(valid_loss, epoch) else self.stale + 1
            stop = self.settings.n_iter_no_change is not None and self.stale >= self.settings.n_iter_no_change
        for observer in self.observers:
            stop = bool(observer.on_epoch_end(epoch, entry)) or stop
        if stop or epoch == self.settings.max_epochs:
            for observer in self.observers:
                observer.on_last_epoch(epoch)
        if stop:
            raise _StopTraining

    def _keep_if_best(self, loss: float, epoch: int) -> bool:
        if loss < self.best:
            self.best = loss
            self.weights.keep(epoch)
            return True
        return False
