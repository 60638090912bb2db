"""The course of a training: what is held back, at which rates, under which penalties, from where it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from sktransfer.losses.l2_sp import l2_sp_penalty
from sktransfer.training.interpolation import Start, goes_back
from sktransfer.training.loop import BatchSource, Labelled, Observer, Training, train
from sktransfer.training.observers import GradualUnfreezing
from sktransfer.training.plan import Examples, Plan
from sktransfer.training.restraint import Restraint, judge_of, restraint_for
from sktransfer.training.start import scaled_as_in
from sktransfer.training.targets import Targets
from sktransfer.training.tunable import StageRates, TunableNetwork

# Deviation of embeddings times this, over the size of their mean: below 1 rates are smaller.
_ENOUGH_SPREAD = 2.0


@dataclass
class Course:
    """How a network is trained from where it stands.

    Attributes
    ----------
    network : TunableNetwork
        What is trained.
    rates : StageRates
        At which rates.
    restraint : float
        What the penalty of the probe is multiplied by meanwhile.
    start : Start or None
        Remembers the weights that it starts from, where going back to them may be worth it.
    observers : list of Observer
        What changes the network before and while it is trained.
    """

    network: TunableNetwork
    rates: StageRates
    restraint: float
    start: Start | None
    observers: list[Any]

    def run(
        self,
        data: Labelled,
        targets: Targets,
        plan: Plan,
        *,
        validation: Labelled | None = None,
        sample: BatchSource | None = None,
        observers: Sequence[Observer] = (),
        tell: bool = True,
    ) -> Training:
        """Train the network.

        Parameters
        ----------
        data, validation : Labelled
            What it learns from, and what decides on the best epoch.
        targets : Classes, Labels, Numbers or Taught
            What the codes are.
        plan : Plan
            How.
        sample, tell
            As in `train`.
        observers : sequence of Observer
            Who else looks on.

        Returns
        -------
        Training
        """
        everybody = [*self.observers, *observers]
        try:
            return train(
                self.network,
                data,
                targets.loss,
                self.network.parameter_groups(self.rates, plan.weight_decay),
                plan.settings,
                validation=validation,
                sample=sample,
                penalty=_penalty(self.network, plan.l2_sp, self.restraint),
                judge=None if self.restraint == 1 else judge_of(targets),
                rival=None if self.start is None else partial(self.start.at, self.start.share),
                observers=everybody,
                tell=tell,
            )
        finally:
            for observer in everybody:
                observer.close()
            self.network.drop_hints()


def course_of(
    network: TunableNetwork,
    vectors: np.ndarray | None,
    training: Examples,
    targets: Targets,
    plan: Plan,
    *,
    earlier: TunableNetwork | None = None,
    validates: bool = False,
) -> Course:
    """Lay out how a network is trained.

    Parameters
    ----------
    network : TunableNetwork
        With its head at its start.
    vectors : ndarray of shape (n, d) or None
        Embeddings of the training rows at the start; None where the head does not start as a probe of them.
    training : Examples
        What it learns from.
    targets : Classes, Labels, Numbers or Taught
        What the codes are.
    plan : Plan
        How.
    earlier : TunableNetwork, optional
        What it goes on from.
    validates : bool, default=False
        Whether there are validation rows.

    Returns
    -------
    Course
    """
    restraint = restraint_for(network, targets, plan, earlier, validates=validates)
    observers: list[Any] = []
    if plan.unfreeze_every is not None and not network.cut.all_frozen:
        observers.append(GradualUnfreezing(network, plan.unfreeze_every))
    if restraint != 1 and earlier is None:
        assert vectors is not None
        scaled = scaled_as_in(network, vectors)
        observers.append(Restraint(network, scaled, training, targets, restraint, validates=validates))
    start = None
    if earlier is None and goes_back(network, targets, plan):
        start = Start(network, share=plan.interpolation)
        observers.append(start)  # after the restraint: the start is the held head's
    return Course(network, _rates(network, plan), restraint, start, observers)


def _rates(network: TunableNetwork, plan: Plan) -> StageRates:
    """Return the learning rates: a head that has learned already moves no faster than the stage below it.

    Adam's steps are as long as the rate, however small the gradient, and at a probe there is next to none. Where embeddings
    of different rows are nearly the same, the probe tells them apart by small differences, which steps of the usual length
    would drown; rates are then as much smaller.
    """
    if network.cut.all_frozen or plan.head_init == "random" or not plan.rates.ratio:
        return plan.rates
    mean = float(network.center.double().square().mean().sqrt())
    slower = min(1.0, _ENOUGH_SPREAD * float(network.scale) / mean) if mean else 1.0
    return replace(plan.rates, head=plan.rates.head * plan.rates.ratio * slower, ratio=1.0)


def _penalty(network: TunableNetwork, l2_sp: float, restraint: float) -> Callable[[], torch.Tensor] | None:
    """Return what is added to the loss: the pull of the network towards its start, and the probe's own penalty.

    A head that starts as a probe and then lost the probe's penalty would move away from it even on a frozen network.
    """
    weights = network.parameters_behind_the_cut()
    start = [one.detach().clone() for one in weights] if l2_sp else []
    of_head = 0.5 * restraint * float(network.head_penalty)
    rows = [one for one in network.head.parameters() if one.ndim > 1]
    if not start and not of_head:
        return None

    def penalty() -> torch.Tensor:
        total = torch.zeros((), device=network.center.device)
        if of_head:
            total = total + of_head * rows[0].square().sum()
        # Stages that are not open yet are where they started.
        start[:] = [then.to(now.device, now.dtype) for now, then in zip(weights, start, strict=False)]
        pairs = [(now, then) for now, then in zip(weights, start, strict=False) if now.requires_grad]
        if pairs:
            total = total + l2_sp * l2_sp_penalty([now for now, _ in pairs], [then for _, then in pairs])
        return total

    return penalty
