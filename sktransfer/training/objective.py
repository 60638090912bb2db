"""What is learned: objectives turn what a network gives for a batch into one loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from sktransfer._compat import _safe_indexing
from sktransfer.runtime.batching import even_batches
from sktransfer.training.targets import Targets


@dataclass(frozen=True)
class Outputs:
    """What a network gives for samples.

    Attributes
    ----------
    embeddings : torch.Tensor of shape (n, d)
        As the head takes them, centered and scaled.
    scores : torch.Tensor of shape (n, n_outputs)
        The head's outputs.
    """

    embeddings: torch.Tensor
    scores: torch.Tensor

    @classmethod
    def joined(cls, parts: Sequence[tuple[Sequence[int], Outputs]]) -> Outputs:
        """Join parts in the order of their positions."""
        positions = np.concatenate([np.asarray(places) for places, _ in parts])
        in_order = bool((positions == np.arange(len(positions))).all())
        if len(parts) == 1 and in_order:
            return parts[0][1]
        order = torch.from_numpy(np.argsort(positions))

        def join(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            one = torch.cat(list(tensors))
            return one if in_order else one[order.to(one.device)]

        return cls(join([part.embeddings for _, part in parts]), join([part.scores for _, part in parts]))


@dataclass(frozen=True)
class Samples:
    """Rows with their targets and weights, and which of the caller's rows they are.

    Attributes
    ----------
    X : rows
        Anything that can be indexed by rows.
    y : ndarray of shape (n, ...)
        Targets.
    weights : ndarray of shape (n,)
        All above zero.
    indices : ndarray of shape (n,)
        Of the rows, among those that were given to `fit`.
    """

    X: Any
    y: np.ndarray
    weights: np.ndarray
    indices: np.ndarray

    def at(self, chosen: np.ndarray) -> Samples:
        """Return some of them."""
        return Samples(_safe_indexing(self.X, chosen), self.y[chosen], self.weights[chosen], self.indices[chosen])


class ProbeTask(NamedTuple):
    """What the probe that a linear head starts from is fitted to; see `fit_probe`."""

    targets: np.ndarray
    kind: str
    n_classes: int | None


class Objective(ABC):
    """What a network learns from its training samples.

    The training loop knows nothing else of a loss. Indices are those of the training samples.

    Attributes
    ----------
    modules : nn.ModuleDict
        Modules of the objective's own, such as a discriminator. They are trained with the network, on its device, and
        what they have learned in the best epoch is kept with it. They are gone after `fit`.
    learning_rates : mapping of str to float
        Peak learning rates of these modules, by name; those that are not named learn at the head's.
    n_outputs : int
        Number of scores of a sample.
    weights : ndarray of shape (n,)
        Weights of the training samples, in the probe that the head starts from and in the scale of embeddings.
    solved_by_probe : bool
        Whether that probe is where the loss is lowest as long as the network is frozen.
    """

    n_outputs: int
    weights: np.ndarray
    solved_by_probe = False
    learning_rates: Mapping[str, float] = {}

    def __init__(self) -> None:
        self.modules = nn.ModuleDict()

    @abstractmethod
    def batches(self, batch_size: int, generator: torch.Generator) -> list[list[int]]:
        """Return the indices of each batch of one epoch. The number of batches is the same in each."""

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Sequence[int], progress: float) -> torch.Tensor:
        """Return the loss of a whole batch, a scalar.

        Parameters
        ----------
        outputs : Outputs
            Of the batch, in its order, with gradients.
        batch : sequence of int
            Indices, as `batches` gave them.
        progress : float
            Steps taken so far as a share of all, in [0, 1).
        """

    @abstractmethod
    def validation_loss(self, outputs: Outputs) -> torch.Tensor:
        """Return the loss of all validation samples, a scalar."""

    @abstractmethod
    def probe_task(self) -> ProbeTask:
        """Return the targets of the probe that a linear head starts from."""

    def begin(self, n_features: int, embeddings: np.ndarray | None) -> None:  # noqa: B027 - few have modules
        """Make the objective's own modules.

        Parameters
        ----------
        n_features : int
            Length d of an embedding.
        embeddings : ndarray of shape (n, d) or None
            Those of the training samples as the head takes them, before training; None where they are not known.
        """


class ObjectiveFactory(Protocol):
    """Makes the targets and the objective of a fit, once it is known which rows are trained on."""

    lineage: Mapping[str, Any]

    def targets(self, training: Samples) -> Targets:
        """Return what the targets are."""

    def objective(self, targets: Targets, training: Samples, validation: Samples | None) -> Objective:
        """Return the objective."""


class Supervision:
    """Makes the objective of targets that are the rows' own."""

    lineage: Mapping[str, Any] = {}

    def objective(self, targets: Targets, training: Samples, validation: Samples | None) -> Objective:
        """Return the objective."""
        return Supervised(targets, training, validation)


