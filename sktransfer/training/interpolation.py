"""Weights interpolated between where training starts and where it ends (WiSE-FT)."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _NormBase

from sktransfer.training.network import TunableNetwork
from sktransfer.training.observers import Bystander


class Interpolation(Bystander):
    """Remembers the weights that training starts from, and interpolates between them and the current ones.

    Parameters
    ----------
    network : TunableNetwork
        What is trained.
    coefficient : float
        Weight of the current ones, in [0, 1]: 0 is the start, 1 changes nothing.

    Notes
    -----
    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv:2109.01903.
    """

    def __init__(self, network: TunableNetwork, coefficient: float):
        self.network = network
        self.coefficient = coefficient
        self._initial: list[torch.Tensor] = []

    def on_start(self, n_epochs: int) -> None:
        """Remember them."""
        self._initial = [one.detach().to("cpu", copy=True) for one in self._trained()]

    def apply(self) -> None:
        """Interpolate."""
        with torch.no_grad():
            for now, initial in zip(self._trained(), self._initial, strict=True):
                now.copy_(torch.lerp(initial.to(now.device, now.dtype), now, self.coefficient))

    def _trained(self) -> list[torch.Tensor]:
        """Return weights that training may change, also those of stages that open late, and statistics that it moves.

        Other buffers may be anything, a mask of infinities or the last activations, which can't be interpolated.
        """
        network = self.network
        norms = [one for one in network.modules() if isinstance(one, _NormBase)]
        statistics = [one for norm in norms for one in (norm.running_mean, norm.running_var) if one is not None]
        return [*network.head.parameters(), *network.parameters_behind_the_cut(), *statistics]
