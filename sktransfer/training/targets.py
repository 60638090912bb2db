"""Targets: from the caller's y to tensors with a loss, and from outputs back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from sktransfer.losses.distillation import hint_loss, soft_target_loss, two_sided
from sktransfer.losses.supervised import binary_cross_entropy, cross_entropy, squared_error

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class _Plain:
    """Targets that are the caller's own, without a teacher's answers."""

    # Whether a probe on frozen embeddings is where the loss is lowest.
    solved_by_probe = True
    n_hints = 0
    n_classes: int | None = None

    def probe_codes(self, codes: np.ndarray) -> np.ndarray:
        """Return what the probe learns."""
        return codes


@dataclass(frozen=True)
class Classes(_Plain):
    """One class a row.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The labels, sorted.
    """

    classes: np.ndarray

    kind = "classes"

    @property
    def n_classes(self) -> int:  # type: ignore[override]
        """Number of classes."""
        return len(self.classes)

    @property
    def n_outputs(self) -> int:
        """One score for two classes, otherwise one for each."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    def loss(self) -> Loss:
        """Cross-entropy."""
        return binary_cross_entropy if len(self.classes) == 2 else cross_entropy

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Turn labels, all of which are known, into codes."""
        return np.searchsorted(self.classes, y)

    def tensor(self, codes: np.ndarray) -> torch.Tensor:
        """Turn codes into what the loss takes."""
        made = torch.from_numpy(np.ascontiguousarray(codes))
        return made.double()[:, None] if len(self.classes) == 2 else made.long()

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        """Return decision scores: of the second class where there are two."""
        return outputs[:, 0] if len(self.classes) == 2 else outputs

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Return probabilities (n, n_classes)."""
        if len(self.classes) == 2:
            return np.column_stack([expit(-outputs[:, 0]), expit(outputs[:, 0])])
        return softmax(outputs, axis=1)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Return labels."""
        codes = (outputs[:, 0] > 0).astype(int) if len(self.classes) == 2 else outputs.argmax(axis=1)
        return self.classes[codes]


@dataclass(frozen=True)
class Labels(_Plain):
    """Any number of labels a row: a column of 0 and 1 for each.

    Attributes
    ----------
    n_labels : int
        Number of labels.
    """

    n_labels: int

    kind = "labels"
    loss = staticmethod(binary_cross_entropy)

    @property
    def n_outputs(self) -> int:
        """One score for each label."""
        return self.n_labels

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Return 0 and 1."""
        return y

    def tensor(self, codes: np.ndarray) -> torch.Tensor:
        """Turn 0 and 1 into what the loss takes."""
        return torch.from_numpy(np.ascontiguousarray(codes, dtype=np.float64))

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        """Return decision scores (n, n_labels)."""
        return outputs

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Return the probability of each label (n, n_labels)."""
        return expit(outputs)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Return 0 and 1."""
        return (outputs > 0).astype(int)


