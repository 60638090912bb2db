"""Global settings of torch and NumPy: results are computed under known ones, and callers' are as they were afterwards.

What belongs to a thread (gradients, inference mode, autocast, default device) is set for the thread. The default dtype belongs
to the process, where other threads of the caller's rely on it: it is left alone, and tensors that would take it are given
theirs. Only the precision of float32 products and the like have no other way than the process's own setting.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sktransfer._locks import ProcessLock, after_fork_in_child

Made = TypeVar("Made", bound=nn.Module)

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")
_PRODUCTS = [(backend, operation) for backend in ("mkldnn", "cuda") for operation in ("matmul", "conv", "rnn")]


class _Thread(threading.local):
    """Whether a thread is inside."""

    entered = False


_thread = _Thread()


@contextmanager
def known_settings() -> Iterator[None]:
    """Run the body under the settings that results are defined with, whatever the caller has set.

    Gradients are on and may be switched off inside. Inference mode and autocast are off, new tensors are float32 and on the
    processor unless they say otherwise, float32 products are computed in float32, and floating point errors of NumPy don't
    raise. Afterwards everything is as it was. It may be entered again inside, and is a decorator, too.
    """
    outermost = not _thread.entered
    with ExitStack() as stack:
        if outermost or torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))  # which also switches gradients on
        for name in _AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(name):
                stack.enter_context(torch.autocast(name, enabled=False))
        if outermost:
            stack.enter_context(_process_settings())
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            if torch.get_default_dtype() != torch.float32:
                stack.enter_context(_Float32())
            stack.enter_context(numpy_errors_ignored())
            stack.callback(setattr, _thread, "entered", False)
            _thread.entered = True
        yield


@contextmanager
def numpy_errors_ignored() -> Iterator[None]:
    """Let floating point errors of NumPy that a caller wants raised be what they are by default: warnings, or nothing."""
    usual = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    raised = {kind: usual[kind] for kind, action in np.geterr().items() if action in ("raise", "call")}
    with np.errstate(**raised):  # type: ignore[arg-type]
        yield


def without_inference_tensors(module: Made) -> Made:
    """Replace weights that were made in inference mode, which can't be trained, by the same outside of it."""
    fresh: dict[int, torch.Tensor] = {}
    for inner in module.modules():
        for values in (inner._parameters, inner._buffers):
            for name, value in values.items():
                if value is None or not value.is_inference():
                    continue
                if id(value) not in fresh:
                    made = value.detach().clone()
                    is_parameter = isinstance(value, nn.Parameter)
                    fresh[id(value)] = nn.Parameter(made, value.requires_grad) if is_parameter else made
                values[name] = fresh[id(value)]  # type: ignore[assignment]
    return module


# What has no setting of its own in each thread


_lock = ProcessLock("settings of torch that belong to the process")
_n_users = 0
_undo = ExitStack()


@contextmanager
def _process_settings() -> Iterator[None]:
    """Set what belongs to the process for as long as any thread is inside."""
    global _n_users, _undo
    with _lock:
        changes = [] if _n_users else _changes()
        counts = bool(_n_users or changes)
        _n_users += counts
        for change, undo in changes:
            _undo.callback(undo)
            change()
    try:
        yield
    finally:
        if counts:
            with _lock:
                _n_users -= 1
                if not _n_users:
                    _undo.close()


def _after_fork() -> None:
    """Keep what the thread that forked has set; other threads are not there any more."""
    global _n_users
    if _n_users and not _thread.entered:
        _n_users = 0
        _undo.close()
    _n_users = min(_n_users, 1)


after_fork_in_child(_after_fork)


