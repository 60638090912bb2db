import copy
import pickle

import numpy as np
import pytest
import torch
from support.networks import TinyImage, seeded
from torch import nn

from sktransfer.backbones.identity.fingerprint import describe, fingerprint, module_tensors


def of(module):
    return fingerprint(module_tensors(module), describe(module))


def test_copies_and_pickles_have_the_same_fingerprint():
    module = seeded(TinyImage)
    assert of(module) == of(copy.deepcopy(module)) == of(pickle.loads(pickle.dumps(module))) == of(seeded(TinyImage))


def test_training_mode_and_gradients_do_not_matter():
    module = seeded(TinyImage)
    before = of(module)
    assert of(module.eval().requires_grad_(False)) == before


def test_a_changed_weight_or_statistic_changes_it():
    module = seeded(TinyImage)
    before = of(module)
    module.first[0].weight.data[0, 0, 0, 0] += 1e-6
    after = of(module)
    assert after != before
    module.first[1].running_mean[0] += 1e-6
    assert of(module) != after


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: nn.Conv2d(3, 3, 3, stride=1), lambda: nn.Conv2d(3, 3, 3, stride=2)),
        (lambda: nn.BatchNorm2d(3, eps=1e-5), lambda: nn.BatchNorm2d(3, eps=1e-3)),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()), lambda: nn.Sequential(nn.Linear(2, 2), nn.GELU())),
    ],
)
def test_a_setting_that_is_no_tensor_changes_it(one, other):
    assert of(seeded(one)) != of(seeded(other))


def test_code_of_the_users_classes_counts():
    class Network(nn.Module):
        def forward(self, x):
            return x * 2

    first = Network

    class Network(nn.Module):
        def forward(self, x):
            return x * 3

    assert of(first()) != of(Network())


def test_values_that_the_users_code_reaches_count():
    def make(factor):
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = factor

            def forward(self, x):
                return super().forward(x) * self.scale

        return Network()

    assert of(make(1.0)) == of(make(1.0)) != of(make(2.0))

    def closure(factor):
        return lambda x: x * factor

    assert describe(closure(1)) == describe(closure(1)) != describe(closure(2))


def test_what_cannot_be_described_matches_only_itself():
    first, second = iter([1]), iter([1])

    class Holder(nn.Module):
        def __init__(self, held):
            super().__init__()
            self.held = held

    shared = torch.Generator()
    assert of(Holder(shared)) == of(Holder(shared))
    assert of(Holder(torch.Generator())) != of(Holder(torch.Generator()))
    assert describe(first) != describe(second)


def test_a_network_that_counts_its_calls_stays_the_same():
    calls, total = [], 0

    class Counting(nn.Module):
        seen = 0

        def __init__(self):
            super().__init__()
            self.mine = 0

        def forward(self, x):
            nonlocal total
            type(self).seen += len(x)
            self.mine += 1
            total += 1
            calls.append(len(x))
            return x

    module = Counting()
    module.register_forward_hook(lambda module, args, output: calls.append("hook"))
    before = of(module)
    copy.deepcopy(module)(torch.ones(3))
    assert calls == [3, "hook"]
    assert of(module) == before


def test_circular_references_come_to_an_end():
    module = seeded(TinyImage)
    module.__dict__["me"] = module
    assert of(module) == of(module)


def test_dtype_and_shape_count():
    ones = torch.ones(4)
    prints = {fingerprint({"a": t}, None) for t in (ones, ones.reshape(2, 2), ones.double(), ones.int())}
    assert len(prints) == 4


def test_arrays_and_containers_are_described_by_value():
    assert describe({"a": [np.arange(3), 1.5, None, {2, 1}]}) == describe({"a": [np.arange(3), 1.5, None, {1, 2}]})
    assert describe(np.arange(3)) != describe(np.arange(4))
    assert describe(1) != describe(1.0)


def preparation(mean, config):
    rows = []

    def prepare(image):
        pixels = np.asarray(image, dtype=float).copy()
        pixels[0] = 0
        rows.append(len(pixels))
        return (pixels - mean) * config["scale"]

    return prepare


