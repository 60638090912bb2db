"""Where training starts: a cut network with its head, which starts as a probe of the frozen embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer.inputs.preparation import Preparation
from sktransfer.runtime.seeding import preserved_generators
from sktransfer.training.cut import Cut
from sktransfer.training.heads import make_head, start_from_probe
from sktransfer.training.loop import train
from sktransfer.training.network import TunableNetwork
from sktransfer.training.objective import Objective, Outputs
from sktransfer.training.observers import Bystander
from sktransfer.training.plan import Plan
from sktransfer.training.probe import Scaling, fit_probe
from sktransfer.training.rows import NetworkRows

ROWS_TO_TRY = 4


def make_network(
    cut: Cut,
    preparation: Preparation,
    n_features: int,
    n_outputs: int,
    plan: Plan,
    earlier: TunableNetwork | None = None,
) -> TunableNetwork:
    """Make the network with its head. A head that does not fit is an error before the whole of the rows is run.

    Parameters
    ----------
    cut : Cut
        Where the network is cut.
    preparation : Preparation
        Fitted to the training rows.
    n_features : int
        Length of an embedding.
    n_outputs : int
        Number of the head's outputs.
    plan : Plan
        How.
    earlier : TunableNetwork, optional
        A tuned network whose head and scaling are taken over.

    Returns
    -------
    TunableNetwork
    """
    with preserved_generators(seed=plan.settings.seed):
        head = make_head(plan.head if earlier is None else earlier.head, n_features, n_outputs)
        network = TunableNetwork(cut, preparation, head, n_features, fixed_norms=plan.fixed_norms)
        if earlier is not None:
            for name in ("center", "scale"):
                setattr(network, name, getattr(earlier, name).clone())
        elif plan.untrained is not None and plan.head_init == "random":
            network.suffix.network.load_state_dict(plan.untrained().state_dict())  # type: ignore[union-attr]
    return network


def embeddings_of(rows: NetworkRows, plan: Plan) -> np.ndarray:
    """Return the embeddings (n, d) that the pretrained network gives."""
    return rows.vectors if rows.vectors is not None else rows.cut.embed(rows.preparation, rows.values, plan.run)


def start_head(network: TunableNetwork, vectors: np.ndarray, objective: Objective, plan: Plan) -> float:
    """Let the head start from a probe of embeddings.

    Returns
    -------
    float
        The probe's temperature, see `LinearProbe`; 1 for a head that is not linear.
    """
    scaling = Scaling.of(vectors, objective.weights)
    network.center = torch.from_numpy(scaling.center).float()
    network.scale = torch.tensor(scaling.scale)
    scaled = scaling.apply(vectors)
    if not isinstance(network.head, nn.Linear) or plan.head != "linear":
        if not network.cut.all_frozen or plan.augment is not None:  # else what follows is the same training
            _train_head_alone(network.head, scaled, objective, plan)
        return 1.0
    task = objective.probe_task()
    probe = fit_probe(scaled, task.targets, objective.weights, task.kind, task.n_classes)
    start_from_probe(network.head, probe)
    return probe.temperature


class TemperedHead(Bystander):
    """Divides the scores of a head that starts as a probe by a temperature, once the probe itself was validated.

    A probe fits its few training rows so well that next to no gradient is left for the network under it.

    Parameters
    ----------
    head : nn.Module
        A linear head.
    temperature : float
        See `LinearProbe`.
    """

    def __init__(self, head: nn.Module, temperature: float):
        self.head = head
        self.temperature = temperature

    def on_start(self, n_epochs: int) -> None:
        """Divide them."""
        with torch.no_grad():
            for one in self.head.parameters():
                one.div_(self.temperature)


def scaled_as_in(network: TunableNetwork, vectors: np.ndarray) -> np.ndarray:
    """Return embeddings as a head sees them."""
    return Scaling(network.center.double().numpy(), float(network.scale)).apply(vectors)


def n_features_of(cut: Cut, preparation: Preparation, values: Sequence[Any], plan: Plan) -> int:
    """Return the length of an embedding, which the first rows show."""
    return cut.embed(preparation, list(values[:2]), plan.run).shape[1]


class _Vectors:
    """Vectors as rows for a head that is trained alone."""

    def __init__(self, vectors: torch.Tensor):
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def chunks(self, places: Sequence[int]) -> list[tuple[list[int], torch.Tensor]]:
        return [(list(range(len(places))), self.vectors[list(places)])]

    def batches(self, batches: Sequence[Sequence[int]]) -> Any:
        return (self.chunks(places) for places in batches)

    def in_order(self) -> Any:
        yield list(range(len(self))), self.vectors


class _HeadAlone(nn.Module):
    """A head on embeddings that are there."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, vectors: torch.Tensor) -> Outputs:
        return Outputs(vectors, self.head(vectors))


def _train_head_alone(head: nn.Module, vectors: np.ndarray, objective: Objective, plan: Plan) -> None:
    """Train a head that is not linear on the frozen embeddings: that is what a probe is to a linear head."""
    rows = _Vectors(torch.from_numpy(vectors))
    groups = [{"params": list(head.parameters()), "lr": plan.new_head_rate, "weight_decay": plan.weight_decay}]
    sample = _Vectors(torch.from_numpy(vectors[:ROWS_TO_TRY]))
    train(_HeadAlone(head), rows, objective, groups, plan.settings, sample=sample)
