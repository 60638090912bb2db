"""timm's networks: its own pooled features, its own pixels, checked weights."""

import importlib
import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

timm = pytest.importorskip("timm")

from sktransfer.backbones.sources.timm_models import load_timm, timm_names  # noqa: E402

CPU = torch.device("cpu")
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8))


def embed(backbone, pixels, layers=None):
    inputs = backbone.preparation.collate(list(pixels))
    with torch.no_grad():
        return backbone.embed(inputs, layers=layers, pooling=None, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet10t", 32), ("mobilenetv3_small_050", 32), ("convnext_atto", 32), ("vit_tiny_patch16_224", 224)],
)
def test_embedding_is_timms_vector_before_the_classification_layer(name, side):
    backbone = load_timm(f"timm/{name}", "random")
    network = backbone.snapshot()
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True)
    vectors = embed(backbone, pixels)
    # Folded batch norms and packed products add in another order.
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert vectors.shape[1] == backbone.card.dimension


@pytest.mark.parametrize(
    "name",
    ["resnet10t.c3_in1k", "convnext_atto.d2_in1k", "test_vit.r160_in1k", "beit_base_patch16_384.in22k_ft_in22k_in1k"],
)
def test_preparation_equals_timms_transform(name):
    from sktransfer.backbones.sources.timm_models import _preparation_of

    class Described(nn.Module):
        pretrained_cfg = timm.get_pretrained_cfg(name).to_dict()

    config = timm.data.resolve_model_data_config(Described())
    expected = timm.data.create_transform(**config)(IMAGE)
    torch.testing.assert_close(_preparation_of(timm, Described()).transform(IMAGE), expected, rtol=0, atol=1e-6)


def test_preparation_with_borders_is_timms_own():
    from sktransfer.backbones.sources.timm_models import _preparation_of

    class Described(nn.Module):
        pretrained_cfg = {**timm.get_pretrained_cfg("resnet10t.c3_in1k").to_dict(), "crop_mode": "border"}

    preparation = _preparation_of(timm, Described())
    assert preparation.prepare([IMAGE], 0)[0].shape == (3, 176, 176)
    assert preparation.describe()["timm"]["crop_mode"] == "border"


def test_feature_maps_with_channels_last_are_pooled_over_positions():
    backbone = load_timm("timm/swin_tiny_patch4_window7_224", "random")
    assert backbone.channels_last
    assert embed(backbone, torch.rand(1, 3, 224, 224), layers=[-1]).shape == (1, 768)


def test_weights_file_is_loaded_and_checked(tmp_path):
    network = timm.create_model("resnet10t", pretrained=False, num_classes=4)
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    backbone = load_timm("timm/resnet10t", tmp_path / "mine.safetensors")
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network.eval().forward_head(network.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(embed(backbone, pixels), expected)
    tensors = network.state_dict()
    del tensors["layer1.0.conv1.weight"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match="timm/resnet10t.*1 missing, such as 'layer1.0.conv1.weight'"):
        load_timm("timm/resnet10t", tmp_path / "less.safetensors")


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    prints = {load_timm("timm/mobilenetv3_small_050", "random").fingerprint for _ in range(2)}
    assert len(prints) == 1
    assert torch.equal(state, torch.get_rng_state())


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    from sktransfer.backbones.sources import huggingface

    def refuse(name):
        raise huggingface.hub_error(name, OSError("no network in tests"))

    monkeypatch.setattr(huggingface, "hub_directory", refuse)
    with pytest.raises(OSError, match="hf download timm/resnet10t.c3_in1k.*weights='path/to/model.safetensors'"):
        load_timm("timm/resnet10t", None)


def test_misspelt_name_gets_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean 'resnet10t"):
        load_timm("timm/resnet10tt", "random")


def test_without_timm_there_are_no_names_and_the_error_names_the_extra(monkeypatch):
    def hide(name, *args, **kwargs):
        if name.split(".")[0] == "timm":
            raise ModuleNotFoundError("hidden", name="timm")
        return real(name, *args, **kwargs)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", hide)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    assert timm_names() == []
    with pytest.raises(ImportError, match=r"sktransfer\[timm\]"):
        load_timm("timm/resnet10t", "random")


def test_names_hold_tagged_and_bare_ones():
    names = timm_names()
    assert {"resnet10t", "resnet10t.c3_in1k"} <= set(names)
