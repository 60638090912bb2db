"""Every parameter of every public estimator: a wrong value is refused by name, before anything is read or loaded."""

import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold
from support.estimators import ESTIMATORS
from torch import nn
from torchvision.transforms import v2

from sktransfer import (
    DistilledClassifier,
    DistilledRegressor,
    FineTunedClassifier,
    ModuleBackbone,
    cache_clear,
    cache_info,
    list_backbones,
    set_cache_limit,
)

PARAMETERS = [(listed, name) for listed in ESTIMATORS for name in listed.make().get_params(deep=False)]


def ids(listed, name):
    return f"{listed.name}-{name}"


# Numbers as large as single precision holds are an odd rate, but a rate.
STRENGTHS = ("learning_rate", "head_lr_ratio", "l2_sp", "weight_decay", "max_grad_norm", "hint_weight")

# Values that no parameter takes, but for those that are named behind.
NEVER = {
    "an object": (object(), ()),
    "NaN": (float("nan"), ()),
    "NaN of numpy": (np.float32("nan"), ()),
    "infinity": (float("inf"), ()),
    "a complex number": (1j, ()),
    "10**30": (10**30, ("verbose", *STRENGTHS)),
    "10**400": (10**400, ("verbose",)),
    "-10**30": (-(10**30), ()),
    "1e308": (1e308, ()),
    "-0.5": (-0.5, ()),
    "True": (True, ("freeze_batch_norm", "early_stopping", "normalize", "warm_start", "verbose")),
    "False": (np.False_, ("freeze_batch_norm", "early_stopping", "normalize", "warm_start", "verbose")),
    "bytes": (b"auto", ()),
    "an empty string": ("", ("prompt",)),
    "an empty list": ([], ()),
    "a set": ({1}, ()),
    "a matrix": (np.ones((2, 2)), ()),
    "a sparse matrix": (csr_matrix(np.eye(2)), ()),
    "a class": (LogisticRegression, ("head",)),
    "a NUL": ("a\0b", ("prompt", "layer")),
}
# Values that make sense elsewhere.
OFTEN = {
    "alpha": [1.5, -0.1, "0.5", None],
    "augment": [5, "crop", v2.RandomHorizontalFlip],
    "backbone": [None, 5, "x" * 5000, Path("x" * 5000), " ", ["text-static"], nn.Linear, FineTunedClassifier],
    "batch_size": [0, -1, 1.5, None, "8", 2.0],
    "cache": [5, "x" * 5000, "a\0b", True, ["memory"], "disk", " "],
    "class_weight": ["equal", [1, 2], {0: np.nan}, {0: -1.0}, {0: np.inf}, {0: "a"}, {0: True}, {0: 10**400}, {0: None}],
    "cv": [0, 1, True, "5", np.array(2), torch.tensor(2), KFold,
           [], (), [1, 2], [("a", "b")], [([0], [1], [2])], [([], [0])], [([0.5], [1.0])], 2.0],
    "device": ["nonsense", torch.device("meta"), None, 0, "cuda:99"],
    "early_stopping": [0, 1, None, "yes"],
    "freeze_batch_norm": [0, 1, None, "yes"],
    "freeze_depth": [1.5, -0.5, None, "half", "1", [1], (0,)],
    "head": [5, "deep", None],
    "head_init": ["zero", None],
    "head_lr_ratio": [0.0, -1.0, None, "auto"],
    "hint_weight": [-1, None, "0"],
    "l2_sp": [-1.0, None],
    "layer": [1.5, [], (), [True], [None], [1.5], [[0]], {"a": 1}],
    "layer_decay": [0, 1.5, None],
    "learning_rate": [0.0, -1e-3, None, "high", "1e-3"],
    "lr_scheduler": ["step", None],
    "max_epochs": [-1, 1.5, None, "10", 2.0],
    "max_grad_norm": [0, -1.0, "1"],
    "max_length": [0, -1, 1.5, "128"],
    "modality": ["audio", None],
    "n_iter_no_change": [0, 1.5, "5"],
    "normalize": [0, 1, None, "l2"],
    "optimizer": ["lion", None, torch.optim.Adam],
    "pooling": [[], (), ["mean", 3], "median", ["median"], None, 3, [None], ["auto"]],
    "precision": ["float64", None, torch.float16, "float16"],
    "prompt": [5, ["query"]],
    "random_state": [-1, 1.5, "0", np.random.default_rng(0), 2**32],
    "report_fraction": [0.0, 1.0, 1.5, 0, -1, "0.1"],
    "source_probe": [5, "X", {}, (1,), (1, 2, 3), np.zeros((2, 2)), ([[0.0], [1.0]], [np.nan, 1.0])],
    "stability_every": [0, 1.5, "1"],
    "student": [None, 5, "x" * 5000, Path("x" * 300), [LogisticRegression()], LogisticRegression, True],
    "teacher": [None, 5, "resnet18", LogisticRegression, [], [None], [[]]],
    "teacher_weights": [[1, 2], [-1], [0], [np.nan], [np.inf], ["a"], [True], 1.0, [[1.0]], [None], [10**400], "a", [1j],
                        np.ma.array([1.0])],
    "temperature": [0, -1, None, "2", 1e-300, 1e30],
    "truncate_dim": [0, 1.5, "8"],
    "unfreeze_every": [0, 1.5, "1"],
    "validation_fraction": [0.0, 1.0, 1.5, 0, -1, None, "0.1"],
    "verbose": [-1, None, "yes"],
    "warm_start": [0, 1, None, "yes"],
    "warmup_ratio": [1.0, -0.1, None],
    "weight_decay": [-1, None],
    "weight_interpolation": [1.5, -0.1, None, "half", "auto"],
    "weights": [1.5, True, 5, ["a"], " ", "a\0b", "x" * 5000, Path("x" * 300)],
    "window_pooling": ["median", 3, ["mean"]],
}  # fmt: skip


