"""Rows of the former code must not come out of a cache once the user's code has changed."""

import importlib
import json
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer import ModuleBackbone, PretrainedFeatureExtractor, cache_info
from sktransfer.backbones.fingerprint import code_of, describe

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
            of_static, decorated,
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
    from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
    warnings.simplefilter("error")
    row, found = np.array([[1.0, 2.0]]), {}
    made = {name: ModuleBackbone(nn.Identity(), preparation=one, modality="table") for name, one in cases.PREPARATIONS.items()}
    made |= {name: ModuleBackbone(one, modality="table") for name, one in cases.MODULES.items()}
    for name, backbone in made.items():
        extractor = PretrainedFeatureExtractor(backbone, cache="./rows")
        found[name] = extractor.fit_transform(row).tolist()
        if name == "imports_module" and sys.argv[1:] == ["first"]:
            open("pickle", "wb").write(pickle.dumps(extractor))
    if sys.argv[1:] != ["first"]:
        found["out of a pickle"] = pickle.load(open("pickle", "rb")).transform(row).tolist()
    json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What all cases give in a first process, and in a second one after an edit, over one cache directory."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "pkg").mkdir()
    files = {"helpers.py": HELPERS, "cases.py": CASES, "run.py": RUN, "pkg/__init__.py": ""}
    times = "def times(x): return x * VALUE\n"
    files |= dict.fromkeys(("deeper.py", "late.py", "pkg/inner.py"), times)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    found = []
    for order, value in (("first", "2.0"), ("second", "3.0")):
        for name, text in files.items():
            (folder / name).write_text(textwrap.dedent(text).replace("VALUE", value))
        command = [sys.executable, "run.py", order]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout))
    return found


def test_edited_code_gives_new_rows_in_a_new_process(answers):
    first, second = answers
    double = {"callable": 2}
    assert first == {name: (ROW * 2 * double.get(name, 1)).tolist() for name in first}
    stale = {name: rows for name, rows in second.items() if rows != (ROW * 3 * double.get(name, 1)).tolist()}
    assert not stale
    assert len(second) > 45
