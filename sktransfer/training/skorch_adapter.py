"""The engine: skorch's net, with our batches, objective and optimizer in place of its own."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import skorch
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from sktransfer.runtime.device import free_memory, is_out_of_memory
from sktransfer.runtime.kernels import training_kernels_for
from sktransfer.training.inference import BatchSource
from sktransfer.training.objective import Objective, Outputs
from sktransfer.training.settings import Settings


class Diverged(Exception):
    """The loss is no finite number any more."""


class Net(skorch.NeuralNet):
    """Takes the steps of a training run.

    Parameters
    ----------
    module : nn.Module
        From the chunks of `rows` to `Outputs`.
    rows : BatchSource
        The training samples.
    objective : Objective
        What is learned.
    groups : list of dict
        Weights with their peak learning rates.
    settings : Settings
        How to train.
    penalty : callable or None
        Gives a term that is added to the loss of every step.
    after_backward : callable
        Called when the gradients of a step are there.
    callbacks : list
        skorch's.
    """

    def __init__(
        self,
        module: nn.Module,
        rows: BatchSource,
        objective: Objective,
        groups: list[dict[str, Any]],
        settings: Settings,
        penalty: Callable[[], torch.Tensor] | None,
        after_backward: Callable[[], None],
        callbacks: list[tuple[str, Callback]],
    ):
        super().__init__(
            module,
            nn.Identity,
            max_epochs=settings.max_epochs,
            batch_size=settings.batch_size,
            train_split=None,
            callbacks=[("rates", _LearningRates(settings)), *callbacks],
            verbose=0,
            device=None,
        )
        self.rows = rows
        self.objective = objective
        self.groups = groups
        self.settings = settings
        self.penalty = penalty
        self.after_backward = after_backward
        self.most_rows = sys.maxsize
        self.step = self.n_steps = 0
        self.kernels = training_kernels_for(settings.device, settings.dtype)

    @property
    def _default_callbacks(self) -> list[Any]:
        return []

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Make the optimizer of the groups."""
        self.optimizer_ = self.settings.make_optimizer(self.groups)
        self.peak_rates = [group["lr"] for group in self.optimizer_.param_groups]
        scales = self.settings.autocast == torch.float16
        self.scaler_ = torch.amp.GradScaler(self.settings.device.type, enabled=scales)
        return self

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> tuple[Any, None]:
        """Keep the rows as they are."""
        return X, None

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return what gives the batches of an epoch."""
        return _Epochs(self)

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Take one step, in smaller parts where memory is short."""
        indices, chunks = batch
        indices = indices.tolist()
        self.module_.train()
        while True:
            try:
                total = self._gradients(indices, chunks)
                break
            except Exception as error:
                if not is_out_of_memory(error) or self.most_rows <= 1:
                    raise
            # Out of the handler, which would hold on to the failed batch. What half a step has added is dropped.
            chunks = None
            self.optimizer_.zero_grad(set_to_none=True)
            self.most_rows = min(self.most_rows, len(indices)) // 2 or 1
            free_memory(self.settings.device)
            chunks = self.rows.chunks(indices)
        self.scaler_.unscale_(self.optimizer_)
        self.after_backward()
        if self.settings.max_grad_norm is not None:
            weights = [one for group in self.groups for one in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.settings.max_grad_norm)
        if not math.isfinite(total):
            raise Diverged
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()
        self.step += 1
        return {"loss": torch.tensor(total), "y_pred": None}

    def _gradients(self, indices: list[int], chunks: list[tuple[list[int], Any]]) -> float:
        """Compute the gradients of a step, and return its loss."""
        self.optimizer_.zero_grad(set_to_none=True)
        loss = self.objective.loss(self._outputs(indices, chunks), indices, self.step / self.n_steps)
        self.scaler_.scale(loss).backward()
        if self.penalty is not None:
            extra = self.penalty()
            if extra.requires_grad:
                self.scaler_.scale(extra).backward()
            if not math.isfinite(extra.item()):
                return math.nan
        # Without the penalty, as the loss of validation samples is.
        return loss.item()

    def _outputs(self, indices: list[int], chunks: list[tuple[list[int], Any]]) -> Outputs:
        """Run a batch, in parts; where memory is short, parts are run again when their gradients are due."""
        if self.most_rows == sys.maxsize:
            return Outputs.joined([(positions, self._forward(chunk, len(positions))) for positions, chunk in chunks])
        parts = []
        for positions, _ in chunks:
            for start in range(0, len(positions), self.most_rows):
                part = positions[start : start + self.most_rows]
                for inner, smaller in self.rows.chunks([indices[i] for i in part]):
                    parts.append(([part[i] for i in inner], self._forward_again_later(smaller, len(inner))))
        return Outputs.joined(parts)

    def _forward(self, chunk: Any, n_rows: int) -> Outputs:
        device, amp = self.settings.device, self.settings.autocast
        chunk = chunk.to(device, self.settings.dtype)
        autocast = nullcontext() if amp is None else torch.autocast(device.type, amp)
        with self.kernels or nullcontext(), autocast, _settled_norms(self.module_, n_rows):
            outputs = self.module_(chunk)
        return outputs if amp is None else Outputs(outputs.embeddings.float(), outputs.scores.float())

    def _forward_again_later(self, chunk: Any, n_rows: int) -> Outputs:
        """Run a part without keeping what its gradients need: it is computed again, with the same random numbers."""

        def run(reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self._forward(chunk, n_rows)
            return outputs.embeddings, outputs.scores

        reference = next(self.module_.parameters())  # which says of which device random numbers are
        contexts = nullcontext(), _unmoved_statistics(self.module_)
        return Outputs(*checkpoint(run, reference, use_reentrant=False, context_fn=lambda: contexts))


class _LearningRates(Callback):
    """Sets the learning rates before each step."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def on_batch_begin(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        factor = self.settings.rate_factor(net.step, net.n_steps)
        for group, rate in zip(net.optimizer_.param_groups, net.peak_rates, strict=True):
            group["lr"] = rate * factor


class _Epochs:
    """Iterates over the batches of one epoch as skorch expects it: what `train_step` takes."""

    def __init__(self, net: Net):
        self.net = net
        self.generator = torch.Generator().manual_seed(net.settings.seed)

    def __iter__(self) -> Iterator[tuple[np.ndarray, Any]]:
        batches = self.net.objective.batches(self.net.settings.batch_size, self.generator)
        self.net.n_steps = len(batches) * self.net.settings.max_epochs
        for indices, chunks in zip(batches, self.net.rows.batches(batches), strict=True):
            yield np.asarray(indices), chunks


def _training_norms(module: nn.Module) -> Sequence[_BatchNorm]:
    return [one for one in module.modules() if isinstance(one, _BatchNorm) and one.training]


@contextmanager
def _settled_norms(module: nn.Module, n_rows: int) -> Iterator[None]:
    """Let batch norm use what it has learned where a single row has no statistics."""
    norms = _training_norms(module) if n_rows == 1 else []
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


@contextmanager
def _unmoved_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by the batch, as in training, and not learn its statistics a second time."""
    # Without any statistics the pass would keep other tensors for its gradients than the first one.
    known = [(one, one.momentum, one.num_batches_tracked) for one in _training_norms(module)]
    for norm, _, count in known:
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in known:
            norm.momentum, norm.num_batches_tracked = momentum, count
