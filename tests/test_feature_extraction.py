import copy
import logging
import pickle
import threading

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from support.networks import TinyImage, TinyText, save_tiny_bert, seeded, tiny_tokenizer
from torch import nn

import sktransfer
from sktransfer import ModuleBackbone, PretrainedFeatureExtractor, cache_info
from sktransfer.backbones.backbone import Backbone


@pytest.fixture
def bert(tmp_path):
    return save_tiny_bert(tmp_path / "bert")


@pytest.fixture
def text_module():
    TinyText.rows_seen = 0
    return ModuleBackbone(seeded(TinyText), modality="text", preparation=tiny_tokenizer())


@pytest.fixture
def image_module():
    TinyImage.rows_seen = 0
    return seeded(TinyImage)


# What comes out


def test_embeddings_are_float32_in_the_order_of_the_rows(bert, texts):
    extractor = PretrainedFeatureExtractor(bert)
    E = extractor.fit_transform(texts)
    assert E.dtype == np.float32
    assert E.shape == (len(texts), 16)
    for order in (slice(None, None, -1), [3, 3, 0, 6]):
        rows = np.array(texts, dtype=object)[order]
        np.testing.assert_array_equal(extractor.transform(rows), E[order])


@pytest.mark.parametrize("batch_size", ["auto", 1, 3])
def test_batch_mates_and_padding_do_not_matter(bert, texts, batch_size):
    E = PretrainedFeatureExtractor(bert, cache=None).fit_transform(texts)
    other = PretrainedFeatureExtractor(bert, cache=None, batch_size=batch_size).fit(texts)
    np.testing.assert_allclose(other.transform(texts[::-1])[::-1], E, atol=1e-5)
    for row, expected in zip(texts, E, strict=True):
        np.testing.assert_allclose(other.transform([row])[0], expected, atol=1e-5)