@dataclass(frozen=True)
class Numbers(_Plain):
    """Numbers, standardised for training.

    Attributes
    ----------
    center, scale : ndarray of shape (n_targets,)
        Mean and standard deviation of the training targets; 1 where they were all alike.
    flat : bool
        Whether y has one dimension.
    constant : ndarray of shape (n_targets,), bool, or None
        Which targets were all alike, so that the mean is what is predicted; None for none.
    """

    center: np.ndarray
    scale: np.ndarray
    flat: bool
    constant: np.ndarray | None = None

    kind = "numbers"
    loss = staticmethod(squared_error)

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray) -> Numbers:
        """Take mean and deviation of targets."""
        columns, weights = y.reshape(len(y), -1)[weights > 0], weights[weights > 0]
        # Differences from one of them, as shares of the largest: neither a large mean nor a tiny range is lost in rounding.
        first = columns[0]
        deviations = columns - first
        size = np.abs(deviations).max(axis=0)
        constant = size == 0
        shares = deviations / np.where(constant, 1.0, size)
        mean = np.average(shares, axis=0, weights=weights)
        spread = size * np.sqrt(np.average((shares - mean) ** 2, axis=0, weights=weights))
        # A spread that is lost in rounding is less than the largest difference.
        scale = np.where(constant, 1.0, np.where(spread > 0, spread, size))
        return cls(first + size * mean, scale, y.ndim == 1, constant)

    @property
    def n_outputs(self) -> int:
        """One for each target."""
        return len(self.center)

    def encode(self, y: np.ndarray) -> np.ndarray:
        """Standardise."""
        return (y.reshape(len(y), -1) - self.center) / self.scale

    def tensor(self, codes: np.ndarray) -> torch.Tensor:
        """Turn standardised targets into what the loss takes."""
        return torch.from_numpy(np.ascontiguousarray(codes, dtype=np.float64))

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Return targets in their own units."""
        made = outputs * self.scale + self.center
        if self.constant is not None:
            made = np.where(self.constant, self.center, made)
        return made[:, 0] if self.flat else made


@dataclass(frozen=True)
class Teaching:
    """What a teacher adds to targets.

    Attributes
    ----------
    alpha : float
        Share of the loss against the caller's own targets; the rest is the loss against the teacher's answers.
    temperature : float
        What scores are divided by before they are compared with the teacher's; of classes only.
    hint_weight : float
        Strength of the loss against the teacher's features.
    n_hints : int
        How many of these there are; 0 without.
    """

    alpha: float
    temperature: float = 1.0
    hint_weight: float = 0.0
    n_hints: int = 0


@dataclass(frozen=True)
class Taught:
    """Targets of the caller's with a teacher's answers beside them.

    Attributes
    ----------
    own : Classes or Numbers
        The caller's targets.
    teaching : Teaching
        How the two are weighed.
    table : ndarray of shape (n, 1 + n_own + n_answers + n_hints)
        For each row whether it has a target of its own (1 or 0), that target (a class's code, or standardised numbers),
        the teacher's answers (logarithms of probabilities, or standardised numbers), and its features.
    """

    own: Classes | Numbers
    teaching: Teaching
    table: np.ndarray

    solved_by_probe = False

    @property
    def kind(self) -> str:
        """That of the caller's targets."""
        return self.own.kind

    @property
    def n_outputs(self) -> int:
        """As many as without a teacher."""
        return self.own.n_outputs

    @property
    def n_classes(self) -> int | None:
        """Number of classes; None for numbers."""
        return self.own.n_classes

    @property
    def n_hints(self) -> int:
        """Features of the teacher that the network predicts while it is trained."""
        return self.teaching.n_hints

    @property
    def classes(self) -> np.ndarray:
        """The labels."""
        return self.own.classes  # type: ignore[union-attr]

    def encode(self, places: np.ndarray) -> np.ndarray:
        """Turn places of rows in the table into their entries."""
        return self.table[places]

    def tensor(self, codes: np.ndarray) -> torch.Tensor:
        """Turn entries into what the loss takes."""
        return torch.from_numpy(np.ascontiguousarray(codes, dtype=np.float64))

    def probe_codes(self, codes: np.ndarray) -> np.ndarray:
        """Return the class, or the numbers, at which the loss of each row is lowest."""
        labelled, own, answers = self._parts(codes)
        # A row counts for its own target only where it has one.
        share = self.teaching.alpha * labelled
        if isinstance(self.own, Numbers):
            return (share * own + (1 - self.teaching.alpha) * answers) / (share + 1 - self.teaching.alpha)
        mixed = (1 - self.teaching.alpha) * softmax(answers, axis=1)
        mixed[np.arange(len(mixed)), own[:, 0].astype(int)] += share[:, 0]
        return mixed.argmax(axis=1)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the losses against own targets, answers and features, one value a row."""
        labelled, own, answers = self._parts(targets)
        scores, projected = outputs[:, : self.n_outputs], outputs[:, self.n_outputs :]
        if isinstance(self.own, Numbers):
            hard, soft = squared_error(scores, own), squared_error(scores, answers)
        else:
            scores = two_sided(scores) if self.n_outputs == 1 else scores
            hard = cross_entropy(scores, own[:, 0].long())
            soft = soft_target_loss(scores, answers, self.teaching.temperature)
        total = self.teaching.alpha * labelled[:, 0] * hard + (1 - self.teaching.alpha) * soft
        if projected.shape[1]:  # a head that is trained alone predicts none
            total = total + self.teaching.hint_weight * hint_loss(projected, targets[:, -self.n_hints :])
        return total

    def hints(self, codes: np.ndarray) -> np.ndarray:
        """Return the teacher's features."""
        return codes[:, codes.shape[1] - self.n_hints :]

    def _parts(self, codes: Any) -> tuple[Any, Any, Any]:
        n_own = self.own.n_outputs if isinstance(self.own, Numbers) else 1
        return codes[:, :1], codes[:, 1 : 1 + n_own], codes[:, 1 + n_own : codes.shape[1] - self.n_hints]


Targets = Any  # one of the four
