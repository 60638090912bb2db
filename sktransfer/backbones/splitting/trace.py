"""Watching one forward pass: which modules run, when, and on whose tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import nn

from sktransfer.backbones.splitting.hooks import own_hooks
from sktransfer.runtime.seeding import preserved_generators


@dataclass
class ModuleRun:
    """What was seen of one module: its place in the order, how often it ran, what it read and made."""

    start: int
    count: int = 1
    reads: list[int] = field(default_factory=list)
    makes: list[int] = field(default_factory=list)
    makes_one_tensor: bool = False


@dataclass
class Trace:
    """What was seen of a whole pass."""

    runs: dict[nn.Module, ModuleRun]
    result: list[int]
    block_classes: set[type] = field(default_factory=set)

    def start(self, module: nn.Module) -> int | None:
        """When the module, or the first module inside it, ran; a ModuleList does not run itself."""
        starts = [self.runs[inner].start for inner in module.modules() if inner in self.runs]
        return min(starts, default=None)

    def children(self, module: nn.Module) -> list[tuple[str, nn.Module]]:
        """List the children that ran, in the order in which they did."""
        started = [(self.start(child), name, child) for name, child in module.named_children()]
        return [(name, child) for start, name, child in sorted(started, key=_first) if start is not None]


def _first(entry: tuple[Any, ...]) -> int:
    return -1 if entry[0] is None else int(entry[0])


def trace_forward(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Trace:
    """Run the network once and record which modules run, when, and on whose tensors."""
    runs: dict[nn.Module, ModuleRun] = {}
    alive: list[torch.Tensor] = []  # a freed tensor's address would be given to the next one

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module in runs:
            runs[module].count += 1
        else:
            runs[module] = ModuleRun(start=len(runs), reads=_addresses((args, kwargs), alive))

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        runs[module].makes = _addresses(output, alive)
        runs[module].makes_one_tensor = isinstance(output, torch.Tensor)

    modules = list(network.modules())
    hooks = own_hooks([(one, after) for one in modules], [(one, before) for one in modules], with_kwargs=True)
    with hooks, evaluating(network), preserved_generators(), torch.no_grad():
        output = network(*args, **kwargs)
    return Trace(runs, _addresses(output, alive))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put every module in eval mode, and each back in its own mode afterwards."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Iterate over the tensors of a nested structure."""
    return (tensor for _, tensor in tensors_with_paths(value))


def tensors_with_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
    """Iterate over the tensors of a nested structure, each with the keys that lead to it."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (tuple, list)):
        items = enumerate(value)
    elif is_dataclass(value) and not isinstance(value, type):
        items = ((entry.name, getattr(value, entry.name)) for entry in fields(value))
    for key, item in items:
        yield from tensors_with_paths(item, (*path, key))


def _addresses(value: Any, alive: list[torch.Tensor]) -> list[int]:
    """Where the tensors are stored: views and in-place results of a tensor share its address."""
    tensors = [tensor for tensor in tensors_in(value) if tensor.layout == torch.strided and tensor.numel()]
    alive.extend(tensors)
    return [tensor.untyped_storage().data_ptr() for tensor in tensors]
