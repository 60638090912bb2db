"""Random changes of training images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms import v2


def resolve_augment(augment: Any, kind: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return what changes a prepared image.

    Parameters
    ----------
    augment : "auto", callable or None
        A callable takes and gives a tensor (channels, height, width), as the transforms of torchvision do; "auto" is a
        crop of at least 70 percent that is resized back, mirrored half of the time.
    kind : str
        Kind of rows.

    Returns
    -------
    callable or None

    Raises
    ------
    ValueError
        If rows are no images.
    """
    if augment is None:
        return None
    if kind != "image":
        raise ValueError(f"augment changes images, but X holds {kind} rows. Leave augment=None.")
    return _crop_and_mirror if isinstance(augment, str) else augment


def _crop_and_mirror(image: torch.Tensor) -> torch.Tensor:
    size = list(image.shape[-2:])
    cropped = v2.RandomResizedCrop(size, scale=(0.7, 1.0), ratio=(0.9, 1.1), antialias=True)(image)
    return v2.RandomHorizontalFlip()(cropped)
