"""Vision networks of transformers: the output that depends on no random weight, and the processor's own pixels."""

import logging

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.utils import logging as transformers_logging

from sktransfer.backbones.backbone import Origin
from sktransfer.backbones.sources import huggingface
from sktransfer.backbones.sources.huggingface import drop_unused, hub_directory, load_pretrained, quiet_transformers
from sktransfer.backbones.sources.huggingface_vision import load_vision

CPU = torch.device("cpu")
TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 99}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (50, 40, 3), dtype=np.uint8)) for seed in range(2)
]


def save(directory, model):
    """Save a network with random weights and a processor for images of 32 pixels."""
    with quiet_transformers():
        model.save_pretrained(directory)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(directory)
    return directory


def load(directory):
    config = transformers.AutoConfig.from_pretrained(directory)
    return load_vision(Origin(str(directory), kind="image"), directory, config)


def embed(backbone, layers=None):
    inputs = backbone.preparation.collate(backbone.preparation.prepare(IMAGES, 0))
    with torch.no_grad():
        return backbone.embed(inputs, layers=layers, pooling=None, device=CPU, dtype=torch.float32)


def pixels():
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    return processor(images=IMAGES, return_tensors="pt")["pixel_values"]


def make(model_name, config_name, settings):
    torch.manual_seed(1)
    return getattr(transformers, model_name)(getattr(transformers, config_name)(**settings)).eval()


@pytest.mark.parametrize(
    ("model_name", "config_name", "settings"),
    [
        ("ViTModel", "ViTConfig", TINY),
        ("Dinov2Model", "Dinov2Config", TINY),
        ("DINOv3ViTModel", "DINOv3ViTConfig", TINY),
        ("SwinModel", "SwinConfig", SWIN),
        ("ConvNextModel", "ConvNextConfig", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}),
        ("ResNetModel", "ResNetConfig", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    ],
)
def test_embedding_is_the_pooled_output_where_its_weights_are_complete(tmp_path, model_name, config_name, settings):
    model = make(model_name, config_name, settings)
    backbone = load(save(tmp_path, model))
    with torch.no_grad():
        expected = model(pixel_values=pixels()).pooler_output.flatten(1)
    vectors = embed(backbone)
    torch.testing.assert_close(vectors, expected)
    assert backbone.card.dimension == vectors.shape[1]
    assert embed(backbone, layers=[-1]).ndim == 2


def test_random_pooler_is_passed_over_for_the_class_token(tmp_path):
    model = make("ViTForImageClassification", "ViTConfig", TINY)
    save(tmp_path, model)
    first, second = load(tmp_path), load(tmp_path)
    with torch.no_grad():
        expected = model.vit(pixel_values=pixels()).last_hidden_state[:, 0]
    torch.testing.assert_close(embed(first), expected)
    assert torch.equal(embed(first), embed(second))
    assert first.fingerprint == second.fingerprint
    assert first.pooling == "cls"


def test_without_pooler_and_class_token_positions_are_averaged(tmp_path):
    settings = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    model = make("PoolFormerModel", "PoolFormerConfig", settings)
    backbone = load(save(tmp_path, model))
    with torch.no_grad():
        expected = model(pixel_values=pixels()).last_hidden_state.mean((2, 3))
    torch.testing.assert_close(embed(backbone), expected)


def test_image_half_of_clip_gives_projected_embeddings(tmp_path):
    model = make("CLIPModel", "CLIPConfig", {"vision_config": TINY, "text_config": TEXT, "projection_dim": 12})
    backbone = load(save(tmp_path, model))
    with torch.no_grad():
        hidden = model.vision_model(pixel_values=pixels()).pooler_output
        expected = model.visual_projection(hidden)
    torch.testing.assert_close(embed(backbone), expected)
    assert backbone.card.dimension == 12


def test_image_half_of_siglip_gives_the_pooled_output(tmp_path):
    model = make("SiglipModel", "SiglipConfig", {"vision_config": TINY, "text_config": TEXT})
    backbone = load(save(tmp_path, model))
    with torch.no_grad():
        expected = model.vision_model(pixel_values=pixels()).pooler_output
    torch.testing.assert_close(embed(backbone), expected)


def test_networks_of_several_parts_that_cannot_be_taken_apart_are_refused(tmp_path):
    config = transformers.BlipConfig(vision_config=TINY, text_config=TEXT)
    with pytest.raises(ValueError, match="'blip'.*possible for clip, metaclip_2, siglip"):
        load_vision(Origin("mine"), tmp_path, config)


def test_pixels_equal_the_processors(tmp_path):
    backbone = load(save(tmp_path, make("Dinov2Model", "Dinov2Config", TINY)))
    torch.testing.assert_close(torch.stack(backbone.preparation.prepare(IMAGES, 0)), pixels(), rtol=0, atol=1e-6)


def test_fingerprint_follows_weights_and_processor(tmp_path):
    model = make("Dinov2Model", "Dinov2Config", TINY)
    first = load(save(tmp_path, model)).fingerprint
    assert load(tmp_path).fingerprint == first
    with quiet_transformers():
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_rescale=False).save_pretrained(tmp_path)
    other_pixels = load(tmp_path).fingerprint
    model.layernorm.weight.data += 1
    other_weights = load(save(tmp_path, model)).fingerprint
    assert len({first, other_pixels, other_weights}) == 3


