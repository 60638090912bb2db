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
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from sktransfer.backbones.stages import Stage, evaluating, tensors_in, tensors_with_paths

Batch = tuple[tuple[Any, ...], Mapping[str, Any]]
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
        owner = threading.get_ident()

        def stop(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # The network is shared: another thread may be running the whole of it.
            if threading.get_ident() == owner:
                raise _Reached(next(tensors_in(output)))

        boundary = self.network.get_submodule(self.stages[-1].modules[-1])
        handle = boundary.register_forward_hook(stop)
        try:
            # Tensors made in inference mode can't be trained on, hence no_grad.
            with torch.inference_mode(False), torch.no_grad(), evaluating(self.network):
                self.network(*args, **kwargs)
        except _Reached as reached:
            return reached.activation.detach()
        finally:
            handle.remove()
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
    >>> from sktransfer.backbones.stages import find_stages
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
            stand_ins[id(module)] = _StandIn(module, None, feed)
        for module, template in _templates(frozen[-1].name, records, args, kwargs).items():
            recompute = auxiliary == "recompute" and _has_auxiliary(template)
            stand_ins[id(module)] = _StandIn(module, template, feed, recompute)
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
    """A tensor of an output: zeros of this shape, where the marked dimensions follow the activation's."""

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    follows: tuple[bool, ...] = ()


@dataclass(frozen=True)
class _Input:
    """A tensor that the module was given and hands on.

    Found by its path, not its position: the mask before it may be a tensor in one batch and None in the next.
    """

    path: tuple[Any, ...]


@dataclass(frozen=True)
class _Main:
    """The stored activation."""


def _map(value: Any, convert: Callable[[Any], Any], leaves: type | tuple[type, ...]) -> Any:
    """Copy a nested structure with its leaves converted, and everything else as it is."""
    if isinstance(value, leaves):
        return convert(value)
    if isinstance(value, Mapping):
        mapped = copy.copy(value)  # keeps transformers' ModelOutput what it is
        for key, item in value.items():
            mapped[key] = _map(item, convert, leaves)  # type: ignore[index]
        return mapped
    if isinstance(value, (tuple, list)):
        items = [_map(item, convert, leaves) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, _Slot, _Input, _Main)):
        entries = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        changed = {name: _map(entry, convert, leaves) for name, entry in entries.items()}
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

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in network.modules()]
    try:
        with torch.inference_mode(False), torch.no_grad(), evaluating(network):
            network(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    records = _single_runs(names, modules, seen)
    return records, _idle_twins(network, dict(zip(names, modules, strict=True)), set(ran))


def _describe(given: Any, output: Any, order: int) -> _Record:
    paths = {id(tensor): path for path, tensor in tensors_with_paths(given)}
    indices = itertools.count()

    def describe(tensor: torch.Tensor) -> _Slot | _Input:
        slot = _Slot(next(indices), tuple(tensor.shape), tensor.dtype)
        return _Input(paths[id(tensor)]) if id(tensor) in paths else slot

    return _Record(order, _map(output, describe, torch.Tensor), next(tensors_in(output), None))


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
        follows = [size == shape[d] if like else d == 0 and size == rows for d, size in enumerate(slot.shape)]
        return dataclasses.replace(slot, follows=tuple(follows))

    templates = {module: _map(record.structure, follow, _Slot) for module, record in records.items()}
    first = iter([_Main()])
    templates[boundary] = _map(templates[boundary], lambda leaf: next(first, leaf), (_Slot, _Input))
    return templates


def _has_auxiliary(template: Any) -> bool:
    found = []
    _map(template, lambda slot: found.append(slot.index > 0), _Slot)
    return any(found)


# ---------------------------------------------------------------------------------------------------------
# The suffix


class _Feed(threading.local):
    """The activation that the stand-ins of one suffix return; each thread has its own."""

    activation: torch.Tensor | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Feed, ()

    @contextmanager
    def holding(self, activation: torch.Tensor | None) -> Iterator[None]:
        self.activation = activation
        try:
            yield
        finally:
            self.activation = None


class _Original:
    """Holds a frozen module where neither ``parameters()`` nor ``deepcopy`` finds it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> _Original:
        return self


class _StandIn(nn.Module):
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
            sizes = [activation.size(d) if follows else leaf.shape[d] for d, follows in enumerate(leaf.follows)]
            return torch.zeros(sizes, dtype=leaf.dtype, device=activation.device)

        return _map(self.template, fill, (_Main, _Input, _Slot))

    def _compute(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        original = self.original.module
        with torch.no_grad(), evaluating(original):
            # forward, not __call__: the user's hooks saw this stage when the prefix ran.
            return list(tensors_in(original.forward(*args, **kwargs)))


class _Suffix(nn.Module):
    """The network behind the cut."""

    def __init__(self, network: nn.Module, feed: _Feed) -> None:
        super().__init__()
        self.network = network
        self.feed = feed

    def forward(self, activation: torch.Tensor | None, *args: Any, **kwargs: Any) -> Any:
        with self.feed.holding(activation):
            return self.network(*args, **kwargs)


# ---------------------------------------------------------------------------------------------------------
# Rows


def trim(activation: torch.Tensor, lengths: Sequence[int] | None) -> list[torch.Tensor]:
    """Take a batch of activations apart into rows, without the padding of texts.

    Parameters
    ----------
    activation : torch.Tensor of shape (n_rows, ...)
        What the prefix gave for one batch.
    lengths : sequence of int or None
        Number of tokens of each row, padded on the right, where dimension 1 of the activation is the tokens
        (`SplitCheck.has_tokens`); None where rows have no length.

    Returns
    -------
    list of torch.Tensor
        One tensor for each row, each with memory of its own.
    """
    if lengths is None:
        return [row.clone() for row in activation]
    return [row[:length].clone() for row, length in zip(activation, lengths, strict=True)]


def pad_rows(rows: Sequence[torch.Tensor], length: int | None = None) -> torch.Tensor:
    """Stack rows into a batch; rows that differ in length are padded on the right with zeros.

    Parameters
    ----------
    rows : sequence of torch.Tensor
        As `trim` gives them.
    length : int, default=longest row
        Padded length.

    Returns
    -------
    torch.Tensor of shape (n_rows, ...)
        The batch.
    """
    if length is None and all(row.shape == rows[0].shape for row in rows):
        return torch.stack(list(rows))
    longest = max(row.size(0) for row in rows) if length is None else length
    batch = rows[0].new_zeros(len(rows), longest, *rows[0].shape[1:])
    for place, row in zip(batch, rows, strict=True):
        place[: row.size(0)] = row
    return batch


def light_inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Batch:
    """Keep what a suffix needs of the inputs: token ids and masks, but zeros in place of pixels and measurements."""

    def blank(tensor: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(tensor) if tensor.is_floating_point() else tensor

    return _map(args, blank, torch.Tensor), _map(dict(kwargs), blank, torch.Tensor)


# ---------------------------------------------------------------------------------------------------------
# The self-check


@dataclass(frozen=True)
class SplitCheck:
    """What `check_split` found.

    Attributes
    ----------
    difference : float
        Largest difference to the whole network, as a share of the largest output.
    auxiliary : {"zeros", "recompute"}
        What `split_network` has to be told.
    has_tokens : bool
        Whether dimension 1 of the activation is the tokens of a text. It is for the whole split: in one batch
        a width may equal the padded length by chance.
    """

    difference: float
    auxiliary: Auxiliary
    has_tokens: bool


def check_split(
    network: nn.Module,
    stages: Sequence[Stage],
    depth: int,
    batches: Sequence[Batch],
    *,
    length_multiple: int = 1,
    tolerance: float = 1e-5,
) -> SplitCheck:
    """Compare prefix and suffix with the whole network, row by row in other company.

    Not every tensor that a stage returns belongs to a row. So the rows are stored one by one, and replayed in
    another order and with rows of other batches, with another padded length, and alone; in float32.

    Parameters
    ----------
    network : torch.nn.Module
        The whole network. It is left as it was.
    stages : sequence of Stage
        The stages of the network in forward order.
    depth : int
        Number of frozen stages.
    batches : sequence of (args, kwargs)
        Example batches whose rows may be mixed. Texts come with an ``attention_mask``, are padded on the
        right, and should differ in length.
    length_multiple : int, default=1
        Texts are padded to a multiple of it (Longformer's attention window).
    tolerance : float, default=1e-5
        Largest difference, as a share of the largest output, that is put down to rounding.

    Returns
    -------
    SplitCheck
        The difference, and how stages have to return what is not the activation.

    Raises
    ------
    SplitError
        If the network can't be cut here. Run the whole network then.
    """
    if any(parameter.is_floating_point() and parameter.dtype != torch.float32 for parameter in network.parameters()):
        network = copy.deepcopy(network).float()
    args, kwargs = batches[0]
    split = split_network(network, stages, depth, args, kwargs)
    stored = [split.prefix(*args, **kwargs) if split.stages else None for args, kwargs in batches]
    has_tokens = all(
        _has_tokens(activation, _mask(kwargs)) for activation, (_, kwargs) in zip(stored, batches, strict=True)
    )
    rows = [
        row for batch, activation in zip(batches, stored, strict=True) for row in _rows(batch, activation, has_tokens)
    ]
    replays = _replays(split.network, rows, batches[0], has_tokens, length_multiple)
    difference, reason = _difference(split, replays)
    if difference <= tolerance:
        return SplitCheck(difference, "zeros", has_tokens)
    # Once more with what the stages return beside the activation, if they return anything.
    split = split_network(network, stages, depth, args, kwargs, auxiliary="recompute")
    if any(isinstance(module, _StandIn) and module.recompute for module in split.suffix.modules()):
        difference, reason = _difference(split, replays)
        if difference <= tolerance:
            return SplitCheck(difference, "recompute", has_tokens)
    cut = f"behind {stages[depth - 1].name!r}" if depth else "at depth 0"
    raise SplitError(
        f"{type(network).__name__} can't be cut {cut}: {reason}. Something behind the cut reads more than the output "
        "of this stage, such as an earlier stage or the raw input, or rows of a batch depend on each other."
    )


@dataclass
class _Row:
    tensors: list[torch.Tensor]
    activation: torch.Tensor | None
    length: int | None


@dataclass
class _Replay:
    """Stored rows in new company, and what the whole network makes of them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    activation: torch.Tensor | None
    mask: torch.Tensor | None
    whole: Any = None


def _difference(split: Split, replays: Sequence[_Replay]) -> tuple[float, str]:
    """Find the largest difference between suffix and whole network, and what to say of it."""
    largest = 0.0
    for replay in replays:
        args, kwargs = light_inputs(replay.args, replay.kwargs) if split.stages else (replay.args, replay.kwargs)
        try:
            with torch.no_grad(), evaluating(split.suffix):
                ours = split.suffix(replay.activation, *args, **kwargs)
            largest = max(largest, _largest_gap(ours, replay.whole, replay.mask))
        except Exception as error:  # a stand-in's output does not fit: whatever the network raises then
            return math.inf, f"{type(error).__name__}: {error}"
    return largest, f"the result differs by {largest:.2g} of the largest output"


def _replays(
    network: nn.Module, rows: Sequence[_Row], like: Batch, has_tokens: bool, length_multiple: int
) -> list[_Replay]:
    """Replay all rows in reverse order, those that are not the longest, and the shortest alone."""
    by_length = sorted(rows, key=lambda row: row.length or 0)
    shorter = [row for row in rows if row.length != by_length[-1].length]
    replays = []
    for company in filter(None, (rows[::-1], shorter, by_length[:1])):
        replay = _collate(company, like, has_tokens, length_multiple)
        with torch.no_grad(), evaluating(network):
            replay.whole = network(*replay.args, **replay.kwargs)
        replays.append(replay)
    return replays


def _mask(kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    mask = kwargs.get("attention_mask")
    return mask if isinstance(mask, torch.Tensor) and mask.dim() == 2 else None


def _has_tokens(tensor: torch.Tensor | None, mask: torch.Tensor | None) -> bool:
    return tensor is not None and mask is not None and tensor.dim() > 1 and tensor.shape[:2] == mask.shape


def _rows(batch: Batch, activation: torch.Tensor | None, has_tokens: bool) -> list[_Row]:
    args, kwargs = batch
    tensors = list(tensors_in((args, kwargs)))
    count, mask = tensors[0].size(0), _mask(kwargs)
    lengths = None
    if mask is not None:
        lengths = [int(length) for length in mask.sum(1)]
        if not all(bool(row[:length].all()) for row, length in zip(mask, lengths, strict=True)):
            raise ValueError("The texts of a batch must be padded on the right. Got an attention_mask with gaps.")
    columns = [
        trim(t, lengths if _has_tokens(t, mask) else None) if t.dim() and t.size(0) == count else [t] * count
        for t in tensors
    ]
    stored = [None] * count if activation is None else trim(activation, lengths if has_tokens else None)
    return [_Row([column[n] for column in columns], stored[n], lengths[n] if lengths else None) for n in range(count)]


def _collate(rows: Sequence[_Row], like: Batch, has_tokens: bool, length_multiple: int) -> _Replay:
    """Make a batch of rows, in the structure of another batch."""
    lengths = [row.length for row in rows if row.length is not None]
    padded = -(-max(lengths) // length_multiple) * length_multiple if lengths else None
    mask = torch.arange(padded) < torch.tensor(lengths)[:, None] if padded else None
    tensors = list(tensors_in(like))
    count, like_mask = tensors[0].size(0), _mask(like[1])

    def gather(position: int, tensor: torch.Tensor) -> torch.Tensor:
        column = [row.tensors[position] for row in rows]
        if not tensor.dim() or tensor.size(0) != count:
            return column[0]
        return pad_rows(column, padded if _has_tokens(tensor, like_mask) else None)

    batched = iter([gather(position, tensor) for position, tensor in enumerate(tensors)])
    args, kwargs = _map((like[0], dict(like[1])), lambda _: next(batched), torch.Tensor)
    stored = [row.activation for row in rows if row.activation is not None]
    activation = pad_rows(stored, padded if has_tokens else None) if stored else None
    return _Replay(args, kwargs, activation, mask)


def _largest_gap(ours: Any, whole: Any, mask: torch.Tensor | None) -> float:
    """Find the largest difference between two outputs, as a share of the largest output; padding does not count."""
    pairs = list(zip(tensors_in(ours), tensors_in(whole), strict=True))
    if not pairs:
        raise ValueError("the network returns no tensor that could be compared")
    largest = 0.0
    for mine, theirs in pairs:
        if mask is not None and theirs.dim() > 1 and theirs.shape[:2] == mask.shape:
            mine, theirs = mine[mask], theirs[mask]
        if not theirs.numel():
            continue
        gap = (mine.double() - theirs.double()).abs()
        gap[mine == theirs] = 0.0  # equal infinities
        scale = max(1e-3, float(theirs.double().abs().nan_to_num(posinf=0.0).max()))
        largest = max(largest, float(gap.nan_to_num(nan=torch.inf).max()) / scale)
    return largest
