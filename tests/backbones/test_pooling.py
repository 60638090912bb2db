import pytest
import torch

from sktransfer.backbones.pooling import POOLINGS, WINDOW_POOLINGS, pool, pool_windows

TOKENS = torch.tensor([[[1.0, 10.0], [3.0, -2.0], [8.0, 0.0]], [[5.0, 7.0], [99.0, 99.0], [99.0, 99.0]]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("mode", "first"),
    [
        ("mean", [4.0, 8 / 3]),
        ("cls", [1.0, 10.0]),
        ("max", [8.0, 10.0]),
        ("last", [8.0, 0.0]),
        ("mean_sqrt_len", [12 / 3**0.5, 8 / 3**0.5]),
        ("weighted_mean", [(1 + 6 + 24) / 6, (10 - 4) / 6]),
    ],
)
def test_tokens_are_pooled_without_padding(mode, first):
    torch.testing.assert_close(pool(TOKENS, MASK, mode, False), torch.tensor([first, [5.0, 7.0]]))


def test_every_pooling_of_a_row_of_one_token_is_that_token():
    for mode in POOLINGS:
        torch.testing.assert_close(pool(TOKENS, MASK, mode, False)[1], TOKENS[1, 0])


def test_several_poolings_are_concatenated():
    both = pool(TOKENS, MASK, ("cls", "mean"), False)
    torch.testing.assert_close(both, torch.cat([pool(TOKENS, MASK, m, False) for m in ("cls", "mean")], 1))


def test_feature_maps_are_pooled_over_positions():
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    torch.testing.assert_close(pool(maps, None, "mean", False), maps.mean((2, 3)))
    torch.testing.assert_close(pool(maps, None, "max", False), maps.amax((2, 3)))
    torch.testing.assert_close(pool(maps, None, "mean", True), maps.mean((1, 2)))


def test_vectors_are_left_as_they_are_and_half_precision_becomes_float32():
    vectors = torch.ones(2, 3, dtype=torch.bfloat16)
    assert pool(vectors, None, "mean", False).dtype == torch.float32


def test_poolings_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="use 'mean' or 'max'"):
        pool(torch.zeros(1, 2, 3, 4), None, "cls", False)
    with pytest.raises(ValueError, match="shape \\(2,\\)"):
        pool(torch.zeros(2), None, "mean", False)


@pytest.mark.parametrize("mode", WINDOW_POOLINGS)
def test_a_window_without_tokens_is_the_row_only_where_there_is_no_other(mode):
    vectors, owners = torch.tensor([[5.0], [1.0], [-1.0], [3.0]]), torch.tensor([0, 1, 1, 1])
    found = pool_windows(vectors, torch.tensor([0.0, 2.0, 0.0, 1.0]), owners, 2, mode)
    torch.testing.assert_close(found, torch.tensor([[5.0], [(2 + 3) / 3 if mode == "mean" else 3.0]]))
