"""Rows of the former code must not come out of a cache once the user's code has changed."""

import functools
import importlib
import json
import os
import pickle
import subprocess
import sys
import textwrap
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import FunctionTransformer
from support.networks import TinyImage, seeded
from torch import nn

from sktransfer import FineTunedClassifier, ModuleBackbone, PretrainedFeatureExtractor, cache_clear, cache_info
from sktransfer.backbones.identity.live_parts import live_parts
from sktransfer.backbones.identity.objects import Constructed

ROW = np.array([[1.0, 2.0]])

# Each is a preparation, or a module with it; VALUE stands in the file that is edited between two processes.
HELPERS = """
    import functools
    from enum import Enum
    from types import SimpleNamespace
    import torch
    from torch import nn
    import deeper
    SCALE = VALUE
    TABLE = {"scale": [VALUE]}
    SPACE = SimpleNamespace(scale=VALUE)
    class Level(Enum):
        HIGH = VALUE
    def times(x): return x * VALUE
    def deep(x): return deeper.times(x)
    def default(x, by=VALUE): return x * by
    def outer():
        by = VALUE
        def inner(x): return x * by
        return inner
    class Base:
        factor = VALUE
        @property
        def twice(self): return self.factor * 2
        @staticmethod
        def fixed(x): return x * VALUE
    class Scaler(Base):
        def __call__(self, x): return x * self.twice
    def decorated(function):
        @functools.wraps(function)
        def wrapper(x): return function(x) * VALUE
        return wrapper
    @functools.lru_cache
    def cached(): return VALUE
    halved = functools.partial(default, by=VALUE)
    by_name = {"times": times}
    class Act(nn.Module):
        def forward(self, x): return x * VALUE
    def __getattr__(name):
        if name == "lazily":
            return times
        raise AttributeError(name)
"""

CASES = """
    import functools, importlib
    import torch
    from torch import nn
    from sklearn.preprocessing import FunctionTransformer
    import helpers, pkg, pkg.inner
    import helpers as h
    from helpers import times
    from pkg import inner

    def global_module(x): return helpers.times(x)
    def alias(x): return h.times(x)
    def name_of_global_module(x): return times(x)
    def setting(x): return x * helpers.SCALE
    def of_container(x): return x * helpers.TABLE["scale"][0]
    def of_namespace(x): return x * helpers.SPACE.scale
    def of_enum(x): return x * helpers.Level.HIGH.value
    def imports_module(x):
        import helpers
        return helpers.times(x)
    def imports_alias(x):
        import helpers as other
        return other.times(x)
    def imports_name(x):
        from helpers import times as t
        return t(x)
    def imports_setting(x):
        from helpers import SCALE
        return x * SCALE
    def imports_submodule(x):
        import pkg.inner
        return pkg.inner.times(x)
    def imports_submodule_as(x):
        import pkg.inner as i
        return i.times(x)
    def imports_from_package(x):
        from pkg import inner
        return inner.times(x)
    def imports_unloaded(x):
        from late import times
        return times(x)
    def imports_optional(x):
        try:
            import not_there
        except ImportError:
            import helpers as not_there
        return not_there.times(x)
    def of_package(x): return pkg.inner.times(x)
    def of_submodule(x): return inner.times(x)
    def relative(x): return pkg.inner.relative(x)
    def relative_name(x): return pkg.inner.relative_name(x)
    def deep(x): return helpers.deep(x)
    def through_local_name(x):
        module = helpers
        return module.times(x)
    def computed_name(x): return getattr(helpers, "ti" + "mes")(x)
    def lazy_attribute(x): return helpers.lazily(x)
    def default_argument(x): return helpers.default(x)
    def module_as_default(x, by=helpers): return by.times(x)
    def in_table(x): return {"a": helpers.times}["a"](x)
    def of_table(x): return helpers.by_name["times"](x)
    def comprehension(x): return [helpers.times(one) for one in [x]][0]
    def of_cached(x): return x * helpers.cached()
    def nested(x):
        def inside(y): return helpers.times(y)
        return inside(x)
    def of_static(x): return helpers.Base.fixed(x)
    @helpers.decorated
    def decorated(x): return x
    class Holder:
        module = helpers
        def __call__(self, x): return self.module.times(x)
    class Method:
        def go(self, x): return helpers.times(x)
    class Slots:
        __slots__ = ("by",)
        def __init__(self): self.by = helpers.SCALE
        def __call__(self, x): return x * self.by

    PREPARATIONS = {
        one.__name__: one for one in [
            global_module, alias, name_of_global_module, setting, of_container, of_namespace, of_enum, imports_module,
            imports_alias, imports_name, imports_setting, imports_submodule, imports_submodule_as, imports_from_package,
            imports_unloaded, imports_optional, of_package, of_submodule, deep, through_local_name, computed_name,
            lazy_attribute, default_argument, module_as_default, in_table, of_table, comprehension, of_cached, nested,
            of_static, decorated, relative, relative_name,
        ]
    } | {
        "closure": helpers.outer(), "callable": helpers.Scaler(), "holder": Holder(), "method": Method().go,
        "partial": functools.partial(helpers.times), "partial of default": helpers.halved, "slots": Slots(),
        "lambda": lambda x: helpers.times(x), "transformer": FunctionTransformer(global_module).transform,
        "list in attribute": functools.partial(lambda steps, x: steps[0](x), [helpers.times]),
    }

    class Forward(nn.Module):
        def forward(self, x): return helpers.times(x)
    class InForward(nn.Module):
        def forward(self, x):
            from helpers import times
            return times(x)
    class Attribute(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = helpers.times
        def forward(self, x): return self.act(x)
    class OfBase(helpers.Act):
        pass
    class BySuper(helpers.Act):
        def forward(self, x): return super().forward(x)
    hooked = nn.Identity()
    hooked.register_forward_hook(lambda module, args, output: helpers.times(output))
    MODULES = {
        "forward": Forward(), "import in forward": InForward(), "attribute": Attribute(), "base class": OfBase(),
        "super": BySuper(), "submodule": nn.Sequential(nn.Identity(), helpers.Act()), "hook": hooked,
    }
"""

