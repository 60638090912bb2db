"""The stages of a network: its blocks in forward order, found by watching one forward pass.

Attribute order is not forward order, and a network's children are not its blocks: what runs, when, and on
whose output is only known after running it once. `find_stages` does so on an example; the rest is reading
the trace.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sktransfer._parameters import is_int, is_number
from sktransfer.backbones.splitting.trace import Trace, trace_forward

# Exact types: a subclass (torchvision's Conv2dNormActivation) has a meaning of its own and stays whole.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Stage:
    """One block of a network, in forward order.

    Attributes
    ----------
    name : str
        What users see: the dotted name of the block, such as ``"encoder.layer.3"`` or ``"layer1.0"``, or
        ``"stem"`` for a group of loose modules before the first block.
    modules : tuple of str
        Dotted names of the modules of the stage in the order in which they run. The last is the boundary:
        its output is the output of the stage.
    """

    name: str
    modules: tuple[str, ...]


def find_stages(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Stage, ...]:
    """Find the ordered blocks of a network from one forward pass.

    Embeddings or stem come first, then every layer or block. What runs after the last block (a final
    normalisation, pooling, the head) belongs to no stage. Modules that run more than once, such as a ReLU
    that several layers share, are never part of a stage; the stages end before the first such module that
    has parameters.

    Parameters
    ----------
    network : torch.nn.Module
        The network. It is run once in eval mode without gradients, and left as it was.
    args, kwargs : tuple and mapping
        An example input: ``network(*args, **kwargs)``.

    Returns
    -------
    tuple of Stage
        In forward order; empty if nothing with parameters runs exactly once.

    See Also
    --------
    resolve_stages : Stages from names that a user gives.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> find_stages(network, (torch.zeros(1, 3),), {})
    (Stage(name='0', modules=('0', '1')), Stage(name='2', modules=('2',)))
    """
    trace = trace_forward(network, args, kwargs)
    trace.block_classes = _repeated_classes(network, trace)
    return _group(_top_items(network, trace), trace)


def resolve_stages(network: nn.Module, names: Sequence[str]) -> tuple[Stage, ...]:
    """Make stages from the module names that a user gives, in forward order.

    Parameters
    ----------
    network : torch.nn.Module
        The network that has the modules.
    names : sequence of str
        Dotted module names, one for each stage.

    Returns
    -------
    tuple of Stage
        One stage of one module for each name, in the order given.

    Raises
    ------
    ValueError
        If a name is unknown, given twice, or lies inside another one.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"stages must be a list of module names, such as ['layer1', 'layer2']. Got {names!r} instead.")
    known = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    unknown = [name for name in names if name not in set(known)]
    if unknown:
        hints = [f"{name!r} (nearest: {_nearest(name, known)})" for name in unknown]
        raise ValueError(f"stages names modules that {type(network).__name__} does not have: {'; '.join(hints)}.")
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise ValueError(f"stages must name each module once. Got {doubled} more than once.")
    for name in names:
        inside = [other for other in names if other.startswith(f"{name}.")]
        if inside:
            raise ValueError(f"stages must not lie inside each other: {inside} are parts of {name!r}. Keep one level.")
    return tuple(Stage(name, (name,)) for name in names)


def resolve_depth(freeze_depth: Any, stages: Sequence[Stage]) -> int:
    """Turn `freeze_depth` into a number of frozen stages.

    Parameters
    ----------
    freeze_depth : int, float or "all"
        An int is a slice bound, so ``-1`` leaves the last stage free. A float in [0, 1] is a share of the
        stages, rounded down. ``"all"`` freezes every stage.
    stages : sequence of Stage
        The stages of the network.

    Returns
    -------
    int
        Number of frozen stages, from 0 to ``len(stages)``.

    Raises
    ------
    ValueError
        If `freeze_depth` is out of range or of another kind.
    """
    count = len(stages)
    if _is_depth(freeze_depth):
        if isinstance(freeze_depth, str):
            return count
        if not isinstance(freeze_depth, numbers.Integral):
            # 0.29 * 100 is 28.999999999999996 in floating point.
            return math.floor(float(freeze_depth) * count + 1e-9)
        depth = int(freeze_depth)
        if -count <= depth <= count:
            return depth + count if depth < 0 else depth
    names = ", ".join(stage.name for stage in stages) or "none"
    raise _no_depth(freeze_depth, f" in [{-count}, {count}]", f" The {count} stages are: {names}.")