def test_embeddings_equal_those_of_transformers(bert, texts):
    from transformers import BertModel

    model = BertModel.from_pretrained(bert)
    extractor = PretrainedFeatureExtractor(bert, pooling="cls").fit(texts)
    for text, found in zip(texts, extractor.transform(texts), strict=True):
        ids = torch.tensor([tiny_tokenizer().encode(text).ids[:31] + [3]])[:, :32]
        if len(ids[0]) < 32:
            ids = torch.tensor([tiny_tokenizer().encode(text).ids])
        with torch.no_grad():
            expected = model(ids).last_hidden_state[0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_images_equal_a_plain_loop_over_the_module(image_module, images):
    found = PretrainedFeatureExtractor(image_module).fit_transform(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = copy.deepcopy(image_module).eval()(pixels).mean((2, 3))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_layers_are_outputs_of_stages_and_a_list_is_concatenated(bert, texts):
    from transformers import BertModel

    def embed(layer):
        return PretrainedFeatureExtractor(bert, layer=layer).fit_transform(texts[:1])

    ids = torch.tensor([tiny_tokenizer().encode(texts[0]).ids])
    with torch.no_grad():
        states = BertModel.from_pretrained(bert)(ids, output_hidden_states=True).hidden_states
    for layer in range(3):
        np.testing.assert_allclose(embed(layer)[0], states[layer][0].mean(0), atol=1e-5)
    np.testing.assert_array_equal(embed(-1), embed(2))
    np.testing.assert_array_equal(embed("encoder.layer.0"), embed(1))
    np.testing.assert_array_equal(embed([2, 0]), np.hstack([embed(2), embed(0)]))


def test_a_grid_over_layers_runs(bert, texts):
    model = make_pipeline(PretrainedFeatureExtractor(bert), LogisticRegression())
    grid = {"pretrainedfeatureextractor__layer": [None, 0, -1, [0, 1]]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(texts * 4, [0, 1, 0, 1, 0, 1, 0] * 4)
    assert len(search.cv_results_["mean_test_score"]) == 4


def test_truncation_comes_before_normalisation(bert, texts):
    whole = PretrainedFeatureExtractor(bert).fit_transform(texts)
    cut = PretrainedFeatureExtractor(bert, truncate_dim=5, normalize=True).fit_transform(texts)
    np.testing.assert_allclose(cut, whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True), atol=1e-6)


def test_half_precision_is_near_and_comes_out_as_float32(bert, texts):
    exact = PretrainedFeatureExtractor(bert).fit_transform(texts)
    fast = PretrainedFeatureExtractor(bert, precision="bfloat16").fit_transform(texts)
    assert fast.dtype == np.float32
    assert 0 < np.abs(exact - fast).max() < 0.1


def fixed_size():
    """A network that reads 12 x 10 pixels and nothing else."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(480, 7), nn.ReLU(), nn.Linear(7, 3)
    )


@pytest.mark.parametrize("layer", [None, 0, -1])
def test_a_module_reads_the_size_that_it_is_fitted_on(images, layer):
    module = seeded(fixed_size)
    extractor = PretrainedFeatureExtractor(module, layer=layer)
    E = extractor.fit_transform(images)
    as_pictures = [Image.fromarray(image) for image in images]
    np.testing.assert_array_equal(extractor.fit(as_pictures).transform(as_pictures), E)
    larger = as_pictures[0].resize((30, 36))
    assert extractor.transform([larger]).shape == (1, E.shape[1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor)).transform(images), E)


def test_a_module_that_cannot_read_the_images_says_how_to_prepare_them(images):
    with pytest.raises(ValueError, match=r"failed on an input of shape \(1, 3, 12, 9\).*preparation="):
        PretrainedFeatureExtractor(seeded(fixed_size)).fit(images[:, :, :9])


# Once per row


def test_a_search_loads_once_and_encodes_every_row_once(text_module, texts, monkeypatch):
    loads = []
    snapshot = sktransfer.backbones.sources.modules.snapshot
    monkeypatch.setattr(
        "sktransfer.backbones.sources.modules.snapshot", lambda module: loads.append(1) or snapshot(module)
    )
    X = [f"card {' one' * (i % 7)} {'two ' * (i // 7)}" for i in range(60)]
    assert len(set(X)) == 60
    model = make_pipeline(PretrainedFeatureExtractor(text_module), LogisticRegression())
    search = GridSearchCV(model, {"logisticregression__C": [0.1, 1, 10, 100]}, cv=5)
    search.fit(X, np.arange(60) % 2)
    assert len(loads) == 1
    assert TinyText.rows_seen == 60
    assert cache_info().misses == cache_info().rows == 60


def test_repeated_rows_are_encoded_once_even_without_cache(text_module):
    extractor = PretrainedFeatureExtractor(text_module, cache=None).fit(["a"])
    TinyText.rows_seen = 0
    E = extractor.transform(["card", "pin", "card", "card"])
    assert TinyText.rows_seen == 2
    np.testing.assert_array_equal(E[0], E[3])


def test_threads_do_not_encode_the_same_rows_twice(text_module):
    extractor = PretrainedFeatureExtractor(text_module).fit(["a"])
    TinyText.rows_seen = 0
    X = ["one " * i for i in range(40)]
    threads = [threading.Thread(target=extractor.transform, args=(X,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert TinyText.rows_seen == 40


def test_results_are_right_above_the_caches_limit(text_module, texts):
    expected = PretrainedFeatureExtractor(text_module, cache=None).fit_transform(texts)
    sktransfer.set_cache_limit(800)
    extractor = PretrainedFeatureExtractor(text_module).fit(texts)
    for _ in range(3):
        np.testing.assert_allclose(extractor.transform(texts), expected, atol=1e-6)
    assert cache_info().n_bytes <= 800


def test_interrupted_work_is_kept(text_module, texts, monkeypatch):
    extractor = PretrainedFeatureExtractor(text_module, batch_size=1).fit(texts)
    embed, calls = Backbone.embed, []

    def interrupt(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return embed(self, *args, **kwargs)

    # Not in the network's own code: another forward would be another network.
    monkeypatch.setattr(Backbone, "embed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        extractor.transform(texts)
    assert cache_info().rows >= 3
    monkeypatch.setattr(Backbone, "embed", embed)
    before = TinyText.rows_seen
    extractor.transform(texts)
    assert TinyText.rows_seen - before == len(set(texts)) - 4


# Never a stale row


def test_a_changed_weight_gives_new_embeddings(image_module, images):
    extractor = PretrainedFeatureExtractor(image_module)
    before = extractor.fit_transform(images)
    with torch.no_grad():
        image_module.first[0].weight.mul_(2)
    np.testing.assert_array_equal(extractor.transform(images), before, "a fitted extractor keeps its snapshot")
    assert np.abs(clone(extractor).fit_transform(images) - before).max() > 1e-3


def test_a_model_saved_anew_in_the_same_directory_gives_new_embeddings(tmp_path, texts):
    before = PretrainedFeatureExtractor(save_tiny_bert(tmp_path)).fit_transform(texts)
    after = PretrainedFeatureExtractor(save_tiny_bert(tmp_path, seed=1)).fit_transform(texts)
    assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize(
    "change",
    [
        {"layer": 0},
        {"pooling": "max"},
        {"pooling": ["mean", "max"]},
        {"normalize": True},
        {"max_length": 4},
        {"prompt": "one two "},
        {"truncate_dim": 3},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_every_parameter_that_matters_is_in_the_key(bert, texts, change):
    extractor = PretrainedFeatureExtractor(bert)
    before = extractor.fit_transform(texts)
    extractor.set_params(**change)
    with_cache = extractor.fit(texts).transform(texts)
    tolerance = 1e-6 if extractor.precision == "float32" else 1e-2
    without_cache = extractor.set_params(cache=None).fit(texts).transform(texts)
    np.testing.assert_allclose(with_cache, without_cache, atol=tolerance)
    assert with_cache.shape != before.shape or np.abs(with_cache - before).max() > 1e-6


def test_another_backbone_after_a_refit_is_used(bert, texts, tmp_path):
    extractor = PretrainedFeatureExtractor(bert).fit(texts)
    other = save_tiny_bert(tmp_path / "other", seed=3, hidden_size=8)
    E = extractor.set_params(backbone=other).fit(texts).transform(texts)
    np.testing.assert_array_equal(E, PretrainedFeatureExtractor(other).fit_transform(texts))
    assert len(extractor.get_feature_names_out()) == 8


# The caller's things


@pytest.mark.parametrize("training", [True, False])
def test_the_callers_module_is_untouched(image_module, images, training):
    image_module.train(training)
    image_module.first[0].weight.requires_grad_(False)
    before = copy.deepcopy(image_module.state_dict())
    flags = [parameter.requires_grad for parameter in image_module.parameters()]
    extractor = PretrainedFeatureExtractor(image_module).fit(images)
    extractor.transform(images)
    assert image_module.training is training
    assert [parameter.requires_grad for parameter in image_module.parameters()] == flags
    for name, tensor in image_module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not image_module.first[0]._forward_hooks


def test_batch_norm_and_dropout_are_frozen(image_module, images):
    extractor = PretrainedFeatureExtractor(image_module.train(), cache=None).fit(images)
    first = extractor.transform(images)
    np.testing.assert_array_equal(first, extractor.transform(images))
    statistics = extractor.backbone_.snapshot().first[1].running_mean
    assert torch.equal(statistics, image_module.first[1].running_mean)


def global_state():
    import random
    import warnings

    import transformers

    return {
        "python": random.getstate(),
        "numpy": tuple(map(str, np.random.get_state())),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "sklearn": sklearn.get_config(),
        "loggers": {
            name: logging.getLogger(name).level for name in ("", "transformers", "torch", "PIL", "huggingface_hub")
        },
        "bars": transformers.utils.logging.is_progress_bar_enabled(),
        "filters": list(warnings.filters),
    }


@pytest.mark.parametrize("rows", ["texts", "images"])
def test_global_state_is_untouched(request, rows, tmp_path):
    X = request.getfixturevalue(rows)
    backbones = (
        ["auto", save_tiny_bert(tmp_path, model_class="BertForMaskedLM")] if rows == "texts" else ["auto", TinyImage()]
    )
    for backbone in backbones:
        before = global_state()
        PretrainedFeatureExtractor(backbone, layer=-1).fit_transform(X)
        after = global_state()
        for name in before:
            assert before[name] == after[name], name


def test_loading_prints_nothing(bert, texts, capfd):
    PretrainedFeatureExtractor(bert).fit(texts)
    assert capfd.readouterr() == ("", "")


def test_verbose_shows_a_bar(bert, texts, capfd):
    PretrainedFeatureExtractor(bert, verbose=1).fit_transform(texts)
    assert "100%" in capfd.readouterr().err


# As a part of scikit-learn


def test_clones_share_the_callers_module(image_module):
    assert clone(PretrainedFeatureExtractor(image_module)).backbone is image_module
    wrapped = ModuleBackbone(image_module)
    assert clone(PretrainedFeatureExtractor(wrapped)).backbone is wrapped
    assert clone(PretrainedFeatureExtractor("auto", layer=[1, 2])).layer == [1, 2]


def test_ten_extractors_hold_one_network(bert, texts, image_module, images):
    for backbone, X in ((bert, texts), (image_module, images)):
        handles = {id(PretrainedFeatureExtractor(backbone).fit(X).backbone_) for _ in range(10)}
        assert len(handles) == 1
    by_modality = [PretrainedFeatureExtractor(bert, modality=m).fit(texts).backbone_ for m in ("auto", "text")]
    assert by_modality[0]._network is by_modality[1]._network


def test_equal_networks_of_two_directories_share_weights_but_not_their_origin(tmp_path, texts):
    first, second = (
        PretrainedFeatureExtractor(save_tiny_bert(tmp_path / name)).fit(texts).backbone_ for name in ("one", "two")
    )
    assert first._network is second._network
    assert (first.origin.name, second.origin.name) == (str(tmp_path / "one"), str(tmp_path / "two"))


def test_column_transformer_with_texts_images_and_numbers(tmp_path, bert, image_module, images):
    paths = []
    for i, image in enumerate(images):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    for frame in (pd.DataFrame, pl.DataFrame):
        X = frame({"text": ["card"] * 3 + ["pin"] * 3, "photo": paths, "number": [1.0, 2, 3, 4, 5, 6]})
        model = ColumnTransformer(
            [
                ("words", PretrainedFeatureExtractor(bert), "text"),
                ("column", PretrainedFeatureExtractor(bert), ["text"]),
                ("photos", PretrainedFeatureExtractor(image_module), "photo"),
                ("numbers", StandardScaler(), ["number"]),
            ]
        )
        out = model.fit_transform(X)
        assert out.shape == (6, 16 + 16 + 5 + 1)
        np.testing.assert_array_equal(out[:, :16], out[:, 16:32])
        assert model.get_feature_names_out()[0] == "words__pretrainedfeatureextractor0"
        assert model.set_output(transform="pandas").fit_transform(X).shape == (6, 38)


def test_set_output_and_feature_names(bert, texts):
    extractor = PretrainedFeatureExtractor(bert).fit(texts)
    names = extractor.get_feature_names_out()
    assert list(names[:2]) == ["pretrainedfeatureextractor0", "pretrainedfeatureextractor1"]
    X = pd.DataFrame({"text": texts}, index=range(10, 10 + len(texts)))
    out = extractor.set_output(transform="pandas").fit_transform(X)
    assert list(out.columns) == list(names)
    assert list(out.index) == list(X.index)
    assert isinstance(extractor.set_output(transform="polars").transform(X), pl.DataFrame)
    assert list(extractor.feature_names_in_) == ["text"]
    assert extractor.n_features_in_ == 1


def test_another_column_than_at_fit_is_an_error(bert, texts):
    extractor = PretrainedFeatureExtractor(bert).fit(pd.DataFrame({"text": texts}))
    with pytest.raises(ValueError, match="feature names"):
        extractor.transform(pd.DataFrame({"title": texts}))
    assert not hasattr(extractor.fit(texts), "feature_names_in_")


def test_feature_union_and_cross_validation(bert, texts):
    union = FeatureUnion(
        [("first", PretrainedFeatureExtractor(bert, layer=0)), ("last", PretrainedFeatureExtractor(bert))]
    )
    assert union.fit_transform(texts).shape == (len(texts), 32)
    y = [0, 1, 0, 1, 0, 1, 0] * 3
    for X in (texts * 3, pd.Series(texts * 3, dtype="string[pyarrow]"), pd.Series(texts * 3)):
        assert len(cross_val_score(make_pipeline(union, LogisticRegression()), X, y, cv=3, error_score="raise")) == 3


def test_metadata_routing_passes_by(bert, texts):
    with sklearn.config_context(enable_metadata_routing=True):
        model = make_pipeline(
            PretrainedFeatureExtractor(bert), LogisticRegression().set_fit_request(sample_weight=True)
        )
        model.fit(texts, [0, 1, 0, 1, 0, 1, 0], sample_weight=np.ones(7))
        routing = PretrainedFeatureExtractor().get_metadata_routing()
    assert not any(getattr(routing, method).requests for method in ("fit", "transform"))


def test_html_shows_the_parameters(bert, texts):
    extractor = PretrainedFeatureExtractor(bert, layer=1)
    assert "layer" in extractor._repr_html_()
    assert "PretrainedFeatureExtractor" in extractor.fit(texts)._repr_html_()


def test_unfitted_is_an_error(texts):
    with pytest.raises(NotFittedError):
        PretrainedFeatureExtractor().transform(texts)
    with pytest.raises(NotFittedError):
        PretrainedFeatureExtractor().get_feature_names_out()


def test_a_fitted_extractor_is_a_backbone(image_module, images):
    first = PretrainedFeatureExtractor(image_module).fit(images)
    second = PretrainedFeatureExtractor(first, layer=0).fit(images)
    assert second.backbone_ is first.backbone_
    with pytest.raises(NotFittedError):
        PretrainedFeatureExtractor(PretrainedFeatureExtractor()).fit(images)


# Pickles


def test_a_pickle_of_a_directory_is_light_and_gives_the_same(bert, texts, tmp_path):
    extractor = PretrainedFeatureExtractor(bert).fit(texts)
    E = extractor.transform(texts)
    content = pickle.dumps(extractor)
    assert len(content) < 5000 < (bert / "model.safetensors").stat().st_size
    np.testing.assert_array_equal(pickle.loads(content).transform(texts), E)
    joblib.dump(extractor, tmp_path / "model.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").transform(texts), E)


def test_a_pickle_of_a_module_holds_its_weights(image_module, images):
    sktransfer.unload_backbones()
    extractor = PretrainedFeatureExtractor(image_module, cache=None).fit(images)
    E = extractor.transform(images)
    content = pickle.dumps(extractor)
    del extractor
    sktransfer.unload_backbones()
    # Not to the last bit: the first batch of a network runs before its batch norms are folded.
    np.testing.assert_allclose(pickle.loads(content).transform(images), E, rtol=0, atol=1e-6)


def test_a_pickle_whose_directory_is_gone_or_changed_is_a_loud_error(tmp_path, texts):
    directory = save_tiny_bert(tmp_path / "bert")
    content = pickle.dumps(PretrainedFeatureExtractor(directory).fit(texts))
    save_tiny_bert(directory, seed=1)
    with pytest.raises(ValueError, match="has changed since"):
        pickle.loads(content)
    directory.rename(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="can't be loaded here"):
        pickle.loads(content)


def test_a_copy_shares_the_network(bert, texts):
    extractor = PretrainedFeatureExtractor(bert).fit(texts)
    assert copy.deepcopy(extractor).backbone_ is extractor.backbone_


# Bad input


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layer": 7}, "layer=7 is not a stage.*3 stages.*embeddings, encoder.layer.0"),
        ({"layer": -4}, "layer=-4"),
        ({"layer": []}, "layer must be"),
        ({"layer": [0, 1.5]}, "layer must be"),
        ({"layer": True}, "layer must be"),
        ({"layer": "encoder"}, "layer='encoder'"),
        ({"pooling": "median"}, "'pooling' parameter"),
        ({"pooling": ["mean", "median"]}, "pooling must be"),
        ({"normalize": "l2"}, "'normalize' parameter"),
        ({"max_length": 0}, "'max_length' parameter"),
        ({"max_length": 33}, "its limit is 32 tokens"),
        ({"truncate_dim": 17}, "more than the 16 values"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"device": "gpu"}, "'device' parameter"),
        ({"precision": "int8"}, "'precision' parameter"),
        ({"cache": 5}, "'cache' parameter"),
        ({"modality": "audio"}, "'modality' parameter"),
        ({"modality": "image"}, "reads text rows, not image rows"),
        ({"weights": "other.safetensors"}, "has its own weights"),
    ],
    ids=str,
)
def test_invalid_parameters_are_named(bert, texts, params, message):
    with pytest.raises(ValueError, match=message):
        PretrainedFeatureExtractor(bert, **params).fit(texts)


@pytest.mark.parametrize("parameter", ["max_length", "prompt"])
def test_parameters_for_texts_are_refused_for_images(image_module, images, parameter):
    with pytest.raises(ValueError, match=f"{parameter} is for texts"):
        PretrainedFeatureExtractor(image_module, **{parameter: {"max_length": 3, "prompt": "a"}[parameter]}).fit(images)


def test_rows_of_another_kind_than_at_fit_are_an_error(bert, texts, images):
    with pytest.raises(TypeError, match="reads texts"):
        PretrainedFeatureExtractor(bert).fit(texts).transform(images)
    extractor = PretrainedFeatureExtractor().fit(images)
    with pytest.raises((ValueError, TypeError, OSError)):
        extractor.transform(texts)
    with pytest.raises(ValueError, match="reshape"):
        extractor.transform(np.zeros((3, 64)))


def test_a_misspelt_name_lists_the_nearest(texts):
    with pytest.raises(ValueError, match="Did you mean 'text-static'"):
        PretrainedFeatureExtractor("text-sttaic").fit(texts)
    with pytest.raises(ValueError, match="Did you mean .*'resnet18'"):
        PretrainedFeatureExtractor("resnet_18").fit(texts)


def test_a_hub_model_that_is_not_here_says_how_to_bring_it(texts):
    with pytest.raises(OSError, match="hf download some-owner/some-model.*backbone="):
        PretrainedFeatureExtractor("some-owner/some-model").fit(texts)


def test_tables_have_no_automatic_backbone():
    with pytest.raises(ValueError, match="reads texts and images"):
        PretrainedFeatureExtractor().fit(np.zeros((3, 2)))


@pytest.mark.parametrize("backbone", [None, 3, TinyImage, LogisticRegression])
def test_what_is_no_backbone_is_an_error(backbone, texts):
    with pytest.raises(TypeError, match="backbone must be"):
        PretrainedFeatureExtractor(backbone).fit(texts)


def test_a_failed_fit_leaves_the_estimator_as_it_was(bert, texts):
    extractor = PretrainedFeatureExtractor(bert, truncate_dim=99)
    with pytest.raises(ValueError, match="truncate_dim=99"):
        extractor.fit(texts)
    with pytest.raises(NotFittedError):
        extractor.transform(texts)
    extractor.set_params(truncate_dim=None).fit(pd.DataFrame({"text": texts}))
    before = extractor.transform(pd.DataFrame({"text": texts}))
    with pytest.raises(ValueError, match="layer=9"):
        extractor.set_params(layer=9).fit(texts)
    np.testing.assert_array_equal(extractor.transform(pd.DataFrame({"text": texts})), before)


@pytest.mark.parametrize("params", [{"cache": 5}, {"precision": "x"}, {"batch_size": 0}], ids=str)
def test_parameters_set_after_the_fit_are_checked_too(bert, texts, params):
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
        PretrainedFeatureExtractor(bert).fit(texts).set_params(**params).transform(texts)


def test_a_network_that_gives_too_few_rows_is_an_error(images):
    class First(nn.Module):
        def forward(self, pixels):
            return pixels.mean((2, 3))[:1]

    for cache in ("memory", None):
        extractor = PretrainedFeatureExtractor(First(), cache=cache).fit(images)
        with pytest.raises(ValueError, match="gave 1 rows for a batch of"):
            extractor.transform(images)


def test_a_module_in_half_precision_is_run_in_float32(images):
    module = nn.Conv2d(3, 4, 3)
    half = copy.deepcopy(module).half()
    expected = PretrainedFeatureExtractor(copy.deepcopy(half).float()).fit_transform(images)
    np.testing.assert_array_equal(PretrainedFeatureExtractor(half).fit_transform(images), expected)
    assert half.weight.dtype == torch.float16


def test_prompts_of_equal_networks_are_their_own(tmp_path, texts):
    import json

    for name in ("one", "two"):
        directory = save_tiny_bert(tmp_path / name)
        module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
        (directory / "modules.json").write_text(json.dumps([module]))
        settings = {"prompts": {"query": f"{name} "}}
        (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
    for name in ("one", "two"):
        found = PretrainedFeatureExtractor(tmp_path / name, prompt="query").fit_transform(texts)
        expected = PretrainedFeatureExtractor(tmp_path / name).fit_transform([f"{name} {text}" for text in texts])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_fitted_backbone_survives_clones_and_grids(image_module, images):
    from sklearn.frozen import FrozenEstimator

    fitted = PretrainedFeatureExtractor(image_module).fit(images)
    extractor = clone(PretrainedFeatureExtractor(fitted, layer=0))
    assert extractor.backbone is fitted
    y = [0, 1] * 3
    assert (
        len(cross_val_score(make_pipeline(extractor, LogisticRegression()), images, y, cv=3, error_score="raise")) == 3
    )
    model = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression())
    grid = {"pretrainedfeatureextractor__backbone": ["auto", FrozenEstimator(fitted)]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(images, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    with pytest.raises(NotFittedError, match="backbone=.*FrozenEstimator"):
        PretrainedFeatureExtractor(clone(fitted)).fit(images)


def test_a_forked_process_does_not_wait_for_its_parents_threads(text_module):
    import os
    import signal

    extractor = PretrainedFeatureExtractor(text_module).fit(["card"])
    held, done = threading.Event(), threading.Event()

    def hold():
        with extractor.backbone_.lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:  # only what is cached: torch's own threads don't survive a fork
        signal.alarm(20)
        os._exit(0 if extractor.transform(["card"]).shape == (1, 6) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    done.set()
    thread.join()


def test_a_module_for_texts_needs_its_tokenizer(texts):
    with pytest.raises(ValueError, match="preparation=tokenizer"):
        PretrainedFeatureExtractor(TinyText(), modality="text").fit(texts)


def test_weights_beside_a_module_are_an_error(image_module, images):
    with pytest.raises(ValueError, match="has weights already"):
        PretrainedFeatureExtractor(image_module, weights="a.pt").fit(images)


def test_a_network_that_gives_nan_names_the_row(images):
    class Divides(nn.Module):
        def forward(self, pixels):
            return pixels.mean((1, 2)) / pixels.sum((1, 2, 3)).unsqueeze(1)

    images[4] = 0
    with pytest.raises(ValueError, match="NaN or infinity for row 4"):
        PretrainedFeatureExtractor(Divides()).fit_transform(images)


def test_an_output_that_is_no_embedding_is_an_error(images):
    class Scalar(nn.Module):
        def forward(self, pixels):
            return pixels.mean((1, 2, 3))

    with pytest.raises(ValueError, match="output of shape"):
        PretrainedFeatureExtractor(Scalar()).fit(images)


def test_importing_the_package_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, sktransfer; sktransfer.list_backbones(); print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


class Flattening(nn.Module):
    """A network that flattens with `view`, which fails on any but the usual order in memory."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.top = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16 * 4 * 4, 5)

    def forward(self, pixels):
        features = torch.relu(self.second(torch.relu(self.first(pixels))))
        return self.top(features.view(-1, 16 * 4 * 4))


def test_a_network_that_flattens_with_view():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    module = seeded(Flattening)
    extractor = PretrainedFeatureExtractor(module, cache=None).fit(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
    with torch.no_grad():
        wanted = module(pixels).numpy()
    for _ in range(2):
        np.testing.assert_allclose(extractor.transform(images), wanted, atol=1e-5)