class Untouched:
    """Rows or targets that must not be looked at."""

    def __getattribute__(self, name):
        if name == "__class__":
            return object.__getattribute__(self, name)
        raise AssertionError(f"{name} was looked at before the parameters were")

    __len__ = __iter__ = __getitem__ = __array__ = None


@pytest.mark.parametrize("listed, name", PARAMETERS, ids=[ids(*one) for one in PARAMETERS])
def test_a_wrong_value_is_refused_by_name_before_any_work(listed, name):
    wrong = [(what, value) for what, (value, but) in NEVER.items() if name not in but]
    wrong += [(repr(value), value) for value in OFTEN[name]]
    missed = []
    for what, value in wrong:
        # A network that is not there: to look for it is work as well.
        made = listed.make(backbone="no-such-network").set_params(**{name: value})
        given = [Untouched()] if listed.targets(1) is None else [Untouched(), Untouched()]
        try:
            made.fit(*given)
        except (ValueError, TypeError) as error:
            if name not in str(error):
                missed.append(f"{what}: {type(error).__name__}: {error}")
        except Exception as error:
            missed.append(f"{what}: {type(error).__name__}: {error}")
        else:
            missed.append(f"{what}: accepted")
    assert not missed, "\n".join(missed)


# Valid values other than the defaults; float32 holds all of them exactly.
PLAIN = {
    "alpha": 0.25, "batch_size": 4, "cache": "memory", "cv": 2, "device": "cpu", "early_stopping": True,
    "freeze_batch_norm": False, "freeze_depth": 1, "head": "mlp", "head_init": "random", "head_lr_ratio": 4.0,
    "hint_weight": 0.0, "l2_sp": 0.125, "layer": 0, "layer_decay": 0.5, "learning_rate": 2.0**-7, "lr_scheduler": "linear",
    "max_epochs": 3, "max_grad_norm": 0.5, "max_length": 3, "modality": "text", "n_iter_no_change": 2, "normalize": True,
    "optimizer": "adam", "pooling": "mean", "precision": "float32", "prompt": "say: ", "random_state": 3,
    "report_fraction": 0.25, "stability_every": 1, "temperature": 3.0, "truncate_dim": 4, "unfreeze_every": 1,
    "validation_fraction": 0.375, "verbose": 0, "warm_start": False, "warmup_ratio": 0.25, "weight_decay": 0.5,
    "weight_interpolation": 0.75, "weights": "random", "window_pooling": "max",
}  # fmt: skip
NO_SCALARS = {"augment", "backbone", "class_weight", "source_probe", "student", "teacher", "teacher_weights"}
NUMPY = {bool: np.bool_, int: np.int64, float: np.float32, str: np.str_}
TEXTS = [f"row {place} of {'black' if place % 2 else 'white and red'} tea" for place in range(16)]


