"""The loop, on skorch: epochs, steps, validation, the best epoch kept."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import skorch
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sktransfer.runtime.batching import even_batches
from sktransfer.runtime.device import free_memory, is_out_of_memory
from sktransfer.runtime.global_settings import known_settings
from sktransfer.runtime.kernels import training_kernels_for
from sktransfer.runtime.seeding import preserved_generators
from sktransfer.training.settings import Settings


class BatchSource(Protocol):
    """Rows that a module can be called with."""

    def __len__(self) -> int: ...

    def chunks(self, places: Sequence[int]) -> list[tuple[list[int], Any]]:
        """Return rows as the module takes them: positions within `places`, and the rows there."""

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[list[tuple[list[int], Any]]]:
        """Yield the chunks of each batch."""

    def in_order(self) -> Iterator[tuple[list[int], Any]]:
        """Yield all rows once: places, and the rows there."""


@dataclass(frozen=True)
class Labelled:
    """Rows with what is to be learned from them.

    Attributes
    ----------
    rows : BatchSource
        The rows.
    targets : torch.Tensor of shape (n, ...)
        What the loss compares outputs with.
    weights : torch.Tensor of shape (n,)
        Weight of each row in the loss.
    """

    rows: BatchSource
    targets: torch.Tensor
    weights: torch.Tensor


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
    data: Labelled,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    groups: list[dict[str, Any]],
    settings: Settings,
    *,
    validation: Labelled | None = None,
    sample: BatchSource | None = None,
    penalty: Callable[[], torch.Tensor] | None = None,
    observers: Sequence[Observer] = (),
) -> Training:
    """Train a module in place.

    Parameters
    ----------
    module : nn.Module
        Called with the chunks of `data.rows`; the caller's own, not a user's.
    data : Labelled
        What it learns from. The loss of a step is the sum of weight times loss over its rows, over the number of rows and the
        mean weight of all rows: weights count once, and with all rows in one batch it is their weighted mean.
    loss : callable
        From outputs and targets to one value a row.
    groups : list of dict
        Weights to train with their rates, as optimizers of torch take them; the head's come first.
    settings : Settings
        How to train.
    validation : Labelled, optional
        Rows on which each epoch is judged, the start included. The weights of the best one are kept.
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
    module.to(settings.device, settings.dtype)
    result = Training()
    net = _Net(module, data, loss, groups, settings, validation, sample, penalty, observers)
    keeper = _Keeper(module)
    monitor = _Monitor(result, keeper, settings, observers)
    net.callbacks = [("rates", _Rates(settings)), ("monitor", monitor)]
    # Dropout draws from torch's global generator.
    with known_settings(), preserved_generators(seed=settings.seed), torch.enable_grad():
        try:
            net.initialize()
            monitor.start(net)
            net.fit_loop(data.rows)
        except _Enough:
            pass
        except _Diverged as error:
            keeper.restore()
            _warn(
                f"The loss became NaN or infinite in epoch {error.epoch}, so training stopped; the weights are those of "
                f"epoch {keeper.epoch}. Try a smaller learning_rate, a tenth of it say."
            )
        finally:
            module.zero_grad(set_to_none=True)
            module.to("cpu").eval()
            del net
            free_memory(settings.device)
    if validation is not None:
        keeper.restore()
    for entry in result.history:
        entry["best"] = entry["epoch"] == keeper.epoch
    return result


def _warn(message: str) -> None:
    """Warn whoever has called `train`."""
    warnings.warn(message, UserWarning, stacklevel=4)


def evaluate(
    module: nn.Module,
    data: Labelled,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    settings: Settings,
) -> float:
    """Return the weighted mean loss of a module in eval mode."""
    training = module.training
    module.eval()
    total = 0.0
    try:
        with torch.no_grad(), training_kernels_for(settings.device, settings.dtype) or nullcontext():
            for places, outputs in run_in_parts(module, data.rows, settings.device, settings.dtype):
                losses = loss(outputs, _on(data.targets[places], outputs))
                total += float((losses * _on(data.weights[places], losses)).sum())
    finally:
        module.train(training)
    return total / float(data.weights.sum())