def test_half_precision_checkpoints_are_loaded_in_float32(tmp_path):
    backbone = load(save(tmp_path, make("Dinov2Model", "Dinov2Config", TINY).to(torch.bfloat16)))
    assert {parameter.dtype for parameter in backbone.snapshot().parameters()} == {torch.float32}


def test_networks_that_draw_random_numbers_are_refused(tmp_path):
    settings = {**TINY, "decoder_hidden_size": 16, "decoder_num_attention_heads": 2}
    save(tmp_path, make("ViTMAEModel", "ViTMAEConfig", settings))
    with pytest.raises(ValueError, match="draws random numbers"):
        load(tmp_path)


def test_missing_processor_says_what_to_save(tmp_path):
    save(tmp_path, make("Dinov2Model", "Dinov2Config", TINY))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="processor.save_pretrained"):
        load(tmp_path)


def test_tensors_that_the_output_needs_must_be_there(tmp_path):
    model = make("Dinov2Model", "Dinov2Config", TINY)
    tensors = {name: value for name, value in model.state_dict().items() if "layer.1.norm1" not in name}
    with quiet_transformers():
        save(tmp_path, model)
        model.save_pretrained(tmp_path, state_dict=tensors)
    with pytest.raises(ValueError, match="lack tensors that the network computes with: encoder.layer.1.norm1.bias"):
        load(tmp_path)


def test_weights_of_another_configuration_are_refused(tmp_path):
    save(tmp_path, make("Dinov2Model", "Dinov2Config", TINY))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.hidden_size = 32
    with pytest.raises(ValueError, match=r"differ in shape, among them .*\(1, 1, 16\) in the weights"):
        load_pretrained(transformers.AutoModel, tmp_path, config)


def test_pickled_weights_that_would_run_code_are_not_executed(tmp_path):
    trace = tmp_path / "trace"

    class Payload:
        def __reduce__(self):
            return type(trace).touch, (trace,)

    save(tmp_path, make("Dinov2Model", "Dinov2Config", TINY))
    (tmp_path / "model.safetensors").unlink()
    torch.save({"layernorm.weight": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could run code"):
        load(tmp_path)
    assert not trace.exists()


def test_truncated_and_missing_weights_are_told_apart(tmp_path):
    weights = save(tmp_path, make("Dinov2Model", "Dinov2Config", TINY)) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(OSError, match="no file named model.safetensors"):
        load(tmp_path)


def test_loading_prints_nothing_and_restores_what_it_silences(tmp_path, capfd):
    save(tmp_path, make("ViTForImageClassification", "ViTConfig", TINY))
    logger = logging.getLogger("transformers")
    level, hook, state = logger.level, transformers_logging._tqdm_hook, torch.get_rng_state()
    capfd.readouterr()
    load(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert (logger.level, transformers_logging._tqdm_hook) == (level, hook)
    assert torch.equal(torch.get_rng_state(), state)


def test_missing_tensors_without_influence_become_zero():
    network = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 2), "unused": torch.nn.Linear(2, 2)})
    tensors = drop_unused(network, {"unused.weight", "unused.bias"}, lambda network: network["used"](torch.ones(1, 2)))
    assert set(tensors) == {"used.weight", "used.bias"}
    assert not network["unused"].weight.any()


class TestHub:
    """The way from a name to a directory, with a made-up cache and no network."""

    NAME = "someone/tiny"

    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(huggingface, "_probe", self.refuse)
        folder = tmp_path / "models--someone--tiny"
        snapshot = folder / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        return snapshot

    @staticmethod
    def refuse():
        raise OSError("no network in tests")

    def test_name_that_is_nowhere_says_what_to_do(self, cache):
        with pytest.raises(OSError, match="hf download someone/other --local-dir other.*backbone='path/to/other'"):
            hub_directory("someone/other")

    def test_complete_snapshot_is_used_without_asking_the_hub(self, cache, monkeypatch):
        asked = []
        monkeypatch.setattr(huggingface, "_probe", lambda: asked.append(1))
        for file in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
            (cache / file).write_text("{}")
        absent = cache.parents[1] / ".no_exist" / "abc"
        absent.mkdir(parents=True)
        (absent / "modules.json").touch()
        assert hub_directory(self.NAME) == cache
        assert not asked

    def test_snapshot_that_may_lack_a_file_is_completed_or_used_as_it_is(self, cache, monkeypatch):
        for file in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"):
            (cache / file).write_text("{}")
        assert hub_directory(self.NAME) == cache  # the hub can't be reached: better this than nothing
        monkeypatch.setattr(huggingface, "_probe", lambda: None)
        monkeypatch.setattr(huggingface, "_download", lambda name: cache / "completed")
        assert hub_directory(self.NAME) == cache / "completed"

    def test_files_for_other_software_are_not_downloaded(self):
        files = [
            "config.json", "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "tf_model.h5",
            "onnx/model.onnx", "onnx/config.json", "1_Pooling/config.json", "2_Dense/pytorch_model.bin", "README.md",
            "tokenizer.json",
        ]  # fmt: skip
        assert huggingface._wanted(files) == [
            "1_Pooling/config.json", "2_Dense/pytorch_model.bin", "config.json", "model.safetensors", "tokenizer.json",
        ]  # fmt: skip

    def test_shards_and_their_index_are_taken_together(self):
        files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
        assert huggingface._wanted(files) == files

    def test_bad_name_is_told_from_a_missing_model(self):
        with pytest.raises(ValueError, match="can't be the name of a model"):
            hub_directory("a/b/c")