def test_settings_are_seen_in_functions_that_also_write_to_other_things():
    settings = [(np.zeros(3), {"scale": 1}), (np.ones(3), {"scale": 1}), (np.zeros(3), {"scale": 2})]
    assert len({str(describe(preparation(*one))) for one in settings}) == 3
    prepare = preparation(*settings[0])
    before = describe(prepare)
    prepare(np.ones((2, 3)))
    assert describe(prepare) == before, "the record that it keeps is none"


SIZE = 8


def helper(x):
    return x * SIZE


def reads_a_global(x):
    return helper(x) + 1


def test_global_settings_and_helper_functions_count(monkeypatch):
    before = describe(reads_a_global)
    assert describe(reads_a_global) == before
    monkeypatch.setitem(globals(), "SIZE", 16)
    after = describe(reads_a_global)
    assert after != before
    monkeypatch.setitem(globals(), "helper", lambda x: x)
    assert describe(reads_a_global) != after


def test_a_setting_that_forward_may_fill_in_counts():
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            if self.factor is None:
                self.factor = 1.0
            return x * self.factor

    assert of(Scaled(2.0)) != of(Scaled(3.0))


def test_tokens_are_unique_among_processes():
    import subprocess
    import sys

    code = "import torch; from sktransfer.backbones.identity.fingerprint import describe; print(describe(torch.Generator()))"
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(runs) == 2


class Settings:
    mean = 0.0

    def __init__(self, mean):
        self.mean = mean

    def shift(self, x):
        return x - self.mean


class Constants:
    mean = 0.0


HELD = None


def shifts(x):
    return x - HELD.mean


def applies(x):
    return HELD(x)


def test_objects_behind_global_names_are_settings(monkeypatch):
    from torchvision import transforms

    def seen(function, held):
        monkeypatch.setitem(globals(), "HELD", held)
        return str(describe(function))

    def normalize(mean):
        return transforms.Compose([transforms.Normalize([mean] * 3, [1.0] * 3)])

    def constants(mean):
        return type("Constants", (), {"mean": mean})

    def linear(value):
        return nn.Linear(1, 1).requires_grad_(False).apply(lambda module: nn.init.constant_(module.weight, value))

    for make in (Settings, constants):
        assert seen(shifts, make(0.0)) == seen(shifts, make(0.0)) != seen(shifts, make(5.0))
    for make in (normalize, lambda mean: Settings(mean).shift):
        assert seen(applies, make(0.0)) == seen(applies, make(0.0)) != seen(applies, make(5.0))
    assert seen(applies, linear(0.0)) != seen(applies, linear(5.0)), "tensors of a module behind a name count"


def variants():
    """Functions that touch a setting in a way that looks like keeping a record."""

    def counts_beside(m):
        stats = {"m": m, "n": 0}

        def prepare(x):
            stats["n"] += 1
            return x * stats["m"]

        return prepare

    def adds(m):
        held = torch.tensor(m)
        return lambda x: held.add(x)

    def compares(m):
        return lambda x: x if 0 < m < 1.5 else -x

    def fills(m):
        table = [m]

        def prepare(x):
            table.append(table[0])
            return x * table[0]

        return prepare

    return [counts_beside, adds, compares, fills]


@pytest.mark.parametrize("make", variants(), ids=lambda make: make.__name__)
def test_in_doubt_functions_differ(make):
    assert describe(make(1.0)) == describe(make(1.0)) != describe(make(2.0))


def test_shared_structures_are_walked_once():
    nested = {}
    for _ in range(60):
        nested = {"a": nested, "b": nested}
    assert len(str(describe(nested))) < 10_000
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert describe(deep)[0] == "token"


def test_tensors_without_plain_storage_get_a_token():
    sparse = torch.eye(3).to_sparse()
    assert describe(sparse) == describe(sparse) != describe(torch.eye(3).to_sparse())


def test_a_class_that_only_pretends_to_be_of_a_library_is_looked_into():
    def made(body):
        names = {"__name__": "builtins"}
        exec(f"class Network:\n    def forward(self, x):\n        return {body}", names)
        return names["Network"]

    assert describe(made("x * 2")) == describe(made("x * 2")) != describe(made("x * 3"))
