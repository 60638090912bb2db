"""Write the torchvision part of ``sktransfer/backbones/catalogue.json`` anew, from the installed torchvision.

Run it from the root of the repository after an update of torchvision::

    python -m benchmarks.make_catalogue

The part about the Hugging Face hub is written by hand and kept as it is.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import torch
import torchvision
from torch import nn

from sktransfer.backbones.sources.torchvision_models import _build, _head_of, torchvision_names

CATALOGUE = Path(__file__).parents[1] / "sktransfer" / "backbones" / "catalogue.json"
# torchvision states a licence for its SWAG weights only; the rest comes under the licence of the package.
LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet-1K, whose terms may bear on the weights"
SWAG_LICENCE = "CC-BY-NC-4.0 (SWAG)"


def main() -> None:
    """Measure every network and write the file."""
    content = json.loads(CATALOGUE.read_text(encoding="utf-8")) if CATALOGUE.exists() else {"hub": []}
    content["torchvision"] = [describe(name) for name in torchvision_names()]
    CATALOGUE.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def describe(name: str) -> dict[str, object]:
    """Return the entries of one network's card."""
    network = build(name)
    head_name = _head_of(network)
    assert head_name is not None
    head = network.get_submodule(head_name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {
        "name": name,
        "modality": "image",
        "dimension": head.in_channels if isinstance(head, nn.Conv2d) else head.in_features,
        "parameters": parameters - sum(parameter.numel() for parameter in head.parameters()),
        "licence": SWAG_LICENCE if "SWAG" in weights.name else LICENCE,
        "source": source(name, weights),
        "summary": summary(weights),
    }


def build(name: str) -> nn.Module:
    """Build a network without memory for its weights, where it allows that."""
    try:
        with torch.device("meta"):
            return _build(name)
    except NotImplementedError:  # RegNets compute their widths with tensors
        return _build(name)


def source(name: str, weights: torchvision.models.WeightsEnum) -> str:
    """Name the set of weights, the recipe and the paper."""
    told = f"torchvision, weights {weights.name}, recipe {weights.meta['recipe']}"
    if name.startswith("squeezenet"):  # torchvision's page of it names no paper in the usual form
        return f"{told}; SqueezeNet, https://arxiv.org/abs/1602.07360"
    text = inspect.getdoc(torchvision.models.get_model_builder(name)) or ""
    paper = re.search(r"`([^`<]+?)\s*<(https?://[^>]+)>`", text)
    return f"{told}; {' '.join(paper.group(1).split())}, {paper.group(2)}" if paper else told


def summary(weights: torchvision.models.WeightsEnum) -> str:
    """Say what the network was trained for, how well it does that, and at what cost."""
    data, metrics = next(iter(weights.meta["_metrics"].items()))
    size = weights.transforms().crop_size[0]
    return (
        f"Photographs of {size} x {size} pixels; {metrics['acc@1']:.1f} % of {data} right, "
        f"{weights.meta['_ops']:.2f} GFLOPS an image."
    )


if __name__ == "__main__":
    main()