RUN = """
    import json, pickle, sys, warnings
    import numpy as np
    from torch import nn
    import cases
    from sktransfer import ModuleBackbone, PretrainedFeatureExtractor, cache_info
    warnings.simplefilter("error")
    row, found, known = np.array([[1.0, 2.0]]), {}, []
    made = {name: ModuleBackbone(nn.Identity(), preparation=one, modality="table") for name, one in cases.PREPARATIONS.items()}
    made |= {name: ModuleBackbone(one, modality="table") for name, one in cases.MODULES.items()}
    for name, backbone in made.items():
        extractor = PretrainedFeatureExtractor(backbone, cache="./rows")
        before = cache_info("./rows").misses if found else 0
        found[name] = extractor.fit_transform(row).tolist()
        if cache_info("./rows").misses == before:
            known.append(name)
        if name == "imports_module" and sys.argv[1:] == ["first"]:
            open("pickle", "wb").write(pickle.dumps(extractor))
    if sys.argv[1:] == ["edited"]:
        found["out of a pickle"] = pickle.load(open("pickle", "rb")).transform(row).tolist()
    json.dump([found, known], sys.stdout)
"""


RELATIVE = """
def relative(x):
    from . import other
    return other.times(x)
def relative_name(x):
    from .other import times
    return times(x)
"""

BESIDE = """
    # Another line, and something that nobody reads.
    OTHER = 5
    def unrelated(x): return x * OTHER
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What all cases give in three processes over one cache directory, with edits between them."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "pkg").mkdir()
    files = {"helpers.py": HELPERS, "cases.py": CASES, "run.py": RUN, "pkg/__init__.py": ""}
    times = "def times(x): return x * VALUE\n"
    files |= dict.fromkeys(("deeper.py", "late.py", "pkg/other.py"), times)
    files["pkg/inner.py"] = times + RELATIVE
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    found = {}
    for order, value, beside in (("first", "2.0", ""), ("again", "2.0", BESIDE), ("edited", "3.0", "")):
        for name, text in files.items():
            text = text + beside if name == "helpers.py" else text
            (folder / name).write_text(textwrap.dedent(text).replace("VALUE", value))
        command = [sys.executable, "run.py", order]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        found[order] = json.loads(run.stdout)
    return found


def test_edited_code_gives_new_rows_in_a_new_process(answers):
    times = {"callable": 2}  # which doubles
    (first, known), (edited, known_then) = answers["first"], answers["edited"]
    assert first == {name: (ROW * 2 * times.get(name, 1)).tolist() for name in first}
    assert edited == {name: (ROW * 3 * times.get(name, 1)).tolist() for name in edited}
    assert len(edited) > 45
    assert set(known + known_then) <= {"lambda"}, "which is another case word for word"


def test_rows_of_code_that_stayed_are_found_in_a_new_process(answers):
    found, known = answers["again"]
    assert found == answers["first"][0]
    # Where a module is handed on as a whole, anything in it may be read.
    assert set(found) - set(known) == {"through_local_name", "computed_name", "module_as_default", "holder"}


# Within a process


def made_module(monkeypatch, name, source):
    module = types.ModuleType(name)
    exec(textwrap.dedent(source), vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def settings(monkeypatch):
    """A module of the user's, which `scaled` and `Scaled` below read."""
    module = made_module(monkeypatch, "settings_of_user", "SIZE = 2.0\ndef scale(x): return x * SIZE")
    monkeypatch.setitem(globals(), "SETTINGS", module)
    cache_clear()
    return module


SETTINGS = None


def scaled(x):
    return SETTINGS.scale(x)


class Scaled(nn.Module):
    def forward(self, x):
        return SETTINGS.scale(x)


