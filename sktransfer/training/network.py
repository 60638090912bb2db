"""The part of a network that is trained: stages behind the cut, and a head."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sktransfer.backbones.backbone import explained, main_tensor, outputs_of
from sktransfer.backbones.pooling import pool
from sktransfer.backbones.splitting.stages import Stage
from sktransfer.backbones.splitting.trace import trace_forward
from sktransfer.inputs.preparation import Inputs, Preparation
from sktransfer.training.cut import Cut
from sktransfer.training.objective import Outputs
from sktransfer.training.rows import Chunk


@dataclass(frozen=True)
class StageInfo:
    """One stage of a fine-tuned network.

    Attributes
    ----------
    name : str
        Name of the stage.
    n_parameters : int
        Number of its weights.
    frozen : bool
        Whether training left it as it was.
    learning_rate : float
        Rate at which it was trained at the height of the schedule, also where the epoch that was kept is an earlier
        one, or the start; 0 where frozen.
    """

    name: str
    n_parameters: int
    frozen: bool
    learning_rate: float


class TunableNetwork(nn.Module):
    """A copy of the stages behind a cut, the pooling, and a head.

    Parameters
    ----------
    cut : Cut
        Where the network is cut. The copy is its suffix.
    preparation : Preparation
        Makes example rows.
    head : nn.Module
        From embeddings (n, d) to outputs.
    n_features : int
        Length d of an embedding.
    fixed_norms : bool, default=False
        Whether batch norm keeps its statistics in the trained stages too.
    """

    center: torch.Tensor
    scale: torch.Tensor
    head: nn.Module

    def __init__(
        self, cut: Cut, preparation: Preparation, head: nn.Module, n_features: int, *, fixed_norms: bool = False
    ):
        super().__init__()
        backbone = cut.backbone
        self.cut = cut
        self.suffix = None if cut.split is None else cut.split.suffix
        # What comes after the pooling is trained with the top stage.
        whole = self.suffix is None or backbone.readout is None
        self.readout = None if whole else copy.deepcopy(backbone.readout)
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(()))
        self.head = head
        self.fixed_norms = fixed_norms
        stages = backbone.find_stages(preparation)
        self.stage_names = tuple(stage.name for stage in stages)
        self._last_stage: list[tuple[nn.Module, int]] = []
        self._before: list[nn.Parameter] = []
        self.stage_parameters: dict[int, list[nn.Parameter]] = {place: [] for place in range(len(stages))}
        self._channels_last = False
        if self.suffix is not None:
            self._sort_parameters(stages, preparation)
            convolves = any(isinstance(module, nn.Conv2d) for module in self.suffix.modules())
            # Not where features come last in the network's own shapes, as in Swin.
            if backbone.kind == "image" and convolves and not backbone.channels_last:
                self._lay_out(channels_last=True)
        self.first_open = cut.depth
        self.open_from(cut.depth)

    def _sort_parameters(self, stages: Sequence[Stage], preparation: Preparation) -> None:
        """Find the stage of each parameter; what stands before the first stage goes with it."""
        assert self.suffix is not None
        network: nn.Module = self.suffix.network  # type: ignore[assignment]
        with self.cut.backbone.lock:
            places = stages_of_modules(self.cut.backbone.network_to_read(), stages, preparation)
        for name, parameter in network.named_parameters():
            owner = name.rpartition(".")[0]
            self.stage_parameters[max(places[owner], 0)].append(parameter)
            if places[owner] < 0:
                self._before.append(parameter)
        # Dropout and batch norm between stages count too, hence all modules and not those of the stages alone.
        at = {module: max(places[name], 0) for name, module in network.named_modules()}
        for module in at:
            leaves = [inner for inner in module.modules() if next(inner.children(), None) is None]
            self._last_stage.append((module, max(at[leaf] for leaf in leaves)))
        if self.readout is not None:
            self.stage_parameters[len(stages) - 1].extend(self.readout.parameters())

    def parameters_behind_the_cut(self) -> list[nn.Parameter]:
        """Return those of stages that are trained, now or later."""
        return [one for place, of in self.stage_parameters.items() if place >= self.cut.depth for one in of]

    def open_from(self, place: int) -> None:
        """Let the stages from `place` on learn, and freeze those before."""
        self.first_open = max(place, self.cut.depth)
        for at, parameters in self.stage_parameters.items():
            for parameter in parameters:
                parameter.requires_grad_(at >= self.first_open)
        for parameter in self._before:
            parameter.requires_grad_(self.first_open == 0)
        self.train(self.training)

    def train(self, mode: bool = True) -> TunableNetwork:
        """Put what learns into training mode; frozen stages stay in eval mode."""
        super().train(mode)
        if mode:
            for module, last in self._last_stage:
                if last < self.first_open or (self.fixed_norms and isinstance(module, _BatchNorm)):
                    module.training = False
        return self

    def embed(self, chunk: Chunk) -> torch.Tensor:
        """Return embeddings (n, d) of rows."""
        if chunk.vectors is not None:
            return chunk.vectors
        try:
            pooled = self._pooled(chunk)
        except ValueError as error:
            if not self._channels_last or "view size" not in str(error):
                raise
            # Some networks flatten with `view`, which needs the usual order in memory.
            self._lay_out(channels_last=False)
            pooled = self._pooled(chunk)
        if chunk.extra is not None:
            pooled.insert(0, chunk.extra)  # stages of an embedding are listed in order, frozen ones first
        vectors = torch.cat(pooled, dim=1)
        if self.readout is not None:
            vectors = self.readout(vectors)
        return nn.functional.normalize(vectors, dim=1) if self.cut.backbone.normalize else vectors

    def _pooled(self, chunk: Chunk) -> list[torch.Tensor]:
        """Run the stages behind the cut and pool each output that the embedding is made of."""
        backbone, layers = self.cut.backbone, self.cut.layers
        assert self.suffix is not None and chunk.inputs is not None
        inputs, activation = chunk.inputs, chunk.activation
        if self._channels_last:
            inputs = Inputs(
                tuple(map(_channels_last, inputs.args)),
                {name: _channels_last(value) for name, value in inputs.kwargs.items()},
                inputs.mask,
            )
            activation = None if activation is None else _channels_last(activation)
        if layers is None:
            with explained(backbone.name, inputs):
                output = self.suffix(activation, *inputs.args, **inputs.kwargs)
            modes = self.cut.pooling
            outputs = [main_tensor(output) if modes is not None else backbone.read_output(output)]
            modes = modes or backbone.pooling
        else:
            trained = [layer for layer in layers if layer not in self.cut.frozen_layers]
            boundaries = [backbone.stages[layer].modules[-1] for layer in trained]
            network, feed = self.suffix.network, self.suffix.feed
            with explained(backbone.name, inputs):
                outputs = feed.run(activation, lambda: outputs_of(network, boundaries, inputs))  # type: ignore[union-attr,operator,arg-type]
            modes = self.cut.pooling or backbone.layer_pooling
        return [pool(one, inputs.mask, modes, backbone.channels_last, backbone.time_last) for one in outputs]

    def _lay_out(self, *, channels_last: bool) -> None:
        """Choose the order in memory: convolutions run up to three times as fast with the channels last."""
        self._channels_last = channels_last
        assert self.suffix is not None
        for parameter in self.suffix.parameters():
            if parameter.ndim == 4:
                layout = torch.channels_last if channels_last else torch.contiguous_format
                parameter.data = parameter.data.contiguous(memory_format=layout)

    def forward(self, chunk: Chunk) -> Outputs:
        """Return the embeddings of rows as the head takes them, and the head's scores."""
        scaled = (self.embed(chunk) - self.center) / self.scale
        return Outputs(scaled, self.head(scaled))

    def scores(self, chunk: Chunk) -> torch.Tensor:
        """Return the head's scores of rows."""
        return self(chunk).scores

    def representations(self, chunk: Chunk) -> dict[str, torch.Tensor]:
        """Return the pooled output of each stage behind the cut, in the mode that the network is in."""
        if self.suffix is None or chunk.inputs is None:
            return {}
        backbone, depth = self.cut.backbone, self.cut.prefix_depth
        names = [stage.modules[-1] for stage in backbone.stages[depth:]]
        network, feed = self.suffix.network, self.suffix.feed
        outputs = feed.run(chunk.activation, lambda: outputs_of(network, names, chunk.inputs))  # type: ignore[union-attr,operator,arg-type]
        pooled = [
            pool(one, chunk.inputs.mask, backbone.layer_pooling, backbone.channels_last, backbone.time_last)
            for one in outputs
        ]
        return dict(zip(self.stage_names[depth:], pooled, strict=True))

    def parameter_groups(self, rates: StageRates, weight_decay: float) -> list[dict[str, Any]]:
        """Return groups for an optimizer: the head, and each stage at its rate."""
        groups = parameter_groups("head", self.head, self.head.parameters(), rates.head, weight_decay)
        for place in range(self.cut.depth, len(self.stage_names)):
            before = {id(one) for one in self._before} if self.cut.depth else set()
            chosen = [one for one in self.stage_parameters[place] if id(one) not in before]
            rate = rates.of_stage(place, len(self.stage_names))
            groups += parameter_groups(self.stage_names[place], self, chosen, rate, weight_decay)
        return groups

    def stage_table(self, rates: StageRates) -> tuple[StageInfo, ...]:
        """Return what became of each stage."""
        network = self.cut.backbone.network_to_read()
        table = []
        for place, stage in enumerate(self.cut.backbone.stages):
            weights = {id(one): one for name in stage.modules for one in network.get_submodule(name).parameters()}
            frozen = place < self.first_open  # one that was to open later, and did not, was not trained
            rate = 0.0 if frozen else rates.of_stage(place, len(self.stage_names))
            table.append(StageInfo(stage.name, sum(one.numel() for one in weights.values()), frozen, rate))
        return tuple(table)

    def tuned_copy(self) -> tuple[nn.Module, nn.Module | None]:
        """Return a copy of the whole network, and of what comes after its pooling, with the weights as they are now."""
        network, readout = self.cut.backbone.snapshot(), copy.deepcopy(self.cut.backbone.readout)
        if self.suffix is not None:
            network.load_state_dict(self.suffix.network.state_dict(), strict=False)  # type: ignore[union-attr]
        if self.readout is not None and readout is not None:
            readout.load_state_dict(self.readout.state_dict())
        return network, readout

    def tuned_state(self) -> dict[str, torch.Tensor]:
        """Return everything but the head that training has changed."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("head.")}

    def take_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take what `tuned_state` gave."""
        self.to(next(iter(state.values())).dtype)
        self.load_state_dict(dict(state), strict=False)