LARGEST = ("batch_size", "max_length", "n_iter_no_change", "stability_every", "unfreeze_every")


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)
def test_the_largest_numbers_mean_all_there_are(listed):
    fitted = {}
    for size in (10_000, 2**63 - 1):
        names = [name for name in LARGEST if name in listed.make().get_params(deep=False)]
        made = (
            listed.make(**dict.fromkeys(names, size))
            if "Distilled" not in listed.name
            else listed.make(batch_size=size)
        )
        y = listed.targets(len(TEXTS))
        fitted[size] = listed.predict(made.fit(TEXTS) if y is None else made.fit(TEXTS, y), TEXTS)
    np.testing.assert_array_equal(*fitted.values())


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)
def test_scalars_of_numpy_are_what_they_are_in_python(listed):
    names = set(listed.make().get_params(deep=False)) - NO_SCALARS
    assert names <= set(PLAIN), "say above what else is valid"
    plain = {name: PLAIN[name] for name in sorted(names)}
    of_numpy = {name: NUMPY[type(value)](value) for name, value in plain.items()}
    predictions = []
    for parameters in (plain, of_numpy):
        y = listed.targets(len(TEXTS))
        made = listed.make().set_params(**parameters)
        made.fit(TEXTS) if y is None else made.fit(TEXTS, y)
        predictions.append(listed.predict(made, TEXTS))
    np.testing.assert_array_equal(*predictions)
    assert all(getattr(made, name) is value for name, value in of_numpy.items())


