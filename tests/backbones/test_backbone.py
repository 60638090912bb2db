import pickle

import pytest
import torch
from support.networks import TinyImage, TinyText, save_tiny_bert, seeded, tiny_tokenizer
from torch import nn

from sktransfer import ModuleBackbone
from sktransfer.backbones.backbone import main_tensor, outputs_of
from sktransfer.backbones.sources.loading import load_backbone
from sktransfer.inputs.preparation import Inputs


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_split_of_the_handle_equals_the_whole_network(tmp_path, kind):
    backbone = load_backbone(save_tiny_bert(tmp_path) if kind == "text" else "image-resnet")
    inputs = backbone.preparation.examples()[1]
    with torch.no_grad():
        whole = main_tensor(backbone.snapshot()(*inputs.args, **inputs.kwargs))
        for depth in range(len(backbone.stages) + 1):
            split = backbone.split(depth)
            activation = split.prefix(*inputs.args, **inputs.kwargs) if depth else None
            found = main_tensor(split.suffix.eval()(activation, *inputs.args, **inputs.kwargs))
            torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)


class Skips(nn.Module):
    """The end reads the beginning, past everything between."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        early = self.first(x)
        return self.third(self.second(early)) + early


def test_a_network_that_cannot_be_cut_is_given_whole_with_a_warning():
    backbone = load_backbone(seeded(Skips))
    backbone.split(1)
    with pytest.warns(UserWarning, match="run whole instead of from stage 2 on.*can't be cut"):
        split = backbone.split(2)
    assert split.stages == ()
    inputs = backbone.preparation.examples()[0]
    with torch.no_grad():
        whole = backbone.snapshot()(*inputs.args)
        torch.testing.assert_close(split.suffix.eval()(None, *inputs.args), whole)


def test_training_a_suffix_leaves_the_handle_alone(tmp_path):
    backbone = load_backbone(save_tiny_bert(tmp_path))
    before = {name: tensor.clone() for name, tensor in backbone._network.state_dict().items()}
    inputs = backbone.preparation.examples()[0]
    split = backbone.split(1)
    optimizer = torch.optim.SGD(split.suffix.parameters(), lr=1.0)
    activation = split.prefix(**inputs.kwargs)
    main_tensor(split.suffix(activation, **inputs.kwargs)).pow(2).sum().backward()
    optimizer.step()
    for name, tensor in backbone._network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(parameter.requires_grad for parameter in backbone._network.parameters())


def test_modules_of_different_names_share_nothing():
    one, again, two = (load_backbone(ModuleBackbone(seeded(TinyImage), name=name)) for name in ("one", "one", "two"))
    assert one is again
    assert one.fingerprint != two.fingerprint
    assert one._network is not two._network


def test_stages_can_be_named_by_the_user():
    backbone = load_backbone(ModuleBackbone(seeded(TinyImage), stages=["second"]))
    assert [stage.name for stage in backbone.stages] == ["second"]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"stages": ["secnd"]}, ValueError, "secnd.*second"),
        ({"stages": "second"}, (TypeError, ValueError), "stages"),
        ({"modality": "audio"}, ValueError, "modality must be one of"),
        ({"modality": "text"}, ValueError, "needs its tokenizer"),
        ({"pooling": "median"}, ValueError, "pooling must be among"),
        ({"preparation": 5}, TypeError, "preparation must be a callable"),
        ({"max_length": 0}, ValueError, "max_length must be"),
        ({"max_length": "x"}, ValueError, "max_length must be"),
    ],
    ids=str,
)
def test_what_a_module_cannot_be_given_is_named_at_once(params, error, message):
    with pytest.raises(error, match=message):
        ModuleBackbone(TinyImage(), **params)
    with pytest.raises(TypeError, match="takes a torch.nn.Module"):
        ModuleBackbone(TinyImage)


def test_outputs_stop_at_the_deepest_module_and_leave_no_hooks():
    ran = []

    class Last(nn.Module):
        def forward(self, x):
            ran.append(1)
            return x

    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), Last())
    outputs = outputs_of(network, ["1", "0"], Inputs(args=(torch.ones(3, 2),)))
    assert torch.equal(outputs[0], outputs[1].relu())
    assert not ran
    assert not any(module._forward_hooks for module in network.modules())


def test_main_tensor_is_the_first_of_an_output():
    tensor = torch.ones(2)
    for output in (tensor, (tensor, None), [None, tensor], ((None, tensor), 3), {"a": tensor, "b": tensor + 1}):
        assert main_tensor(output) is tensor
    for output in (None, 3, (), {"a": 1}):
        with pytest.raises(TypeError, match="without a tensor"):
            main_tensor(output)


def test_replicas_of_a_device_and_precision_are_made_once_and_released():
    backbone = load_backbone(seeded(TinyImage, 5))
    cpu = torch.device("cpu")
    inputs = backbone.preparation.examples()[0]
    key = (cpu, torch.bfloat16)

    def embedded():
        with torch.no_grad():
            return backbone.embed(inputs, layers=None, pooling=None, device=cpu, dtype=torch.bfloat16)

    embedded()
    half = backbone._replicas[key]
    assert half.network is not backbone._network
    embedded()
    assert backbone._replicas[key] is half
    backbone.release()
    embedded()
    assert backbone._replicas[key] is not half


def test_what_runs_beyond_the_first_layer_asked_for_is_folded_when_it_is_asked_for():
    backbone = load_backbone(seeded(TinyImage, 6))
    cpu = torch.device("cpu")
    inputs = backbone.preparation.examples()[0]

    def embedded(*layers):
        with torch.no_grad():
            return backbone.embed(inputs, layers=layers or None, pooling=None, device=cpu, dtype=torch.float32)

    def is_folded(norm):
        return "forward" in backbone._replicas[cpu, torch.float32].network.get_submodule(norm).__dict__

    first = embedded(0)
    assert is_folded("first.1")
    assert not is_folded("second.1")
    last = embedded(1)
    assert is_folded("second.1")
    torch.testing.assert_close(embedded(0, 1), torch.cat([first, last], dim=1), rtol=1e-5, atol=1e-5)


def test_a_handle_with_its_own_weights_survives_a_pickle():
    backbone = load_backbone(ModuleBackbone(seeded(TinyText), modality="text", preparation=tiny_tokenizer()))
    assert pickle.loads(pickle.dumps(backbone)) is backbone
    assert repr(backbone).startswith("<Backbone 'TinyText' (text, fingerprint ")
