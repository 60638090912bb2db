"""Directories that transformers writes today of text networks that are, or were, one half of two."""

import json

import numpy as np
import pytest
import torch
import transformers
from support.networks import tiny_tokenizer

from sktransfer import PretrainedFeatureExtractor

TEXTS = ["how do i reset my card", "thanks", "the delivery was late again"]
_T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
_GEMMA = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
SETTINGS = {
    "T5": _T5,
    "MT5": _T5,
    "UMT5": _T5,
    "LongT5": _T5,
    "SwitchTransformers": {**_T5, "num_experts": 2},
    "T5Gemma": {"vocab_size": 40, "encoder": _GEMMA, "decoder": _GEMMA},
    "Bart": {
        "vocab_size": 40,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
    },
    "Funnel": {"vocab_size": 40, "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24, "block_sizes": [1, 1]},
}


def save(directory, name, suffix, **settings):
    """Save a network and a tokenizer; return the network."""
    config = getattr(transformers, f"{name}Config")(**SETTINGS[name], **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, name + suffix)(config).eval()
    model.save_pretrained(directory)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer(), pad_token="[PAD]")
    tokenizer.save_pretrained(directory)
    return model


def means_of(network):
    """Mean over the tokens of each text, one text at a time."""
    with torch.no_grad():
        outputs = [network(torch.tensor([tiny_tokenizer().encode(text).ids]))[0] for text in TEXTS]
    return np.stack([output[0].mean(0).numpy() for output in outputs])


def check(directory, network, **params):
    found = PretrainedFeatureExtractor(directory, cache=None, **params).fit_transform(TEXTS)
    np.testing.assert_allclose(found, means_of(network), atol=1e-5)


@pytest.mark.parametrize("name", ["T5", "MT5", "UMT5", "LongT5", "SwitchTransformers", "T5Gemma"])
def test_a_saved_encoder_gives_its_own_output(tmp_path, name):
    settings = {"is_encoder_decoder": False} if name == "T5Gemma" else {}
    check(tmp_path, save(tmp_path, name, "EncoderModel", **settings))


def test_an_encoder_saved_by_an_older_transformers_gives_the_same(tmp_path):
    model = save(tmp_path, "T5", "EncoderModel")
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    assert config["is_encoder_decoder"] is False
    file.write_text(json.dumps(config | {"is_encoder_decoder": True}))
    check(tmp_path, model)


@pytest.mark.parametrize(
    "name, suffix", [("T5", "Model"), ("T5", "ForConditionalGeneration"), ("T5Gemma", "Model"), ("Bart", "Model")]
)
def test_of_an_encoder_and_a_decoder_the_encoder_is_read(tmp_path, name, suffix):
    check(tmp_path, save(tmp_path, name, suffix).get_encoder())


def test_both_forms_of_an_encoder_have_the_same_stages(tmp_path):
    save(tmp_path / "half", "T5", "EncoderModel")
    save(tmp_path / "whole", "T5", "Model")
    half, whole = (
        [stage.name for stage in PretrainedFeatureExtractor(tmp_path / form).fit(TEXTS).backbone_.stages]
        for form in ("half", "whole")
    )
    assert half == whole == ["embed_tokens", "block.0", "block.1"]


def test_a_network_that_reads_with_both_its_parts_is_left_whole(tmp_path):
    # One by one: Funnel pools neighbouring tokens, padding too.
    check(tmp_path, save(tmp_path, "Funnel", "Model"), batch_size=1)


def test_an_encoder_that_sentence_transformers_saved_gives_what_it_gives_there(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    save(tmp_path / "t5", "T5", "EncoderModel")
    model = SentenceTransformer(modules=[Transformer(str(tmp_path / "t5")), Pooling(16)], device="cpu")
    model.save(str(tmp_path / "model"), create_model_card=False)
    found = PretrainedFeatureExtractor(tmp_path / "model", cache=None).fit_transform(TEXTS)
    np.testing.assert_allclose(found, model.encode(TEXTS, convert_to_numpy=True), atol=1e-5)
