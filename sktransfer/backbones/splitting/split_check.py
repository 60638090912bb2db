"""The self-check of a split: prefix and suffix against the whole network, with rows in other company."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sktransfer.backbones.splitting.split import Auxiliary, Split, SplitError, StandIn, map_structure, split_network
from sktransfer.backbones.splitting.stages import Stage
from sktransfer.backbones.splitting.trace import evaluating, tensors_in

Batch = tuple[tuple[Any, ...], Mapping[str, Any]]


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
    if any(isinstance(module, StandIn) and module.recompute for module in split.suffix.modules()):
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
    args, kwargs = map_structure((like[0], dict(like[1])), lambda _: next(batched), torch.Tensor)
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

    return map_structure(args, blank, torch.Tensor), map_structure(dict(kwargs), blank, torch.Tensor)
