"""What fine-tuning does to each stage of a network, measured while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from sktransfer.metrics import linear_cka


@dataclass(frozen=True, eq=False)
class StabilityRecord:
    """What fine-tuning did to each stage.

    Attributes
    ----------
    stages : tuple of str
        Names of the stages, in forward order.
    epochs : ndarray of shape (n_records,)
        The epochs that were recorded; 0 is the start.
    weight_change : ndarray of shape (n_records, n_stages)
        Distance of the trainable weights from the start, as a share of their norm at the start:
        ``||w - w0|| / ||w0||``. 0 for frozen stages, infinite for weights that left a start of all zeros.
    gradient_norm : ndarray of shape (n_records, n_stages)
        Root mean square, over the steps since the last record, of the norm of the gradient. NaN where there was no
        step, 0 for frozen stages.
    cka : ndarray of shape (n_records, n_stages)
        Linear CKA (:func:`sktransfer.metrics.linear_cka`) of the representation of the probe rows to the one at the
        start. 1 for frozen stages; NaN where the representation is constant or not finite, at the start or now, and
        for trained stages of which no representation is given.
    forgetting : ndarray of shape (n_records,) or None
        The score on the source at the start minus the score now; None without source rows.
    """

    stages: tuple[str, ...]
    epochs: np.ndarray
    weight_change: np.ndarray
    gradient_norm: np.ndarray
    cka: np.ndarray
    forgetting: np.ndarray | None


class StabilityMonitor:
    """Follow the weights, gradients and representations of the stages through a training.

    The start is the moment of construction: the weights are copied to the processor's memory, and the callables run.
    Modules' modes, gradients and weights are only read.

    Parameters
    ----------
    parameters : mapping of str to sequence of nn.Parameter
        For each stage, in forward order, the parameters that are trained, now or later; none for a frozen stage.
    representations : callable
        Returns, for each stage that training may change, the representation of the fixed probe rows at this moment,
        of shape (n_rows, d). It must leave the modules' modes as they were; it is called without gradients. Stages
        without trained parameters that are missing count as unchanged.
    source_score : callable or None, default=None
        Returns the score on the source at this moment, the higher the better; called without gradients.

    Raises
    ------
    ValueError
        If `representations` names a stage that is not in `parameters`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Sequence[nn.Parameter]],
        representations: Callable[[], Mapping[str, np.ndarray]],
        source_score: Callable[[], float] | None = None,
    ) -> None:
        self._parameters = {stage: tuple(of_stage) for stage, of_stage in parameters.items()}
        self._start_weights = {
            stage: [parameter.detach().to("cpu", copy=True) for parameter in of_stage]
            for stage, of_stage in self._parameters.items()
        }
        self._start_norms = {stage: _norm(weights) for stage, weights in self._start_weights.items()}
        self._representations = representations
        self._source_score = source_score
        with torch.no_grad():
            self._start_representations = {stage: np.array(rows) for stage, rows in representations().items()}
            self._start_score = float(source_score()) if source_score is not None else math.nan
        unknown = self._start_representations.keys() - self._parameters.keys()
        if unknown:
            raise ValueError(
                f"There are representations of {sorted(unknown)}, which are no stages. The stages are: "
                f"{', '.join(self._parameters)}."
            )
        # Sums over the steps since the last record, on the gradients' device: reading them there would make every
        # step wait for the device.
        self._squared_norms: torch.Tensor | None = None
        self._n_steps: torch.Tensor | None = None
        self._records: list[tuple[int, list[float], list[float], list[float], float]] = []

    def after_backward(self) -> None:
        """Add this step's gradients, as they stand, to the account of each stage.

        To be called once a step, when the gradients of all micro-batches are there and unscaled, and before they
        are clipped. A step with a gradient that is not finite is left out: mixed precision skips it too.
        """
        gradients = [
            [parameter.grad for parameter in of_stage if parameter.grad is not None]
            for of_stage in self._parameters.values()
        ]
        first = next((tensor for of_stage in gradients for tensor in of_stage), None)
        if first is None:
            return
        norms = torch.stack(
            [
                nn.utils.get_total_norm(of_stage).to(first.device, torch.float32)
                if of_stage
                else torch.zeros((), device=first.device)
                for of_stage in gradients
            ]
        )
        finite = torch.isfinite(norms).all()
        if self._squared_norms is None or self._n_steps is None:
            self._squared_norms = torch.zeros_like(norms)
            self._n_steps = torch.zeros((), device=first.device)
        self._squared_norms += torch.where(finite, norms.square(), 0.0)
        self._n_steps += finite

    def record(self, epoch: int) -> None:
        """Measure the stages now.

        Parameters
        ----------
        epoch : int
            The number of epochs that are done; 0 is the start.

        Raises
        ------
        ValueError
            If the stages with a representation are not those of the start, or their rows are other ones.
        """
        changes, similarities, forgetting = self._measure()
        row = (epoch, changes, self._mean_gradient_norms(), similarities, forgetting)
        self._squared_norms = self._n_steps = None
        # In one piece, so that an interrupt leaves whole records.
        self._records.append(row)

    @property
    def last_epoch(self) -> int:
        """Epoch of the last record; 0 where there is none."""
        return self._records[-1][0] if self._records else 0

    def measure_again(self) -> None:
        """Measure the last record again, but for its gradients: the weights were changed since, by other means than a step.

        Raises
        ------
        ValueError
            As `record`.
        """
        epoch, _, gradient_norms, _, _ = self._records[-1]
        changes, similarities, forgetting = self._measure()
        self._records[-1] = (epoch, changes, gradient_norms, similarities, forgetting)

    def _measure(self) -> tuple[list[float], list[float], float]:
        """Return changes of weights and similarities of representations by stage, and what is forgotten."""
        with torch.no_grad():
            representations = self._representations()
            score = float(self._source_score()) if self._source_score is not None else math.nan
        if representations.keys() != self._start_representations.keys():
            raise ValueError(
                f"Representations must come for the same stages each time: at the start for "
                f"{sorted(self._start_representations)}, now for {sorted(representations)}."
            )
        changes = [self._weight_change(stage) for stage in self._parameters]
        return (
            changes,
            [self._similarity(stage, representations) for stage in self._parameters],
            self._start_score - score,
        )

    def result(self) -> StabilityRecord:
        """Return what was recorded so far.

        Returns
        -------
        StabilityRecord
            New arrays, which later records leave as they are.
        """
        columns = list(zip(*self._records, strict=True)) or [()] * 5
        epochs, weight_change, gradient_norm, cka, forgetting = columns
        shape = (len(self._records), len(self._parameters))
        return StabilityRecord(
            stages=tuple(self._parameters),
            epochs=np.array(epochs, dtype=np.int64),
            weight_change=np.array(weight_change, dtype=np.float64).reshape(shape),
            gradient_norm=np.array(gradient_norm, dtype=np.float64).reshape(shape),
            cka=np.array(cka, dtype=np.float64).reshape(shape),
            forgetting=np.array(forgetting, dtype=np.float64) if self._source_score is not None else None,
        )

    @torch.no_grad()
    def _weight_change(self, stage: str) -> float:
        pairs = zip(self._parameters[stage], self._start_weights[stage], strict=True)
        moved = _norm([_wide(parameter.detach().cpu()) - _wide(start) for parameter, start in pairs])
        if moved == 0:
            return 0.0
        return moved / self._start_norms[stage] if self._start_norms[stage] else math.inf

    def _mean_gradient_norms(self) -> list[float]:
        n_steps = 0.0 if self._n_steps is None else self._n_steps.item()
        if self._squared_norms is None or n_steps == 0:
            return [math.nan if of_stage else 0.0 for of_stage in self._parameters.values()]
        return [math.sqrt(squared / n_steps) for squared in self._squared_norms.tolist()]

    def _similarity(self, stage: str, representations: Mapping[str, np.ndarray]) -> float:
        if stage not in representations:
            return math.nan if self._parameters[stage] else 1.0
        start, now = self._start_representations[stage], np.asarray(representations[stage])
        # A stage that training has broken is a finding to record, not a reason to stop.
        if not all(np.isfinite(rows).all() and (rows != rows[0]).any() for rows in (start, now)):
            return math.nan
        return linear_cka(start, now)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision has too few digits for the difference of weights that hardly moved."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    """Euclidean norm of all numbers of some tensors."""
    return math.hypot(*(torch.linalg.vector_norm(_wide(tensor)).item() for tensor in tensors))
