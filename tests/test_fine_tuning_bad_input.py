"""What users hand in by mistake, beyond what `test_fine_tuning` holds: each is told in words that help."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from support.networks import seeded
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.inspection import StabilityDisplay
from sktransfer.training import start
from sktransfer.training.probe import fit_probe


@pytest.fixture
def table():
    X = np.random.default_rng(0).normal(size=(60, 4))
    return X, (X[:, 0] > 0).astype(int)


def classifier(*args, **parameters):
    return FineTunedClassifier(*args, **{"max_epochs": 2, "random_state": 0, **parameters})


@pytest.mark.parametrize("change", [lambda y: 2 * y - 1, lambda y: 2 * y, lambda y: y + 1], ids=["-1 1", "0 2", "1 2"])
def test_labels_that_are_not_0_and_1(table, change):
    X, _ = table
    y = (X[:, :3] > 0).astype(int)
    with pytest.raises(ValueError, match="they have to be 0 and 1"):
        classifier().fit(X, change(y))
    with pytest.raises(ValueError, match="they have to be 0 and 1"):
        classifier(early_stopping=True).fit(X, y, X_val=X, y_val=change(y))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_several_labels_through_cross_val_predict(table, method):
    X, _ = table
    y = (X[:, :3] > 0).astype(int)
    made = cross_val_predict(classifier(), X, y, cv=2, method=method)
    assert made.shape == (60, 3)
    assert classifier().fit(X, y).classes_.tolist() == [0, 1, 2]


class WithoutGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    @torch.no_grad()
    def forward(self, rows):
        return self.layer(rows)


def test_a_network_that_gives_no_gradient(table):
    backbone = ModuleBackbone(seeded(WithoutGradient), modality="table", name="severed")
    with pytest.raises(ValueError, match="'severed' gives outputs without a gradient"):
        classifier(backbone, freeze_depth=0).fit(*table)
    assert classifier(backbone, freeze_depth="all").fit(*table).score(*table) > 0.8


def test_stages_in_another_order_than_the_network_runs_them(table):
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8)))
    backbone = ModuleBackbone(module, modality="table", stages=["2", "0"], name="backwards")
    with pytest.raises(ValueError, match=r"The stages 2, 0 are not in forward order, .*: 0, 2"):
        classifier(backbone, freeze_depth=1).fit(*table)


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_the_size_of_weights_does_not_move_the_probe(kind):
    generator = np.random.default_rng(0)
    vectors, weights = generator.normal(size=(60, 5)), generator.uniform(0.5, 2, 60)
    scores = vectors @ generator.normal(size=(5, 3)) + generator.normal(size=(60, 3))
    targets = {"classes": scores.argmax(1), "labels": (scores > 0).astype(int), "numbers": scores}[kind]
    probes = [fit_probe(vectors, targets, weights * size, kind) for size in (1, 1e-6, 1e6)]
    for other in probes[1:]:
        np.testing.assert_allclose(other.weight, probes[0].weight, rtol=1e-3, atol=1e-6)
        assert other.penalty == pytest.approx(probes[0].penalty)


def test_one_image_in_place_of_several():
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 30, 3)).astype(np.uint8)
    y = np.arange(24) % 2
    for model in (classifier().fit(images, y), PretrainedFeatureExtractor().fit(images)):
        method = model.predict if hasattr(model, "predict") else model.transform
        with pytest.raises(ValueError, match=r"looks like one image. For one image pass X\[None\]"):
            method(images[0])
        assert len(method(images[:1])) == 1
        assert len(method(images[:4, :, :, 0])) == 4


def test_an_untrained_network_is_trained_whole_whatever_is_asked(table):
    model = classifier(freeze_depth="all", unfreeze_every=100, stability_every=2).fit(*table)
    assert not any(stage.frozen for stage in model.stages_)
    assert (model.stability_.weight_change[-1] > 0).all()


def test_stages_that_did_not_open_are_told_as_frozen(table):
    X, y = table
    source = classifier().fit(X, y)
    model = classifier(source, unfreeze_every=2, freeze_depth=0, max_epochs=3, stability_every=3).fit(X, y)
    opened = (model.stability_.weight_change[-1] > 0).tolist()
    assert [not stage.frozen for stage in model.stages_] == opened == [False, False, True, True]
    assert [stage.learning_rate > 0 for stage in model.stages_] == opened


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_class_weights_that_are_no_weights(table, weight):
    with pytest.raises(ValueError, match=r"class_weight of 0 is .*; weights are finite and not negative"):
        classifier(class_weight={0: weight}).fit(*table)


def test_warm_start_with_another_head(table):
    model = classifier(warm_start=True).fit(*table)
    with pytest.raises(ValueError, match="goes on with the head of the last fit, but head is 'mlp' now"):
        model.set_params(head="mlp").fit(*table)


def test_an_estimator_as_its_own_backbone(table):
    model = classifier().fit(*table)
    with pytest.raises(ValueError, match="backbone is this estimator itself"):
        model.set_params(backbone=model).fit(*table)


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_weights_that_are_kept_give_numbers(table, epochs):
    texts = [f"{'waste' if label else 'light'} {row}" for row, label in enumerate(table[1])]
    model = classifier(learning_rate=1e30, max_epochs=epochs, freeze_depth=0, max_grad_norm=None)
    with pytest.warns(UserWarning, match=r"NaN or infinite in epoch \d, .* those of epoch 0"):
        model.fit(texts, table[1])
    assert np.isfinite(model.predict_proba(texts)).all()
    assert [entry["epoch"] for entry in model.history_ if entry["best"]] == [0]


def test_errors_name_the_rows_that_they_are_about(table):
    X, y = table
    source = classifier().fit(X, y)
    with pytest.raises(ValueError, match=r"X_val: .*2 features"):
        classifier(source).fit(X, y, X_val=X[:, :2], y_val=y)
    with pytest.raises(ValueError, match=r"source_probe: "):
        classifier(source, source_probe=(X[:, :2], y), stability_every=1).fit(X, y)
    with pytest.raises(ValueError, match=r"source_probe: .*inconsistent"):
        classifier(source, source_probe=(X, y[:-1]), stability_every=1).fit(X, y)
    with pytest.raises(ValueError, match="source_probe needs rows of at least two classes"):
        classifier(source, source_probe=(X, np.zeros(60)), stability_every=1).fit(X, y)
    assert classifier(source, source_probe=[X, y], stability_every=1).fit(X, y).stability_.forgetting.shape == (3,)


def test_small_mistakes(table):
    X, y = table
    images = np.zeros((4, 8, 8, 3), np.uint8)
    from torchvision.transforms import v2

    with pytest.raises(TypeError, match=r"augment is the class RandomHorizontalFlip; give an object of it"):
        classifier(augment=v2.RandomHorizontalFlip).fit(images, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="modality='table'"):
        classifier(seeded(lambda: nn.Linear(4, 4))).fit(X, y)
    with pytest.raises(ValueError, match="Of a single row none can be held back"):
        FineTunedRegressor(early_stopping=True).fit(X[:1], [1.0])
    with pytest.raises(ValueError, match="cache=3 must be 'memory', a directory"):
        classifier(cache=3).fit(X, y)
    with pytest.raises(TypeError, match="X is a single str"):
        classifier().fit("hello", ["a"])
    with pytest.raises(ValueError, match="there is nothing to record"):
        StabilityDisplay.from_estimator(classifier(max_epochs=0, stability_every=1).fit(X, y))


def test_a_head_of_lazy_layers(table):
    head = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1))
    assert classifier(head=head, max_epochs=60, learning_rate=0.01).fit(*table).score(*table) > 0.8
    assert isinstance(head[0], nn.LazyLinear)


def test_names_of_files_read_as_texts_are_warned_of(tmp_path):
    paths = []
    for place in range(4):
        path = tmp_path / f"{place}.txt"
        path.write_text("some text")
        paths.append(str(path))
    with pytest.warns(UserWarning, match="is the name of a file"):
        classifier().fit(paths, [0, 1, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier().fit(["a text", "no\0name", "x" * 5000, "."] * 2, [0, 1, 0, 1] * 2)


def test_random_weights_are_not_called_pretrained():
    texts = ["one", "two", "three", "four"]
    assert classifier(weights="random").fit(texts, [0, 1, 0, 1]).lineage_[0]["step"] == "untrained"
    assert classifier().fit(texts, [0, 1, 0, 1]).lineage_[0]["step"] == "pretrained"


LABELS_WITH_GAPS = {
    "strings": lambda: pd.Series(["a", None, "b"] * 20),
    "pandas strings": lambda: pd.array(["a", None, "b"] * 20, dtype="string"),
    "list with None": lambda: ["b", None, "a"] * 20,
    "list with NaN": lambda: ["a", np.nan, "b"] * 20,
    "categories": lambda: pd.Series(pd.Categorical(["a", None, "b"] * 20)),
    "objects": lambda: np.array([1, None, 0] * 20, dtype=object),
    "whole numbers": lambda: pd.array([1, None, 0] * 20, dtype="Int64"),
}


@pytest.mark.parametrize("name", LABELS_WITH_GAPS)
def test_missing_labels_are_no_class(table, name):
    with pytest.raises(ValueError, match=r"y contains NaN or None: 20 row\(s\) have no label, the first is row 1"):
        classifier().fit(table[0], LABELS_WITH_GAPS[name]())


def test_targets_of_a_regressor_that_are_no_numbers(table):
    with pytest.raises(ValueError, match=r"^y: could not convert string to float"):
        FineTunedRegressor().fit(table[0], ["a"] * 60)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y_val": np.r_[np.nan, np.ones(8)]}, "contains NaN"),
        ({"X_val": np.empty((0, 4)), "y_val": []}, "Found 0 samples"),
        ({"y_val": np.ones(8, int)}, "inconsistent numbers of samples"),
        ({"sample_weight_val": -np.ones(9)}, "Negative values"),
        ({"sample_weight_val": np.zeros(9)}, "at least one non-zero number"),
    ],
)
def test_errors_about_validation_rows_say_so(table, change, match):
    X, y = table
    given = {"X_val": X[:9], "y_val": y[:9], **change}
    with pytest.raises(ValueError, match=rf"^X_val, y_val or sample_weight_val: .*{match}"):
        classifier().fit(X, y, **given)


def test_files_of_validation_images_that_do_not_exist():
    images = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(FileNotFoundError, match=r"^X_val: 1 of 1 image files do not exist"):
        classifier("image-resnet", modality="image").fit(images, [0, 1, 0, 1], X_val=["/no/such/file.png"], y_val=[0])


class Counting(nn.Module):
    rows_seen = 0

    def __init__(self):
        super().__init__()
        self.stem, self.top = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, rows):
        type(self).rows_seen += len(rows)
        return self.top(torch.tanh(self.stem(rows)))


@pytest.mark.parametrize(
    ("fit", "parameters", "match"),
    [
        ({"X_val": np.zeros((3, 3)), "y_val": [0, 1, 0]}, {}, r"^X_val: .*shape \(1, 3\)"),
        ({}, {"source_probe": (np.zeros((4, 3)), [0, 0, 1, 1]), "stability_every": 1}, r"^source_probe: .*\(1, 3\)"),
        ({}, {"source_probe": (np.zeros((4, 4)), [0.1, 0.2, 0.3, 0.4]), "stability_every": 1}, "are no classes"),
        ({}, {"source_probe": (np.zeros((4, 4)), [0, np.nan, 1, 1]), "stability_every": 1}, "source_probe: .*NaN"),
    ],
)
def test_other_rows_that_do_not_fit_are_found_before_all_of_X_is_run(fit, parameters, match):
    X = np.random.default_rng(0).normal(size=(500, 4))
    backbone = ModuleBackbone(seeded(Counting), modality="table", name="counting", stages=["stem", "top"])
    Counting.rows_seen = 0
    with pytest.raises(ValueError, match=match):
        classifier(backbone, freeze_depth=1, **parameters).fit(X, (X[:, 0] > 0).astype(int), **fit)
    assert Counting.rows_seen < 50


def test_a_validation_file_that_is_no_image_is_found_before_all_of_X_is_run(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    paths = []
    for place, image in enumerate(images):
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(image).save(paths[-1])
    (tmp_path / "bad.png").write_bytes(b"no image")

    def no_probe(*args, **kwargs):
        raise AssertionError("the probe was fitted first")

    monkeypatch.setattr(start, "fit_probe", no_probe)
    y, bad = [0, 1] * 3, [paths[0], tmp_path / "bad.png"]
    model = classifier("image-resnet")
    with pytest.raises(ValueError, match=r"^X_val: .*row 1 of X.*bad\.png"):
        model.fit(paths, y, X_val=bad, y_val=[0, 1])
    with pytest.raises(ValueError, match=r"^source_probe: .*row 1 of X.*bad\.png"):
        model.set_params(stability_every=1, source_probe=(bad * 2, [0, 0, 1, 1])).fit(paths, y)


def test_missing_texts_are_filled_as_the_error_says():
    texts = pd.DataFrame({"text": ["the bin is full", "no light", None, "lamp out"]}, dtype=object)
    y = ["waste", "light", "waste", "light"]
    model = classifier("text-static", freeze_depth="all")
    with pytest.raises(ValueError, match=r"SimpleImputer\(missing_values=None, strategy='constant', fill_value=''\)"):
        model.fit(texts, y)
    filled = SimpleImputer(missing_values=None, strategy="constant", fill_value="")
    assert make_pipeline(filled, model).fit(texts, y).score(texts, y) > 0.5
    assert model.fit(texts["text"].fillna(""), y).score(texts["text"].fillna(""), y) > 0.5


def test_sparse_numbers_to_predict(table):
    X, y = table
    with pytest.raises(TypeError, match=r"y is sparse.*toarray\(\)"):
        FineTunedRegressor().fit(X, csr_matrix(y[:, None].astype(float)))


def test_numbers_where_a_column_held_categories(table):
    X, y = table
    frame = pd.DataFrame({"size": X[:, 0], "kind": pd.Categorical(np.tile([1, 2, 3], 20))})
    model = classifier().fit(frame, y)
    with pytest.raises(ValueError, match="held strings or categories in the fit.*astype to str or 'category'"):
        model.predict(frame.astype({"kind": int}))


@pytest.mark.parametrize("what", ["gradient", "augment"])
def test_a_network_or_augmentation_that_does_not_fit_is_found_before_the_probe(what, monkeypatch):
    def no_probe(*args, **kwargs):
        raise AssertionError("the probe was fitted first")

    monkeypatch.setattr(start, "fit_probe", no_probe)
    if what == "gradient":
        with pytest.raises(ValueError, match="without a gradient"):
            classifier(ModuleBackbone(seeded(WithoutGradient), modality="table"), freeze_depth=0).fit(
                np.zeros((6, 4)), [0, 1] * 3
            )
        return
    images = np.zeros((6, 16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="augment made"):
        classifier("image-resnet", augment=lambda image: image[:, :4]).fit(images, [0, 1] * 3)


def test_columns_of_mixed_names_are_refused_before_training(table, capsys):
    X, y = table
    frame = pd.DataFrame(X, columns=["a", "b", "c", 5])
    with pytest.raises(TypeError, match="all input features have string names"):
        classifier(verbose=1).fit(frame, y)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fraction", [0.99, 60, 500])
def test_a_fraction_that_leaves_nothing_to_learn_from(table, fraction):
    X = table[0][:40]
    with pytest.raises(ValueError, match=rf"^validation_fraction={fraction} of 40 rows .* none is left to learn from"):
        FineTunedRegressor(early_stopping=True, validation_fraction=fraction).fit(X, X[:, 0])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pooling": "max"}, "goes on with the embedding of the last fit, but pooling is 'max' now"),
        ({"pooling": ["mean", "max"]}, "goes on with the embedding of the last fit"),
        ({"head": nn.Linear(768, 1)}, "goes on with the head of the last fit"),
    ],
)
def test_a_warm_start_with_another_embedding_or_head(change, match):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    y = np.arange(8) % 2
    model = classifier("image-resnet", freeze_depth=-1, head=nn.Linear(384, 1), warm_start=True).fit(images, y)
    before = model.decision_function(images)
    with pytest.raises(ValueError, match=match):
        model.set_params(**change).fit(images, y)
    model.set_params(pooling="auto")
    np.testing.assert_array_equal(model.decision_function(images), before)
