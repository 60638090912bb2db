"""Cut a network at a depth: a prefix that is run once per row, and a suffix that is trained.

The suffix is a copy of the network in which every module of the frozen stages is a stand-in. The stand-in of
the last frozen module returns the stored activation, the others return zeros of the right shape; the network's
own ``forward`` does the rest (masks, positions, rotary tables). Whether that is the same network is not argued
but checked: `check_split`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from sktransfer.backbones.splitting.hooks import own_hooks
from sktransfer.backbones.splitting.stages import Stage
from sktransfer.backbones.splitting.trace import evaluating, tensors_in, tensors_with_paths
from sktransfer.runtime.device import is_out_of_memory

Auxiliary = Literal["zeros", "recompute"]


class SplitError(ValueError):
    """The network can't be cut at this depth; the message says why."""


@dataclass
class Split:
    """A network that is cut at a depth. Made by `split_network`.

    Attributes
    ----------
    network : torch.nn.Module
        The whole network: not a copy, and never changed.
    stages : tuple of Stage
        The stages before the cut.
    suffix : torch.nn.Module
        ``suffix(activation, *args, **kwargs)`` gives what ``network(*args, **kwargs)`` gives, and trains the
        rest of the network. Of the inputs only the light ones matter (see `light_inputs`).
    """

    network: nn.Module
    stages: tuple[Stage, ...]
    suffix: nn.Module

    def prefix(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the network up to the cut, in eval mode and without gradients.

        Returns
        -------
        torch.Tensor
            The first tensor that the last frozen stage returns, with one row for each row of the input. It
            can be trained on, also when the caller is in inference mode.
        """
        if not self.stages:
            raise SplitError("A split at depth 0 has no prefix: call its suffix with None as the activation.")

        def stop(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            raise _Reached(next(tensors_in(output)))

        boundary = self.network.get_submodule(self.stages[-1].modules[-1])
        try:
            # Tensors made in inference mode can't be trained on, hence no_grad.
            with (
                own_hooks([(boundary, stop)]),
                torch.inference_mode(False),
                torch.no_grad(),
                evaluating(self.network),
            ):
                self.network(*args, **kwargs)
        except _Reached as reached:
            return reached.activation.detach()
        raise SplitError(f"{self.stages[-1].modules[-1]!r} did not run on this input.")


def split_network(
    network: nn.Module,
    stages: Sequence[Stage],
    depth: int,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    auxiliary: Auxiliary = "zeros",
) -> Split:
    """Cut a network before ``stages[depth]``, without checking the result.

    Parameters
    ----------
    network : torch.nn.Module
        The whole network. It is run once on the example, and left as it was.
    stages : sequence of Stage
        The stages of the network in forward order.
    depth : int
        Number of frozen stages, from 0 (the suffix is a copy of the network) to ``len(stages)``.
    args, kwargs : tuple and mapping
        An example input. It shows what the stages return; batch size and padded length may differ later.
    auxiliary : {"zeros", "recompute"}, default="zeros"
        What a frozen stage returns beside the activation: zeros, or what the original stage computes (T5's
        first block makes the position biases of all blocks). `check_split` says which one is needed.

    Returns
    -------
    Split
        The prefix and the suffix.

    Raises
    ------
    SplitError
        If the stages don't run once and in this order, or share parameters with the rest of the network.

    See Also
    --------
    check_split : Whether the two halves are the same network.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sktransfer.backbones.splitting.stages import find_stages
    >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    >>> x = torch.ones(5, 3)
    >>> split = split_network(network, find_stages(network, (x,), {}), 1, (x,), {})
    >>> activation = split.prefix(x)
    >>> torch.equal(split.suffix(activation, torch.zeros(5, 3)), network(x))
    True
    """
    if not 0 <= depth <= len(stages):
        raise SplitError(f"depth must be in [0, {len(stages)}], the number of stages. Got {depth!r} instead.")
    frozen = tuple(stages[:depth])
    feed = _Feed()
    stand_ins: dict[int, Any] = {}
    if frozen:
        records, twins = _record(network, frozen, args, kwargs)
        for module in twins:
            stand_ins[id(module)] = StandIn(module, None, feed)
        for module, template in _templates(frozen[-1].name, records, args, kwargs).items():
            recompute = auxiliary == "recompute" and _has_auxiliary(template)
            stand_ins[id(module)] = StandIn(module, template, feed, recompute)
    try:
        # The memo says what has been copied already: the frozen modules, and so their parameters, never are.
        copied = copy.deepcopy(network, stand_ins)
    except Exception as error:
        raise SplitError(f"{type(network).__name__} can't be copied: {error}") from error
    return Split(network, frozen, _Suffix(copied, feed).requires_grad_(True))


class _Reached(BaseException):
    """The prefix has done its work; a BaseException, so that no ``except Exception`` of a network swallows it."""

    def __init__(self, activation: torch.Tensor) -> None:
        super().__init__()
        self.activation = activation


# ---------------------------------------------------------------------------------------------------------
# What the frozen stages return


@dataclass
class _Record:
    order: int
    structure: Any  # the output, with a _Slot or an _Input in place of every tensor
    first: torch.Tensor | None


@dataclass(frozen=True)
class _Slot:
    """A tensor of an output: zeros of this shape, but some dimensions have the size of another tensor's.

    Batch size and padded length change from call to call. ``like_input`` marks dimensions that the module's
    first input shares, ``like_main`` those that the stored activation shares; the latter counts more.
    """

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    like_input: tuple[bool, ...]
    like_main: tuple[bool, ...] = ()

    def sizes(self, given: torch.Tensor | None, main: torch.Tensor) -> list[int]:
        sizes = list(self.shape)
        for dim, (from_input, from_main) in enumerate(zip(self.like_input, self.like_main, strict=True)):
            if from_main:
                sizes[dim] = main.size(dim)
            elif from_input and given is not None:
                sizes[dim] = given.size(dim)
        return sizes


@dataclass(frozen=True)
class _Input:
    """A tensor that the module was given and hands on.

    Found by its path, not its position: the mask before it may be a tensor in one batch and None in the next.
    """

    path: tuple[Any, ...]


@dataclass(frozen=True)
class _Main:
    """The stored activation."""


def map_structure(value: Any, convert: Callable[[Any], Any], leaves: type | tuple[type, ...]) -> Any:
    """Copy a nested structure with its leaves converted, and everything else as it is."""
    if isinstance(value, leaves):
        return convert(value)
    if isinstance(value, Mapping):
        mapped = copy.copy(value)  # keeps transformers' ModelOutput what it is
        for key, item in value.items():
            mapped[key] = map_structure(item, convert, leaves)  # type: ignore[index]
        return mapped
    if isinstance(value, (tuple, list)):
        items = [map_structure(item, convert, leaves) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, _Slot, _Input, _Main)):
        entries = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        changed = {name: map_structure(entry, convert, leaves) for name, entry in entries.items()}
        return dataclasses.replace(value, **changed)
    return value


def _record(
    network: nn.Module, stages: Sequence[Stage], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[nn.Module, _Record], list[nn.Module]]:
    """Run the network once and write down what the modules of the stages return.

    Also gives the modules outside of the stages that hold nothing but frozen parameters and do not run. T5's
    ``shared`` is one: a second name for the embedding table.
    """
    names = [name for stage in stages for name in stage.modules]
    modules = [network.get_submodule(name) for name in names]
    seen: dict[nn.Module, list[_Record]] = {module: [] for module in modules}
    ran: list[nn.Module] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        ran.append(module)
        if module in seen:
            seen[module].append(_describe((args, kwargs), output, len(ran)))

    noted = [(module, note) for module in network.modules()]
    with own_hooks(noted, with_kwargs=True), torch.inference_mode(False), torch.no_grad(), evaluating(network):
        network(*args, **kwargs)
    records = _single_runs(names, modules, seen)
    return records, _idle_twins(network, dict(zip(names, modules, strict=True)), set(ran))


def _describe(given: Any, output: Any, order: int) -> _Record:
    paths = {id(tensor): path for path, tensor in tensors_with_paths(given)}
    first = next((tensor.shape for tensor in tensors_in(given)), torch.Size())
    indices = itertools.count()

    def describe(tensor: torch.Tensor) -> _Slot | _Input:
        like_input = tuple(size == dict(enumerate(first)).get(dim) for dim, size in enumerate(tensor.shape))
        slot = _Slot(next(indices), tuple(tensor.shape), tensor.dtype, like_input)
        return _Input(paths[id(tensor)]) if id(tensor) in paths else slot

    return _Record(order, map_structure(output, describe, torch.Tensor), next(tensors_in(output), None))


def _single_runs(
    names: Sequence[str], modules: Sequence[nn.Module], seen: Mapping[nn.Module, Sequence[_Record]]
) -> dict[nn.Module, _Record]:
    """Take the one record of every module, in forward order; anything else is no clean cut."""
    if len(seen) < len(names):
        raise SplitError(f"Two of the frozen modules {list(names)} are the same; a stage needs modules of its own.")
    last = 0
    for name, module in zip(names, modules, strict=True):
        if len(seen[module]) != 1:
            raise SplitError(f"{name!r} runs {len(seen[module])} times in one pass; a stage must run exactly once.")
        if seen[module][0].order < last:
            raise SplitError(f"{name!r} runs before the stage that is listed before it; list stages in forward order.")
        last = seen[module][0].order
    return {module: seen[module][0] for module in modules}


def _idle_twins(network: nn.Module, frozen: Mapping[str, nn.Module], ran: set[nn.Module]) -> list[nn.Module]:
    owners = {id(parameter): name for name, module in frozen.items() for parameter in module.parameters()}
    inside = {inner for module in frozen.values() for inner in module.modules()}
    twins = []
    for name, module in network.named_modules():
        shared = [id(parameter) for parameter in module.parameters(recurse=False) if id(parameter) in owners]
        if module in inside or not shared:
            continue
        if module in ran or len(shared) < len(list(module.parameters())):
            raise SplitError(
                f"{owners[shared[0]]!r} would be frozen, but {name!r} behind the cut shares its parameters. "
                "Cut elsewhere, or untie the weights."
            )
        twins.append(module)
    return twins


def _templates(
    name: str, records: Mapping[nn.Module, _Record], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[nn.Module, Any]:
    """Describe what each stand-in returns; the last one is the boundary, of the stage of this name."""
    *_, boundary = records
    main = records[boundary].first
    rows = next(tensors_in((args, kwargs))).size(0)
    if main is None or not main.is_floating_point():
        raise SplitError(f"{name!r} returns no floating-point tensor; cut behind another stage.")
    if main.dim() == 0 or main.size(0) != rows:
        raise SplitError(
            f"{name!r} returns a tensor of shape {tuple(main.shape)} for {rows} rows; "
            "rows must come first (batch_first=True)."
        )
    shape = tuple(main.shape)

    def follow(slot: _Slot) -> _Slot:
        like = len(slot.shape) == len(shape)
        marks = [size == shape[d] if like else d == 0 and size == rows for d, size in enumerate(slot.shape)]
        return dataclasses.replace(slot, like_main=tuple(marks))

    templates = {module: map_structure(record.structure, follow, _Slot) for module, record in records.items()}
    first = iter([_Main()])
    templates[boundary] = map_structure(templates[boundary], lambda leaf: next(first, leaf), (_Slot, _Input))
    return templates


def _has_auxiliary(template: Any) -> bool:
    found = []
    map_structure(template, lambda slot: found.append(slot.index > 0), _Slot)
    return any(found)


# ---------------------------------------------------------------------------------------------------------
# The suffix


class _Feed(threading.local):
    """The activation that the stand-ins of one suffix return; each thread has its own."""

    activation: torch.Tensor | None = None
    dense = False  # whether zeros need memory of their own

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Feed, ()

    def run(self, activation: torch.Tensor | None, call: Callable[[], Any]) -> Any:
        """Call something that runs the suffix, while its stand-ins return the activation.

        What comes before it is zeros, which take no memory unless an operation refuses them so, as those in place do.
        """
        self.activation = activation
        try:
            return call()
        except RuntimeError as error:
            if self.dense or activation is None or is_out_of_memory(error):
                raise
        finally:
            self.activation = None
        self.dense = True
        return self.run(activation, call)

    def zeros(self, sizes: Sequence[int], like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return zeros on the device of another tensor."""
        if self.dense:
            return torch.zeros(sizes, dtype=dtype, device=like.device)
        return torch.zeros((), dtype=dtype, device=like.device).expand(sizes)


class _Original:
    """Holds a frozen module where neither ``parameters()`` nor ``deepcopy`` finds it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> _Original:
        return self


class StandIn(nn.Module):
    """Takes the place of a frozen module: no parameters, no hooks, the same structure of output.

    Attributes that the network reads from its blocks (DeBERTa's and ModernBERT's ``attention_type``, Swin's
    ``downsample``) come from the original.
    """

    def __init__(self, original: nn.Module, template: Any, feed: _Feed, recompute: bool = False) -> None:
        super().__init__()
        self.original = _Original(original)
        self.template = template
        self.feed = feed
        self.recompute = recompute

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "original" not in self.__dict__:  # while it is being unpickled
                raise
            return getattr(self.original.module, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Give what the original gave in the recording, around the activation that is fed."""
        activation = self.feed.activation
        if activation is None or self.template is None:
            raise RuntimeError("A frozen stage was run outside of its suffix; call the suffix with an activation.")
        given = dict(tensors_with_paths((args, kwargs)))
        computed = self._compute(args, kwargs) if self.recompute else []

        def fill(leaf: Any) -> torch.Tensor:
            if isinstance(leaf, _Main):
                return activation.clone()  # an in-place operation behind the cut must not reach the store
            if isinstance(leaf, _Input):
                return given[leaf.path]
            if computed and leaf.index > 0:
                return computed[leaf.index]
            sizes = leaf.sizes(next(iter(given.values()), None), activation)
            return self.feed.zeros(sizes, activation, leaf.dtype)

        return map_structure(self.template, fill, (_Main, _Input, _Slot))

    def _compute(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        original = self.original.module
        # The suffix may be on a GPU, where the frozen part is not.
        home = next((one.device for one in original.parameters()), torch.device("cpu"))
        given = next((one.device for one in tensors_in((args, kwargs))), home)
        if given != home:
            args, kwargs = map_structure((args, dict(kwargs)), lambda tensor: tensor.to(home), torch.Tensor)
        with torch.no_grad(), evaluating(original):
            # forward, not __call__: the user's hooks saw this stage when the prefix ran.
            return [one.to(given) for one in tensors_in(original.forward(*args, **kwargs))]


class _Suffix(nn.Module):
    """The network behind the cut."""

    def __init__(self, network: nn.Module, feed: _Feed) -> None:
        super().__init__()
        self.network = network
        self.feed = feed

    def forward(self, activation: torch.Tensor | None, *args: Any, **kwargs: Any) -> Any:
        return self.feed.run(activation, lambda: self.network(*args, **kwargs))