def check_depth(freeze_depth: Any) -> None:
    """Refuse what is a `freeze_depth` of no network, before there is one.

    Raises
    ------
    ValueError
        If it is neither a whole number, nor a share, nor "all", nor "auto".
    """
    if not _is_depth(freeze_depth) and not (isinstance(freeze_depth, str) and freeze_depth == "auto"):
        raise _no_depth(freeze_depth, " (a place in the list of stages, from the end if negative)", "", auto=True)


def _is_depth(freeze_depth: Any) -> bool:
    if isinstance(freeze_depth, str):
        return freeze_depth == "all"
    # 1 is a number of stages, 1.0 a share of them.
    return is_int(freeze_depth) or (
        is_number(freeze_depth) and not isinstance(freeze_depth, numbers.Integral) and 0 <= freeze_depth <= 1
    )


def _no_depth(freeze_depth: Any, which: str, stages: str, *, auto: bool = False) -> ValueError:
    way_out = " Use 0 to train all of them, 'all' to train none." if freeze_depth is None else ""
    names = ", 'all' or 'auto'" if auto else " or 'all'"
    return ValueError(
        f"freeze_depth must be an int{which}, a float in [0.0, 1.0] (a share of the stages){names}.{stages}{way_out} Got "
        f"{freeze_depth!r} instead."
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
    return ", ".join(repr(match) for match in found) or "none"


# ---------------------------------------------------------------------------------------------------------
# From the trace to a flat list of items: what a network is made of, without its containers


@dataclass
class _Item:
    """A module that is not taken apart.

    A ``block`` is a stage of its own, a ``layer`` is a loose module with weights, a ``filler`` (parameter-free,
    a normalisation, or something between two layers of a list) joins the stage before it; ``tail`` is what
    runs after the last block of its parent.
    """

    name: str
    module: nn.Module
    kind: str
    start: int
    tail: bool = False


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _is_leaf(module: nn.Module) -> bool:
    return not any(_has_parameters(child) for child in module.children())


def _weight_layers(module: nn.Module) -> list[nn.Module]:
    """List the modules that hold parameters themselves, without normalisations."""
    holders = [inner for inner in module.modules() if next(inner.parameters(recurse=False), None) is not None]
    return [inner for inner in holders if not (_is_leaf(inner) and "norm" in type(inner).__name__.lower())]


def _is_filler(module: nn.Module) -> bool:
    return not _weight_layers(module)


def _is_container(module: nn.Module) -> bool:
    return type(module) in _CONTAINERS


def _opens_up(module: nn.Module, trace: Trace) -> bool:
    """Whether a container is a list of blocks or layers; conv-norm-activation with one weight layer is a block."""
    return _is_container(module) and (len(_weight_layers(module)) > 1 or module not in trace.runs)


def _kind(module: nn.Module) -> str:
    if _is_filler(module):
        return "filler"
    if type(module) is nn.Sequential:
        # Dropout first, or nothing but a linear layer: a classification head rather than a block.
        layer, first = _weight_layers(module), next(iter(module.children()))
        headlike = isinstance(first, nn.modules.dropout._DropoutNd) or isinstance(layer[0], nn.Linear)
        return "layer" if headlike else "block"
    return "layer" if _is_leaf(module) else "block"


def _size(module: nn.Module) -> int:
    """Count parameters without embedding tables, which would outweigh the layers of a small text network."""
    tables = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    return sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in tables)


