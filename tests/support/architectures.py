"""Small networks with seeded random weights, one for each architecture that the split has to know."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
import transformers
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.resnet import Bottleneck
from torchvision.models.vgg import VGG, make_layers

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


def _numbered(prefix: str, count: int, dot: str = ".") -> list[str]:
    return [f"{prefix}{dot}{number}" for number in range(count)]


def _letters(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{letter}" for letter in "abcde"[:count]]


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
                          "use_cache": False, "bos_token_id": 1, "eos_token_id": 1}),
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
    _vision("DeiT", ["embeddings", *_numbered("layers", 3)], **_IMAGE),
    _vision("Beit", ["embeddings", *_numbered("layers", 3)], **_IMAGE, use_relative_position_bias=True),
    _vision("Dinov2", ["embeddings", *_numbered("encoder.layer", 3)], **_IMAGE),
    _vision("DINOv3ViT", ["embeddings", *_numbered("model.layer", 3)], **_IMAGE, num_register_tokens=2),
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


def _torchvision(
    name: str, stages: list[str], *, size: int = 32, label: str | None = None, **config: Any
) -> Architecture:
    def make() -> nn.Module:
        return getattr(torchvision.models, name)(**{"num_classes": 5, **config})

    return Architecture(label or name, make, _images(size), stages)


def _small_vgg(batch_norm: bool) -> nn.Module:
    features = make_layers([8, "M", 16, "M", 16, 512, "M"], batch_norm=batch_norm)  # type: ignore[list-item]
    network = VGG(features, num_classes=5, init_weights=False)
    network.avgpool = nn.AdaptiveAvgPool2d(2)
    network.classifier = nn.Sequential(
        nn.Linear(512 * 4, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 16), nn.ReLU(True), nn.Dropout(),
        nn.Linear(16, 5),
    )  # fmt: skip
    return network


def _small_alexnet() -> nn.Module:
    network = torchvision.models.alexnet(num_classes=5)
    network.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(256 * 36, 16), nn.ReLU(inplace=True),
        nn.Dropout(), nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, 5),
    )  # fmt: skip
    return network


def _small_efficientnet_v2() -> nn.Module:
    settings = [
        FusedMBConvConfig(1, 3, 1, 8, 8, 2),
        FusedMBConvConfig(4, 3, 2, 8, 16, 1),
        MBConvConfig(4, 3, 2, 16, 24, 2),
    ]
    return torchvision.models.EfficientNet(settings, dropout=0.2, num_classes=5, last_channel=32)


_SWIN = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": [4, 4]}
_FLAT_VIT = {"image_size": 16, "patch_size": 4, "num_layers": 3, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24}
_MAXVIT = {"input_size": (64, 64), "stem_channels": 8, "partition_size": 4, "block_channels": [8, 16],
           "block_layers": [1, 2], "head_dim": 4, "stochastic_depth_prob": 0.1}  # fmt: skip
_CLASSIFIER = ["classifier.0", "classifier.3", "classifier.6"]

TORCHVISION = [
    _torchvision("resnet18", ["stem", *[f"layer{group}.{block}" for group in (1, 2, 3, 4) for block in (0, 1)]]),
    _torchvision("ResNet", ["stem", "layer1.0", "layer2.0", "layer2.1", "layer3.0", "layer4.0"], label="resnext",
                 block=Bottleneck, layers=[1, 2, 1, 1], groups=4, width_per_group=4),
    _torchvision("ResNet", ["stem", "layer1.0", "layer2.0", "layer3.0", "layer4.0"], label="wide-resnet",
                 block=Bottleneck, layers=[1, 1, 1, 1], width_per_group=16),
    _torchvision("DenseNet", ["stem", "features.denseblock1", "features.transition1", "features.denseblock2",
                              "features.transition2", "features.denseblock3"], label="densenet",
                 growth_rate=4, block_config=(2, 3, 2), num_init_features=8),
    _torchvision("efficientnet_b0", [
        "features.0", "features.1.0", *_numbered("features.2", 2), *_numbered("features.3", 2),
        *_numbered("features.4", 3), *_numbered("features.5", 3), *_numbered("features.6", 4), "features.7.0",
        "features.8",
    ]),
    Architecture("efficientnet-v2", _small_efficientnet_v2, _images(32), [
        "features.0", "features.1.0", "features.1.1", "features.2.0", "features.3.0", "features.3.1", "features.4",
    ]),
    _torchvision("mobilenet_v2", _numbered("features", 19), width_mult=0.25),
    _torchvision("mobilenet_v3_small", [*_numbered("features", 13), "classifier.0", "classifier.3"]),
    _torchvision("mnasnet0_5", [
        "stem", *_numbered("layers.8", 3), *_numbered("layers.9", 3), *_numbered("layers.10", 3),
        *_numbered("layers.11", 2), *_numbered("layers.12", 4), "layers.13.0", "layers.14",
    ]),
    _torchvision("shufflenet_v2_x0_5", [
        "conv1", *_numbered("stage2", 4), *_numbered("stage3", 8), *_numbered("stage4", 4), "conv5",
    ]),
    _torchvision("squeezenet1_1", [f"features.{block}" for block in (0, 3, 4, 6, 7, 9, 10, 11, 12)]),
    Architecture("vgg", lambda: _small_vgg(batch_norm=False), _images(32),
                 ["features.0", "features.3", "features.6", "features.8", *_CLASSIFIER]),
    Architecture("vgg-bn", lambda: _small_vgg(batch_norm=True), _images(32),
                 ["features.0", "features.4", "features.8", "features.11", *_CLASSIFIER]),
    Architecture("alexnet", _small_alexnet, _images(64), [
        "features.0", "features.3", "features.6", "features.8", "features.10",
        "classifier.1", "classifier.4", "classifier.6",
    ]),
    _torchvision("googlenet", [
        "conv1", "conv2", "conv3", *[f"inception{name}" for name in ("3a", "3b", *_letters("4", 5), "5a", "5b")],
    ]),
    _torchvision("inception_v3", [
        "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3",
        *[f"Mixed_{name}" for name in (*_letters("5", 4)[1:], *_letters("6", 5), *_letters("7", 3))],
    ], size=75),
    _torchvision("regnet_y_400mf", ["stem", *[f"trunk_output.block{number}" for number in (1, 2, 3, 4)]]),
    _torchvision("ConvNeXt", [
        "features.0", "features.1.0", "features.1.1", "features.2", "features.3.0", "features.3.1",
    ], label="convnext", block_setting=[CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 2)]),
    _torchvision("VisionTransformer", ["conv_proj", *_numbered("encoder.layers.encoder_layer_", 3, dot="")],
                 label="vit", size=16, **_FLAT_VIT),
    _torchvision("SwinTransformer", [
        "features.0", "features.1.0", "features.1.1", "features.2", "features.3.0", "features.3.1",
    ], label="swin", **_SWIN),
    _torchvision("MaxVit", ["stem.0", "stem.1", "blocks.0", "blocks.1", "classifier.3", "classifier.5"],
                 label="maxvit", size=64, **_MAXVIT),
]  # fmt: skip


def _timm(name: str, stages: list[str], size: int, **config: Any) -> Architecture:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=5, **config)

    return Architecture(f"timm-{name}", make, _images(size), stages)


TIMM = [
    _timm("test_vit", ["patch_embed", *_numbered("blocks", 6)], 32, img_size=32),
    _timm("test_resnet", ["stem", "layer1.0", "layer2.0", "layer3.0", "layer4.0"], 32),
    _timm("test_convnext", ["stem", *_numbered("stages", 4)], 32),
    _timm("test_efficientnet", ["stem", "blocks.0", *[f"blocks.{number}.0" for number in (1, 2, 3, 4)]], 32),
]  # fmt: skip
if importlib.util.find_spec("timm") is None:
    TIMM = []

# ---------------------------------------------------------------------------------------------------------
# What users write


class SharedReLU(nn.Module):
    """One ReLU module that all layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = self.relu(conv(x))
        return self.out(x.mean((2, 3)))


