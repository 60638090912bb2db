"""Weights from every source: finite, the network's own, in memory of their own, and told from others by their content."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from support.networks import own_images, own_texts, save_tiny_bert

from sktransfer import (
    DistilledClassifier,
    FineTunedClassifier,
    ModuleBackbone,
    PretrainedFeatureExtractor,
    unload_backbones,
)

TEXTS = ["how do i reset my card", "thanks", "the delivery was late again"]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 36, 3), dtype=np.uint8)
VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


@pytest.fixture(autouse=True)
def forget():
    yield
    unload_backbones()


def save_vit(directory, *, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=False).save_pretrained(directory)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(directory)
    return directory


def save_sentence_transformer(directory, *, seed=0):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    first = Transformer(str(save_tiny_bert(directory / "bert", seed=seed)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SentenceTransformer(modules=[first, Pooling(16), Dense(16, 5)], device="cpu")
    model.save(str(directory / "model"), create_model_card=False)
    return directory / "model"


def save_resnet(directory, *, seed=0, name="w.safetensors"):
    directory.mkdir(exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors = torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()
    (save_file if name.endswith("safetensors") else torch.save)(tensors, directory / name)
    return directory / name


def folder(save, weights="model.safetensors", rows=TEXTS):
    def make(directory, seed=0):
        found = save(directory, seed=seed)
        return {"backbone": found}, found / weights, rows

    return make


def checkpoint(name):
    def make(directory, seed=0):
        path = save_resnet(directory, seed=seed, name=name)
        return {"backbone": "shufflenet_v2_x0_5", "weights": path}, path, IMAGES

    return make


SOURCES = {
    "text": folder(save_tiny_bert),
    "image": folder(save_vit, rows=IMAGES),
    "sentence-transformers": folder(save_sentence_transformer),
    "dense layer": folder(save_sentence_transformer, "2_Dense/model.safetensors"),
    "safetensors": checkpoint("w.safetensors"),
    "torch": checkpoint("w.pt"),
}
every_source = pytest.mark.parametrize("source", SOURCES)


def read(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path)


def write(path, tensors):
    # Another file, for the present one may be mapped by the library that wrote it.
    made = path.with_name("made")
    save_file(tensors, made, metadata={"format": "pt"}) if path.suffix == ".safetensors" else torch.save(tensors, made)
    os.replace(made, path)


@every_source
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(source, value, tmp_path):
    given, path, rows = SOURCES[source](tmp_path / "made")
    tensors = {name: tensor.clone() for name, tensor in read(path).items()}
    name = next(
        (name for name in tensors if name.endswith("query.bias")),
        next(name for name in tensors if name.endswith("weight")),
    )
    tensors[name].view(-1)[0] = value
    write(path, tensors)
    with pytest.raises(ValueError, match="NaN|infinity"):
        PretrainedFeatureExtractor(**given).fit(rows)


def module(value):
    own = own_texts()
    with torch.no_grad():
        next(own.module.parameters()).view(-1)[-1] = value
    return own


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_modules_that_are_not_finite_are_refused_by_every_estimator(value):
    given, y = module(value), [0, 1, 0]
    for fit in (
        lambda: PretrainedFeatureExtractor(given).fit(TEXTS),
        lambda: FineTunedClassifier(given).fit(TEXTS, y),
        lambda: DistilledClassifier(FineTunedClassifier("text-static", freeze_depth="all"), given).fit(TEXTS, y),
    ):
        with pytest.raises(ValueError, match=r"hold (NaN|infinity), in '.*weight'"):
            fit()


def test_infinity_in_a_buffer_is_a_mask():
    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, rows):
            return self.linear(rows) @ self.mask.softmax(-1)

    extractor = PretrainedFeatureExtractor(ModuleBackbone(Masked(), modality="table"))
    assert np.isfinite(extractor.fit_transform(np.eye(4))).all()


@every_source
def test_files_replaced_by_others_of_the_same_size_and_time_are_noticed(source, tmp_path):
    given, path, rows = SOURCES[source](tmp_path / "made")
    _, other, _ = SOURCES[source](tmp_path / "other", seed=1)
    first = PretrainedFeatureExtractor(**given).fit(rows)
    before = first.transform(rows)
    status = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    found = PretrainedFeatureExtractor(**given).fit_transform(rows)
    assert np.abs(found - before).max() > 0.01 * np.abs(before).max()
    np.testing.assert_array_equal(first.transform(rows), before)
    unload_backbones()
    np.testing.assert_array_equal(PretrainedFeatureExtractor(**given, cache=None).fit_transform(rows), found)


_TRUNCATES = """
import sys
import numpy as np
from pathlib import Path
from sktransfer import PretrainedFeatureExtractor

