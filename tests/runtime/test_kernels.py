import pytest
import torch
from torch import nn
from torch.nn import functional

from sktransfer.runtime.kernels import FrozenKernels, TrainingKernels, _packs, kernels_for, training_kernels_for

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not _packs(), reason="this processor or torch has no packed products")


def seeded(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def layer(inputs=48, outputs=24, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "rows",
    [
        seeded(1, 48),
        seeded(7, 48),
        seeded(3, 5, 48),
        seeded(3, 48, 5).transpose(1, 2),
        seeded(10, 6, 48)[::2, 1:4],
        seeded(1, 48).expand(9, 48),
        seeded(48),
        seeded(0, 48),
    ],
    ids=lambda rows: f"{tuple(rows.shape)}-{rows.stride()}",
)
def test_a_packed_layer_gives_what_the_layer_gives(rows, bias):
    module = layer(bias=bias)
    with FrozenKernels(module):
        given = module(rows)
    torch.testing.assert_close(given, module(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": False},
        {"stride": 2, "padding": 1},
        {"kernel_size": (1, 3), "padding": (0, 2), "stride": (1, 2)},
        {"dilation": 2},
        {"groups": 8},
        {"groups": 2, "kernel_size": 1},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_a_packed_convolution_gives_what_the_convolution_gives(settings, dtype):
    torch.manual_seed(0)
    module = nn.Conv2d(8, 16, **{"kernel_size": 3, **settings}).to(dtype, memory_format=torch.channels_last)
    module.requires_grad_(False)
    kernels = FrozenKernels(module)
    for shape in ((2, 8, 12, 10), (5, 8, 7, 9), (1, 8, 12, 10)):
        pixels = seeded(*shape, dtype=dtype)
        for given in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
            with kernels:
                packed = module(given)
            tolerance = 1e-5 if dtype == torch.float32 else 2e-2
            torch.testing.assert_close(packed, module(given), rtol=tolerance, atol=tolerance)


def test_an_input_of_the_wrong_width_gets_torchs_own_error():
    conv, linear = nn.Conv2d(8, 16, 3).requires_grad_(False), layer()
    with FrozenKernels(conv, linear):
        with pytest.raises(RuntimeError, match="expected input"):
            conv(seeded(2, 6, 9, 9).contiguous(memory_format=torch.channels_last))
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            linear(seeded(2, 47))


def test_a_network_of_attention_layers_gives_the_same():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    network = nn.TransformerEncoder(block, 2, enable_nested_tensor=False).eval().requires_grad_(False)
    rows = seeded(3, 9, 32)
    mask = torch.arange(9) >= torch.tensor([[9], [4], [6]])
    expected = network(rows, src_key_padding_mask=mask)
    with FrozenKernels(network):
        given = network(rows, src_key_padding_mask=mask)
    torch.testing.assert_close(given[~mask], expected[~mask], rtol=1e-5, atol=1e-5)


def test_only_products_with_the_networks_own_parameters_are_packed():
    module = layer()
    kernels = FrozenKernels(module)
    with kernels:
        for seed in range(20):
            weight = torch.full((24, 48), float(seed))
            given = functional.linear(seeded(4, 48), weight)
            torch.testing.assert_close(given, seeded(4, 48) @ weight.T)
    assert kernels._packed == {}


def test_a_weight_is_packed_once():
    module = layer()
    kernels = FrozenKernels(module)
    with kernels:
        module(seeded(4, 48))
    (packed,) = kernels._packed.values()
    with kernels:
        module(seeded(9, 48))
    assert next(iter(kernels._packed.values())) is packed


@pytest.mark.parametrize("length", [7, 12, 16, 30])
@pytest.mark.parametrize("mask", [None, "keys", "pairs", "float"])
def test_short_attention_in_bfloat16_is_as_close_to_float32_as_torchs_own(mask, length):
    query, key, value = (seeded(2, 4, length, 16) * scale for scale in (1.0, 0.5, 2.0))
    positions = torch.arange(length)
    allowed = (positions < torch.tensor([[length], [5]]))[:, None, None]
    masks = {
        None: None,
        "keys": allowed,
        "pairs": positions[:, None] >= positions,
        "float": torch.zeros(2, 1, 1, length).masked_fill(~allowed, -1e9),
    }
    attn_mask = masks[mask]
    exact = functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)
    half = [tensor.bfloat16() for tensor in (query, key, value)]
    half_mask = attn_mask.bfloat16() if mask == "float" else attn_mask
    torchs = functional.scaled_dot_product_attention(*half, attn_mask=half_mask).float()
    with FrozenKernels(layer()):
        ours = functional.scaled_dot_product_attention(*half, attn_mask=half_mask)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - exact).abs().mean() < 1.1 * (torchs - exact).abs().mean()


def test_attention_to_other_tokens_keeps_its_shape():
    query, key, value = (seeded(2, 4, length, 16, dtype=torch.bfloat16) for length in (5, 9, 9))
    expected = functional.scaled_dot_product_attention(query, key, value)
    with FrozenKernels(layer()):
        given = functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(given, expected, atol=0.02, rtol=0.02)


def test_a_token_that_may_look_at_none_does_not_become_nan():
    half = [seeded(1, 1, 4, 8, dtype=torch.bfloat16)] * 3
    with FrozenKernels(layer()):
        given = functional.scaled_dot_product_attention(*half, attn_mask=torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    assert torch.isfinite(given).all()


def test_causal_attention_stays_causal():
    half = [seeded(1, 1, 4, 8, dtype=torch.bfloat16)] * 3
    expected = functional.scaled_dot_product_attention(*half, is_causal=True)
    with FrozenKernels(layer()):
        given = functional.scaled_dot_product_attention(*half, is_causal=True)
    torch.testing.assert_close(given, expected)


def test_compiled_networks_keep_their_own_kernels():
    module = layer()
    assert kernels_for(module, None, CPU) is not None

    compiled = torch.compile(module)
    assert kernels_for(compiled, None, CPU) is None
    assert kernels_for(nn.Sequential(compiled), None, CPU) is None


def test_nothing_is_changed_outside():
    module = layer()
    before = module.weight.clone()
    with FrozenKernels(module):
        module(seeded(4, 48))
    assert torch.equal(before, module.weight)
    assert torch.overrides._get_current_function_mode() is None


def test_linear_layers_train_alike():
    module = nn.Sequential(nn.Linear(48, 24), nn.GELU(), nn.Linear(24, 7, bias=False))
    rows = seeded(3, 5, 48).requires_grad_()
    expected = torch.autograd.grad(module(rows).square().sum(), [rows, *module.parameters()])
    kernels = training_kernels_for(CPU, torch.float32)
    assert kernels is not None
    with kernels:
        outputs = module(rows)
    # The outputs remember how they were made, after the kernels are left.
    given = torch.autograd.grad(outputs.square().sum(), [rows, *module.parameters()])
    for mine, theirs in zip(given, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_go_only_where_they_are_asked_for():
    module = nn.Linear(8, 4)
    module.weight.requires_grad_(False)
    with training_kernels_for(CPU, torch.float32):
        module(seeded(3, 8)).sum().backward()
    assert module.weight.grad is None
    torch.testing.assert_close(module.bias.grad, torch.full((4,), 3.0))


@pytest.mark.parametrize(
    "shape, dtype", [((8,), torch.float32), ((0, 8), torch.float32), ((3, 8), torch.float64), ((3, 9), torch.float32)]
)
def test_what_the_faster_kernels_of_training_do_not_take_is_left_to_torch(shape, dtype):
    module = nn.Linear(8, 4).to(dtype)
    rows = seeded(*shape, dtype=dtype)
    if shape[-1] != 8:
        with TrainingKernels(), pytest.raises(RuntimeError, match="cannot be multiplied"):
            module(rows)
        return
    with TrainingKernels():
        given = module(rows)
    torch.testing.assert_close(given, module(rows))


def test_training_in_float64_and_elsewhere_has_torchs_kernels():
    assert training_kernels_for(CPU, torch.float64) is None
    assert training_kernels_for(torch.device("cuda"), torch.float32) is None