class TextLSTM(nn.Module):
    """A recurrent network that reads the last output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm1 = nn.LSTM(8, 8, batch_first=True)
        self.lstm2 = nn.LSTM(8, 8, batch_first=True)
        self.out = nn.Linear(8, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm1(self.embedding(ids))
        hidden, _ = self.lstm2(hidden)
        return self.out(hidden[:, -1])


class Wrapped(nn.Module):
    """A network of somebody else, below a head of one's own."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.out = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.backbone(x)))


def _torch_transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(20, 8), encoder, nn.LayerNorm(8))


def _sequential_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 9, 5),
    )  # fmt: skip


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(6), nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 5),
    )  # fmt: skip


USERS = [
    Architecture("sequential-cnn", _sequential_cnn, _images(12), ["0", "4", "7"]),
    Architecture("mlp", _mlp, _vectors(6), ["1", "4", "6"]),
    Architecture("shared-relu", SharedReLU, _images(8), ["conv1", "conv2", "conv3", "out"]),
    Architecture("text-lstm", TextLSTM, _token_ids, ["embedding", "lstm1", "lstm2", "out"]),
    Architecture("torch-transformer", _torch_transformer, _token_ids, ["0", *_numbered("1.layers", 3)]),
    Architecture("wrapped-resnet", lambda: Wrapped(torchvision.models.resnet18(num_classes=5), 5), _images(32), [
        "stem", *[f"backbone.layer{group}.{block}" for group in (1, 2, 3, 4) for block in (0, 1)],
    ]),
    Architecture("wrapped-vgg", lambda: Wrapped(_small_vgg(batch_norm=False), 5), _images(32), [
        f"backbone.{name}" for name in ("features.0", "features.3", "features.6", "features.8", *_CLASSIFIER)
    ]),
]  # fmt: skip

ARCHITECTURES = [*TEXTS, *IMAGES, *TORCHVISION, *TIMM, *USERS]
