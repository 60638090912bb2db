import os

import numpy as np
import pytest
import torch
from support.networks import TinyText, seeded, tiny_tokenizer
from torch import nn

import sktransfer
from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.backbones.encoding import Run, encode
from sktransfer.backbones.readout import Readout
from sktransfer.backbones.sources.loading import load_backbone
from sktransfer.inputs.rows import Rows

CPU = torch.device("cpu")
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Greedy(nn.Module):
    """Asks for more memory than there is when it gets more than two rows."""

    sizes = []

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 4)

    def forward(self, input_ids, attention_mask):
        type(self).sizes.append(len(input_ids))
        torch.empty(len(input_ids) * int(MEMORY * 0.4), dtype=torch.uint8)
        return self.table(input_ids)


class Hungry(Greedy):
    """Asks for more memory than there is for one row, too."""

    def forward(self, input_ids, attention_mask):
        return torch.empty(1 << 60, dtype=torch.uint8)


def text_backbone(make):
    return ModuleBackbone(seeded(make), modality="text", preparation=tiny_tokenizer(), name=make.__name__)


TEXTS = ["card", "how do i reset my card", "pin", "my pin", "how do i", "card pin card pin", "reset"]


@pytest.fixture
def few_rows_fit():
    """Without overcommitted memory the network fails at once, with all of it at two rows."""
    try:
        torch.empty(int(MEMORY * 0.8), dtype=torch.uint8)
    except RuntimeError:
        pytest.skip("this system does not hand out four fifths of its memory")
    with pytest.raises(RuntimeError):
        torch.empty(int(MEMORY * 1.6), dtype=torch.uint8)


def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(few_rows_fit):
    Greedy.sizes = []
    whole = PretrainedFeatureExtractor(text_backbone(Greedy), cache=None).fit(TEXTS[:1])
    given = whole.transform(TEXTS)
    assert max(Greedy.sizes) > 2
    assert [size for size in Greedy.sizes if size <= 2]
    single = PretrainedFeatureExtractor(text_backbone(Greedy), cache=None, batch_size=1).fit(TEXTS[:1])
    np.testing.assert_allclose(given, single.transform(TEXTS), atol=1e-6)


def test_what_did_not_fit_once_is_not_tried_again(few_rows_fit):
    extractor = PretrainedFeatureExtractor(text_backbone(Greedy), cache=None, batch_size=4).fit(TEXTS[:1])
    Greedy.sizes = []
    extractor.transform([f"{a} {b}" for a in ("card", "pin", "my", "do") for b in ("how", "reset", "i", "my")])
    too_large = [size for size in Greedy.sizes if size > 2]
    assert len(too_large) == 1


def test_a_single_row_that_does_not_fit_is_an_error_of_memory():
    with pytest.raises(RuntimeError, match="memory"):
        PretrainedFeatureExtractor(text_backbone(Hungry), cache=None).fit(TEXTS)


def test_rows_that_repeat_and_rows_that_are_cached_come_in_the_callers_order():
    extractor = PretrainedFeatureExtractor(text_backbone(TinyText)).fit(TEXTS)
    alone = {text: extractor.transform([text])[0] for text in TEXTS}
    sktransfer.cache_clear()
    extractor.transform(TEXTS[2:4])
    X = [TEXTS[i] for i in (3, 0, 3, 6, 2, 2, 0, 5, 1)]
    np.testing.assert_allclose(extractor.transform(X), [alone[text] for text in X], atol=1e-6)


def test_many_rows_of_a_cache_are_looked_up_in_pieces(monkeypatch):
    monkeypatch.setattr("sktransfer.backbones.encoding._LOOKED_UP_AT_ONCE", 3)
    extractor = PretrainedFeatureExtractor(text_backbone(TinyText)).fit(TEXTS)
    first = extractor.transform(TEXTS)
    before = TinyText.rows_seen
    np.testing.assert_array_equal(extractor.transform(TEXTS), first)
    assert TinyText.rows_seen == before
    assert sktransfer.cache_info().hits >= len(TEXTS)


