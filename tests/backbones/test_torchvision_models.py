"""torchvision's networks: the right layer left off, the right pixels, weights that fit or an error that says why."""

import copy
import pickle
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from sktransfer.backbones.sources.torchvision_models import (
    is_torchvision,
    load_torchvision,
    load_torchvision_module,
    torchvision_names,
)

CPU = torch.device("cpu")
# One small network of each class, and the side of the images it is tried with.
FAMILIES = {
    "alexnet": ("classifier.6", 64),
    "convnext_tiny": ("classifier.2", 32),
    "densenet121": ("classifier", 32),
    "efficientnet_b0": ("classifier.1", 32),
    "googlenet": ("fc", 32),
    "inception_v3": ("fc", 75),
    "mnasnet0_5": ("classifier.1", 32),
    "maxvit_t": ("classifier.5", 224),
    "mobilenet_v2": ("classifier.1", 32),
    "mobilenet_v3_small": ("classifier.3", 32),
    "regnet_y_400mf": ("fc", 32),
    "resnet18": ("fc", 32),
    "shufflenet_v2_x0_5": ("fc", 32),
    "squeezenet1_1": ("classifier.1", 32),
    "swin_t": ("head", 32),
    "vgg11": ("classifier.6", 32),
    "vit_b_32": ("heads.head", 224),
}


def embed(backbone, pixels, layers=None):
    inputs = backbone.preparation.collate(list(pixels))
    with torch.no_grad():
        return backbone.embed(inputs, layers=layers, pooling=None, device=CPU, dtype=torch.float32)