def _repeated_classes(network: nn.Module, trace: Trace) -> set[type]:
    """Find the custom classes of which containers hold several: these are blocks, and are not taken apart."""
    elements = [child for module in network.modules() if _is_container(module) for child in module.children()]
    blocks = [element for element in elements if not _is_container(element) and trace.start(element) is not None]
    classes = Counter(type(block) for block in blocks if _kind(block) == "block")
    return {cls for cls, times in classes.items() if times > 1}


def _block_lists(module: nn.Module, trace: Trace) -> Iterator[list[nn.Module]]:
    """Find the lists of like blocks on the way down from a module; not those inside of the blocks themselves."""
    for _, child in trace.children(module):
        if _opens_up(child, trace):
            elements = _elements(child, trace)
            if any(type(element) in trace.block_classes for element in elements):
                yield elements
        elif not _is_container(child) and not _is_leaf(child):
            yield from _block_lists(child, trace)


def _elements(container: nn.Module, trace: Trace) -> list[nn.Module]:
    """List the elements of a container that ran, those of nested containers included."""
    found: list[nn.Module] = []
    for _, child in trace.children(container):
        found += _elements(child, trace) if _opens_up(child, trace) else [child]
    return found


def _is_chain(module: nn.Module, trace: Trace) -> bool:
    """Whether a custom module is mainly a list of like blocks that run one after the other."""
    if _is_container(module) or _kind(module) != "block" or type(module) in trace.block_classes:
        return False
    lists = list(_block_lists(module, trace))
    if 2 * sum(_size(element) for blocks in lists for element in blocks) <= _size(module):
        return False
    return not any(_branches(module, blocks, trace) for blocks in lists)


def _branches(module: nn.Module, blocks: Sequence[nn.Module], trace: Trace) -> bool:
    """Whether something beside the list reads what the list reads, as the branches of an Inception block do."""
    inside = {inner for block in blocks for inner in block.modules()}
    made = {address for block in blocks if block in trace.runs for address in trace.runs[block].makes}
    entry = set(trace.runs[blocks[0]].reads[:1]) if blocks[0] in trace.runs else set()
    for sibling in module.modules():
        if sibling in inside or sibling not in trace.runs or _is_filler(sibling) or inside & set(sibling.modules()):
            continue
        reads = set(trace.runs[sibling].reads)
        if entry & reads and not made & reads:
            return True
    return False


def _top_items(network: nn.Module, trace: Trace) -> list[_Item]:
    items = sorted(_items("", network, trace), key=lambda item: item.start)
    while items and items[-1].tail:
        items.pop()
    return items


def _items(prefix: str, parent: nn.Module, trace: Trace) -> list[_Item]:
    """Take a module apart into items, in forward order."""
    children = trace.children(parent)
    wrapped = None if _is_container(parent) else _wrapped_network(children, trace)
    items: list[_Item] = []
    spans: list[tuple[int, int]] = []
    for name, child in children:
        path = f"{prefix}.{name}" if prefix else name
        if _opens_up(child, trace) or _is_chain(child, trace) or child is wrapped:
            inner = _items(path, child, trace)
            spans.append((inner[0].start, inner[-1].start))
            items += inner
        else:
            start = trace.start(child)
            assert start is not None
            items.append(_Item(path, child, _kind(child), start))
    if not _is_container(parent):
        _place_between_and_after(items, spans, prefix)
    return sorted(items, key=lambda item: item.start)


def _wrapped_network(children: Sequence[tuple[str, nn.Module]], trace: Trace) -> nn.Module | None:
    """Find the first child with weights, if it is the only block and its parts run one after the other.

    A wrapper around one network is looked through, whatever that network is made of.
    """
    weighted = [child for _, child in children if not _is_filler(child)]
    blocks = [child for child in weighted if _opens_up(child, trace) or _kind(child) == "block"]
    if not blocks or blocks != weighted[:1] or _is_container(blocks[0]):
        return None
    inner = [child for _, child in trace.children(blocks[0]) if not _is_filler(child)]
    entries = Counter(trace.runs[child].reads[0] for child in inner if child in trace.runs and trace.runs[child].reads)
    return blocks[0] if len(inner) > 1 and max(entries.values(), default=1) == 1 else None


