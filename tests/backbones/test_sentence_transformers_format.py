"""Directories written by sentence-transformers itself, read here and there."""

import json

import numpy as np
import pytest
import torch
from support.networks import save_tiny_bert

from sktransfer import PretrainedFeatureExtractor

TEXTS = ["how do i reset my card", "", "the delivery was late", "thanks", "a one two three", "THE CARD " * 20]


def modules():
    from sentence_transformers.sentence_transformer import modules

    return modules


def build(tmp_path, *behind, **settings):
    """Save a sentence-transformers model of a tiny BERT and what comes behind it; return it and the directory."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    first = Transformer(str(save_tiny_bert(tmp_path / "bert")), max_seq_length=settings.pop("max_seq_length", 16))
    model = SentenceTransformer(modules=[first, *behind], device="cpu", **settings)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for part in behind:
            for parameter in part.parameters():
                torch.nn.init.normal_(parameter)
    model.save(str(tmp_path / "model"), create_model_card=False)
    return model, tmp_path / "model"


def assert_same(model, directory, **settings):
    expected = model.encode(TEXTS, convert_to_numpy=True)
    found = PretrainedFeatureExtractor(directory, **settings).fit_transform(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "mode", ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean")]
)
def test_pooling_is_honoured(tmp_path, mode):
    assert_same(*build(tmp_path, modules().Pooling(16, pooling_mode=mode)))


def test_dense_layers_and_normalisation_are_honoured(tmp_path):
    from sentence_transformers.base.modules import Dense, Normalize

    parts = (
        modules().Pooling(16),
        Dense(16, 7),
        Dense(7, 5, bias=False, activation_function=torch.nn.Identity()),
        Normalize(),
    )
    model, directory = build(tmp_path, *parts)
    assert_same(model, directory)
    lengths = np.linalg.norm(PretrainedFeatureExtractor(directory).fit_transform(TEXTS), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    lengths = np.linalg.norm(PretrainedFeatureExtractor(directory, normalize=False).fit_transform(TEXTS), axis=1)
    assert (np.abs(lengths - 1) > 0.1).any()


def test_layer_norm_is_honoured(tmp_path):
    assert_same(*build(tmp_path, modules().Pooling(16), modules().LayerNorm(16)))


@pytest.mark.parametrize("length", [5, 20])
def test_maximum_length_is_honoured(tmp_path, length):
    model, directory = build(tmp_path, modules().Pooling(16), max_seq_length=length)
    assert_same(model, directory)
    assert PretrainedFeatureExtractor(directory).fit(TEXTS).backbone_.preparation.max_length == length


def test_default_and_named_prompts_are_honoured(tmp_path):
    prompts = {"query": "how do i ", "document": "the "}
    model, directory = build(tmp_path, modules().Pooling(16), prompts=prompts, default_prompt_name="query")
    assert_same(model, directory)
    found = PretrainedFeatureExtractor(directory, prompt="document").fit_transform(TEXTS)
    np.testing.assert_allclose(found, model.encode(TEXTS, prompt_name="document"), atol=1e-5)
    found = PretrainedFeatureExtractor(directory, prompt="one two ").fit_transform(TEXTS)
    np.testing.assert_allclose(found, model.encode(TEXTS, prompt="one two "), atol=1e-5)


def test_old_directories_with_flags_for_pooling_are_read(tmp_path):
    model, directory = build(tmp_path, modules().Pooling(16, pooling_mode="max"))
    (path,) = directory.glob("*Pooling/config.json")
    path.write_text(json.dumps({"word_embedding_dimension": 16, "pooling_mode_max_tokens": True}))
    assert_same(model, directory)


def test_modules_that_are_not_supported_are_named(tmp_path):
    _, directory = build(tmp_path, modules().Pooling(16))
    listing = json.loads((directory / "modules.json").read_text())
    listing.append({"idx": 2, "name": "2", "path": "2_CNN", "type": "sentence_transformers.models.CNN"})
    (directory / "modules.json").write_text(json.dumps(listing))
    with pytest.raises(ValueError, match="type 'sentence_transformers.models.CNN'.*Supported are Transformer"):
        PretrainedFeatureExtractor(directory).fit(TEXTS)


def test_an_activation_outside_torch_is_not_run(tmp_path):
    from sentence_transformers.base.modules import Dense

    _, directory = build(tmp_path, modules().Pooling(16), Dense(16, 4))
    (path,) = directory.glob("*Dense/config.json")
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"activation_function": "os.system"}))
    with pytest.raises(ValueError, match="'os.system' is not a module of torch.nn"):
        PretrainedFeatureExtractor(directory).fit(TEXTS)
