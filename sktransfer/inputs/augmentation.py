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
    TypeError
        If it is a class and not an object.
    """
    check_augment(augment)
    if augment is None:
        return None
    if kind != "image":
        raise ValueError(f"augment changes images, but X holds {kind} rows. Leave augment=None.")
    return _crop_and_mirror if isinstance(augment, str) else augment


def check_augment(augment: Any) -> None:
    """Refuse a class where an object is needed.

    Raises
    ------
    TypeError
        If it is one.
    """
    if isinstance(augment, type):
        raise TypeError(
            f"augment is the class {augment.__name__}; give an object of it, augment={augment.__name__}(...)."
        )


def _crop_and_mirror(image: torch.Tensor) -> torch.Tensor:
    height, width = image.shape[-2:]
    # Of about the picture's own shape: a square of 70 percent does not fit into an oblong one.
    ratio = (0.9 * width / height, 1.1 * width / height)
    cropped = v2.RandomResizedCrop([height, width], scale=(0.7, 1.0), ratio=ratio, antialias=True)(image)
    return v2.RandomHorizontalFlip()(cropped)
