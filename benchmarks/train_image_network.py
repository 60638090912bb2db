"""Train the image network shipped as ``image-resnet`` on CIFAR-10 and write its weights and its card.

Run from the root of the repository::

    python -m benchmarks.train_image_network --data ../shared/data
    python -m benchmarks.evaluate_image_network --data ../shared/data --card

One thread is the default because, on the small convolutions of this network, bfloat16 on one core is faster
than float32 on two, and it does not suffer when other work shares the machine.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.backbones.networks.small_resnet import SmallResNet
from sktransfer.inputs.image import ImageTransform

WEIGHTS = Path(__file__).parents[1] / "sktransfer" / "weights" / "image-resnet"
WIDTHS = (32, 64, 128, 160)
BLOCKS = (0, 1, 1, 1)
MEAN = (0.4912, 0.4821, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
# The layers and the size were chosen among several by the scores on digits and hymenoptera.
DEFAULT_LAYERS = ("stem", "block1", "block2", "block3")
PREPARATION = {"size": 24, "resize": "crop", "interpolation": "bicubic", "mean": MEAN, "std": STD}
N_READOUT_IMAGES = 10_000


def load_cifar10(data: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read CIFAR-10 images, uint8 of shape (n_images, 32, 32, 3), and their labels."""
    archive = np.load(data / f"cifar10_{part}.npz")
    content, offsets, labels = archive["jpeg"].tobytes(), archive["offsets"], archive["y"]
    images = [np.asarray(Image.open(io.BytesIO(content[i:j]))) for i, j in zip(offsets, offsets[1:], strict=False)]
    return np.stack(images), labels.astype(np.int64)