class RowwiseObjective(Objective):
    """The weighted mean of a loss that each row has by itself.

    The loss of a batch is the sum of weight times loss over its rows, over the number of rows and the mean weight of all
    rows. So weights count once, and with all rows in one batch it is their weighted mean.

    Parameters
    ----------
    training : sequence of torch.Tensor of shape (n, ...)
        What `row_losses` takes beside outputs.
    weights : ndarray of shape (n,)
        Weights of the rows.
    validation : sequence of torch.Tensor, optional
        The same of the validation samples.
    validation_weights : ndarray, optional
        Their weights.
    """

    def __init__(
        self,
        training: Sequence[torch.Tensor],
        weights: np.ndarray,
        validation: Sequence[torch.Tensor] = (),
        validation_weights: np.ndarray | None = None,
    ):
        super().__init__()
        self.weights = weights
        self._training = (*training, torch.from_numpy(weights / weights.mean()))
        self._validation: tuple[torch.Tensor, ...] = ()
        if validation_weights is not None:
            self._validation = (*validation, torch.from_numpy(validation_weights / validation_weights.mean()))

    @abstractmethod
    def row_losses(self, outputs: Outputs, *targets: torch.Tensor) -> torch.Tensor:
        """Return one loss a row."""

    def batches(self, batch_size: int, generator: torch.Generator) -> list[list[int]]:
        """Return all rows, in a new random order."""
        n_rows = len(self.weights)
        order = torch.randperm(n_rows, generator=generator).tolist()
        return [order[part] for part in even_batches(n_rows, batch_size)]

    def loss(self, outputs: Outputs, batch: Sequence[int], progress: float) -> torch.Tensor:
        """Return the weighted mean."""
        return self._mean(outputs, [one[list(batch)] for one in self._training])

    def validation_loss(self, outputs: Outputs) -> torch.Tensor:
        """Return the weighted mean over validation samples."""
        return self._mean(outputs, self._validation)

    def _mean(self, outputs: Outputs, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        scores = outputs.scores
        *own, weights = [one.to(scores.device, scores.dtype if one.is_floating_point() else None) for one in targets]
        return (self.row_losses(outputs, *own) * weights).mean()


class Supervised(RowwiseObjective):
    """Targets of the rows' own, and nothing else.

    Parameters
    ----------
    targets : Classes, Labels or Numbers
        What the targets are.
    training : Samples
        What is learned from.
    validation : Samples, optional
        What the best epoch is chosen by.
    """

    solved_by_probe = True

    def __init__(self, targets: Targets, training: Samples, validation: Samples | None = None):
        self.targets = targets
        self.n_outputs = targets.n_outputs
        self.encoded = targets.encode(training.y)
        super().__init__(
            [targets.tensor(self.encoded)],
            training.weights,
            [] if validation is None else [targets.tensor(targets.encode(validation.y))],
            None if validation is None else validation.weights,
        )

    def row_losses(self, outputs: Outputs, *targets: torch.Tensor) -> torch.Tensor:
        """Return the targets' own loss."""
        return self.targets.loss(outputs.scores, targets[0])

    def probe_task(self) -> ProbeTask:
        """Return the targets themselves."""
        return ProbeTask(self.encoded, self.targets.kind, self.targets.n_classes)