def parameter_groups(
    name: str, module: nn.Module, parameters: Iterable[nn.Parameter], rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return groups for an optimizer, where biases and normalisation have no weight decay.

    Parameters
    ----------
    name : str
        Name of the groups.
    module : nn.Module
        What the parameters are of.
    parameters : iterable of nn.Parameter
        What is trained.
    rate : float
        Peak learning rate.
    weight_decay : float
        Of all others.

    Returns
    -------
    list of dict
    """
    # A LayerNorm over several axes has weights of several dimensions.
    norms = [one for one in module.modules() if "Norm" in type(one).__name__]
    of_norms = {id(one) for norm in norms for one in norm.parameters(recurse=False)}
    parameters = list(parameters)
    groups = []
    for decays in (True, False):
        chosen = [one for one in parameters if (one.ndim > 1 and id(one) not in of_norms) == decays]
        if chosen:
            groups.append({"name": name, "params": chosen, "lr": rate, "weight_decay": weight_decay if decays else 0.0})
    return groups


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


@dataclass(frozen=True)
class StageRates:
    """Discriminative learning rates (Howard and Ruder 2018, arXiv:1801.06146).

    Attributes
    ----------
    head : float
        Rate of the head.
    top : float
        Rate of the top stage.
    decay : float
        Rate of each stage, as a share of that of the stage above it.
    """

    head: float
    top: float
    decay: float

    def of_stage(self, place: int, n_stages: int) -> float:
        """Return the rate of the stage at `place`."""
        return self.top * self.decay ** (n_stages - 1 - place)


def stages_of_modules(network: nn.Module, stages: Sequence[Stage], preparation: Preparation) -> Mapping[str, int]:
    """Tell for each module the stage that its own parameters go with, -1 for what stands before the first.

    A module outside of all stages goes with the stage that ran last before it.
    """
    example = preparation.examples()[0]
    trace = trace_forward(network, example.args, example.kwargs)
    starts = [trace.start(network.get_submodule(stage.modules[0])) or 0 for stage in stages]
    if starts != sorted(starts):
        right = [stages[place].name for place in sorted(range(len(stages)), key=starts.__getitem__)]
        raise ValueError(
            f"The stages {', '.join(stage.name for stage in stages)} are not in forward order, in which the network runs "
            f"them: {', '.join(right)}. Name them in that order."
        )
    inside = {name: place for place, stage in enumerate(stages) for name in stage.modules}
    places: dict[str, int] = {}
    for name, module in network.named_modules():
        owners = [
            place for known, place in inside.items() if not known or name == known or name.startswith(known + ".")
        ]
        if owners:
            places[name] = owners[0]
            continue
        run = trace.runs.get(module)
        started = -1 if run is None else run.start
        places[name] = sum(start < started for start in starts) - 1
    return places