def to_batch(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images (n, height, width, 3) into normalised float32 images (n, 3, height, width)."""
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def augment(x: torch.Tensor, size: int) -> torch.Tensor:
    """Vary a batch of normalised images at random: place, scale, flip, colour, sharpness, a hidden square.

    The result has `size` rows and columns.

    The order within a batch is random already, so effects that only a share of the images get
    are given to the first images.
    """
    n = len(x)
    # Zoom: a factor below one shows a part of the image enlarged, as larger photographs will look.
    zoom = torch.exp(torch.empty(n).uniform_(math.log(0.65), math.log(1.1)))
    stretch = torch.exp(torch.empty(n).uniform_(-0.1, 0.1))
    flip = torch.randint(0, 2, (n,)) * 2.0 - 1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = zoom * stretch * flip
    theta[:, 1, 1] = zoom / stretch
    theta[:, :, 2] = torch.empty(n, 2).uniform_(-1, 1) * (0.15 + (1 - zoom).clamp(min=0)).unsqueeze(1)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    # Blur, for small images that are enlarged.
    k = n // 8
    x[:k] = F.interpolate(F.avg_pool2d(x[:k], 2), scale_factor=2, mode="bilinear", align_corners=False)
    # Grey, for images without colours; some of them blurred, some not.
    grey = slice(k // 2, 2 * k)
    x[grey] = x[grey].mean(1, keepdim=True)
    x = x * torch.empty(n, 1, 1, 1).uniform_(0.75, 1.25) + torch.empty(n, 1, 1, 1).uniform_(-0.25, 0.25)
    # A hidden square for half of the images.
    side, centre = size // 4, torch.randint(0, size, (2, n, 1))
    place = torch.arange(size)
    rows, columns = ((place - c).abs() < side / 2 for c in centre)
    hidden = rows.unsqueeze(2) & columns.unsqueeze(1)
    hidden[: n // 2] = False
    return x.masked_fill(hidden.unsqueeze(1), 0.0)


class Classifier(nn.Module):
    """The network with the head that only the training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = SmallResNet(WIDTHS, BLOCKS)
        self.head = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the scores of the ten classes."""
        return self.head(self.network(x).mean((2, 3)))


def rate_factor(epoch: float, warm_up: int, decay: int, epochs: int) -> float:
    """Share of the largest learning rate: up in a line, constant, down in a line to zero.

    The constant part lets a checkpoint go on to more epochs than were planned first.
    """
    return max(0.0, min((epoch + 0.2) / (warm_up + 0.2), 1.0, (epochs - epoch) / decay))


def train(images: np.ndarray, labels: np.ndarray, args: argparse.Namespace) -> tuple[Classifier, float]:
    """Train a classifier; return it and the seconds taken."""
    torch.manual_seed(args.seed)
    model = Classifier().to(memory_format=torch.channels_last)
    # Decay only the kernels, not the biases and the scales of the normalisations.
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": kernels, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=args.rate, momentum=0.9, nesterov=True)
    n_steps = len(images) // args.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step / n_steps, args.warm_up, args.decay, args.epochs)
    )
    x_all, y_all = torch.from_numpy(images), torch.from_numpy(labels)
    first, seconds = 0, 0.0
    if args.checkpoint and args.checkpoint.exists():
        state = torch.load(args.checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        first, seconds = state["epoch"], state["seconds"]
    for epoch in range(first, args.epochs):
        start, total = time.perf_counter(), 0.0
        # Small images first: half the work, and the network learns to bear a change of scale.
        size = 24 if epoch < 0.6 * args.epochs else 32
        model.train()
        for index in torch.randperm(len(images))[: n_steps * args.batch].split(args.batch):
            x = augment(to_batch(x_all[index]), size).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(x)
            loss = F.cross_entropy(scores.float(), y_all[index], label_smoothing=args.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds += time.perf_counter() - start
        print(f"epoch {epoch + 1}/{args.epochs}  loss {total / n_steps:.4f}  {seconds:.0f} s", flush=True)
        if args.checkpoint:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "epoch": epoch + 1,
                "rng": torch.get_rng_state(),
                "seconds": seconds,
            }
            torch.save(state, args.checkpoint)
    return model.eval(), seconds


@torch.no_grad()
def accuracy(model: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images whose class the classifier gets right."""
    parts = [model(to_batch(part)).argmax(1) for part in torch.from_numpy(images).split(500)]
    return float((torch.cat(parts).numpy() == labels).mean())


def pooled_features(network: SmallResNet, images: Sequence[Any]) -> np.ndarray:
    """Mean over the positions of the default layers, side by side: (n_images, n_features)."""
    side = PREPARATION["size"]
    transform = ImageTransform(side, side, MEAN, STD, PREPARATION["interpolation"])
    backbone = ModuleBackbone(network, preparation=transform, stages=network.stage_names)
    extractor = PretrainedFeatureExtractor(backbone, layer=list(DEFAULT_LAYERS), cache=None)
    return extractor.fit_transform(images)


def readout_constants(network: SmallResNet, images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each feature over the images, and what to multiply by to get a standard deviation of one."""
    values = pooled_features(network, images)
    # A channel may be silent for every image; its deviation of zero must not be divided by.
    return values.mean(0), 1 / np.maximum(values.std(0), 1e-4)


def write(
    model: Classifier, images: np.ndarray, test_accuracy: float, seconds: float, args: argparse.Namespace
) -> None:
    """Write the weights as float16, with the constants that standardise the features, and the card."""
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    # The constants describe the network as it will be loaded, after the rounding to float16.
    model.network.load_state_dict(weights, strict=False)
    mean, scale = readout_constants(model.network, images[:N_READOUT_IMAGES])
    weights |= {"readout.mean": torch.from_numpy(mean), "readout.scale": torch.from_numpy(scale)}
    args.output.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, args.output / "model.safetensors")
    (args.output / "model.safetensors").chmod(0o644)
    card = {
        "name": "image-resnet",
        "modality": "image",
        "summary": "Small residual network for images, trained on CIFAR-10; for small images and quick experiments.",
        "dimension": len(mean),
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "licence": "BSD-3-Clause (the weights, made by this project); CIFAR-10, the training data, states no licence",
        "source": "benchmarks/train_image_network.py of this project",
        "data": "CIFAR-10 (Krizhevsky, 2009), 50,000 training images of 10 classes, as re-encoded JPEG files",
        "training": {
            "recipe": "SGD with momentum 0.9 and weight decay 5e-4, learning rate up in a line, constant, down "
            "in a line; random zoom, shift, stretch, flip, blur, grey, contrast, brightness "
            "and a hidden square; 24 x 24 pixels in the first 60% of the epochs, then 32 x 32",
            "epochs": args.epochs,
            "epochs_warm_up": args.warm_up,
            "epochs_decay": args.decay,
            "batch_size": args.batch,
            "learning_rate": args.rate,
            "label_smoothing": args.smoothing,
            "seconds": round(seconds),
            "seed": args.seed,
        },
        "scores": {"cifar10_test_accuracy": {"value": round(test_accuracy, 4), "protocol": "10,000 test images"}},
        "architecture": {"widths": WIDTHS, "blocks": BLOCKS},
        "stages": model.network.stage_names,
        "default_layers": DEFAULT_LAYERS,
        "preparation": PREPARATION,
    }
    (args.output / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train, test and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with cifar10_train.npz")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="folder for model.safetensors and card.json")
    parser.add_argument("--checkpoint", type=Path, help="file to save to after each epoch, and to go on from")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=4, help="epochs in which the learning rate rises")
    parser.add_argument("--decay", type=int, default=10, help="last epochs, in which the learning rate falls to zero")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.15, help="largest learning rate")
    parser.add_argument("--smoothing", type=float, default=0.0, help="share of a label spread over all classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images, labels = load_cifar10(args.data, "train")
    model, seconds = train(images, labels, args)
    test_accuracy = accuracy(model, *load_cifar10(args.data, "test"))
    print(f"CIFAR-10 test accuracy {test_accuracy:.4f}")
    write(model, images, test_accuracy, seconds, args)


if __name__ == "__main__":
    main()