BACKBONES = {
    "preparation": lambda: ModuleBackbone(nn.Identity(), preparation=scaled, modality="table"),
    "forward": lambda: ModuleBackbone(nn.Sequential(nn.Identity(), Scaled()), modality="table"),
    "series": lambda: ModuleBackbone(nn.Flatten(), preparation=scaled, modality="series"),
}


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("where", ["memory", "directory"])
def test_a_setting_that_changes_between_fits_and_transforms_gives_new_rows(kind, where, settings, tmp_path):
    cache = "memory" if where == "memory" else tmp_path
    row = ROW[:, None] if kind == "series" else ROW
    fitted = PretrainedFeatureExtractor(BACKBONES[kind](), cache=cache).fit(row)
    for size in (8.0, 3.0, 8.0):
        settings.SIZE = size
        again = PretrainedFeatureExtractor(BACKBONES[kind](), cache=cache).fit(row)
        for extractor in (fitted, again, pickle.loads(pickle.dumps(fitted))):
            np.testing.assert_array_equal(extractor.transform(row), ROW * size)
    before = cache_info(cache).misses
    fitted.transform(row)
    assert cache_info(cache).misses == before, "what did not change is found"


def test_images_and_frozen_stages_follow_settings_too(settings):
    def pixels(image):
        return torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1).copy()) / 255 * SETTINGS.SIZE

    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    backbone = ModuleBackbone(seeded(TinyImage), preparation=pixels)
    extractor = PretrainedFeatureExtractor(backbone).fit(images)
    tuned = FineTunedClassifier(backbone, freeze_depth=1, max_epochs=1, random_state=0).fit(images, [0, 1, 0, 1, 0, 1])
    for size in (2.0, 0.5, 3.0):
        settings.SIZE = size
        for model, method in ((extractor, "transform"), (tuned, "predict_proba")):
            found = getattr(model, method)(images)
            expected = getattr(model.set_params(cache=None), method)(images)
            model.set_params(cache="memory")
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_functions_inside_a_fitted_scikit_learn_model_run_as_they_are(settings):
    model = FunctionTransformer(scaled).fit(ROW)
    extractor = PretrainedFeatureExtractor(model).fit(ROW)
    for size in (2.0, 5.0):
        settings.SIZE = size
        np.testing.assert_array_equal(extractor.transform(ROW), ROW * size)


def opens(x):
    with open(os.devnull) as file:
        return x + len(file.read())


def reads_environment(x):
    return x * float(os.environ["SCALE_OF_USER"])


def gets_environment(x):
    return x * float(os.getenv("SCALE_OF_USER", "1"))


def evaluates(x):
    return eval("x * 2")


def imports_by_name(x):
    return importlib.import_module("operator").mul(x, 2)


def loads(x):
    return x if len(x) else np.load("nothing.npy")


def reads_path(x):
    return x + len(Path(os.devnull).read_text())


def holds(iterator, x):
    return x + len(list(iterator))


OUTSIDE = [opens, reads_environment, gets_environment, evaluates, imports_by_name, loads, reads_path]


@pytest.mark.parametrize(
    "make", [*OUTSIDE, functools.partial(holds, iter(()))], ids=lambda make: getattr(make, "__name__", "holds")
)
def test_what_cannot_be_looked_at_stays_in_memory_and_is_said_once(make, tmp_path, monkeypatch):
    monkeypatch.setenv("SCALE_OF_USER", "2")
    backbone = ModuleBackbone(nn.Identity(), preparation=make, modality="table", name=f"mine {make!r}")
    with pytest.warns(
        UserWarning, match=r"in memory only, not in the cache directory.*can't be looked at.*set cache='memory'"
    ):
        extractor = PretrainedFeatureExtractor(backbone, cache=tmp_path).fit(ROW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = PretrainedFeatureExtractor(backbone, cache=tmp_path).fit(ROW).transform(ROW)
        np.testing.assert_array_equal(extractor.transform(ROW), found)
        PretrainedFeatureExtractor(backbone, cache="memory").fit(ROW)
    assert cache_info(tmp_path).rows == 0
    before = cache_info().misses
    extractor.transform(ROW)
    assert cache_info().misses == before or "partial" in repr(make)


@pytest.mark.parametrize("make", [reads_environment, gets_environment])
def test_a_changed_environment_gives_new_rows(make, monkeypatch):
    backbone = ModuleBackbone(nn.Identity(), preparation=make, modality="table")
    monkeypatch.setenv("SCALE_OF_USER", "2")
    extractor = PretrainedFeatureExtractor(backbone).fit(ROW)
    for scale in (2, 3):
        monkeypatch.setenv("SCALE_OF_USER", str(scale))
        np.testing.assert_array_equal(extractor.transform(ROW), ROW * scale)


def test_of_a_network_that_is_copied_only_the_code_is_looked_at():
    version = f"torch {torch.__version__.partition('+')[0]}"
    assert [part for part in live_parts(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) if "torch" in part] == [version]
    network = nn.Sequential(Scaled(), nn.Identity())
    network[1].steps = {"first": [functools.partial(scaled), scaled]}
    assert [part for part in live_parts(network) if not isinstance(part, str)] == [Constructed(Scaled), scaled]