def run_in_parts(
    call: Callable[[Any], torch.Tensor], rows: BatchSource, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Run all rows through a module, in smaller parts where memory does not suffice.

    Parameters
    ----------
    call : callable
        From what `rows` gives to outputs, a row for each.
    rows : BatchSource
        The rows.
    device, dtype
        Where the module is, and the type of its weights.

    Yields
    ------
    places : list of int
        Places of rows.
    outputs : torch.Tensor
        What the module gives for them.
    """
    most_rows = sys.maxsize
    for everything, chunk in rows.in_order():
        parts: list[tuple[list[int], Any]] = [(everything, chunk)]
        while parts:
            places, one = parts.pop(0)
            if len(places) <= most_rows:
                try:
                    outputs = call(one.to(device, dtype))
                except Exception as error:
                    if not is_out_of_memory(error) or len(places) == 1:
                        raise
                else:
                    yield places, outputs
                    continue
                # Out of the handler, which would hold on to what did not fit.
                most_rows = len(places) // 2
                free_memory(device)
            halves = [places[start : start + most_rows] for start in range(0, len(places), most_rows)]
            parts = [
                ([half[i] for i in inner], smaller) for half in halves for inner, smaller in rows.chunks(half)
            ] + parts


def _on(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.device, like.dtype if values.is_floating_point() else None)


@contextmanager
def _settled_norms(module: nn.Module, n_rows: int) -> Iterator[None]:
    """Let batch norm use what it has learned where a single row has no statistics."""
    norms = [one for one in module.modules() if isinstance(one, _BatchNorm) and one.training] if n_rows == 1 else []
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


class _Enough(Exception):
    """Training is over before the last epoch."""


class _Diverged(Exception):
    """The loss is no number any more."""

    def __init__(self, epoch: int):
        super().__init__()
        self.epoch = epoch


class _Keeper:
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


class _Rates(Callback):
    """Sets the learning rates before each step."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.step = 0

    def on_batch_begin(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        factor = self.settings.rate_factor(self.step, net.n_steps)
        for group, rate in zip(net.optimizer_.param_groups, net.full_rates, strict=True):
            group["lr"] = rate * factor
        self.step += 1


class _Monitor(Callback):
    """Writes the history, keeps the best weights, ends the training, tells observers."""

    def __init__(
        self,
        result: Training,
        keeper: _Keeper,
        settings: Settings,
        observers: Sequence[Observer],
    ):
        self.result = result
        self.keeper = keeper
        self.settings = settings
        self.observers = observers

    def start(self, net: _Net) -> None:
        began = time.perf_counter()
        valid_loss = net.validate()
        # A start that is no number must not win over any epoch.
        self.best = np.inf if valid_loss is None or not np.isfinite(valid_loss) else valid_loss
        self.keeper.keep(0)
        self.stale = 0
        self.write_start(valid_loss, time.perf_counter() - began)
        for observer in self.observers:
            observer.on_start(self.settings.max_epochs)

    def write_start(self, valid_loss: float | None, seconds: float) -> None:
        """Begin the history."""
        self._write(0, None, valid_loss, 0.0, seconds)

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
        if not np.isfinite(train_loss):
            raise _Diverged(epoch)
        valid_loss = net.validate()
        if valid_loss is not None and not np.isfinite(valid_loss):
            raise _Diverged(epoch)
        if valid_loss is None and not net.is_finite():
            raise _Diverged(epoch)
        rate = net.optimizer_.param_groups[0]["lr"]
        entry = self._write(epoch, train_loss, valid_loss, rate, time.perf_counter() - self.began)
        self.result.n_epochs = epoch
        stop = False
        if valid_loss is None:
            self.keeper.keep(epoch)
        else:
            self.stale = 0 if self._keep_if_best(valid_loss, epoch) else self.stale + 1
            stop = self.settings.n_iter_no_change is not None and self.stale >= self.settings.n_iter_no_change
        for observer in self.observers:
            stop = bool(observer.on_epoch_end(epoch, entry)) or stop
        if stop or epoch == self.settings.max_epochs:
            for observer in self.observers:
                observer.on_last_epoch(epoch)
        if stop:
            raise _Enough

    def _keep_if_best(self, loss: float, epoch: int) -> bool:
        if loss < self.best:
            self.best = loss
            self.keeper.keep(epoch)
            return True
        return False


class _Net(skorch.NeuralNet):
    """skorch's net, with our batches, loss and optimizer in place of its own."""

    def __init__(
        self,
        module: nn.Module,
        data: Labelled,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        groups: list[dict[str, Any]],
        settings: Settings,
        validation: Labelled | None,
        sample: BatchSource | None,
        penalty: Callable[[], torch.Tensor] | None,
        observers: Sequence[Observer],
    ):
        super().__init__(
            module,
            nn.Identity,
            max_epochs=settings.max_epochs,
            batch_size=settings.batch_size,
            train_split=None,
            callbacks=[],
            verbose=0,
            device=None,
        )
        self.data = data
        self.loss = loss
        self.groups = groups
        self.settings = settings
        self.validation = validation
        self.sample = sample
        self.penalty = penalty
        self.observers = observers
        # Weighted rows count for themselves alone: over the mean weight of all, not of the batch.
        self.mean_weight = float(data.weights.mean())
        self.most_rows = sys.maxsize
        self.kernels = training_kernels_for(settings.device, settings.dtype)

    @property
    def _default_callbacks(self) -> list[Any]:
        return []

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        self.optimizer_ = self.settings.make_optimizer(self.groups)
        self.full_rates = [group["lr"] for group in self.optimizer_.param_groups]
        scales = self.settings.autocast == torch.float16
        self.scaler_ = torch.amp.GradScaler(self.settings.device.type, enabled=scales)
        return self

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> tuple[Any, None]:
        return X, None

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        batches = _Batches(len(dataset), self.settings)
        self.n_steps = len(batches) * self.settings.max_epochs
        return _Chunked(dataset, batches)

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        places, chunks = batch
        places = places.tolist()
        self.module_.train()
        while True:
            try:
                total = self._gradients(places, chunks)
                break
            except Exception as error:
                if not is_out_of_memory(error) or self.most_rows <= 1:
                    raise
            # Out of the handler, which would hold on to the failed batch. What half a step has added is dropped.
            chunks = None
            self.optimizer_.zero_grad(set_to_none=True)
            self.most_rows = min(self.most_rows, len(places)) // 2 or 1
            free_memory(self.settings.device)
            chunks = self.data.rows.chunks(places)
        self.scaler_.unscale_(self.optimizer_)
        for observer in self.observers:
            observer.after_backward()
        if self.settings.max_grad_norm is not None:
            weights = [one for group in self.groups for one in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.settings.max_grad_norm)
        if not math.isfinite(total):
            raise _Diverged(len(self.history))
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()
        return {"loss": torch.tensor(total), "y_pred": None}

    def _gradients(self, places: list[int], chunks: list[tuple[list[int], Any]]) -> float:
        """Compute the gradients of a step, in parts where memory asks for it, and return its loss."""
        self.optimizer_.zero_grad(set_to_none=True)
        total = 0.0
        for positions, chunk in chunks:
            if len(positions) <= self.most_rows:
                total += self._backward([places[i] for i in positions], chunk, len(places))
                continue
            for start in range(0, len(positions), self.most_rows):
                part = [places[i] for i in positions[start : start + self.most_rows]]
                for inner, smaller in self.data.rows.chunks(part):
                    total += self._backward([part[i] for i in inner], smaller, len(places))
        if self.penalty is not None:
            extra = self.penalty()
            if extra.requires_grad:
                self.scaler_.scale(extra).backward()
            if not math.isfinite(extra.item()):
                return math.nan
        # Without the penalty, as the loss of validation rows is.
        return total

    def _backward(self, places: list[int], chunk: Any, n_rows: int) -> float:
        device = self.settings.device
        amp = self.settings.autocast
        autocast = nullcontext() if amp is None else torch.autocast(device.type, amp)
        with self.kernels or nullcontext(), autocast, _settled_norms(self.module_, len(places)):
            outputs = self.module_(chunk.to(device, self.settings.dtype))
        outputs = outputs.float() if amp is not None else outputs
        losses = self.loss(outputs, _on(self.data.targets[places], outputs))
        loss = (losses * _on(self.data.weights[places], losses)).sum() / (n_rows * self.mean_weight)
        self.scaler_.scale(loss).backward()
        return loss.item()

    def is_finite(self) -> bool:
        """Whether the weights give numbers for the sample."""
        if self.sample is None:
            return True
        training = self.module_.training
        self.module_.eval()
        try:
            with torch.no_grad():
                made = run_in_parts(self.module_, self.sample, self.settings.device, self.settings.dtype)
                return all(bool(torch.isfinite(outputs).all()) for _, outputs in made)
        finally:
            self.module_.train(training)

    def validate(self) -> float | None:
        if self.validation is None:
            return None
        return evaluate(self.module_, self.validation, self.loss, self.settings)


class _Batches:
    """Places of rows, in a new random order each epoch."""

    def __init__(self, n_rows: int, settings: Settings):
        self.n_rows = n_rows
        self.batch_size = settings.batch_size
        self.generator = torch.Generator().manual_seed(settings.seed)

    def __len__(self) -> int:
        return len(even_batches(self.n_rows, self.batch_size))

    def draw(self) -> list[list[int]]:
        order = torch.randperm(self.n_rows, generator=self.generator).tolist()
        return [order[part] for part in even_batches(self.n_rows, self.batch_size)]


class _Chunked:
    """Iterates over the batches of one epoch as skorch expects it: what `train_step` takes."""

    def __init__(self, rows: BatchSource, batches: _Batches):
        self.rows = rows
        self.places = batches

    def __iter__(self) -> Iterator[tuple[np.ndarray, Any]]:
        drawn = self.places.draw()
        for places, chunks in zip(drawn, self.rows.batches(drawn), strict=True):
            yield np.asarray(places), chunks
