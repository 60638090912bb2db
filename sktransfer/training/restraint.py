"""A head that is held back while the network under it is tuned, and let go afterwards.

A probe that is as good as it can be has next to no loss left on its own rows, and a network under it learns nothing. With a
stronger penalty it leaves something to learn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from sktransfer.training.heads import start_from_probe
from sktransfer.training.loop import Labelled
from sktransfer.training.observers import Bystander
from sktransfer.training.plan import Examples, Plan
from sktransfer.training.probe import probe_at
from sktransfer.training.running import run_network
from sktransfer.training.scale import best_scale
from sktransfer.training.targets import Targets
from sktransfer.training.tunable import TunableNetwork

# What the penalty that cross-validation chose is multiplied by.
FACTOR = 10.0
_ROWS_TO_SETTLE = 100


def restraint_for(
    network: TunableNetwork, targets: Targets, plan: Plan, earlier: TunableNetwork | None, *, validates: bool
) -> float:
    """Return what the penalty of the probe is multiplied by while a network is tuned under it."""
    if not network.head_penalty or not plan.rates.ratio or network.cut.all_frozen or targets.kind == "numbers":
        return 1.0
    if earlier is None or validates:
        return FACTOR
    # Going on without anything that judges: a head with nothing beside it may be the whole probe.
    return 1.0 if earlier.rest_weight is None or not earlier.rest_weight.any() else FACTOR


class Restraint(Bystander):
    """Trains under a more strongly penalised probe, once the one that training starts from was judged.

    Where no validation rows let the start compete, what the two differ by is left out of the scores in training alone, so that
    a network that does not move stays the probe.
    """

    def __init__(
        self,
        network: TunableNetwork,
        scaled: np.ndarray,
        training: Examples,
        targets: Targets,
        factor: float,
        *,
        validates: bool,
    ):
        self.network = network
        codes = targets.probe_codes(training.codes)
        penalty = factor * float(network.head_penalty)
        self.held = probe_at(penalty, scaled, codes, training.weights, targets.kind, targets.n_classes)
        if not validates:
            # There from the start on, where it is nothing, so that it is kept and brought back with the weights of an epoch.
            nothing = torch.zeros_like(network.head.weight), torch.zeros_like(network.head.bias)  # type: ignore[arg-type]
            network.hold_back(*nothing)

    def on_start(self, n_epochs: int) -> None:
        """Hold the head back."""
        head: nn.Linear = self.network.head  # type: ignore[assignment]
        probe = head.weight.detach().clone(), head.bias.detach().clone()
        start_from_probe(head, self.held)
        if self.network.rest_weight is not None:
            self.network.hold_back(probe[0] - head.weight.detach(), probe[1] - head.bias.detach())


def judge_of(targets: Targets) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]:
    """Return the loss at the scale of scores at which it is lowest: a restrained head is not as sure as it may be."""

    def judge(outputs: torch.Tensor, codes: torch.Tensor, weights: torch.Tensor) -> float:
        return best_scale(targets.loss, outputs, codes, weights, targets.n_outputs)[1]

    return judge


def let_go(
    network: TunableNetwork, training: Labelled, held_out: Labelled | None, targets: Targets, plan: Plan, *, most: float
) -> None:
    """Let scores be as sure as validation rows allow, or, without enough of them, the probe's own penalty.

    What training rows say of that flatters, so with them the head becomes no larger than the probe was, which is `most`. A
    probe under a network that has not moved stays as it is: its size is the best one already.
    """
    if held_out is not None and len(held_out.rows) >= _ROWS_TO_SETTLE:
        scale = _surest(network, held_out, targets, plan)
    else:
        size = head_norm(network)
        scale = _surest(network, training, targets, plan, 0.5 * float(network.head_penalty) * size**2)
        scale = min(scale, max(1.0, most / size)) if size else 1.0
    network.scale_scores(scale)


def _surest(network: TunableNetwork, data: Labelled, targets: Targets, plan: Plan, penalty: float = 0.0) -> float:
    outputs = torch.from_numpy(run_network(network, data.rows.plain(), plan.settings.device))  # type: ignore[attr-defined]
    return best_scale(targets.loss, outputs, data.targets, data.weights, targets.n_outputs, penalty)[0]


def head_norm(network: TunableNetwork) -> float:
    """Return the norm of the weights that scores are made with, where the head is a probe."""
    weight: torch.Tensor = network.head.weight.detach().double()  # type: ignore[operator]
    return float((weight if network.rest_weight is None else weight + network.rest_weight.double()).norm())