@pytest.fixture
def small():
    """A network that is quick to build, trained by nobody."""
    torch.manual_seed(3)
    return torchvision.models.shufflenet_v2_x0_5(weights=None)


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """An empty cache, and a server that can't be reached."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("name", FAMILIES)
def test_embedding_is_what_the_classification_layer_reads(name):
    head, side = FAMILIES[name]
    backbone = load_torchvision(name, "random")
    network = backbone.snapshot()
    dimension = backbone.card.dimension
    layer = nn.Conv2d(dimension, 3, 1) if name.startswith("squeezenet") else nn.Linear(dimension, 3)
    network.set_submodule(head, layer)
    seen = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network(pixels)
    expected = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0]
    vectors = embed(backbone, pixels)
    assert vectors.shape == (1, dimension)
    # Folded batch norms and packed products add in another order.
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert sum(parameter.numel() for parameter in network.parameters()) == backbone.card.parameters + sum(
        parameter.numel() for parameter in layer.parameters()
    )


@pytest.mark.parametrize(
    "name", ["resnet18", "efficientnet_b1", "swin_v2_t", "inception_v3", "vit_l_16", "efficientnet_v2_l"]
)
def test_preparation_equals_torchvisions_preset(name):
    from sktransfer.backbones.sources.torchvision_models import _transform_of

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8))
    for weights in torchvision.models.get_model_weights(name):
        torch.testing.assert_close(_transform_of(weights)(image), weights.transforms()(image), rtol=0, atol=1e-6)


def test_feature_maps_of_swin_are_pooled_over_positions():
    backbone = load_torchvision("swin_t", "random")
    assert embed(backbone, torch.rand(1, 3, 32, 32), layers=[0]).shape == (1, 96)
    assert embed(backbone, torch.rand(1, 3, 32, 32), layers=[-1]).shape == (1, 768)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    first, second = (load_torchvision("shufflenet_v2_x0_5", "random") for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.fingerprint == second.fingerprint
    assert first.origin.weights == "random"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_file_is_loaded_whatever_its_number_of_classes(small, tmp_path, suffix):
    small.fc = nn.Linear(1024, 7)
    path = tmp_path / f"weights{suffix}"
    save_file(small.state_dict(), path) if suffix == ".safetensors" else torch.save(small.state_dict(), path)
    backbone = load_torchvision("shufflenet_v2_x0_5", path)
    small.fc = nn.Identity()
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(embed(backbone, pixels), small.eval()(pixels))
    assert backbone.origin.weights == str(path.resolve())


def test_prefix_of_data_parallel_is_taken_off(small, tmp_path):
    plain, wrapped = tmp_path / "plain.pth", tmp_path / "wrapped.pth"
    torch.save(small.state_dict(), plain)
    torch.save(nn.DataParallel(small).state_dict(), wrapped)
    prints = {load_torchvision("shufflenet_v2_x0_5", path).fingerprint for path in (plain, wrapped)}
    assert len(prints) == 1


def test_fingerprint_follows_the_weights_and_not_the_classification_layer(small, tmp_path):
    def print_of(name):
        save_file(small.state_dict(), tmp_path / name)
        return load_torchvision("shufflenet_v2_x0_5", tmp_path / name).fingerprint

    first = print_of("a.safetensors")
    small.fc.weight.data += 1
    assert print_of("b.safetensors") == first
    small.conv1[0].weight.data += 1
    assert print_of("c.safetensors") != first


def test_mnasnet_and_old_densenet_checkpoints_load(tmp_path):
    network = torchvision.models.mnasnet0_5(weights=None)
    save_file(network.state_dict(), tmp_path / "mnasnet.safetensors")
    load_torchvision("mnasnet0_5", tmp_path / "mnasnet.safetensors")
    tensors = torchvision.models.densenet121(weights=None).state_dict()
    old = {
        key.replace("norm1", "norm.1").replace("conv1", "conv.1") if "denselayer" in key else key: tensor
        for key, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    save_file(old, tmp_path / "densenet.safetensors")
    load_torchvision("densenet121", tmp_path / "densenet.safetensors")


def test_error_names_tensors_that_are_missing_and_unexpected(small, tmp_path):
    tensors = small.state_dict()
    tensors["stem.weight"] = tensors.pop("conv1.0.weight")
    save_file(tensors, tmp_path / "renamed.safetensors")
    with pytest.raises(ValueError, match="1 missing, such as 'conv1.0.weight'.*1 unexpected, such as 'stem.weight'"):
        load_torchvision("shufflenet_v2_x0_5", tmp_path / "renamed.safetensors")


def test_error_names_tensors_of_another_shape(small, tmp_path):
    save_file(small.state_dict(), tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match=r"of other shapes, such as 'conv5.0.weight'|of other shapes, such as 'stage2"):
        load_torchvision("shufflenet_v2_x1_0", tmp_path / "half.safetensors")


def test_weights_of_a_deeper_network_of_the_same_widths_are_refused(tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(ValueError, match="unexpected"):
        load_torchvision("resnet18", tmp_path / "resnet34.pth")


def test_weights_with_nan_are_refused(small, tmp_path):
    small.conv1[0].weight.data[0] = float("nan")
    save_file(small.state_dict(), tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match="hold NaN, in 'conv1.0.weight'"):
        load_torchvision("shufflenet_v2_x0_5", tmp_path / "nan.safetensors")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_pickle_that_would_run_code_is_not_executed(tmp_path, writer):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"conv1.0.weight": Payload(trace)}, protocol=2))
    else:
        torch.save({"conv1.0.weight": Payload(trace)}, path)
    with pytest.raises(ValueError, match="could run code"):
        load_torchvision("shufflenet_v2_x0_5", path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_file_is_refused(small, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(small.state_dict(), path) if suffix == ".safetensors" else torch.save(small.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=path.name):
        load_torchvision("shufflenet_v2_x0_5", path)


def test_missing_file_and_unknown_set_of_weights_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        load_torchvision("resnet18", str(tmp_path / "nowhere.pth"))
    with pytest.raises(ValueError, match="Did you mean 'IMAGENET1K_V1'.*Choose among 'IMAGENET1K_V1', 'random'"):
        load_torchvision("resnet18", "IMAGENET1K_V2x")


def test_weights_that_cannot_be_downloaded_say_what_to_put_where(no_hub):
    with pytest.raises(
        OSError, match="download.pytorch.org/models/resnet18-f37072fd.pth.*weights='path/to/resnet18"
    ) as caught:
        load_torchvision("resnet18", None)
    assert str(no_hub / "resnet18-f37072fd.pth") in str(caught.value)


def test_weights_in_the_cache_are_used_without_a_network(small, no_hub):
    no_hub.mkdir(parents=True)
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1
    torch.save(small.state_dict(), no_hub / weights.url.rsplit("/", 1)[1])
    default = load_torchvision("shufflenet_v2_x0_5", None)
    named = load_torchvision("shufflenet_v2_x0_5", "IMAGENET1K_V1")
    assert default.fingerprint == named.fingerprint
    assert (default.origin.weights, named.origin.weights) == (None, "IMAGENET1K_V1")


def test_module_of_the_users_is_read_like_the_catalogues(small):
    before = copy.deepcopy(small.state_dict())
    identity, make = load_torchvision_module(small)
    backbone = make()
    assert backbone.fingerprint == identity
    assert backbone.name == "shufflenet_v2_x0_5"
    assert backbone.preparation.describe()["resize"] == 256
    pixels = torch.rand(1, 3, 32, 32)
    assert embed(backbone, pixels).shape == (1, 1024)
    assert isinstance(small.fc, nn.Linear) and small.training
    assert all(torch.equal(before[key], value) for key, value in small.state_dict().items())


@pytest.mark.parametrize(
    "classifier",
    [nn.Identity(), nn.Linear(1024, 2), nn.Sequential(nn.Dropout(), nn.Linear(1024, 2))],
    ids=["identity", "linear", "sequence"],
)
def test_whatever_stands_for_the_classification_layer_is_left_off(small, classifier):
    small.fc = classifier
    backbone = load_torchvision_module(small)[1]()
    assert backbone.name == "shufflenet_v2_x0_5"
    assert embed(backbone, torch.rand(1, 3, 32, 32)).shape == (1, 1024)


def test_rebuilt_classifier_loses_its_last_layer_only():
    network = torchvision.models.mobilenet_v3_small(weights=None)
    network.classifier = nn.Sequential(nn.Linear(576, 5))
    assert embed(load_torchvision_module(network)[1](), torch.rand(1, 3, 32, 32)).shape == (1, 576)


def test_network_with_a_grey_first_layer_reads_grey_images():
    network = torchvision.models.resnet18(weights=None)
    network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    backbone = load_torchvision_module(network)[1]()
    item = backbone.preparation.prepare([np.zeros((40, 40), np.uint8)], 0)[0]
    assert item.shape == (1, 224, 224)


def test_vision_transformer_of_another_size_gets_images_of_that_size():
    network = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    backbone = load_torchvision_module(network)[1]()
    items = backbone.preparation.prepare([np.zeros((50, 60, 3), np.uint8)], 0)
    assert items[0].shape == (3, 32, 32)
    assert embed(backbone, items).shape == (1, 16)


def test_derived_classes_and_other_networks_are_not_taken_for_torchvisions(small):
    class Mine(torchvision.models.ResNet):
        pass

    assert is_torchvision(small)
    assert not is_torchvision(Mine(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1]))
    assert not is_torchvision(nn.Sequential(small))


def test_names_are_those_of_classification_networks():
    names = torchvision_names()
    assert "resnet18" in names and "vit_b_16" in names
    assert not any(name.startswith(("fcn", "fasterrcnn", "raft", "quantized")) for name in names)
