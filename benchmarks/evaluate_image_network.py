"""Score the image network shipped as ``image-resnet``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

WEIGHTS = Path(__file__).parents[1] / "sktransfer" / "weights" / "image-resnet"


def prepare(images: Sequence[Any], preparation: dict[str, Any]) -> torch.Tensor:
    """Turn PIL images or uint8 arrays, grey or RGB, into one normalised batch (n, 3, size, size)."""
    size, method = preparation["size"], Image.Resampling[preparation["interpolation"].upper()]
    rows = []
    for image in images:
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image)
        image, box = image.convert("RGB"), None
        if preparation["resize"] == "crop":
            side, (width, height) = min(image.size), image.size
            left, top = (width - side) // 2, (height - side) // 2
            box = (left, top, left + side, top + side)
        rows.append(np.asarray(image.resize((size, size), method, box=box)))
    x = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(preparation[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (x - mean) / std


@torch.no_grad()
def pooled_features(network, images, layers, preparation, batch=250) -> np.ndarray:
    """Mean over the positions of the named stages, side by side: (n_images, n_features)."""
    network.eval()
    rows = []
    for start in range(0, len(images), batch):
        x, found = prepare(images[start : start + batch], preparation), []
        for name in network.stage_names:
            x = getattr(network, name)(x)
            if name in layers:
                found.append(x.mean((2, 3)))
        rows.append(torch.cat(found, 1))
    return torch.cat(rows).numpy()
