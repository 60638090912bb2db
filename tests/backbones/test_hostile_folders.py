"""Folders from elsewhere: what is damaged, absurd or reaches outside is an error that names the file and the field."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.networks import save_tiny_bert

from sktransfer import PretrainedFeatureExtractor

TEXTS = ["how do i reset my card", "thanks", "the delivery was late again"]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 40, 36, 3), dtype=np.uint8)
VIT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One good folder of each kind."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    root = tmp_path_factory.mktemp("folders")
    save_tiny_bert(root / "bert")
    first = Transformer(str(root / "bert"))
    model = SentenceTransformer(
        modules=[first, Pooling(16), Dense(16, 5), LayerNorm(5), Normalize()],
        device="cpu",
        prompts={"query": "how: "},
        default_prompt_name="query",
    )
    model.save(str(root / "sentence"), create_model_card=False)
    with torch.random.fork_rng():
        transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=False).save_pretrained(root / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(root / "vit")
    return root


@pytest.fixture
def folder(whole, tmp_path):
    def make(kind):
        return shutil.copytree(whole / kind, tmp_path / kind)

    return make


def fit(directory):
    rows = IMAGES if directory.name == "vit" else TEXTS
    return PretrainedFeatureExtractor(directory, cache=None).fit(rows)


@pytest.mark.parametrize("kind", ["bert", "sentence", "vit"])
def test_the_whole_folders_are_read(folder, kind):
    fit(folder(kind))


def changed(path, fields):
    """Set fields, None to remove one, "a.b" for one inside another."""
    content = json.loads(path.read_text())
    for name, value in fields.items():
        *way, last = name.split(".")
        inner = content
        for part in way:
            inner = inner[int(part) if isinstance(inner, list) else part]
        inner[last] = value
    path.write_text(json.dumps(content))


BERT = [
    ("num_hidden_layers", 0),
    ("num_hidden_layers", -1),
    ("num_hidden_layers", 10**6),
    ("num_hidden_layers", 2.0),
    ("num_hidden_layers", "2"),
    ("num_hidden_layers", True),
    ("num_hidden_layers", [2, "3"]),
    ("hidden_size", 10**9),
    ("vocab_size", 10**12),
    ("intermediate_size", -3),
    ("num_attention_heads", 0),
    ("max_position_embeddings", 10**10),
    ("architectures", {"a": 1}),
    ("model_type", "bertt"),
    ("model_type", 3),
    ("model_type", None),
    ("layer_norm_eps", 10**400),
]


@pytest.mark.parametrize("name, value", BERT, ids=lambda value: str(value)[:20])
def test_absurd_configurations_are_refused_before_anything_is_built(folder, name, value, monkeypatch):
    directory = folder("bert")
    changed(directory / "config.json", {name: value})
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda self: pytest.fail("a network is built"))
    with pytest.raises(ValueError, match=rf"config.json.*'{name}'"):
        fit(directory)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_attention_heads": 3}, "can't be built.*multiple of the number of attention heads"),
        ({"vocab_size": 10**8, "hidden_size": 10**5}, "describes a network of .* parameters, but its weights files"),
        ({"hidden_act": "no such"}, "can't be built"),
        ({"num_hidden_layers": 1}, "belongs to block 1"),
    ],
)
def test_configurations_that_are_not_those_of_the_weights_are_refused(folder, fields, message):
    directory = folder("bert")
    changed(directory / "config.json", fields)
    with pytest.raises(ValueError, match=f"config.json.*{message}"):
        fit(directory)


DAMAGED = {
    "empty": (b"", "is not JSON in UTF-8.*It is empty"),
    "cut": (b'{"a": 1', "is not JSON in UTF-8"),
    "latin": (b'{"a": "\xe9"}', "is not JSON in UTF-8"),
    "wide": ('{"a": 1}'.encode("utf-16"), "is not JSON in UTF-8"),
    "number": (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON in UTF-8"),
    "nan": (b'{"a": [1, NaN]}', "field 'a.1' is NaN"),
    "deep": (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested more than 100 levels"),
    "deeper": (b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "nested more than 100 levels"),
    "twice": (b'{"a": 1, "a": 2}', "gives the field 'a' twice"),
    "list": (b"[1, 2]", "must hold a JSON object"),
    "null": (b"null", "must hold a JSON object"),
}


@pytest.mark.parametrize("file", ["bert/config.json", "bert/tokenizer_config.json", "vit/preprocessor_config.json"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_settings_are_named(folder, file, damage):
    kind, name = file.split("/")
    directory, (content, message) = folder(kind), DAMAGED[damage]
    (directory / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        fit(directory)


@pytest.mark.parametrize("file", ["1_Pooling/config.json", "2_Dense/config.json", "config_sentence_transformers.json"])
@pytest.mark.parametrize("damage", ["cut", "nan", "list", "deep"])
def test_damaged_settings_of_sentence_transformers_are_named(folder, file, damage):
    directory, (content, message) = folder("sentence"), DAMAGED[damage]
    (directory / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file}.*{message}"):
        fit(directory)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{}", "must hold a list of JSON objects"),
        (b"[1]", "must hold a list of JSON objects"),
        (b"[", "is not JSON"),
        (b"[]", "lists no modules"),
    ],
)
def test_damaged_lists_of_modules_are_named(folder, content, message):
    directory = folder("sentence")
    (directory / "modules.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"modules.json.*{message}"):
        fit(directory)


SENTENCE = [
    ("modules.json", "1.path", "../outside", r"'\[1\].path' must be a path inside its folder"),
    ("modules.json", "1.path", "/etc", r"'\[1\].path' must be a path inside its folder"),
    ("modules.json", "1.path", "C:\\outside", r"'\[1\].path' must be a path inside its folder"),
    ("modules.json", "0.path", "a/../../outside", r"'\[0\].path' must be a path inside its folder"),
    ("modules.json", "1.path", ["1_Pooling"], r"'\[1\].path' must be a string"),
    ("modules.json", "1.path", "missing", r"'\[1\].path' must be a folder"),
    ("modules.json", "1.type", 3, r"'\[1\].type' must be a string"),
    ("modules.json", "1.type", "mine.Module", "holds a module of type 'mine.Module'"),
    ("modules.json", "1.idx", "1", r"'\[1\].idx' must be 1"),
    ("modules.json", "1.idx", 4, r"'\[1\].idx' must be 1"),
    ("modules.json", "0.type", "sentence_transformers.models.Pooling", "must be a Transformer first"),
    ("1_Pooling/config.json", "pooling_mode", "median", "'pooling_mode' must be one or several of .*mean"),
    ("1_Pooling/config.json", "pooling_mode", {"mean": True}, "'pooling_mode' must be a string or a list"),
    ("1_Pooling/config.json", "pooling_mode", [], "'pooling_mode' must be one or several of .*mean"),
    ("1_Pooling/config.json", "include_prompt", "no", "'include_prompt' must be true or false"),
    ("2_Dense/config.json", "in_features", -16, "'in_features' must be a whole number of at least 1"),
    ("2_Dense/config.json", "in_features", 10**12, "'in_features' must be a whole number .* at most"),
    ("2_Dense/config.json", "in_features", 8, "'linear.weight' has the shape"),
    ("2_Dense/config.json", "out_features", None, "'out_features' must be a whole number"),
    ("2_Dense/config.json", "bias", "yes", "'bias' must be true or false"),
    ("2_Dense/config.json", "activation_function", "os.system", "'activation_function' must name"),
    ("2_Dense/config.json", "activation_function", "torch.nn.Threshold", "'activation_function' must"),
    ("2_Dense/config.json", "activation_function", "torch.nn.Linear", "'activation_function' must"),
    ("3_LayerNorm/config.json", "dimension", [5], "'dimension' must be a whole number"),
    ("sentence_bert_config.json", "max_seq_length", -4, "'max_seq_length' must be a whole number of at least 1"),
    ("sentence_bert_config.json", "max_seq_length", "many", "'max_seq_length' must be a whole number"),
    ("sentence_bert_config.json", "do_lower_case", [1], "'do_lower_case' must be true or false"),
    ("config_sentence_transformers.json", "prompts", ["how: "], "'prompts' must be an object"),
    ("config_sentence_transformers.json", "prompts.query", 3, "'prompts.query' must be a string"),
    ("config_sentence_transformers.json", "default_prompt_name", "none", "must be one of the prompts"),
]


@pytest.mark.parametrize("file, name, value, message", SENTENCE, ids=lambda value: str(value)[:30])
def test_fields_of_sentence_transformers_are_checked(folder, file, name, value, message):
    directory = folder("sentence")
    if not (directory / file).exists():
        (directory / file).write_text("{}")
    changed(directory / file, {name: value})
    with pytest.raises(ValueError, match=f"{file.split('/')[0]}.*{message}" if "mine" not in message else message):
        fit(directory)


PROCESSOR = [
    ("size", {"height": -32, "width": 32}),
    ("size", {"height": 10**9, "width": 10**9}),
    ("size", "large"),
    ("image_mean", [0.5, 0.5]),
    ("image_mean", ["a", "b", "c"]),
    ("image_std", [0.5, 0.0, 0.5]),
    ("image_std", -1.0),
    ("rescale_factor", 0),
    ("do_resize", "yes"),
]


@pytest.mark.parametrize("name, value", PROCESSOR, ids=str)
def test_settings_of_an_image_processor_are_checked(folder, name, value, monkeypatch):
    directory = folder("vit")
    changed(directory / "preprocessor_config.json", {name: value})
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda self: pytest.fail("a network is built"))
    with pytest.raises(ValueError, match=f"preprocessor_config.json.*'{name}"):
        fit(directory)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"model": {"type": "WordLevel", "vocab": [1]}}', b'{"model": 3}']
)
def test_a_broken_tokenizer_is_an_error_that_names_the_folder(folder, content):
    directory = folder("bert")
    (directory / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match="no usable tokenizer in '.*bert'"):
        fit(directory)


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/tmp/outside.safetensors", "a/../../b.safetensors", 3, "gone"]
)
@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_an_index_stays_in_its_folder(folder, name, kind):
    directory = folder("bert")
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").rename(directory.parent / "outside.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(tensors, name)}
    (directory / f"{kind}.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"{kind}.index.json.*'weight_map\..*' must be"):
        fit(directory)


def test_an_index_of_files_in_its_folder_is_read(folder):
    directory = folder("bert")
    expected = fit(directory).transform(TEXTS)
    model = transformers.BertModel.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory, max_shard_size="4KB")
    assert (directory / "model.safetensors.index.json").exists()
    np.testing.assert_allclose(fit(directory).transform(TEXTS), expected, atol=1e-6)


def test_code_of_a_folder_is_not_run(folder):
    directory = folder("bert")
    (directory / "mine.py").write_text("raise SystemExit('code of the folder is run')")
    changed(directory / "config.json", {"model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}})
    with pytest.raises(
        ValueError, match=r"config.json.*'model_type'.*'auto_map'.*Code that comes with a model is never run"
    ):
        fit(directory)


def test_an_adapter_leads_nowhere(folder):
    directory = folder("bert")
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "somebody/else"}))
    with pytest.raises(ValueError, match="adapter_config.json.*nothing outside"):
        fit(directory)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json"]
)
def test_a_pipe_is_no_file(folder, name):
    directory = folder("bert")
    (directory / name).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    with pytest.raises((OSError, ValueError), match=f"{name}|config.json nor"):
        fit(directory)


@pytest.mark.parametrize("kept", [(), ("config.json",), ("config.json", "tokenizer.json", "tokenizer_config.json")])
def test_folders_that_lack_files_say_so(folder, kept):
    directory = folder("bert")
    for path in directory.iterdir():
        if path.name not in kept:
            path.unlink()
    with pytest.raises((OSError, ValueError), match="bert"):
        fit(directory)


def test_a_folder_in_the_place_of_a_file_is_an_error(folder):
    for name in ("config.json", "model.safetensors"):
        directory = folder("bert")
        (directory / name).unlink()
        (directory / name).mkdir()
        with pytest.raises((OSError, ValueError), match=r"config.json|model.safetensors"):
            fit(directory)
        shutil.rmtree(directory)
