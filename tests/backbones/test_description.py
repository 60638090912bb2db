import abc
import collections
import dataclasses
import datetime
import functools
import importlib
import io
import itertools
import logging
import operator
import os
import random
import re
import sys
import threading
import types
import typing
import weakref
from enum import Enum

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.special
import torch
from PIL import Image
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import FunctionTransformer
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from sktransfer.backbones.identity import provenance
from sktransfer.backbones.identity.description import Walk
from sktransfer.backbones.identity.fingerprint import Code, code_of, describe
from sktransfer.backbones.identity.live_parts import live_parts
from sktransfer.backbones.identity.provenance import library_of


class Raises:
    def __getattr__(self, name):
        raise RuntimeError(name)


class HasNoClass:
    @property
    def __class__(self):
        raise ValueError


class ComparesWithNothing:
    __hash__ = None

    def __eq__(self, other):
        raise ValueError


class Point(typing.NamedTuple):
    x: int = 1


@dataclasses.dataclass
class Options:
    size: int = 1
    names: list = dataclasses.field(default_factory=list)


class Abstract(abc.ABC):
    @abc.abstractmethod
    def make(self): ...


class Level(Enum):
    LOW = 1


class Lazy:
    @functools.cached_property
    def value(self):
        return 1


@functools.singledispatch
def by_type(x):
    return x


LOG = logging.getLogger("of.user")
LOCK = threading.RLock()
STRUCTURED = np.array([(1, 2.0)], dtype=[("a", int), ("b", float)])
TABLE = np.random.default_rng(0).random((20, 3))


@torch.no_grad()
def without_gradients(x):
    with LOCK:
        LOG.info("called")
    return np.clip(F.relu(x), 0, 1)


def known():
    """Objects that can be looked into: descriptions of two copies are the same."""
    return {
        "mapping": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, a=[1]),
        "named tuple": Point(),
        "data class": Options(),
        "class of data": Options,
        "abstract": Abstract,
        "enum": Level.LOW,
        "cached property": Lazy(),
        "dispatch": by_type,
        "decorated": without_gradients,
        "pattern": re.compile("a+"),
        "date": datetime.datetime(2020, 1, 1),
        "getter": operator.itemgetter(1),
        "generator of numpy": np.random.default_rng(0),
        "state": np.random.RandomState(0),
        "random": random.Random(0),
        "forest": RandomForestClassifier(2, random_state=0).fit(TABLE, TABLE[:, 0] > 0.5),
        "method of estimator": PCA(2, random_state=0).fit(TABLE).transform,
        "function transformer": FunctionTransformer(np.log1p),
        "pandas": pd.DataFrame({"a": [1, 2], "b": pd.Categorical(["x", "y"])}),
        "polars": pl.DataFrame({"a": [1]}),
        "column": pd.Series([1.0]),
        "sparse": sparse.csr_array(np.eye(2)),
        "universal function": scipy.special.expit,
        "vectorized": np.vectorize(without_gradients),
        "namespace": types.SimpleNamespace(a=[1]),
        "proxy": types.MappingProxyType({"a": 1}),
        "masked": np.ma.array([1, 2], mask=[0, 1]),
        "objects": np.array([1, "a", None], dtype=object),
        "structured": STRUCTURED,
        "record": STRUCTURED[0],
        "type variable": typing.TypeVar("T"),
        "alias": list[int],
        "union": int | str,
        "ellipsis": ...,
        "bytes": bytearray(b"a"),
        "builtin": torch.relu,
        "bound builtin": {"a": 1}.get,
        "descriptor": str.lower,
        "module": np,
        "property": property(operator.attrgetter("a")),
        "code": without_gradients.__code__,
        "compose": transforms.Compose([transforms.Resize(8), transforms.Normalize([0.5], [0.5])]),
    }


@pytest.mark.parametrize("name", known())
def test_what_can_be_looked_into_is_described_by_value(name):
    walks = Walk(), Walk()
    first, second = (walk.of(known()[name]) for walk in walks)
    assert first == second
    assert not walks[0].unknown


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_what_cannot_be_looked_into_is_unknown_and_no_error():
    with open(os.devnull) as file:
        odd = [
            Raises(), HasNoClass(), file, io.StringIO(), (i for i in ()), iter([1]), itertools.count(), weakref.ref(LOG),
            torch.Generator(), np.frompyfunc(len, 1, 1), torch.jit.script(nn.Linear(1, 1)), torch.eye(2).to_sparse(),
            sys._getframe(), os.environ, os.getenv, np.load,
        ]  # fmt: skip
        for value in odd:
            walk = Walk()
            walk.of(value)
            assert walk.unknown, type(value)
            assert live_parts([value]) is not None
            assert not any("\n" in reason for reason in walk.unknown)
    assert describe(ComparesWithNothing()) == describe(ComparesWithNothing())


