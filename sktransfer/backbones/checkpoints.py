"""Tensors of a checkpoint put into a network, with words for what doesn't fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import torch
from torch import nn

_NEVER_INFINITE = ("weight", "bias", "running_mean", "running_var")


def load_tensors(
    network: nn.Module, tensors: Mapping[str, torch.Tensor], *, ignored: Iterable[str], architecture: str, source: str
) -> None:
    """Load a checkpoint into a network, every tensor of it.

    Parameters
    ----------
    network : nn.Module
        Loaded in place.
    tensors : mapping of str to torch.Tensor
        The checkpoint. A ``module.`` in front of all names, as ``DataParallel`` leaves it, is taken off.
    ignored : iterable of str
        Names of modules that the checkpoint may have although the network has not, such as the classification
        layer.
    architecture : str
        What the network is called in messages.
    source : str
        Where the tensors come from, for messages.

    Raises
    ------
    ValueError
        If tensors are missing, unexpected, of another shape or not finite.
    """
    tensors = _without_prefix(tensors)
    skipped = tuple(f"{name}." for name in ignored)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(skipped)}
    own = network.state_dict()
    shapes = [
        f"{name!r}, {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in kept.items()
        if name in own and own[name].shape != tensor.shape
    ]
    missing: list[str] = []
    unexpected: list[str] = []
    if not shapes:
        try:
            missing, unexpected = network.load_state_dict(_versioned(kept), strict=False)
        except RuntimeError as error:
            shapes = [str(error)]
    problems = [
        f"{len(names)} {what}, such as {'; '.join(names[:3])}"
        for what, names in (
            ("of other shapes", shapes),
            ("missing", [repr(name) for name in missing]),
            ("unexpected", [repr(name) for name in unexpected]),
        )
        if names
    ]
    if problems:
        raise ValueError(
            f"The tensors of {source} don't fit the network {architecture!r}: {'. '.join(problems)}. "
            "Check that the weights belong to this architecture, and rename their tensors if they were saved as a part "
            "of something larger."
        )
    check_finite(network.state_dict(keep_vars=True), source)


def check_finite(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuse weights that are NaN or infinite: attention may hide them, and embeddings be wrong without a sign.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        Parameters and buffers. Infinity in a buffer that is no statistic of batch norm is the usual mask.
    source : str
        Whose weights they are, for messages.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.is_meta or torch.isfinite(tensor).all():
            continue
        what = "NaN" if torch.isnan(tensor).any() else "infinity"
        if what == "NaN" or isinstance(tensor, nn.Parameter) or name.rpartition(".")[2] in _NEVER_INFINITE:
            raise ValueError(
                f"The tensors of {source} hold {what}, in {name!r}: embeddings would be wrong. They are damaged, or come from "
                "a training that diverged. Choose other weights."
            )


def checkpoint_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return what a checkpoint of this network holds that matters in eval mode, for fingerprints."""
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def _without_prefix(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _versioned(tensors: Mapping[str, torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
    """Version of the outermost module, without which torchvision's MNASNet refuses a checkpoint."""
    state = OrderedDict(tensors)
    # Inner modules stay without a version, that is the oldest: they then accept and convert old checkpoints.
    state._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    return state