def windows_of(backbone, text, max_length):
    """Embed the windows of a text as texts of their own: [CLS] and [SEP] leave the rest to words."""
    words = text.split()
    size = max_length - 2
    parts = [" ".join(words[start : start + size]) for start in range(0, len(words), size)]
    vectors = PretrainedFeatureExtractor(backbone, normalize=False).fit(parts).transform(parts)
    return vectors, [len(part.split()) + 2 for part in parts]


LONG = "how do i reset my card pin how do i reset pin card"


@pytest.mark.parametrize("max_length", [4, 5, 8])
def test_a_long_text_is_the_mean_of_its_windows_by_their_tokens(max_length):
    backbone = text_backbone(TinyText)
    vectors, tokens = windows_of(backbone, LONG, max_length)
    assert len(vectors) > 1
    extractor = PretrainedFeatureExtractor(backbone, max_length=max_length, window_pooling="mean").fit(TEXTS)
    np.testing.assert_allclose(extractor.transform([LONG])[0], np.average(vectors, axis=0, weights=tokens), atol=1e-6)


def test_windows_can_be_pooled_by_their_largest_values():
    backbone = text_backbone(TinyText)
    vectors, _ = windows_of(backbone, LONG, 5)
    extractor = PretrainedFeatureExtractor(backbone, max_length=5, window_pooling="max").fit(TEXTS)
    np.testing.assert_allclose(extractor.transform(["card", LONG, "pin"])[1], vectors.max(axis=0), atol=1e-6)


def test_texts_of_one_window_are_what_they_are_without():
    backbone = text_backbone(TinyText)
    plain = PretrainedFeatureExtractor(backbone, max_length=8).fit_transform(TEXTS)
    pooled = PretrainedFeatureExtractor(backbone, max_length=8, window_pooling="mean").fit_transform(TEXTS)
    np.testing.assert_allclose(pooled, plain, atol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "max"])
@pytest.mark.parametrize("own", [False, True], ids=["text-static", "module"])
def test_a_text_without_tokens_is_what_it_is_without_windows(mode, own):
    backbone = "text-static"
    if own:
        tokenizer = tiny_tokenizer()
        tokenizer.post_processor = None
        backbone = ModuleBackbone(seeded(TinyText), modality="text", preparation=tokenizer)
    X = ["", "card", " ", "書" * 100 if not own else ""]
    plain = PretrainedFeatureExtractor(backbone, cache=None).fit_transform(X)
    pooled = PretrainedFeatureExtractor(backbone, window_pooling=mode, cache=None).fit_transform(X)
    np.testing.assert_allclose(pooled, plain, atol=1e-6)


def test_pooled_windows_are_scaled_to_unit_length_at_the_end():
    extractor = PretrainedFeatureExtractor(text_backbone(TinyText), max_length=4, window_pooling="mean", normalize=True)
    np.testing.assert_allclose(np.linalg.norm(extractor.fit_transform([LONG, "card"]), axis=1), 1, atol=1e-6)


def test_windows_of_something_else_than_texts_are_refused():
    with pytest.raises(ValueError, match="window_pooling='mean' is for texts, but this backbone reads image rows"):
        PretrainedFeatureExtractor(window_pooling="mean").fit(np.zeros((2, 8, 8, 3), np.uint8))


def test_a_length_beyond_the_networks_own_points_to_windows(minilm):
    with pytest.raises(ValueError, match="its limit is 512 tokens.*window_pooling='mean'"):
        PretrainedFeatureExtractor(minilm, max_length=513).fit(["a text"])


def test_a_network_that_gives_nan_names_the_row():
    class Poisoned(TinyText):
        def forward(self, input_ids, attention_mask):
            out = super().forward(input_ids, attention_mask)
            return torch.where((input_ids == 5).any(1)[:, None, None], torch.nan, out)

    backbone = load_backbone(text_backbone(Poisoned))
    word = tiny_tokenizer().id_to_token(5)
    run = Run(CPU, torch.float32)
    fine = [text for text in TEXTS if word not in text.split()]
    with pytest.raises(ValueError, match="NaN or infinity for row 2 of X"):
        encode(backbone, backbone.preparation, Readout(), Rows("text", [fine[0], fine[0], word, fine[1]]), run)


def test_the_progress_bar_counts_rows(capsys):
    PretrainedFeatureExtractor(text_backbone(TinyText), verbose=1, cache=None).fit(TEXTS).transform(TEXTS)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err
