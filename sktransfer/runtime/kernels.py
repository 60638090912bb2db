"""Faster kernels on the processor, with the same result: for frozen networks, and for training."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sktransfer.runtime.global_settings import known_settings

# Above this many tokens the scores of all pairs no longer fit into the processor's caches.
_MOST_TOKENS_AT_ONCE = 256
# Of float32, in AVX-512; what has bfloat16 has that.
_VALUES_IN_A_REGISTER = 16


class FrozenKernels(TorchFunctionMode):
    """While entered, a frozen network's products run through faster kernels of the same precision.

    - Linear layers go through oneDNN with their weights packed beforehand. torch multiplies float32 with MKL, which
      leaves half the speed of an AMD processor unused, and packs bfloat16 weights anew in every call.
    - Convolutions of images with the channels last get their weights packed once, too, instead of in every call.
    - Attention between few tokens in bfloat16 is computed step by step; torch's fused kernel is made for many.

    Calls are seen where the network's code makes them, so that it need not be rewritten. Only products with a
    parameter of the network are packed: other matrices may be different in the next call.

    Parameters
    ----------
    *modules : nn.Module
        The frozen network; the packed copies of its weights live as long as this object.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        parameters = [parameter for module in modules for parameter in module.parameters()]
        # oneDNN has no float64, in which networks for tables run.
        weights = [one for one in parameters if one.ndim in (2, 4) and one.dtype != torch.float64]
        self._weights = {id(weight): weight for weight in weights}
        self._packed: dict[int, torch.Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            return self._linear(*args, **kwargs)
        if func is functional.conv2d and len(args) == 7 and self._is_packable(*args[:2], args[4]):
            return self._conv2d(*args)
        if func is functional.scaled_dot_product_attention and _is_short(*args, **kwargs):
            return _short_attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _linear(
        self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:  # named as torch names them: callers may use keywords
        # Where the sizes don't fit, torch says so better.
        known = self._weights.get(id(weight)) is weight and input.shape[-1:] == weight.shape[-1:]
        if not known or input.dtype != weight.dtype or input.ndim < 2 or input.numel() == 0 or not _is_plain(input):
            return functional.linear(input, weight, bias)
        if id(weight) not in self._packed:
            self._packed[id(weight)] = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
        return torch.ops.mkldnn._linear_pointwise(input, self._packed[id(weight)], bias, "none", [], "")

    def _is_packable(self, input: torch.Tensor, weight: torch.Tensor, padding: Any) -> bool:
        return (
            self._weights.get(id(weight)) is weight
            and input.dtype == weight.dtype
            and not isinstance(padding, str)
            and input.ndim == 4
            and input.numel() > 0
            and _is_plain(input)
            and input.is_contiguous(memory_format=torch.channels_last)
        )

    def _conv2d(
        self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *geometry: Any
    ) -> torch.Tensor:
        stride, padding, dilation, groups = geometry
        # nn.Conv2d hands over pairs, callers of the function may give one number for both sides.
        sides = [[one, one] if isinstance(one, int) else list(one) for one in (padding, stride, dilation)]
        if input.shape[1] != weight.shape[1] * groups or any(len(side) != 2 for side in sides):
            return functional.conv2d(input, weight, bias, *geometry)
        if id(weight) not in self._packed:
            self._packed[id(weight)] = torch.ops.mkldnn._reorder_convolution_weight(
                weight.detach(), *sides, groups, list(input.shape)
            )
        return torch.ops.mkldnn._convolution_pointwise(
            input, self._packed[id(weight)], bias, *sides, groups, "none", [], ""
        )


class TrainingKernels(TorchFunctionMode):
    """While entered, float32 linear layers run through oneDNN, forward and backward.

    torch multiplies float32 with MKL, which leaves half the speed of an AMD processor unused. Nothing is packed, since weights
    change in every step.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is functional.linear and not kwargs and _fits(*args):
            return _Linear.apply(*args, *[None] * (3 - len(args)))
        return func(*args, **(kwargs or {}))


def _fits(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    """Whether oneDNN can take over a linear layer."""
    return (
        input.dtype == weight.dtype == torch.float32
        and input.ndim >= 2
        and weight.ndim == 2
        and input.shape[-1] == weight.shape[1]  # where sizes don't fit, torch says so better
        and input.numel() > 0
        and weight.numel() > 0
        and _is_plain(input)
        and _is_plain(weight)
        and (bias is None or (bias.dtype == torch.float32 and bias.shape == weight.shape[:1]))
        and not torch.is_autocast_enabled("cpu")
    )


class _Linear(torch.autograd.Function):
    """A linear layer whose three products go through oneDNN."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        input = input.contiguous()
        ctx.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        of_input, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(rows, weight.t()).reshape(input.shape) if of_input else None,
            _product(rows.t(), input.reshape(-1, input.shape[-1]).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _product(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


def training_kernels_for(device: torch.device, dtype: torch.dtype) -> TrainingKernels | None:
    """Return faster kernels for training, None where there are none."""
    return TrainingKernels() if device.type == "cpu" and dtype == torch.float32 and _trains() else None


@functools.cache
@known_settings()
def _trains() -> bool:
    """Whether oneDNN's products of matrices that are not packed are there and right."""
    if not _packs():
        return False
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        given, weight, bias = (
            torch.randn(*shape, generator=generator, requires_grad=True) for shape in ((3, 5, 48), (24, 48), (24,))
        )
        torchs = functional.linear(given, weight, bias)
        expected = torch.autograd.grad(torchs.square().sum(), (given, weight, bias))
        try:
            with TrainingKernels():
                ours = functional.linear(given, weight, bias)
            found = torch.autograd.grad(ours.square().sum(), (given, weight, bias))
        except (RuntimeError, TypeError):  # other arguments than those of the versions known
            return False
    pairs = [(ours, torchs), *zip(found, expected, strict=True)]
    return all(bool(torch.allclose(mine, theirs, rtol=1e-4, atol=1e-3)) for mine, theirs in pairs)


def kernels_for(network: nn.Module, readout: nn.Module | None, device: torch.device) -> FrozenKernels | None:
    """Return the faster kernels for a frozen network, None where there are none.

    Parameters
    ----------
    network : nn.Module
        In the precision it will run in.
    readout : nn.Module or None
        What is applied to the pooled output.
    device : torch.device
        Where it runs.
    """
    if device.type != "cpu" or not _packs():
        return None
    if any(isinstance(module, torch.jit.ScriptModule) or _is_compiled(module) for module in network.modules()):
        return None  # these bring kernels of their own
    return FrozenKernels(network) if readout is None else FrozenKernels(network, readout)


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule"


@functools.cache
@known_settings()
def _packs() -> bool:
    """Whether oneDNN's packed products, which torch's own compiler uses, are there and right.

    torch does not promise to keep these operations, so they are tried before they are trusted.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    names = ("_linear_pointwise", "_reorder_linear_weight", "_convolution_pointwise", "_reorder_convolution_weight")
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    layer = nn.utils.skip_init(nn.Linear, 48, 24)
    conv = nn.utils.skip_init(nn.Conv2d, 8, 16, (3, 5), stride=(2, 1), padding=(1, 2))
    return _agrees(layer, (3, 5, 48)) and _agrees(conv, (2, 8, 9, 11))


def _agrees(layer: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether a layer with made-up weights gives the same packed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
        rows = torch.randn(*shape, generator=generator)
        rows = rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows
        expected = layer(rows)
        try:
            with FrozenKernels(layer):
                given = layer(rows)
        except (RuntimeError, TypeError):  # other arguments than those of the versions known
            return False
        return given.shape == expected.shape and bool((given - expected).abs().max() < 1e-4)


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    )


def _is_short(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> bool:
    """Whether attention is better computed step by step."""
    return (
        query.dtype == torch.bfloat16
        and _is_plain(query)
        and query.ndim == 4
        and query.shape[1] == key.shape[1]
        and max(query.shape[2], key.shape[2]) <= _MOST_TOKENS_AT_ONCE
        and not (is_causal or enable_gqa or dropout_p)
    )


def _short_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Scaled dot product attention, one step after the other, in float32 between its inputs and its result."""
    query = query.float() * (query.shape[-1] ** -0.5 if scale is None else scale)
    key = key.float()
    # torch's softmax takes values one by one where it runs along fewer of them than a vector register holds.
    transposed = key.shape[-2] < _VALUES_IN_A_REGISTER
    if transposed:
        query, key = key, query
        attn_mask = None if attn_mask is None else attn_mask.transpose(-1, -2)
    scores = torch.matmul(query, key.transpose(-1, -2))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # Not minus infinity: a token that may look at none would become NaN.
        scores = scores.masked_fill_(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = torch.softmax(scores, dim=-2).transpose(-1, -2) if transposed else torch.softmax(scores, dim=-1)
    return torch.matmul(weights, value.float()).to(value.dtype)
