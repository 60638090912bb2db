"""Targets: from the caller's y to tensors with a loss, and from outputs back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from sktransfer.losses.supervised import binary_cross_entropy, cross_entropy, squared_error

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Classes:
    """One class a row.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The labels, sorted.
    """

    classes: np.ndarray

    kind = "classes"

    @property
    def n_classes(self) -> int:
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
class Labels:
    """Any number of labels a row: a column of 0 and 1 for each.

    Attributes
    ----------
    n_labels : int
        Number of labels.
    """

    n_labels: int

    kind = "labels"
    n_classes = None
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
class Numbers:
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
    n_classes = None
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


Targets = Any  # one of the three