class Counted:
    scale = 1.0
    calls = 0
    seen: list = []

    def set_scale(self, value):
        self.scale = value

    def __call__(self, x):
        type(self).calls += 1
        self.seen.append(x)
        return x * self.scale


def test_class_attributes_that_a_method_only_counts_on_are_results(monkeypatch):
    before = describe(Counted)
    Counted()(1)
    assert describe(Counted) == before
    monkeypatch.setattr(Counted, "scale", 2.0)
    assert describe(Counted) != before, "which a method assigns, and another reads"


class ReadsOnce:
    def __init__(self):
        with open(os.devnull) as file:
            self.scale = len(file.read())

    def __call__(self, x):
        return x * self.scale


def test_a_constructor_that_has_run_is_told_by_the_state_that_it_left():
    assert not code_of(ReadsOnce()).unknown
    assert not code_of(*live_parts([{"a": ReadsOnce()}])).unknown
    assert code_of(lambda x: ReadsOnce()(x)).unknown
    assert code_of(ReadsOnce(), lambda x: ReadsOnce()(x)).unknown


STATE = None
TIMES = {1: 1.0}


def fills_and_reads(x):
    global STATE
    if STATE is None:
        STATE = 1
    return x * STATE


def by_attribute(x):
    return x * by_attribute.scale


by_attribute.scale = 1.0


def by_library_switch(x):
    return x * (Image.MAX_IMAGE_PIXELS or 1)


def by_patched_library(x):
    return F.relu(x)


def own_relu(x):
    return x


@functools.wraps(F.relu)
def looks_like_a_library(x):
    return x * TIMES[1]


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (fills_and_reads, lambda patch: patch.setitem(globals(), "STATE", 2)),
        (by_attribute, lambda patch: patch.setattr(by_attribute, "scale", 2.0)),
        (by_library_switch, lambda patch: patch.setattr(Image, "MAX_IMAGE_PIXELS", 7)),
        (by_patched_library, lambda patch: patch.setattr(F, "relu", own_relu)),
        (looks_like_a_library, lambda patch: patch.setitem(TIMES, 1, 2.0)),
        (TIMES.get, lambda patch: patch.setitem(TIMES, 1, 2.0)),
        (functools.partial(by_attribute), lambda patch: patch.setattr(by_attribute, "scale", 2.0)),
        (functools.lru_cache(by_attribute), lambda patch: patch.setattr(by_attribute, "scale", 2.0)),
        (staticmethod(by_attribute), lambda patch: patch.setattr(by_attribute, "scale", 2.0)),
        (np.vectorize(by_attribute), lambda patch: patch.setattr(by_attribute, "scale", 2.0)),
        ({"f": [by_attribute]}, lambda patch: patch.setattr(by_attribute, "scale", 2.0)),
        (transforms.Lambda(by_attribute), lambda patch: patch.setattr(by_attribute, "scale", 2.0)),
        (Lazy, lambda patch: patch.setattr(Lazy, "value", property(own_relu))),
        (Level, lambda patch: patch.setattr(Level, "label", own_relu, raising=False)),
    ],
)
def test_what_decides_a_result_counts(value, change, monkeypatch):
    before = describe(value)
    assert describe(value) == before
    change(monkeypatch)
    assert describe(value) != before


def test_modules_are_told_from_libraries_by_where_they_lie(tmp_path, monkeypatch):
    for place in ("site-packages", "mine"):
        (tmp_path / place / f"package_in_{place[:4]}").mkdir(parents=True)
        (tmp_path / place / f"package_in_{place[:4]}" / "__init__.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path / place)
    assert library_of("package_in_mine") is None
    assert library_of("package_in_site") == "package_in_site"
    assert library_of("torch.nn") == f"torch {torch.__version__.partition('+')[0]}"
    assert library_of("json.decoder") == library_of("builtins") == "python {}.{}".format(*sys.version_info)
    assert library_of("scipy.special").startswith(f"scipy {scipy.__version__} ")
    assert library_of("__main__") is None
    assert library_of(None) is None
    assert library_of("nowhere.to.be.found") is None


def test_a_library_counts_by_its_version(monkeypatch):
    before = describe(by_patched_library)
    monkeypatch.setattr(provenance, "_versioned", lambda top: f"{top} 99")
    provenance._library_at.cache_clear()
    try:
        assert describe(by_patched_library) != before
    finally:
        provenance._library_at.cache_clear()


def test_code_nested_too_deeply_is_unknown():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    assert isinstance(code_of(deep), Code)
    assert code_of(deep).unknown


def test_optional_imports_are_no_error():
    def optional(x):
        try:
            import surely_not_installed
        except ImportError:
            surely_not_installed = None
        return x, surely_not_installed

    assert describe(optional) == describe(optional)
    assert importlib.util.find_spec("surely_not_installed") is None
