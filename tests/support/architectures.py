"""Small networks with seeded random weights, one for each architecture that the split has to know."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
import transformers
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

Batch = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """A network, example batches, and the stages that a practitioner would list.

    ``length_multiple`` is what texts have to be padded to, ``auxiliary`` how the cut makes what stages
    return beside the activation.
    """

    name: str
    make: Callable[[], nn.Module]
    make_batches: Callable[[], list[Batch]]
    stages: list[str]
    length_multiple: int = 1
    auxiliary: str = "zeros"

    def build(self) -> nn.Module:
        """Make the network in eval mode; nothing in it is left at an initial value that hides mistakes."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # torchvision's GoogLeNet and Inception announce a change of their own initialisation.
            warnings.filterwarnings("ignore", "The default weight initialization of", FutureWarning)
            torch.manual_seed(0)
            network = self.make().eval()
            _shake(network)
        return network

    def batches(self) -> list[Batch]:
        """Two batches whose rows can be mixed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.make_batches()


@torch.no_grad()
def _shake(network: nn.Module) -> None:
    """Move biases, tokens and normalisations off the zeros and ones at which they start."""
    for parameter in network.parameters():
        if parameter.dim() == 1 or (parameter == 0).all():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.add_(0.1 * torch.randn_like(module.running_mean))
            assert module.running_var is not None
            module.running_var.mul_(0.8 + 0.4 * torch.rand_like(module.running_var))


# ---------------------------------------------------------------------------------------------------------
# Inputs


def _texts(multiple: int = 1) -> list[Batch]:
    return [_text_batch([9, 4, 6], multiple), _text_batch([12, 3], multiple)]


def _text_batch(lengths: list[int], multiple: int = 1) -> Batch:
    padded = -(-max(lengths) // multiple) * multiple
    mask = torch.tensor([[1] * length + [0] * (padded - length) for length in lengths])
    ids = torch.randint(2, 40, mask.shape) * mask
    return (), {"input_ids": ids, "attention_mask": mask}


def _pixels(size: int) -> Callable[[], list[Batch]]:
    return lambda: [((), {"pixel_values": torch.randn(rows, 3, size, size)}) for rows in (3, 2)]


def _images(size: int) -> Callable[[], list[Batch]]:
    return lambda: [((torch.randn(rows, 3, size, size),), {}) for rows in (3, 2)]


def _vectors(width: int) -> Callable[[], list[Batch]]:
    return lambda: [((torch.randn(rows, width),), {}) for rows in (3, 2)]


def _token_ids() -> list[Batch]:
    return [((torch.randint(0, 20, (rows, 7)),), {}) for rows in (3, 2)]


# ---------------------------------------------------------------------------------------------------------
# transformers


def _numbered(prefix: str, count: int, first: int = 0) -> list[str]:
    return [f"{prefix}.{number}" for number in range(first, first + count)]


_TINY = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 24}
_TEXT = {**_TINY, "vocab_size": 40, "max_position_embeddings": 64}
_IMAGE = {**_TINY, "image_size": 16, "patch_size": 4}


def _hugging(name: str, config: dict[str, Any], *, model: str | None = None) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        settings = getattr(transformers, f"{name}Config")(**config)
        return getattr(transformers, model or f"{name}Model")(settings)

    return make


def _encoder(
    name: str, *, label: str | None = None, layers: str = "encoder.layer", multiple: int = 1, **config: Any
) -> Architecture:
    stages = ["embeddings", *_numbered(layers, 3)]
    make = _hugging(name, {**_TEXT, **config})
    return Architecture(label or name.lower(), make, lambda: _texts(multiple), stages, length_multiple=multiple)


def _decoder(name: str, **config: Any) -> Architecture:
    settings = {**_TEXT, "num_key_value_heads": 1, "use_cache": False, "pad_token_id": 0, **config}
    return Architecture(name.lower(), _hugging(name, settings), _texts, ["embed_tokens", *_numbered("layers", 3)])


def _vision(name: str, stages: list[str], *, size: int = 16, **config: Any) -> Architecture:
    return Architecture(f"hf-{name.lower()}", _hugging(name, config), _pixels(size), stages)


_DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 8}
_PYRAMID = {"hidden_sizes": [8, 12, 16], "depths": [1, 2, 1]}
_WINDOWS = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}

TEXTS = [
    _encoder("Bert"),
    _encoder("Roberta", pad_token_id=0),
    _encoder("XLMRoberta", pad_token_id=0),
    _encoder("MPNet", pad_token_id=0),
    _encoder("Electra", embedding_size=16),
    _encoder("Deberta", **_DISENTANGLED),
    _encoder("DebertaV2", **_DISENTANGLED, norm_rel_ebd="layer_norm", position_buckets=4, share_att_key=True),
    _encoder("DebertaV2", label="debertav2-conv", **_DISENTANGLED, conv_kernel_size=3),
    _encoder("Longformer", multiple=4, attention_window=[4, 4, 4], pad_token_id=0),
    _encoder(
        "ModernBert", layers="layers", pad_token_id=0, local_attention=4, global_attn_every_n_layers=2,
        cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2,
    ),
    Architecture(
        "distilbert",
        _hugging("DistilBert", {"vocab_size": 40, "dim": 16, "n_heads": 2, "n_layers": 3, "hidden_dim": 24}),
        _texts,
        ["embeddings", *_numbered("transformer.layer", 3)],
    ),
    Architecture(
        "albert",
        _hugging("Albert", {**_TEXT, "embedding_size": 8}),
        _texts,
        ["embeddings", "encoder"],
    ),
    Architecture(
        "t5",
        _hugging(
            "T5",
            {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_heads": 2},
            model="T5EncoderModel",
        ),
        _texts,
        ["encoder.embed_tokens", *_numbered("encoder.block", 3)],
        auxiliary="recompute",
    ),
    Architecture(
        "gpt2",
        _hugging("GPT2", {"vocab_size": 40, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64,
                          "use_cache": False}),
        _texts,
        ["stem", *_numbered("h", 3)],
    ),
    _decoder("Llama"),
    _decoder("Mistral", sliding_window=4),
    _decoder("Qwen3", head_dim=8),
    _decoder("Gemma", head_dim=8),
    Architecture(
        "bert-classifier",
        _hugging("Bert", _TEXT, model="BertForSequenceClassification"),
        _texts,
        ["bert.embeddings", *_numbered("bert.encoder.layer", 3)],
    ),
    Architecture(
        "llama-classifier",
        _hugging("Llama", {**_TEXT, "num_key_value_heads": 1, "use_cache": False, "pad_token_id": 0},
                 model="LlamaForSequenceClassification"),
        _texts,
        ["model.embed_tokens", *_numbered("model.layers", 3)],
    ),
]  # fmt: skip

IMAGES = [
    _vision("ViT", ["embeddings", *_numbered("layers", 3)], **_IMAGE),
    _vision("DeiT", ["embeddings", *_numbered("encoder.layer", 3)], **_IMAGE),
    _vision("Beit", ["embeddings", *_numbered("encoder.layer", 3)], **_IMAGE, use_relative_position_bias=True),
    _vision("Dinov2", ["embeddings", *_numbered("encoder.layer", 3)], **_IMAGE),
    _vision("DINOv3ViT", ["embeddings", *_numbered("layer", 3)], **_IMAGE, num_register_tokens=2),
    _vision("CLIPVision", ["embeddings", *_numbered("encoder.layers", 3)], **_IMAGE),
    _vision("SiglipVision", ["embeddings", *_numbered("encoder.layers", 3)], **_IMAGE),
    _vision("Swin", ["embeddings", *_numbered("encoder.layers", 2)], size=32, **_WINDOWS),
    _vision("Swinv2", ["embeddings", *_numbered("encoder.layers", 2)], size=32, **_WINDOWS),
    _vision("ConvNext", ["embeddings", *_numbered("encoder.stages", 3)], size=32, num_stages=3, **_PYRAMID),
    _vision("ConvNextV2", ["embeddings", *_numbered("encoder.stages", 3)], size=32, num_stages=3, **_PYRAMID),
    _vision("ResNet", ["embedder", *_numbered("encoder.stages", 3)], size=32, embedding_size=8,
            layer_type="basic", **_PYRAMID),
]  # fmt: skip

# ---------------------------------------------------------------------------------------------------------
# torchvision and timm


def _torchvision(name: str, stages: list[str], *, size: int = 32, label: str | None = None, **config: Any):
    def make() -> nn.Module:
        return getattr(torchvision.models, name)(**{"num_classes": 5, **config})

    return Architecture(label or name, make, _images(size), stages)


TORCHVISION = [
    _torchvision("resnet18", []),
    _torchvision("ResNet", [], label="resnext", block=Bottleneck, layers=[1, 2, 1, 1], groups=4, width_per_group=4),
    _torchvision("ResNet", [], label="wide-resnet", block=Bottleneck, layers=[1, 1, 1, 1], width_per_group=16),
    _torchvision("densenet121", []),
    _torchvision("efficientnet_b0", []),
    _torchvision("efficientnet_v2_s", []),
    _torchvision("mobilenet_v2", []),
    _torchvision("mobilenet_v3_small", []),
    _torchvision("mnasnet0_5", []),
    _torchvision("shufflenet_v2_x0_5", []),
    _torchvision("squeezenet1_1", []),
    _torchvision("vgg11", []),
    _torchvision("vgg11_bn", []),
    _torchvision("alexnet", [], size=64),
    _torchvision("googlenet", [], aux_logits=True),
    _torchvision("inception_v3", [], size=80),
    _torchvision("regnet_y_400mf", []),
    _torchvision("convnext_tiny", []),
    _torchvision("VisionTransformer", [], label="vit", size=16, image_size=16, patch_size=4, num_layers=3, num_heads=2,
                 hidden_dim=16, mlp_dim=24),
    _torchvision("swin_t", [], size=32),
    _torchvision("MaxVit", [], label="maxvit", size=64, input_size=(64, 64), stem_channels=8, partition_size=4, block_channels=[8, 16],
                 block_layers=[1, 2], head_dim=4, stochastic_depth_prob=0.1),
]  # fmt: skip
ARCHITECTURES = [*TEXTS, *IMAGES, *TORCHVISION]