def _place_between_and_after(items: list[_Item], spans: Sequence[tuple[int, int]], prefix: str) -> None:
    """Decide, in a custom module, what joins the block before it and what comes after the last block."""
    own = [item for item in items if item.name.count(".") == (prefix.count(".") + 1 if prefix else 0)]
    blocks = [item for item in items if item.kind == "block"]
    classes = {type(item.module) for item in blocks if item not in own} | {nn.Sequential}
    last = max((end for _, end in spans), default=max((item.start for item in blocks), default=None))
    if last is None:
        return
    for item in own:
        if any(first < item.start < end for first, end in spans):
            item.kind = "filler"
        elif item.start > last and not (item.kind == "block" and type(item.module) in classes):
            item.tail, item.kind = True, "filler"


# ---------------------------------------------------------------------------------------------------------
# From items to stages


def _group(items: Sequence[_Item], trace: Trace) -> tuple[Stage, ...]:
    """Gather items into stages, each with the module whose output the next one reads as its boundary."""
    groups = _gather(items, trace)
    stages: list[Stage] = []
    made: list[set[int]] = []
    for position, group in enumerate(groups):
        rest = groups[position + 1 :]
        entry = set(trace.runs[rest[0][0].module].reads[:1]) if rest else set(trace.result)
        if any(entry & earlier for earlier in made) and not any(entry & _makes(item, trace) for item in group):
            continue  # a side road, such as a table of position biases: the next block reads an earlier stage
        members = _members(group, entry, trace)
        made.append(_makes(members[-1], trace))
        before_blocks = any(item.kind == "block" for later in rest for item in later)
        stages.append(Stage(_stage_name(members, before_blocks), tuple(item.name for item in members)))
    return tuple(stages)


def _gather(items: Sequence[_Item], trace: Trace) -> list[list[_Item]]:
    last_stem = next((n for n, item in enumerate(items) if item.kind == "block"), 0)
    groups: list[list[_Item]] = []
    leading: list[_Item] = []
    for position, item in enumerate(items):
        run = trace.runs.get(item.module)
        if run is None or run.count > 1:
            if _has_parameters(item.module):
                break
            continue
        if item.kind == "filler":
            (groups[-1] if groups else leading).append(item)
        elif groups and item.kind == "layer" and position < last_stem:
            groups[-1].append(item)  # the loose layers before the first block are one stem
        else:
            groups.append([*leading, item])
            leading = []
    return groups


def _makes(item: _Item, trace: Trace) -> set[int]:
    return set(trace.runs[item.module].makes)


def _members(group: Sequence[_Item], entry: set[int], trace: Trace) -> list[_Item]:
    """Keep what leads to the boundary, without parameter-free modules beside the main road (rotary tables)."""
    weights = [n for n, item in enumerate(group) if item.kind != "filler"]
    boundary = max((n for n, item in enumerate(group) if entry & _makes(item, trace)), default=None)
    if boundary is None:
        # The next block reads the result of a function: go as far as modules lead from one to the next.
        boundary = weights[-1]
        for n in range(boundary + 1, len(group)):
            run = trace.runs[group[n].module]
            if run.makes_one_tensor and _makes(group[boundary], trace) & set(run.reads):
                boundary = n
    members = []
    for n, item in enumerate(group[: boundary + 1]):
        used = any(_makes(item, trace) & set(trace.runs[later.module].reads) for later in group[n + 1 : boundary + 1])
        if n == boundary or used or _has_parameters(item.module):
            members.append(item)
    return members


def _stage_name(members: Sequence[_Item], before_blocks: bool) -> str:
    """Name a stage: ``"stem"`` if several loose modules precede the first block (a resnet's conv1 and bn1)."""
    named = [item for item in members if item.kind != "filler"]
    loose = named[0].kind == "layer" and before_blocks
    if len(named) > 1 or (loose and sum(_has_parameters(item.module) for item in members) > 1):
        return "stem"
    return named[0].name
