"""Which device a network runs on, and in which precision."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from sktransfer.runtime.global_settings import known_settings

PRECISIONS = ("float32", "auto", "bfloat16", "float16")


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn a `device` parameter into a device that is present.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` (the first GPU if there is one, else the processor) or anything that
        :class:`torch.device` accepts.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        If the name is not one that torch knows, or the device is not present.
    """
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"The 'device' parameter is {device!r}, which torch does not know. "
            "Use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    if resolved.type not in ("cpu", "cuda", "mps", "xpu"):
        raise ValueError(f"The 'device' parameter is {str(device)!r}, on which nothing is computed. Use device='auto'.")
    if resolved.type == "cuda":
        count = torch.cuda.device_count()
        if (resolved.index or 0) >= count:
            raise ValueError(
                f"The 'device' parameter is {str(device)!r}, but this process sees {count} CUDA device(s). "
                "Use device='auto' or device='cpu'."
            )
        resolved = torch.device("cuda", torch.cuda.current_device() if resolved.index is None else resolved.index)
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("The 'device' parameter is 'mps', which is not available here. Use device='auto'.")
    if resolved.type == "xpu" and not torch.xpu.is_available():
        raise ValueError("The 'device' parameter is 'xpu', which is not available here. Use device='auto'.")
    return resolved


def resolve_precision(precision: str, device: torch.device, kind: str) -> torch.dtype:
    """Turn a `precision` parameter into the type that a frozen pass computes in.

    ``"auto"`` gives bfloat16 to text and image networks where the hardware multiplies it natively, else
    float32. Output is float32 whatever the precision.

    Parameters
    ----------
    precision : {"float32", "auto", "bfloat16", "float16"}
        What the user asked for.
    device : torch.device
        Where the network runs.
    kind : str
        Kind of input of the network: "text", "image", "table" or "series".

    Returns
    -------
    torch.dtype
        The type of the network's weights during the pass.

    Raises
    ------
    ValueError
        If float16 is asked for on the processor, where torch has no fast and safe path for it.
    """
    if precision == "auto":
        return torch.bfloat16 if kind in ("text", "image") and _multiplies_bfloat16(device) else torch.float32
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision='float16' needs a GPU; on the processor use 'float32', 'bfloat16' or 'auto'.")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


@contextmanager
def frozen_pass(device: torch.device) -> Iterator[None]:
    """Run a network without gradients and in exactly the precision of its weights.

    Gradients, autocast, TF32 and lower precision in float32 products are states that a caller may have switched
    on; inside they are off, and afterwards they are as they were.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    """
    with ExitStack() as stack:
        stack.enter_context(known_settings())
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":
            cudnn = torch.backends.cudnn
            stack.enter_context(
                cudnn.flags(cudnn.enabled, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)
            )
        yield


def to_device(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Move a tensor from the processor to where the network runs.

    On the way to a GPU it passes through pinned memory, so that the copy runs beside the GPU's work.

    Parameters
    ----------
    tensor : torch.Tensor
        The tensor.
    device : torch.device
        Where to.
    dtype : torch.dtype, optional
        Type to convert to.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.layout == torch.strided:
        tensor = tensor.pin_memory()
    return tensor.to(device, dtype, non_blocking=device.type == "cuda")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the processor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The processor's allocator, and oneDNN's, have no error class of their own.
    told = ("can't allocate memory", "not enough memory", "bad_alloc", "could not create a memory object")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in told)


def warn_of_shared_gpu(device: torch.device) -> None:
    """Warn where a process of a pool is about to train on a GPU, which its siblings use as well.

    Parameters
    ----------
    device : torch.device
        Where to train.

    Warns
    -----
    UserWarning
        In a child process, on a GPU.
    """
    if device.type == "cuda" and multiprocessing.parent_process() is not None:
        warnings.warn(
            f"Several processes train on {device}: each holds a copy of the network there, and they slow each other down. Use "
            "n_jobs=1, joblib.parallel_config('threading'), or device='cpu' for a search in processes.",
            stacklevel=4,
        )


def free_memory(device: torch.device) -> None:
    """Give memory that torch keeps for later back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
