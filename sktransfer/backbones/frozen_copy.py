"""The form of an image network that only looks forward: batch norm folded away, channels last."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from sktransfer.backbones.splitting.hooks import own_hooks
from sktransfer.backbones.splitting.trace import tensors_in

# Exactly these: a subclass may do more than its base.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What is asked of a tensor without looking at its values.
_QUESTIONS = {
    "__get__",
    "dim",
    "size",
    "is_floating_point",
    "is_contiguous",
    "stride",
    "numel",
    "get_device",
    "__len__",
}


class Watch(TorchFunctionMode):
    """See in a pass which batch norms can be folded: those that alone read a convolution's output. See `watched`.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names = {module: name for name, module in network.named_modules()}
        self._runs: Counter[str] = Counter()
        self._pairs: list[tuple[str, str]] = []
        # By identity, and the tensors themselves, so that no identity is used anew.
        self._outputs: dict[int, tuple[str, torch.Tensor]] = {}
        self._read_elsewhere: set[str] = set()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names of convolutions and of the batch norms that can be folded into them."""
        # A module that runs twice has one set of weights for two places.
        return [
            (conv, norm)
            for conv, norm in self._pairs
            if self._runs[conv] == self._runs[norm] == 1 and conv not in self._read_elsewhere
        ]

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Take note of a convolution or batch norm that has run."""
        name = self.names[module]
        self._runs[name] += 1
        if type(module) in _CONVOLUTIONS:
            self._outputs[id(output)] = name, output
        elif args and id(args[0]) in self._outputs:
            self._pairs.append((self._outputs[id(args[0])][0], name))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not functional.batch_norm:
            answered = func.__name__ in _QUESTIONS and not [*tensors_in(result)]
            for tensor in () if answered else tensors_in((args, kwargs or {})):
                if id(tensor) in self._outputs:
                    self._read_elsewhere.add(self._outputs[id(tensor)][0])
        return result


@contextmanager
def watched(network: nn.Module) -> Iterator[Watch]:
    """Watch a pass of a network.

    Parameters
    ----------
    network : nn.Module
        In eval mode; not changed.

    Yields
    ------
    Watch
        Whose `pairs` are known after the pass.
    """
    watch = Watch(network)
    chosen = [module for module in network.modules() if type(module) in (*_CONVOLUTIONS, *_NORMS) and _is_bare(module)]
    with own_hooks([(module, watch.after) for module in chosen]), watch:
        yield watch


def _is_bare(module: nn.Module) -> bool:
    """Whether a module does what its class says: no hooks (old weight norms are hooks too), no forward of its own."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return not hooked and (type(module) in _CONVOLUTIONS or getattr(module, "running_mean", None) is not None)


def frozen_copy(
    network: nn.Module, pairs: Sequence[tuple[str, str]], *, boundaries: Sequence[str], share: bool
) -> nn.Module:
    """Copy a frozen image network into the form in which it runs fastest.

    A batch norm in eval mode is a constant scale and shift a channel, and goes into the convolution before it. Weights
    of convolutions are laid out with the channels last.

    Parameters
    ----------
    network : nn.Module
        On the processor in float32, in eval mode; not changed.
    pairs : sequence of (str, str)
        Convolutions and batch norms that can be folded, see `Watch`.
    boundaries : sequence of str
        Modules whose output may be asked for, which has to stay what it is.
    share : bool
        Whether the copy may share the tensors that are the same in it.

    Returns
    -------
    nn.Module
    """
    pairs = [pair for pair in pairs if not any(_parts(boundary, *pair) for boundary in boundaries)]
    copied = _copied(network, [name for pair in pairs for name in pair], share)
    for conv_name, norm_name in pairs:
        conv: Any = copied.get_submodule(conv_name)
        norm: Any = copied.get_submodule(norm_name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        # The norm stays in its place, with its attributes, and hands on what it gets.
        norm.forward = _handed_on
    for parameter in copied.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return copied.requires_grad_(False)


def _handed_on(features: torch.Tensor) -> torch.Tensor:
    return features


def _parts(boundary: str, conv: str, norm: str) -> bool:
    """Whether a boundary's output is that of the convolution, before the norm."""
    return f"{conv}.".startswith(f"{boundary}.") and not f"{norm}.".startswith(f"{boundary}.")


def _copied(network: nn.Module, changed: Sequence[str], share: bool) -> nn.Module:
    """Copy a network; all tensors but those of the changed modules and of convolutions may be shared."""
    memo: dict[int, Any] = {}
    if share:
        own = {id(tensor) for name in changed for tensor in _tensors(network.get_submodule(name))}
        memo = {id(tensor): tensor for tensor in _tensors(network) if id(tensor) not in own and tensor.ndim < 4}
    return copy.deepcopy(network, memo)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