def test_fractions_and_large_ints_are_the_floats_that_they_are_equal_to():
    parameters = {"freeze_depth": 0, "learning_rate": 2**-7, "layer_decay": 0.5, "validation_fraction": 0.375}
    parameters |= {"early_stopping": True, "warmup_ratio": 0.25, "weight_interpolation": 0.75, "max_epochs": 1}
    fractions = {name: Fraction(value) if type(value) is float else value for name, value in parameters.items()}
    large = [dict.fromkeys(("l2_sp", "weight_decay", "max_grad_norm"), number) for number in (10**30, 1e30)]
    y = np.arange(16) % 2
    for estimator, pair in (
        (FineTunedClassifier(random_state=0), [fractions, parameters]),
        (FineTunedClassifier(freeze_depth=0, learning_rate=1e-30, max_epochs=1, random_state=0), large),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # where the loss overflows, training stops with a warning
            found = [clone(estimator).set_params(**one).fit(TEXTS, y).predict_proba(TEXTS) for one in pair]
        np.testing.assert_array_equal(*found)
    X = np.random.default_rng(0).normal(size=(16, 2))
    for part in (Fraction(1, 2), 0.5):
        model = DistilledClassifier(LogisticRegression(), LogisticRegression(), temperature=4 * part, alpha=part)
        found.append(model.set_params(report_fraction=part, random_state=0).fit(X, y).predict_proba(X))
    np.testing.assert_array_equal(*found[-2:])


def test_a_grid_of_numpy():
    grid = {
        "unfreeze_every": np.arange(1, 3),
        "freeze_batch_norm": np.array([True]),
        "learning_rate": np.logspace(-3, -2, 2),
    }
    search = GridSearchCV(FineTunedClassifier(max_epochs=1, random_state=0), grid, cv=2, error_score="raise")
    search.fit(TEXTS, np.arange(16) % 2)
    assert type(search.best_params_["unfreeze_every"]) is np.int64


def scripted():
    """Return a module of TorchScript, as it comes from a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that there are other ways now
        return torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2))


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)
def test_modules_without_weights_of_their_own(listed):
    X = np.random.default_rng(0).normal(size=(16, 2))
    lazy, empty = nn.LazyLinear(3), nn.Linear(2, 3, device="meta")
    for module, match in ((scripted(), "of TorchScript"), (lazy, "wait for a first input"), (empty, "device 'meta'")):
        for given in (module, nn.Sequential(module), ModuleBackbone(module, modality="table")):
            with pytest.raises((TypeError, ValueError), match=f"backbone=.*{match}"):
                listed.fit(X, backbone=given, modality="table")


class Complex(nn.Module):
    """A spectrum, say."""

    def forward(self, rows):
        return torch.fft.rfft(rows)


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)
def test_complex_features_are_refused(listed):
    with pytest.raises(ValueError, match="complex numbers, which features are not"):
        listed.fit(np.random.default_rng(0).normal(size=(16, 4)), backbone=Complex(), modality="table")


def test_a_head_of_torchscript():
    with pytest.raises(TypeError, match="^head made a RecursiveScriptModule of TorchScript"):
        FineTunedClassifier(head=scripted()).fit(TEXTS, np.arange(16) % 2)


@pytest.mark.parametrize("head", [nn.ReLU, lambda n_features: nn.Linear(n_features, 1)])
def test_a_head_that_can_not_be_made(head):
    with pytest.raises(
        TypeError, match="^head=.* was called with the length of an embedding, 256, and the number of outputs, 1"
    ):
        FineTunedClassifier(head=head).fit(TEXTS, np.arange(16) % 2)


def test_names_of_students_are_told_as_such():
    for student in ("no-such-network", "/no/such/directory"):
        with pytest.raises((ValueError, OSError), match=f"^student: backbone='{student}'"):
            DistilledClassifier(LogisticRegression(), student).fit(TEXTS, np.arange(16) % 2)


@pytest.mark.parametrize(
    "cv, match",
    [
        (17, "^cv: Cannot have number of splits"),
        (iter([]), "^cv gives no folds"),
        ([(np.arange(8), np.arange(8, 17))], "^cv names rows beyond the 16"),
        (iter([(np.arange(8), ["a"])]), "^cv must give for each fold"),
    ],
)
def test_folds_that_do_not_fit_the_rows(cv, match):
    X = np.random.default_rng(0).normal(size=(16, 2))
    with pytest.raises(ValueError, match=match):
        DistilledClassifier(LogisticRegression(), LogisticRegression(), cv=cv).fit(X, np.arange(16) % 2)


@pytest.mark.parametrize("fraction", [16, 10**6, 0.99])
def test_a_report_that_leaves_nothing_to_learn_from(fraction):
    X = np.random.default_rng(0).normal(size=(16, 2))
    with pytest.raises(ValueError, match="report_fraction=.* of 16 labelled rows holds back"):
        DistilledRegressor(Ridge(), Ridge(), report_fraction=fraction).fit(X, X[:, 0])


@pytest.mark.parametrize("weights", [[5e-324, 5e-324], [1.7e308, 1.7e308], (1, 1), np.ones(2, dtype=np.float32)])
def test_weights_of_teachers_count_by_their_shares(weights):
    X = np.random.default_rng(0).normal(size=(16, 2))
    made = [
        DistilledRegressor([Ridge(), Ridge(100)], Ridge(), teacher_weights=given).fit(X, X[:, 0]).predict(X)
        for given in (None, weights)
    ]
    np.testing.assert_array_equal(*made)


# What is no estimator


def module(**parameters):
    return ModuleBackbone(nn.Linear(3, 3), **parameters)


@pytest.mark.parametrize(
    "call, name, wrong",
    [
        (lambda v: ModuleBackbone(v), "Module", [None, 5, nn.Linear, "resnet18"]),
        (lambda v: module(modality=v), "modality", ["audio", None, ["image"], np.ones(2), b"image"]),
        (lambda v: module(preparation=v), "preparation", [5, "resize"]),
        (lambda v: module(modality="text", preparation=v), "preparation", [5, None, str.split]),
        (lambda v: module(stages=v), "stages", ["0", 5, [5], ["no"], {"0"}, (name for name in ["0"])]),
        (lambda v: module(pooling=v), "pooling", [5, None, [], ["mean", 3], "auto", np.ones(2)]),
        (lambda v: module(max_length=v), "max_length", [0, True, np.True_, 1.5, None, 10**30, float("nan"), "8"]),
        (lambda v: module(name=v), "name", [5, b"x", True, ["x"]]),
        (lambda v: list_backbones(v), "modality", [5, "audio", ["text"], np.ones(2), True, "", b"text"]),
        (lambda v: list_backbones(pattern=v), "pattern", [5, b"*", ["*"], True]),
        (lambda v: cache_info(v), "cache", [None, 5, "", True, "a\0b", np.ones(2), b"x", ["memory"], "x" * 5000]),
        (lambda v: cache_clear(v), "cache", [None, 5, "", True, "a\0b", np.ones(2), b"x", ["memory"], "x" * 5000]),
        (lambda v: set_cache_limit(5, v), "cache", [None, 5, "", "a\0b", np.ones(2), b"x", "x" * 5000]),
        (
            lambda v: set_cache_limit(v),
            "max_bytes",
            [None, "5", -1, 1.5, True, np.True_, float("nan"), 10**30, np.ones(2)],
        ),
    ],
)
def test_wrong_values_of_functions_and_modules(call, name, wrong):
    for value in wrong:
        with pytest.raises((ValueError, TypeError), match=name):
            call(value)
