"""The handle of a pretrained network, shared by all estimators of a process and never changed."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import nn

from sktransfer._locks import ProcessLock
from sktransfer.backbones.card import Card
from sktransfer.backbones.checkpoints import check_finite
from sktransfer.backbones.frozen_copy import frozen_copy, watched
from sktransfer.backbones.identity.fingerprint import Code, code_of, fingerprint, module_tensors
from sktransfer.backbones.identity.live_parts import live_parts
from sktransfer.backbones.pooling import pool
from sktransfer.backbones.splitting.hooks import own_hooks
from sktransfer.backbones.splitting.split import Split, SplitError, split_network
from sktransfer.backbones.splitting.split_check import SplitCheck, check_split
from sktransfer.backbones.splitting.stages import Stage, find_stages, resolve_stages
from sktransfer.backbones.splitting.trace import tensors_in
from sktransfer.inputs.preparation import Inputs, Preparation
from sktransfer.runtime.device import is_out_of_memory
from sktransfer.runtime.kernels import FrozenKernels, kernels_for
from sktransfer.runtime.seeding import preserved_generators


@dataclass(frozen=True)
class Origin:
    """Where a backbone can be loaded from again.

    Attributes
    ----------
    name : str
        Catalogue name, hub name or absolute path.
    weights : str or None
        Absolute path of a weights file, name of a set of weights, or None for the default.
    kind : str or None
        Kind of row, for networks that have several.
    """

    name: str
    weights: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class _Replica:
    """The network in the form in which it runs on one device in one precision.

    What lies beyond the stage `reach` runs too, but not in its fastest form.
    """

    network: nn.Module
    readout: nn.Module | None
    kernels: FrozenKernels | None
    reach: float = math.inf


def _convolves(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in network.modules())


class Backbone:
    """A pretrained network with what it needs to read raw rows.

    A handle is immutable: nothing in this package changes the network behind it, and estimators share it.

    Parameters
    ----------
    card : Card
        Facts for people.
    network : nn.Module
        The network; owned by the handle from here on. It is put into eval mode and its parameters take no
        gradients.
    preparation : Preparation
        Turns raw rows into the network's input.
    fingerprint : str
        Digest of the tensors, the settings and the preparation.
    origin : Origin or None, default=None
        Where to load it from again; None when this object holds the only copy.
    pooling : str or tuple of str, default="mean"
        How the network's own output becomes one vector a row where it is not one already.
    layer_pooling : str or tuple of str, default="mean"
        The same for the output of a stage.
    normalize : bool, default=False
        Whether default embeddings are scaled to unit length.
    default_layers : tuple of str, optional
        Stages whose pooled outputs, concatenated, are the default embedding; by default the network's own
        output is.
    stage_names : tuple of str, optional
        Names of the modules that are the stages; found automatically by default.
    readout : nn.Module, optional
        Applied to the default embedding after pooling.
    read_output : callable, optional
        Takes the tensor to pool out of what the network returns.
    channels_last : bool, default=False
        Whether outputs of four dimensions are (n, height, width, channels).
    time_last : bool, default=False
        Whether outputs of three dimensions are (n, values, time points).
    lineage : tuple of dict, default=()
        What it has been trained on in this package, the first step first.
    own_code : bool, default=False
        Whether code of the user's runs in it, which may change while the handle lives.
    """

    # Of handles from pickles of former versions.
    own_code = False
    _code: Code | None = None
    _live_parts: list[Any] | None = None

    def __init__(
        self,
        *,
        card: Card,
        network: nn.Module,
        preparation: Preparation,
        fingerprint: str,
        origin: Origin | None = None,
        pooling: str | tuple[str, ...] = "mean",
        layer_pooling: str | tuple[str, ...] = "mean",
        normalize: bool = False,
        default_layers: tuple[str, ...] | None = None,
        stage_names: tuple[str, ...] | None = None,
        readout: nn.Module | None = None,
        read_output: Callable[[Any], torch.Tensor] | None = None,
        channels_last: bool = False,
        time_last: bool = False,
        lineage: tuple[dict[str, Any], ...] = (),
        own_code: bool = False,
    ):
        self.lineage = lineage
        self.own_code = own_code
        self.card = card
        self.preparation = preparation
        self.fingerprint = fingerprint
        self.origin = origin
        self.pooling = pooling
        self.layer_pooling = layer_pooling
        self.normalize = normalize
        self.default_layers = default_layers
        self.readout = _frozen(readout) if readout is not None else None
        self.read_output = read_output or main_tensor
        self.channels_last = channels_last
        self.time_last = time_last
        self._stage_names = stage_names
        self._stages: tuple[Stage, ...] | None = None
        self._network = _frozen(network)
        self._split_checks: dict[int, SplitCheck] = {}
        self._replicas: dict[tuple[torch.device, torch.dtype], _Replica] = {}
        # Lengths and shapes of what it gives. Who reads or writes them holds `lock`.
        self.remembered: dict[Hashable, Any] = {}
        # Held while the network runs: hooks are set on it, and rows that another thread is encoding are waited
        # for instead of encoded twice.
        self.lock = ProcessLock("a network")

    @property
    def name(self) -> str:
        """Name on the card."""
        return self.card.name

    @property
    def kind(self) -> str:
        """Kind of row that the network reads."""
        return self.preparation.kind

    def check_finite(self) -> None:
        """Refuse weights that are NaN or infinite, see :func:`check_finite`."""
        for part in (self._network, self.readout):
            if part is not None:
                check_finite(module_tensors(part), f"the backbone {self.name!r}")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The blocks of the network in forward order."""
        return self.find_stages(self.preparation)

    def find_stages(self, preparation: Preparation) -> tuple[Stage, ...]:
        """Return the blocks of the network in forward order, found on example rows the first time.

        A network without blocks, such as a single layer or a loop over the same layers, is one stage.

        Parameters
        ----------
        preparation : Preparation
            Makes rows that the network can read, where the backbone's own leaves their size open.

        Returns
        -------
        tuple of Stage

        Raises
        ------
        ValueError
            If a stage that the user named is no module of the network, or the network can't read the rows.
        """
        if self._stages is not None:
            return self._stages
        with self.lock, torch.no_grad(), preserved_generators():
            if self._stages is None:
                if self._stage_names is not None:
                    self._stages = resolve_stages(self._network, self._stage_names)
                else:
                    example = preparation.examples()[0]
                    with explained(self.name, example):
                        self._stages = find_stages(self._network, example.args, example.kwargs)
                    if not self._stages and next(self._network.parameters(), None) is not None:
                        # No block of it runs exactly once: the network is one stage.
                        self._stages = (Stage(type(self._network).__name__, ("",)),)
                # What was folded before the boundaries were known may have one of them inside.
                self._replicas.clear()
            return self._stages

    def find_layer(self, layer: Integral | int | str, preparation: Preparation) -> int:
        """Turn a layer's number, from the end if negative, or name into its place among the stages.

        Raises
        ------
        ValueError
            If there is no such stage; the message lists the stages.
        """
        names = [stage.name for stage in self.find_stages(preparation)]
        if isinstance(layer, str) and layer in names:
            return names.index(layer)
        if not isinstance(layer, str) and -len(names) <= int(layer) < len(names):
            return int(layer) % len(names)
        raise ValueError(
            f"layer={layer!r} is not a stage of {self.name!r}. It has {len(names)} stages, from 0 (or -{len(names)}) "
            f"to {len(names) - 1} (or -1): {', '.join(names)}."
        )

    def embed(
        self,
        inputs: Inputs,
        *,
        layers: Sequence[int] | None,
        pooling: str | tuple[str, ...] | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """Run one batch and pool it to one vector a row. The caller holds `lock` and has gradients off.

        Parameters
        ----------
        inputs : Inputs
            One batch, on the processor.
        layers : sequence of int or None
            Stages whose outputs are pooled and concatenated; None for the default embedding.
        pooling : str, tuple of str or None
            How to pool; None for the backbone's own way.
        device, dtype
            Where and in which precision to run.

        Returns
        -------
        torch.Tensor of shape (n, d), float32, on `device`
        """
        own = layers is None
        if layers is None and self.default_layers is not None:
            layers = [self.find_layer(name, self.preparation) for name in self.default_layers]
        # How far into the network the pass goes.
        reach = math.inf if layers is None else max(layers)
        run = partial(self._run, inputs=inputs.to(device, dtype), layers=layers, pooling=pooling, own=own)
        return self._on_replica(run, reach, device, dtype)

    def activate(self, inputs: Inputs, *, depth: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Run one batch through the stages before `depth`. The caller holds `lock` and has gradients off.

        Parameters
        ----------
        inputs : Inputs
            One batch, on the processor.
        depth : int
            Number of stages to run, at least 1.
        device, dtype
            Where and in which precision to run.

        Returns
        -------
        torch.Tensor of shape (n, ...)
            The output of the last of these stages, on `device`.
        """
        boundary = self.stages[depth - 1].modules[-1]
        moved = inputs.to(device, dtype)

        def run(replica: _Replica) -> torch.Tensor:
            with replica.kernels or nullcontext(), explained(self.name, moved):
                return outputs_of(replica.network, [boundary], moved)[0]

        return self._on_replica(run, depth - 1, device, dtype)

    def _on_replica(
        self, run: Callable[[_Replica], torch.Tensor], reach: float, device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """Run one batch through the fastest form of the network that reaches far enough, and make that if need be."""
        replica = self._replicas.get((device, dtype))
        if replica is not None and replica.reach >= reach:
            return run(replica)
        plain = self._plain_replica(device, dtype)
        if self.kind != "image" or not _convolves(self._network):
            self._replicas[device, dtype] = plain
            return run(plain)
        if reach < math.inf:
            self.find_stages(self.preparation)  # outside, since it runs the network
        # The first batch runs twice: as it is, which shows what can be folded, and like all that follow, so that a row's
        # digits do not depend on when it came.
        with watched(plain.network) as watch:
            result = run(plain)
        folded = self._folded_replica(watch.pairs, reach, device, dtype)
        try:
            result = run(folded)
        except Exception as error:  # whatever a network makes of another order in memory, as with `view`
            if is_out_of_memory(error):
                raise
            folded = plain
        self._replicas[device, dtype] = folded
        return result

    def _run(
        self,
        replica: _Replica,
        inputs: Inputs,
        layers: Sequence[int] | None,
        pooling: str | tuple[str, ...] | None,
        own: bool,
    ) -> torch.Tensor:
        """Run one batch through one form of the network, and pool it; `own` says that the readout belongs to it."""
        with replica.kernels or nullcontext(), explained(self.name, inputs):
            if layers is None:
                output = replica.network(*inputs.args, **inputs.kwargs)
                outputs = [main_tensor(output) if pooling is not None else self.read_output(output)]
            else:
                boundaries = [self.stages[layer].modules[-1] for layer in layers]
                outputs = outputs_of(replica.network, boundaries, inputs)
        modes = pooling or (self.pooling if layers is None else self.layer_pooling)
        pooled = [pool(features, inputs.mask, modes, self.channels_last, self.time_last) for features in outputs]
        vectors = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)
        if not own or replica.readout is None:
            return vectors
        with replica.kernels or nullcontext():
            return replica.readout(vectors)

    def split(self, depth: int, preparation: Preparation | None = None) -> Split:
        """Cut the network before ``stages[depth]``, or warn that it can't be cut and give it whole.

        The cut is compared with the whole network the first time it is made, on made-up rows.

        Parameters
        ----------
        depth : int
            Number of frozen stages, see :func:`~sktransfer.backbones.splitting.stages.resolve_depth`.
        preparation : Preparation, optional
            Makes example rows, where the backbone's own leaves their size open.

        Returns
        -------
        Split
            Where the network can't be cut, the split at depth 0: its suffix is a copy of the whole network.

        Warns
        -----
        UserWarning
            If the network can't be cut here, with the reason.
        """
        with self.lock:
            preparation = preparation or self.preparation
            stages = self.find_stages(preparation)
            example, *_ = batches = [(inputs.args, inputs.kwargs) for inputs in preparation.examples()]
            if depth == 0:
                return split_network(self._network, stages, 0, *example)  # a copy of the whole needs no check
            try:
                if self.kind == "text" and not preparation.padded:
                    raise SplitError("its texts lie end to end, so that no tensor has a row for each of them.")
                if depth not in self._split_checks:
                    multiple = getattr(preparation, "length_multiple", 1)
                    self._split_checks[depth] = check_split(
                        self._network, stages, depth, batches, length_multiple=multiple
                    )
                auxiliary = self._split_checks[depth].auxiliary
                return split_network(self._network, stages, depth, *example, auxiliary=auxiliary)
            except SplitError as error:
                warnings.warn(
                    f"{self.name!r} is run whole instead of from stage {depth} on, which is slower and gives the same "
                    f"result: {error}",
                    stacklevel=2,
                )
                return split_network(self._network, stages, 0, *example)

    def code_now(self, preparation: Preparation) -> Code | None:
        """Look at the code of the user's that runs in the network and prepares its rows, as it is now.

        The fingerprint tells what it was when the handle was made. A handle lives on while a module's setting changes,
        and comes out of a pickle in a process that has edited code.

        Returns
        -------
        Code or None
            None where all code is of this package and the libraries that it loads networks from.
        """
        if not self.own_code:
            return None
        with self.lock:
            if self._live_parts is None:
                self._live_parts = live_parts([self._network, self.readout])
            code = code_of(*self._live_parts)
            if self._code is not None and self._code != code:
                self._replicas.clear()  # what was folded was found by running the former code
                self.remembered.clear()
            self._code = code
        return code.joined(code_of(getattr(preparation, "transform", None)))

    def has_tokens(self, depth: int) -> bool:
        """Whether dimension 1 of the activation at a depth that `split` has cut is the tokens of a text."""
        return self._split_checks[depth].has_tokens

    def snapshot(self) -> nn.Module:
        """Return a copy of the network that the caller may train."""
        with self.lock:
            return copy.deepcopy(self._network)

    def network_to_read(self) -> nn.Module:
        """Return the network itself, to be looked at and never changed."""
        return self._network

    def release(self) -> None:
        """Forget the copies that were made to run: for other devices and precisions, folded, packed."""
        with self.lock:
            self._replicas.clear()

    def is_named_like(self, other: Backbone) -> bool:
        """Whether two handles are loaded again from the same place."""

        def place(origin: Origin | None) -> tuple[str, str | None] | None:
            return None if origin is None else (origin.name, origin.weights)

        return place(self.origin) == place(other.origin) and self.name == other.name

    def renamed(self, card: Card, origin: Origin | None) -> Backbone:
        """Return a handle of the same network, loaded from another place; the weights are shared."""
        handle = Backbone.__new__(Backbone)
        handle.__dict__.update(self.__dict__, card=card, origin=origin)
        return handle

    def trained(
        self,
        network: nn.Module,
        readout: nn.Module | None,
        preparation: Preparation,
        lineage: tuple[dict[str, Any], ...],
    ) -> Backbone:
        """Return a handle of this network with other weights.

        Parameters
        ----------
        network : nn.Module
            The network; owned by the handle from here on.
        readout : nn.Module or None
            What is applied after pooling.
        preparation : Preparation
            What rows went through in training.
        lineage : tuple of dict
            What it has been trained on, the last step included.

        Returns
        -------
        Backbone
            Its weights travel in its pickle.
        """
        handle = Backbone.__new__(Backbone)
        tensors = module_tensors(network)
        if readout is not None:
            tensors |= {f"readout {name}": tensor for name, tensor in module_tensors(readout).items()}
        handle.__dict__.update(
            self.__dict__,
            _network=_frozen(network),
            readout=None if readout is None else _frozen(readout),
            preparation=preparation,
            # Whatever else decides the result is in the fingerprint that it began with.
            fingerprint=fingerprint(tensors, [self.fingerprint, preparation.describe()]),
            origin=None,
            lineage=lineage,
            lock=ProcessLock("a network"),
            _replicas={},
            remembered={},
            _code=None,
            _live_parts=None,
            _split_checks=dict(self._split_checks),
        )
        return handle

    def _plain_replica(self, device: torch.device, dtype: torch.dtype) -> _Replica:
        home = device.type == "cpu" and dtype == torch.float32
        network = self._network if home else copy.deepcopy(self._network).to(device, dtype)
        readout = self.readout if home or self.readout is None else copy.deepcopy(self.readout).to(device)
        return _Replica(network, readout, kernels_for(network, readout, device))

    def _folded_replica(
        self, pairs: Sequence[tuple[str, str]], reach: float, device: torch.device, dtype: torch.dtype
    ) -> _Replica:
        home = device.type == "cpu" and dtype == torch.float32
        boundaries = [stage.modules[-1] for stage in self._stages or ()]
        network = frozen_copy(self._network, pairs, boundaries=boundaries, share=home).to(device, dtype)
        readout = self.readout if home or self.readout is None else copy.deepcopy(self.readout).to(device)
        return _Replica(network, readout, kernels_for(network, readout, device), reach)

    def __repr__(self) -> str:
        return f"<Backbone {self.name!r} ({self.kind}, fingerprint {self.fingerprint[:12]})>"

    def __copy__(self) -> Backbone:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        # Immutable, so estimators that are copied go on sharing it.
        return self

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Backbone:
        """Rebuild a handle from what its pickle holds."""
        handle = cls.__new__(cls)
        handle.__dict__.update(state, lock=ProcessLock("a network"), _replicas={}, remembered={})
        return handle

    def state_for_pickle(self) -> dict[str, Any]:
        """Return what another process needs, weights included; see `restored`."""
        made_anew = ("lock", "_replicas", "remembered", "_code", "_live_parts")
        state = {name: value for name, value in self.__dict__.items() if name not in made_anew}
        # A copy, which shares the tensors: another thread's pass may set hooks on the network while it is written.
        with self.lock:
            tensors = [*self._network.parameters(), *self._network.buffers()]
            state["_network"] = copy.deepcopy(self._network, {id(tensor): tensor for tensor in tensors})
        return state

    def __reduce__(self) -> tuple[Any, ...]:
        # `sources.loading` registers how, since a pickle has to name what loads a backbone again.
        raise TypeError("Import sktransfer.backbones.sources.loading before a backbone is pickled.")


def _frozen(module: nn.Module) -> nn.Module:
    # float32 whatever torch's default type is, or it was trained in: the precision of a pass is chosen by the estimator.
    return module.eval().requires_grad_(False).float()


@contextmanager
def explained(name: str, inputs: Inputs) -> Iterator[None]:
    """Say which input a network could not read, around the network's own error.

    A lack of memory says nothing of the rows, and is left as it is.
    """
    try:
        yield
    except Exception as error:  # whatever a user's forward raises
        if is_out_of_memory(error):
            raise
        tensors = [*inputs.args, *inputs.kwargs.values()]
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(
            f"The network {name!r} failed on an input of shape {shapes}: {type(error).__name__}: {error} If it expects rows "
            "of another size or form, say how they are prepared, with backbone=ModuleBackbone(module, preparation=...)."
        ) from error


def main_tensor(output: Any) -> torch.Tensor:
    """Return the tensor that matters of what a network or stage returned: itself or the first of its parts.

    Raises
    ------
    TypeError
        If there is no tensor in it.
    """
    for tensor in tensors_in(output):
        return tensor
    raise TypeError(
        f"The network returned a {type(output).__name__} without a tensor in it; a backbone returns a tensor of shape "
        "(rows, values), (rows, tokens, values) or (rows, channels, height, width), or a tuple or dict of which it is "
        "the first."
    )


class _Stop(Exception):
    """Raised at the deepest module that is asked for: what comes after it need not run."""


def outputs_of(network: nn.Module, modules: Sequence[str], inputs: Inputs) -> list[torch.Tensor]:
    """Run a network until the last of `modules` has run, and return their outputs in the order given."""
    outputs: dict[str, torch.Tensor] = {}
    wanted = set(modules)

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            outputs[name] = main_tensor(output)
            if len(outputs) == len(wanted):
                raise _Stop

        return hook

    with own_hooks([(network.get_submodule(name), keep(name)) for name in wanted]), suppress(_Stop):
        network(*inputs.args, **inputs.kwargs)
    return [outputs[name] for name in modules]