def _changes() -> list[tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return pairs of functions that change a setting of the process that differs, and that put it back."""
    made: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
    legacy = None
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:  # one product was set apart from the others, see below
        pass
    if legacy is not None and legacy != "highest":
        setter: Callable[[str], Any] = torch.set_float32_matmul_precision
        made.append((functools.partial(setter, "highest"), functools.partial(setter, legacy)))
    for backend, operation in _PRODUCTS:
        if (backend == "cuda" and not torch.cuda.is_available()) or (operation == "matmul" and legacy is not None):
            continue
        precision = torch._C._get_fp32_precision_getter(backend, operation)
        if precision not in ("none", "ieee"):
            setter = functools.partial(torch._C._set_fp32_precision_setter, backend, operation)
            made.append((functools.partial(setter, "ieee"), functools.partial(setter, precision)))
    if not torch.backends.cuda.math_sdp_enabled():  # the one kernel of attention that takes everything
        enable = torch.backends.cuda.enable_math_sdp
        made.append((functools.partial(enable, True), functools.partial(enable, False)))
    future = torch.__future__
    for get, put in (
        (future.get_overwrite_module_params_on_conversion, future.set_overwrite_module_params_on_conversion),
        (future.get_swap_module_params_on_conversion, future.set_swap_module_params_on_conversion),
    ):
        if get():  # optimizers and kernels know weights by the objects that these would replace
            made.append((functools.partial(put, False), functools.partial(put, True)))
    return made


# The default dtype


class _Float32(TorchFunctionMode):
    """While entered, this thread's tensors that would take the process's default dtype are float32.

    A dtype that code inside sets as the default for a while, as builders of networks do, is respected.
    """

    def __init__(self) -> None:
        super().__init__()
        self.default = torch.get_default_dtype()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.get_default_dtype() != self.default or isinstance(kwargs.get("dtype"), torch.dtype):
            return self._cast(func, args, kwargs)
        if func in _floating() or (func in _of_values() and _is_of_floats(args, kwargs)):
            return func(*args, **{**kwargs, "dtype": torch.float32})
        made = self._cast(func, args, kwargs)
        if not isinstance(made, torch.Tensor) or made.dtype != self.default or func in _of_values():
            return made
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
        if not given or any(one.is_floating_point() or one.is_complex() for one in given):
            return made
        if any(isinstance(one, torch.dtype) for one in args) or func in _conversions():
            return made
        # Whole numbers that became the default's, as in a quotient.
        return func(*map(_as_float32, args), **{name: _as_float32(one) for name, one in kwargs.items()}).float()

    def _cast(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function; pixels that it would convert to the default, as torchvision's ToTensor does, become float32."""
        asked = kwargs.get("dtype", args[1] if len(args) > 1 else None)
        if (
            func is torch.Tensor.to
            and args[0].dtype == torch.uint8
            and asked == self.default == torch.get_default_dtype()
        ):
            return args[0].to(torch.float32)
        return func(*args, **kwargs)


def _as_float32(value: Any) -> Any:
    whole = isinstance(value, torch.Tensor) and not value.is_floating_point() and value.dtype != torch.bool
    return value.to(torch.float32) if whole else value


def _is_of_floats(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether values are Python's own numbers with a float among them, which have no dtype of their own."""
    leaves: list[Any] = []
    pending = [
        *args,
        *(value for name, value in kwargs.items() if name not in ("device", "generator", "requires_grad")),
    ]
    while pending:
        one = pending.pop()
        if isinstance(one, list | tuple):
            pending.extend(one)
        else:
            leaves.append(one)
    return any(type(one) is float for one in leaves) and all(
        one is None or type(one) in (bool, int, float, torch.Size) for one in leaves
    )


@functools.cache
def _floating() -> frozenset[Callable[..., Any]]:
    """Functions that make tensors of the default dtype whatever they are given."""
    names = "empty empty_permuted empty_strided eye linspace logspace ones rand randn zeros hann_window hamming_window "
    names += "bartlett_window blackman_window kaiser_window"
    return frozenset({*(getattr(torch, name) for name in names.split()), torch.fft.fftfreq, torch.fft.rfftfreq})


@functools.cache
def _of_values() -> frozenset[Callable[..., Any]]:
    """Functions that make tensors of the default dtype of Python's floats."""
    return frozenset(
        {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.full, torch.arange, torch.normal}
    )


@functools.cache
def _conversions() -> frozenset[Callable[..., Any]]:
    """Methods that say the dtype that they convert to."""
    tensor = torch.Tensor
    return frozenset({tensor.to, tensor.type, tensor.type_as, tensor.half, tensor.bfloat16, tensor.double, tensor.view})
