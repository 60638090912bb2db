"""Images: reading, checking, resizing, digests."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from sktransfer.caching.keys import digest
from sktransfer.inputs.exif import orientation_of
from sktransfer.inputs.image_files import content_digest, named, open_content, open_image, read_file, sentence
from sktransfer.inputs.preparation import Inputs

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# How many times as long as wide an image may be where all of it is enlarged, or where that is not known.
_MOST_LENGTHS = 256
# Of a longer image only so many widths from its middle are enlarged, where the middle is cut out afterwards anyway.
_ENLARGED_LENGTHS = 64


@dataclass(frozen=True)
class ImageTransform:
    """From a PIL image to a normalised tensor of shape (channels, height, width).

    Attributes
    ----------
    resize : int, tuple of int or None
        Length in pixels that the shorter side gets, the ratio of the sides kept; or (height, width), whatever
        the ratio was; None leaves the size.
    crop : int or None
        Side in pixels of the square cut from the middle; None cuts nothing.
    mean, std : tuple of float
        Subtracted from and divided into each channel, after pixels were brought to [0, 1].
    interpolation : str
        "bilinear", "bicubic" or "nearest"; always with antialiasing.
    channels : {1, 3}
        Grey or RGB.
    """

    resize: int | tuple[int, int] | None = 256
    crop: int | None = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    channels: int = 3

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Resize, crop and normalise one image."""
        return self.normalize(self.resized(image)[None])[0]

    def resized(self, image: Image.Image) -> torch.Tensor:
        """Resize and crop one image, to a tensor (channels, height, width) of uint8."""
        if self.resize is not None:
            if (
                isinstance(self.resize, int)
                and self.crop is not None
                and self.crop <= _ENLARGED_LENGTHS // 2 * self.resize
            ):
                image = _middle(image)
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            image = transforms.resize(image, size, InterpolationMode(self.interpolation), antialias=True)
        if self.crop is not None:
            image = transforms.center_crop(image, [self.crop])
        pixels = torch.from_numpy(np.array(image))
        return (pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale a batch (n, channels, height, width) of uint8 to float32, in the same order in memory."""
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        # (pixels / 255 - mean) / std, along whole lines of an image: three values at a time would be slow.
        lines = pixels.permute(0, 2, 3, 1).to(torch.float32).contiguous()
        width = lines.shape[2]
        scale, shift = (1 / (255 * std)).repeat(width), (-mean / std).repeat(width)
        lines.view(-1, len(scale)).mul_(scale).add_(shift)
        return lines.permute(0, 3, 1, 2)

    def describe(self) -> dict[str, object]:
        """Return the settings, for fingerprints."""
        return asdict(self)


class ImagePreparation:
    """File paths, PIL images and pixel arrays to batches of normalised tensors.

    Parameters
    ----------
    transform : ImageTransform or callable
        From a PIL image (mode "RGB", or "L" for one channel) to a tensor (channels, height, width).
    description : dict
        What decides the result of `transform`, as values that JSON can write.
    keyword : str or None, default=None
        Keyword argument under which the network takes the pixels; None for positional.
    size_from_rows : bool, default=False
        Whether images that all have the same size in a fit give the network's input its size; `transform` must be
        an `ImageTransform`.
    channels : {1, 3}, default=3
        Grey or RGB.
    """

    kind = "image"
    padded = False
    # Larger batches leave the processor's caches, and are slower.
    budget = 8 * 224 * 224
    most_rows = 1024
    chunk_rows = 32
    threads = max(1, min(8, joblib.cpu_count() - 1))
    exact = False

    def __init__(
        self,
        transform: Callable[[Image.Image], torch.Tensor],
        *,
        description: dict[str, object],
        keyword: str | None = None,
        size_from_rows: bool = False,
        channels: int = 3,
    ):
        self.transform = transform
        self.description = description
        self.keyword = keyword
        self.size_from_rows = size_from_rows
        self.channels = channels
        self.mode = "RGB" if channels == 3 else "L"

    def with_options(self, *, max_length: int | None, prompt: str | None) -> ImagePreparation:
        """Return this preparation: images have no options."""
        if max_length is not None or prompt is not None:
            name = "prompt" if max_length is None else "max_length"
            raise ValueError(f"{name} is for texts, but this backbone reads images. Leave {name} at None.")
        return self

    @property
    def one_size(self) -> bool:
        """Whether all images become one size, whatever theirs was."""
        return isinstance(self.transform, ImageTransform) and (
            self.transform.crop is not None or isinstance(self.transform.resize, tuple)
        )

    def read(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return images as they are."""
        return values

    def fitted_to(self, rows: Sequence[Any]) -> ImagePreparation:
        """Return this preparation, for the size of the images where they all have the same and that is asked for."""
        if not self.size_from_rows or not isinstance(self.transform, ImageTransform):
            return self
        sizes = {_size_of(row, place) for place, row in enumerate(rows)}
        if len(sizes) > 1:
            return self
        other = copy.copy(self)
        other.transform = replace(self.transform, resize=sizes.pop(), crop=None)
        other.description, other.size_from_rows = other.transform.describe(), False
        return other

    def changes(self) -> dict[str, Any]:
        """Return what `fitted_to` changes."""
        if not isinstance(self.transform, ImageTransform):
            return {}
        return {"transform": self.transform, "description": self.description, "size_from_rows": self.size_from_rows}

    def describe(self) -> dict[str, object]:
        """Return everything that decides what a row becomes."""
        return {**self.description, "channels": self.channels}

    def digests(self, rows: Sequence[Any]) -> list[bytes]:
        """Return a digest of each row's content; files are read and their headers checked."""
        return [_digest_image(row, place, self.mode) for place, row in enumerate(rows)]

    def prepare(self, rows: Sequence[Any], first_row: int) -> list[torch.Tensor]:
        """Read and transform images one by one."""
        return [self._prepare_one(row, place) for place, row in enumerate(rows, start=first_row)]

    def _prepare_one(self, row: Any, place: int) -> torch.Tensor:
        image = open_image(row, place, self.mode)
        keeps_ratio = not isinstance(self.transform, ImageTransform) or (
            isinstance(self.transform.resize, int) and self.transform.crop is None
        )
        if keeps_ratio and max(image.size) > _MOST_LENGTHS * min(image.size):
            raise ValueError(
                f"{sentence(row, place)} is {image.width} x {image.height} pixels: more than {_MOST_LENGTHS} times as long as "
                "wide, or the other way round. With its shorter side enlarged to what the network reads it would need too "
                "much memory. Crop it first."
            )
        if isinstance(self.transform, ImageTransform):
            # Bytes until the batch is made: a quarter of the memory, and one operation for all.
            return self.transform.resized(image)
        try:
            pixels = self.transform(image)
        except Exception as error:
            raise ValueError(
                f"The preparation failed on {named(row, place)}: {type(error).__name__}: {error}"
            ) from error
        if not torch.is_tensor(pixels) or pixels.ndim != 3:
            shape = f" of shape {tuple(pixels.shape)}" if torch.is_tensor(pixels) else ""
            raise TypeError(
                f"The preparation gave a {type(pixels).__name__}{shape} for {named(row, place)}; it has to give a tensor "
                "(channels, height, width)."
            )
        return pixels

    def size(self, item: torch.Tensor) -> int:
        """Return the number of pixels."""
        return item.shape[-2] * item.shape[-1] if item.ndim >= 2 else item.numel()

    def group(self, item: torch.Tensor) -> Hashable:
        """Return the shape: images of one batch have the same."""
        return tuple(item.shape)

    def collate(self, items: Sequence[torch.Tensor]) -> Inputs:
        """Stack images of one shape."""
        pixels = torch.stack([item.permute(1, 2, 0) for item in items]).permute(0, 3, 1, 2)
        if isinstance(self.transform, ImageTransform) and pixels.dtype == torch.uint8:
            pixels = self.transform.normalize(pixels)
        # The order in memory that every network reads, one that flattens with `view` too.
        pixels = pixels.contiguous()
        return Inputs(kwargs={self.keyword: pixels}) if self.keyword else Inputs(args=(pixels,))

    def examples(self) -> list[Inputs]:
        """Return two small batches of made-up rows."""
        # A transform that keeps sizes gets what most networks read.
        side = (224, 224)
        if isinstance(self.transform, ImageTransform) and isinstance(self.transform.resize, tuple):
            side = self.transform.resize
        size = (*side, 3) if self.channels == 3 else side
        # Noise, not a plain colour: a network that mixes up rows or places must not get away with it.
        pixels = np.random.default_rng(0).integers(0, 256, (2, 2, *size)).astype(np.uint8)
        return [self.collate(self.prepare(list(batch), 0)) for batch in pixels]


def _middle(image: Image.Image) -> Image.Image:
    """Return what is left of an image when its longer side is bounded to a multiple of the shorter."""
    longest = _ENLARGED_LENGTHS * min(image.size)
    if max(image.size) <= longest:
        return image
    left, top = (max(0, side - longest) // 2 for side in image.size)
    return image.crop((left, top, left + min(image.width, longest), top + min(image.height, longest)))


def _size_of(row: Any, place: int) -> tuple[int, int]:
    """Return height and width as one sees them; of a file, only the header is decoded."""
    if isinstance(row, np.ndarray):
        return row.shape[0], row.shape[1]
    picture = open_content(read_file(row, place), row, place) if isinstance(row, Path) else row
    turned = orientation_of(picture) >= 5
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def _digest_image(row: Any, place: int, mode: str) -> bytes:
    """Digest of an image's content; a file's header is checked on the way, before anything expensive runs."""
    if isinstance(row, Path):
        content = read_file(row, place)
        open_content(content, row, place)
        return content_digest(content)
    if isinstance(row, np.ndarray):
        return digest(repr((row.shape, row.dtype.str)).encode() + row.tobytes(), domain=b"image array")
    # As the network will see it: transparency and palettes of many forms are part of the content.
    picture = open_image(row, place, mode)
    return digest(repr((mode, picture.size)).encode() + picture.tobytes(), domain=b"image")
