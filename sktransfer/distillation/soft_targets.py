"""The objective of distillation: targets of the rows' own, a teacher's predictions and a teacher's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from sktransfer.losses.distillation import hint_loss, soft_target_loss, two_sided
from sktransfer.losses.supervised import cross_entropy, squared_error
from sktransfer.training.heads import start_from_probe
from sktransfer.training.objective import Outputs, ProbeTask, RowwiseObjective, Samples
from sktransfer.training.probe import fit_probe
from sktransfer.training.targets import Classes, Numbers


@dataclass(frozen=True)
class DistillationConfig:
    """How the losses of distillation are weighed.

    Attributes
    ----------
    alpha : float
        Weight of the loss against the rows' own targets; the rest is that of the loss against the teacher's predictions.
    temperature : float
        What scores are divided by before they are compared with the teacher's; of classes only.
    hint_weight : float
        Weight of the loss against the teacher's features, beside the two.
    """

    alpha: float
    temperature: float = 1.0
    hint_weight: float = 0.0


@dataclass(frozen=True)
class DistillationData:
    """What a student learns from.

    Attributes
    ----------
    y : ndarray of shape (n,) or (n, n_targets)
        The caller's targets; where a row has none, what the teacher predicts.
    labelled : ndarray of shape (n,), bool
        Whether the target is the caller's.
    predictions : ndarray of shape (n, n_predictions)
        The teacher's: logarithms of probabilities in the order of `classes`, or numbers.
    weights : ndarray of shape (n,) or None
        Weights of the rows.
    classes : ndarray or None
        All classes, the teacher's and the caller's; None for regression.
    hints : ndarray of shape (n, n_hints) or None
        The teacher's features.
    config : DistillationConfig
        How the losses are weighed.
    lineage : dict
        What the student's lineage says of it.
    """

    y: np.ndarray
    labelled: np.ndarray
    predictions: np.ndarray
    weights: np.ndarray | None
    classes: np.ndarray | None
    hints: np.ndarray | None
    config: DistillationConfig
    lineage: dict[str, Any]

    @property
    def mixed(self) -> np.ndarray:
        """Numbers at which the loss of each row is lowest: between its target and the teacher's prediction."""
        alpha = self.config.alpha
        share = alpha * self.labelled
        wide = (...,) + (None,) * (self.y.ndim - 1)
        predictions = self.predictions.reshape(self.y.shape)
        return (share[wide] * self.y + (1 - alpha) * predictions) / (share + 1 - alpha)[wide]

    # An `ObjectiveFactory`

    def targets(self, training: Samples) -> Classes | Numbers:
        """Return what the targets are."""
        if self.classes is not None:
            return Classes(self.classes)
        targets = Numbers.of(self.y[training.indices], training.weights)
        if targets.constant is not None and targets.constant.any():
            # The teacher may tell numbers apart where targets are all alike.
            return Numbers.of(self.mixed[training.indices], training.weights)
        return targets

    def objective(self, targets: Any, training: Samples, validation: Samples | None) -> Distillation:
        """Return the objective."""
        return Distillation(self, targets, training, validation)


class Distillation(RowwiseObjective):
    """The weighted sum of the losses against own targets, a teacher's predictions and its features.

    Parameters
    ----------
    data : DistillationData
        Of all rows.
    targets : Classes or Numbers
        What the targets are.
    training : Samples
        Which of the rows are trained on.
    validation : Samples or None
        Which ones choose the best epoch.
    """

    def __init__(
        self, data: DistillationData, targets: Classes | Numbers, training: Samples, validation: Samples | None
    ):
        self.targets, self.config = targets, data.config
        self.n_outputs = targets.n_outputs
        predictions = targets.encode(data.predictions) if isinstance(targets, Numbers) else data.predictions
        labelled = data.labelled.astype(float)
        parts = [labelled, targets.encode(data.y), predictions]
        if data.hints is not None:
            deviation = data.hints.std(axis=0)
            parts.append((data.hints - data.hints.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0))
        self._rows = [part[training.indices] for part in parts]

        def tensors(samples: Samples) -> list[torch.Tensor]:
            return [torch.from_numpy(part[samples.indices]) for part in parts]

        super().__init__(
            tensors(training),
            training.weights,
            [] if validation is None else tensors(validation),
            None if validation is None else validation.weights,
        )

    def row_losses(self, outputs: Outputs, *targets: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the losses, one value a row."""
        labelled, own, predictions, *hints = targets
        scores, alpha = outputs.scores, self.config.alpha
        if isinstance(self.targets, Numbers):
            hard, soft = squared_error(scores, own), squared_error(scores, predictions)
        else:
            scores = two_sided(scores) if self.n_outputs == 1 else scores
            hard = cross_entropy(scores, own)
            soft = soft_target_loss(scores, predictions, self.config.temperature)
        total = alpha * labelled * hard + (1 - alpha) * soft
        if "projection" in self.modules:  # not while a head is trained alone
            projected = self.modules["projection"](outputs.embeddings)
            total = total + self.config.hint_weight * hint_loss(projected, hints[0])
        return total

    def probe_task(self) -> ProbeTask:
        """Return the class, or the numbers, at which the loss of each row is lowest."""
        labelled, own, predictions = self._rows[:3]
        # A row counts for its own target only where it has one.
        share, rest = (self.config.alpha * labelled)[:, None], 1 - self.config.alpha
        if isinstance(self.targets, Numbers):
            return ProbeTask((share * own + rest * predictions) / (share + rest), "numbers", None)
        mixed = rest * softmax(predictions, axis=1)
        mixed[np.arange(len(mixed)), own] += share[:, 0]
        return ProbeTask(mixed.argmax(axis=1), "classes", self.targets.n_classes)

    def begin(self, n_features: int, embeddings: np.ndarray | None) -> None:
        """Project embeddings to the teacher's features, from a ridge regression where embeddings are known."""
        if len(self._rows) < 4:
            return
        hints = self._rows[3]
        projection = nn.Linear(n_features, hints.shape[1])
        if embeddings is not None:
            start_from_probe(projection, fit_probe(embeddings, hints, self.weights, "numbers"))
        self.modules["projection"] = projection
