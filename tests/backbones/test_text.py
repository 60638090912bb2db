import numpy as np
import pytest
import torch
from support.networks import tiny_tokenizer

from sktransfer.inputs.text import TextPreparation, tokenizer_of


def preparation(**settings):
    return TextPreparation(tiny_tokenizer(), **{"max_length": 8, "limit": 10, **settings})


def test_rows_are_padded_on_the_right():
    inputs = preparation(pad_id=0).collate(preparation().prepare(["how do i", "card"], 0))
    assert inputs.kwargs["input_ids"].tolist()[1] == [2, inputs.kwargs["input_ids"][1, 1].item(), 3, 0, 0]
    assert inputs.kwargs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert torch.equal(inputs.mask, inputs.kwargs["attention_mask"])


def test_ragged_rows_are_laid_end_to_end():
    ragged = preparation(ragged=True, special_tokens=False)
    inputs = ragged.collate(ragged.prepare(["how do", "", "card"], 0))
    assert inputs.kwargs["offsets"].tolist() == [0, 2, 2]
    assert len(inputs.kwargs["input_ids"]) == 3


def test_long_texts_are_cut_and_keep_their_last_special_token():
    (encoding,) = preparation().prepare(["how " * 50], 0)
    assert len(encoding) == 8
    assert encoding.ids[-1] == 3


def test_an_empty_text_has_a_token_even_without_special_tokens():
    bare = preparation(special_tokens=False)
    inputs = bare.collate(bare.prepare(["", "card pin"], 0))
    assert inputs.kwargs["attention_mask"].sum(1).tolist() == [1, 2]


def test_options_share_the_tokenizer_and_leave_the_original_alone():
    original = preparation(prompts={"query": "how do i "})
    other = original.with_options(max_length=4, prompt="query")
    assert len(other.prepare(["card " * 9], 0)[0]) == 4
    assert len(original.prepare(["card " * 9], 0)[0]) == 8
    assert other.prepare(["pin"], 0)[0].ids[:3] == original.prepare(["how do i pin"], 0)[0].ids[:3]
    assert original.describe() != other.describe()
    assert original.with_options(max_length=None, prompt="the ").prompt == "the "


def test_a_length_beyond_the_networks_limit_is_an_error():
    with pytest.raises(ValueError, match="its limit is 10 tokens"):
        preparation().with_options(max_length=11, prompt=None)


def test_lower_casing_comes_before_the_tokenizer():
    assert preparation(lower_case=True).prepare(["CARD"], 0)[0].ids == preparation().prepare(["card"], 0)[0].ids


def test_texts_with_lone_surrogates_are_read():
    broken = "card \ud800 pin"
    assert len(preparation().digests([broken, "card ? pin"])) == 2
    assert preparation().prepare([broken], 0)[0].ids == preparation().prepare(["card ? pin"], 0)[0].ids


def test_digests_follow_the_text():
    first, second, third = preparation().digests(["a", "b", "a"])
    assert first == third != second


def test_the_users_tokenizer_is_copied():
    mine = tiny_tokenizer()
    mine.enable_truncation(3)
    mine.enable_padding(length=5)
    TextPreparation(tokenizer_of(mine), max_length=8, limit=None).prepare(["how do i reset my card"], 0)
    assert mine.truncation["max_length"] == 3
    assert mine.padding["length"] == 5


def test_a_tokenizer_without_a_fast_core_is_refused():
    with pytest.raises(TypeError, match="no fast core"):
        tokenizer_of(str.split)


def test_sizes_are_tokens():
    items = preparation().prepare(["how do i", "card"], 0)
    assert np.array([preparation().size(item) for item in items]).tolist() == [5, 3]


def test_networks_that_read_no_mask_get_no_padding():
    masked, unmasked, positional = (
        preparation(accepts=a) for a in (("input_ids", "attention_mask"), ("input_ids",), None)
    )
    items = masked.prepare(["how do i", "card", "pin"], 0)
    assert len({masked.group(item) for item in items}) == 1
    for other in (unmasked, positional):
        assert [other.group(item) for item in items] == [5, 3, 3]


def test_a_length_without_room_for_a_text_is_an_error():
    with pytest.raises(ValueError, match="no room for a text beside the 2 special tokens"):
        preparation().with_options(max_length=2, prompt=None)


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("processor", ["template", "bert", "roberta", "sequence", "none"])
def test_texts_are_cut_as_the_tokenizer_itself_cuts_them(processor, special):
    from tokenizers import AddedToken, processors

    def make():
        tokenizer = tiny_tokenizer()
        tokenizer.add_special_tokens(["[NEW]"])
        tokenizer.add_tokens([AddedToken("later word", single_word=True)])
        tokenizer.post_processor = {
            "template": tokenizer.post_processor,
            "bert": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
            "roberta": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
            "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), tokenizer.post_processor]),
            "none": processors.ByteLevel(trim_offsets=False),
        }[processor]
        return tokenizer

    texts = ["", "a", "how do i reset my card s pin", "[SEP] a [NEW] later word again " * 4]
    shared = TextPreparation(make(), max_length=32, limit=None, special_tokens=special)
    for length in (3, 5, 32, 4):
        own = make()
        own.no_padding()
        own.enable_truncation(length)
        expected = own.encode_batch(texts, add_special_tokens=special)
        found = shared.with_options(max_length=length, prompt=None).prepare(texts, 0)
        assert [one.ids for one in found] == [one.ids for one in expected]
        assert [[part.ids for part in one.overflowing] for one in found] == [
            [part.ids for part in one.overflowing] for one in expected
        ]
    assert shared.tokenizer.truncation is None
