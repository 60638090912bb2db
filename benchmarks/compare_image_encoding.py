"""Encode the JPEG files of hymenoptera with a resnet18, in torchvision's usual loop and with this package.

    python -m benchmarks.compare_image_encoding --data ../shared/data

Both sides have the same random weights, and begin with the files: reading, decoding, resizing and the network are in
the time. The loop is timed as most people write it, and with worker processes that decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import ResNet18_Weights

from benchmarks.pairs import time_in_turn
from benchmarks.parity import asked_on, checks_of, checks_on_gpu
from benchmarks.report import Check, Comparison, Contest, begin, finish, make_parser
from sktransfer import PretrainedFeatureExtractor
from sktransfer.runtime.device import resolve_precision

PEER = "torchvision loop"
# On the processor, over the loop without worker processes; of a GPU no ratio is asked.
ASKED_RATIO = {"float32": 1.6, "auto": 3.0}


class Files(Dataset):
    """Image files as the network's input, one by one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.transform = ResNet18_Weights.DEFAULT.transforms()

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    def __getitem__(self, place: int) -> torch.Tensor:
        """Return the pixels of one file."""
        return self.transform(Image.open(self.paths[place]).convert("RGB"))


@torch.no_grad()
def loop(network: nn.Module, paths: Sequence[Path], device: str, n_workers: int) -> np.ndarray:
    """Run a network over files as torchvision's documentation does."""
    loader = DataLoader(
        Files(paths), batch_size=32, num_workers=n_workers, pin_memory=device.startswith("cuda") and n_workers > 0
    )
    return torch.cat([network(batch.to(device)).cpu() for batch in loader]).numpy()


def find_files(data: Path, n_rows: int | None = None) -> list[Path]:
    """Return the photographs, or the first so many of them."""
    return sorted((data / "hymenoptera").glob("*/*/*.jp*g"))[:n_rows]


def make_extractor(device: str, precision: str = "float32") -> PretrainedFeatureExtractor:
    """Return our extractor, which has to encode every file anew."""
    return PretrainedFeatureExtractor("resnet18", weights="random", precision=precision, device=device, cache=None)


def make_network(device: str, paths: Sequence[Path]) -> nn.Module:
    """Return the network of our extractor as the peer runs it: as torchvision builds it, but for its last layer."""
    return make_extractor(device).fit(paths[:1]).backbone_.snapshot().eval().to(device)


def compare(paths: list[Path], device: str, n_pairs: int, n_workers: int) -> Comparison:
    """Time both precisions against the loop, and hold the vectors against each other."""
    network = make_network(device, paths)
    sides = {PEER: partial(loop, network, paths, device, 0)}
    if n_workers:
        sides[f"{PEER}, {n_workers} workers"] = partial(loop, network, paths, device, n_workers)
    peers = list(sides)
    for name in ASKED_RATIO:
        sides[name] = partial(make_extractor(device, name).fit(paths[:1]).transform, paths)
    vectors = {name: side() for name, side in sides.items()}  # warms them up
    seconds = time_in_turn(sides, n_rounds=n_pairs)
    asked = asked_on(device, "image", ASKED_RATIO)
    checks = [Check("largest value of the peer's vectors", float(np.abs(vectors[PEER]).max()))]
    for name in ASKED_RATIO:
        checks += checks_of(name, vectors[name], vectors[PEER])
    return Comparison(
        title="resnet18 on JPEG files",
        unit="images",
        n_units=len(paths),
        seconds=seconds,
        contests=[
            Contest(name, peer, asked.get(name) if peer == PEER else None) for name in ASKED_RATIO for peer in peers
        ],
        checks=checks,
        settings={
            "device": device,
            "files": len(paths),
            "auto is": str(resolve_precision("auto", torch.device(device), "image")),
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = make_parser(__doc__, n_pairs=7)
    parser.add_argument("--rows", type=int, help="files to encode; by default all 397")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the second loop; 0 leaves it out")
    options = parser.parse_args(arguments)
    paths = find_files(options.data, options.rows)
    machine = begin("Encoding images", ["torchvision", "pillow"], options.device)
    comparison = compare(paths, options.device, options.pairs, options.workers)
    if options.device.startswith("cuda"):
        comparison.checks = [*comparison.checks, *checks_on_gpu(make_extractor, paths, options.device)]
    return finish(comparison, options, machine)


if __name__ == "__main__":
    raise SystemExit(main())
