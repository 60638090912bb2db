"""The untrained networks for tables and series: made to measure, shared, cut, trained."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sktransfer import PretrainedFeatureExtractor, list_backbones
from sktransfer.backbones.pooling import pool
from sktransfer.backbones.sources import architectures
from sktransfer.backbones.sources.loading import known_kind, load_backbone, unload_backbones
from sktransfer.inputs.rows import read_rows

RANDOM = np.random.default_rng(0)
TABLE = pd.DataFrame({"a": RANDOM.normal(size=60), "b": RANDOM.choice(["x", "y", "z"], 60), "c": RANDOM.random(60)})
SERIES = [RANDOM.normal(size=(2, length)) for length in RANDOM.integers(5, 20, size=60)]
NAMES = ["table-mlp", "table-resnet", "series-cnn", "series-lstm", "series-transformer"]


def rows_for(name):
    return TABLE if name.startswith("table") else SERIES


def built(name, X=None):
    X = rows_for(name) if X is None else X
    return load_backbone(name, rows=read_rows(X, architectures.kind_of(name)))


def test_every_architecture_has_a_card_with_its_dimension():
    assert [card.name for card in [*list_backbones("table"), *list_backbones("series")]] == NAMES
    for name in NAMES:
        handle = built(name)
        width = PretrainedFeatureExtractor(name).fit(rows_for(name)).transform(rows_for(name)[:1]).shape[1]
        assert (handle.card.dimension, handle.kind, known_kind(name)) == (width, handle.card.modality, handle.kind)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_the_same_in_every_process_and_leave_the_generators_alone(name):
    before = torch.random.get_rng_state()
    first = built(name)
    tensors = {key: tensor.clone() for key, tensor in first.snapshot().state_dict().items()}
    mark = first.fingerprint
    del first
    unload_backbones()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    second = built(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert second.fingerprint == mark
    assert all(torch.equal(tensors[key], tensor) for key, tensor in second.snapshot().state_dict().items())
    torch.random.set_rng_state(before)


@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_share_a_network_and_others_do_not(name):
    X = rows_for(name)
    first = PretrainedFeatureExtractor(name).fit(X)
    assert PretrainedFeatureExtractor(name).fit(X).backbone_ is first.backbone_
    other = PretrainedFeatureExtractor(name).fit(X[:30])
    assert other.backbone_.fingerprint != first.backbone_.fingerprint


@pytest.mark.parametrize("name", NAMES)
def test_random_features_keep_rows_apart_and_their_size(name):
    X = rows_for(name)
    vectors = PretrainedFeatureExtractor(name).fit(X).transform(X)
    assert np.linalg.matrix_rank(vectors) > 10
    assert 1e-3 < vectors.std() < 10


@pytest.mark.parametrize("name", NAMES)
def test_the_network_can_be_cut_at_every_depth(name):
    handle = built(name)
    assert [stage.name for stage in handle.stages][:2] == ["stem", "blocks.0"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a network that can't be cut is run whole, with a warning
        splits = [handle.split(depth) for depth in range(len(handle.stages) + 1)]
    assert [len(split.stages) for split in splits] == list(range(len(handle.stages) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_all_weights_belong_to_a_stage_or_come_behind_the_last(name):
    network = built(name).snapshot()
    outside = {key.split(".")[0] for key, _ in network.named_parameters()} - {"stem", "blocks"}
    assert outside <= {"norm"}


@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_holds_the_weights_and_the_columns(name):
    X = rows_for(name)
    extractor = PretrainedFeatureExtractor(name).fit(X)
    wanted = extractor.transform(X)
    content = pickle.dumps(extractor)
    del extractor
    unload_backbones()
    restored = pickle.loads(content)
    np.testing.assert_allclose(restored.set_params(cache=None).transform(X), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_learns_and_its_handle_is_a_source(name):
    X = rows_for(name)
    handle = built(name)
    rows = handle.preparation.read(read_rows(X, handle.kind).values)
    inputs = handle.preparation.collate(handle.preparation.prepare(rows, 0)).to(torch.device("cpu"), torch.float32)
    level = TABLE["a"] if handle.kind == "table" else [row[0].mean() for row in SERIES]
    target = torch.tensor(np.asarray(level) > np.median(level)).float()
    network = handle.snapshot().requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = nn.Linear(handle.card.dimension, 1)
        losses = train(network, head, inputs, target)
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())

    source = architectures.trained(name, network, handle.preparation)
    assert source.fingerprint != handle.fingerprint
    reused = PretrainedFeatureExtractor(source).fit(X[:5])
    assert reused.backbone_ is source
    network.eval()
    with torch.no_grad():
        wanted = pool(network(*inputs.args, **inputs.kwargs), inputs.mask, "mean", False)
    np.testing.assert_allclose(reused.transform(X), wanted, rtol=1e-4, atol=1e-4)


def train(network, head, inputs, target):
    """A few steps on all rows; the losses."""
    network.train()
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-3)
    losses = []
    for _ in range(25):
        features = pool(network(*inputs.args, **inputs.kwargs), inputs.mask, "mean", False)
        loss = nn.functional.binary_cross_entropy_with_logits(head(features)[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_padding_does_not_count_for_batch_norm():
    # Rows padded to twenty points in one batch, to fifty in the other: the same running mean and variance.
    handle = built("series-cnn")
    inputs = handle.preparation.collate(handle.preparation.prepare(SERIES, 0))
    series, mask = inputs.kwargs["series"], inputs.kwargs["attention_mask"]
    pad = nn.functional.pad
    wider = {"series": pad(series, (0, 0, 0, 30)), "attention_mask": pad(mask, (0, 30))}
    narrow, wide = handle.snapshot().train(), handle.snapshot().train()
    narrow(**inputs.kwargs)
    wide(**wider)
    for (key, one), other in zip(narrow.named_buffers(), wide.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=key)


def test_tables_of_only_numbers_or_only_strings_work():
    for columns in (["a"], ["b"], ["a", "c"]):
        for name in ("table-mlp", "table-resnet"):
            assert PretrainedFeatureExtractor(name).fit_transform(TABLE[columns]).shape[0] == 60


def test_an_architecture_is_not_looked_for_on_disk_or_made_without_rows(tmp_path, monkeypatch):
    (tmp_path / "table-mlp").mkdir()
    monkeypatch.chdir(tmp_path)
    assert PretrainedFeatureExtractor("table-mlp").fit(TABLE).backbone_.name == "table-mlp"
    with pytest.raises(ValueError, match="'table-mlp' reads table rows, but X holds text rows"):
        PretrainedFeatureExtractor("table-mlp", modality="text").fit(["a text"])
    with pytest.raises(ValueError, match="Did you mean 'series-cnn'"):
        PretrainedFeatureExtractor("series-cn").fit(["a text"])
