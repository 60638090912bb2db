"""Weights between where training starts and where it has got to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _NormBase

from sktransfer.training.observers import Bystander
from sktransfer.training.plan import Plan
from sktransfer.training.targets import Targets
from sktransfer.training.tunable import TunableNetwork

HALF_WAY = 0.5


def goes_back(network: TunableNetwork, targets: Targets, plan: Plan) -> bool:
    """Whether weights on the way back to the start are worth a look.

    A start worth going back to is a pretrained network under a head that is a solution for it. A teacher's answers say more
    than labels do, and are not learned by heart.
    """
    return (
        plan.interpolation != 1
        and plan.head_init == "probe"
        and targets.solved_by_probe
        and bool(plan.rates.ratio)
        and not network.cut.all_frozen
    )


class Start(Bystander):
    """Remembers the weights that training starts from.

    Parameters
    ----------
    network : TunableNetwork
        What is trained.
    share : float or None
        Share of the way from start to end to go back to, unless told otherwise; None for half of it.

    Notes
    -----
    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv:2109.01903: networks between the pretrained and the
    tuned one are often better than either, on the target's data and on others.
    """

    def __init__(self, network: TunableNetwork, share: float | None = None):
        self.network = network
        self.share = HALF_WAY if share is None else share
        self._weights: list[torch.Tensor] = []

    def on_start(self, n_epochs: int) -> None:
        """Remember them."""
        self._weights = [one.detach().to("cpu", copy=True) for one in self._trained()]

    def go_back(self, share: float) -> None:
        """Go back to where only a share of the way had been gone."""
        pairs = zip(self._trained(), self._weights, strict=True)
        _put(self._trained(), [torch.lerp(start.to(now.device, now.dtype), now, share) for now, start in pairs])

    @contextmanager
    def at(self, share: float) -> Iterator[float]:
        """Go back for as long as the block lasts; gives the share."""
        reached = [one.detach().clone() for one in self._trained()]
        self.go_back(share)
        try:
            yield share
        finally:
            _put(self._trained(), reached)

    def _trained(self) -> list[torch.Tensor]:
        """Return weights that training may change, also those of stages that open late, and statistics that it moves.

        Other buffers may be anything, a mask of infinities or the last activations, which have nothing half way.
        """
        network = self.network
        norms = [one for one in network.modules() if isinstance(one, _NormBase)]
        statistics = [one for norm in norms for one in (norm.running_mean, norm.running_var) if one is not None]
        return [*network.head.parameters(), *network.parameters_behind_the_cut(), *statistics]


def _put(weights: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    """Write values into weights."""
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)