backbone, weights, changed, expected = sys.argv[1:]
rows = np.load(expected + ".rows.npy", allow_pickle=True)
rows = rows if rows.ndim == 4 else list(rows)
for way in ("overwritten", "truncated"):
    content = Path(changed).read_bytes()
    extractor = PretrainedFeatureExtractor(backbone, weights=weights or None, cache=None).fit(rows)
    before = extractor.transform(rows)
    with open(changed, "r+b") as file:
        if way == "truncated":
            file.truncate(64)
        else:
            file.write(b"\\x3c" * len(content))
    np.testing.assert_array_equal(extractor.transform(rows), before)
    Path(changed).write_bytes(content)
"""


@pytest.mark.parametrize("source", ["text", "image", "sentence-transformers", "safetensors", "torch"])
def test_a_network_does_not_hang_on_its_file(source, tmp_path):
    given, path, rows = SOURCES[source](tmp_path / "made")
    np.save(tmp_path / "rows.rows.npy", rows if isinstance(rows, np.ndarray) else np.array(rows, dtype=object))
    command = [str(given["backbone"]), str(given.get("weights", "")), str(path), str(tmp_path / "rows")]
    subprocess.run([sys.executable, "-c", _TRUNCATES, *command], check=True, timeout=120)


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    from sktransfer.backbones.sources import huggingface_loading

    directory = save_tiny_bert(tmp_path / "bert")
    real = huggingface_loading.load_huggingface

    def load(origin):
        handle = real(origin)
        os.utime(directory / "model.safetensors")
        return handle

    monkeypatch.setattr(huggingface_loading, "load_huggingface", load)
    with pytest.raises(OSError, match=r"changed while they were read. Try again"):
        PretrainedFeatureExtractor(directory).fit(TEXTS)


@pytest.mark.parametrize("number", [1, 3])
def test_more_or_fewer_layers_than_the_file_has_are_refused(number, tmp_path):
    directory = save_tiny_bert(tmp_path / "bert")
    config = json.loads((directory / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    (directory / "config.json").write_text(json.dumps({**config, "num_hidden_layers": number}))
    message = (
        "belongs to block 1, and the network of the configuration has 1" if number == 1 else "weights lack tensors"
    )
    with pytest.raises(ValueError, match=message):
        PretrainedFeatureExtractor(directory).fit(TEXTS)


@pytest.mark.parametrize("dropped", ["query.bias", "query.weight", "key.weight"])
def test_a_missing_tensor_that_attention_would_hide_is_noticed(dropped, tmp_path):
    directory = save_tiny_bert(tmp_path / "bert")
    tensors = read(directory / "model.safetensors")
    write(
        directory / "model.safetensors",
        {name: tensor for name, tensor in tensors.items() if not (name.endswith(dropped) and ".0." in name)},
    )
    with pytest.raises(ValueError, match=f"weights lack tensors.*{dropped}"):
        PretrainedFeatureExtractor(directory).fit(TEXTS)


@pytest.mark.parametrize("source", ["text", "image", "sentence-transformers", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64], ids=str)
def test_weights_that_are_no_floats_are_refused(source, dtype, tmp_path):
    given, path, rows = SOURCES[source](tmp_path / "made")
    tensors = read(path)
    name = next(name for name in tensors if name.endswith("weight") and tensors[name].ndim == 2)
    write(path, {**tensors, name: tensors[name].to(dtype)})
    with pytest.raises(ValueError, match=f"'{name}' is of type"):
        PretrainedFeatureExtractor(**given).fit(rows)


@pytest.mark.parametrize("source", ["text", "sentence-transformers", "safetensors", "torch"])
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100], ids=["empty", "zeros", "ones"])
def test_damaged_files_are_named(source, content, tmp_path):
    given, path, rows = SOURCES[source](tmp_path / "made")
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name}.*damaged"):
        PretrainedFeatureExtractor(**given).fit(rows)


def test_images_of_a_module_are_refused_too():
    own = own_images()
    with torch.no_grad():
        next(own.module.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="hold NaN"):
        PretrainedFeatureExtractor(own).fit(IMAGES)
