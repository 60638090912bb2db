"""What the frozen stages make of rows, row by row."""

import numpy as np
import pytest
import torch
from support.networks import save_tiny_bert

from sktransfer.backbones.activations import Activations, packed, unpacked
from sktransfer.backbones.encoding import Run
from sktransfer.backbones.sources.loading import load_backbone
from sktransfer.caching.memory import MemoryCache

TEXTS = ["how do i reset my card s pin", "thanks", "the delivery was late again", "thanks", "a one two three"]


@pytest.fixture
def bert(tmp_path):
    return load_backbone(str(save_tiny_bert(tmp_path)))


def activations(bert, depth, cache=None):
    run = Run(device=torch.device("cpu"), dtype=torch.float32, batch_size=None, cache=cache, progress=False)
    return Activations(bert, bert.preparation, depth, True, run)


def of_texts(bert, depth, places, cache=None):
    digests = bert.preparation.digests(TEXTS)
    return activations(bert, depth, cache).of_rows(TEXTS, digests, places)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_they_are_the_outputs_of_the_stage_without_padding(bert, depth):
    bert.split(depth)
    rows = of_texts(bert, depth, range(5))
    for text, row in zip(TEXTS, rows, strict=True):
        inputs = bert.preparation.collate(bert.preparation.prepare([text], 0))
        with torch.no_grad():
            wanted = bert.network_to_read()(*inputs.args, output_hidden_states=True, **inputs.kwargs).hidden_states
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, wanted[depth - 1][0].numpy(), atol=1e-5)


def test_rows_come_in_the_order_asked_for_and_repeat(bert):
    every = of_texts(bert, 2, range(5))
    for row, place in zip(of_texts(bert, 2, [4, 1, 1, 0]), [4, 1, 1, 0], strict=True):
        np.testing.assert_allclose(row, every[place], atol=1e-6)
    np.testing.assert_array_equal(every[1], every[3])


def test_a_cache_is_asked_first_and_depths_do_not_mix(bert):
    cache = MemoryCache()
    first = of_texts(bert, 1, range(5), cache)
    assert (cache.info().rows, cache.info().misses) == (4, 4)
    again = of_texts(bert, 1, range(5), cache)
    assert (cache.info().rows, cache.info().hits) == (4, 4)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        with pytest.raises(ValueError, match="read-only"):
            other[0] = 0
    deeper = of_texts(bert, 2, range(5), cache)
    assert cache.info().rows == 8
    assert np.abs(deeper[0] - first[0]).max() > 1e-3


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 4), (), (0, 3)])
def test_packing_keeps_the_shape(shape):
    row = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    made = packed(row)
    assert made.ndim == 1
    np.testing.assert_array_equal(unpacked(made), row)
    assert unpacked(made).shape == shape
