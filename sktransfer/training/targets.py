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
    """

    center: np.ndarray
    scale: np.ndarray
    flat: bool

    kind = "numbers"
    loss = staticmethod(squared_error)

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray) -> Numbers:
        """Take mean and deviation of targets."""
        columns = y.reshape(len(y), -1)
        center = np.average(columns, axis=0, weights=weights)
        scale = np.sqrt(np.average((columns - center) ** 2, axis=0, weights=weights))
        return cls(center, np.where(scale > 1e-12 * np.maximum(np.abs(center), 1e-300), scale, 1.0), y.ndim == 1)

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
        return made[:, 0] if self.flat else made


Targets = Any  # one of the three
