import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.inputs.series import SeriesPreparation
from sktransfer.inputs.series_rows import read_series
from sktransfer.testing.samples import objects

NETWORKS = ["series-cnn", "series-lstm", "series-transformer"]
ONE = np.random.default_rng(0).normal(size=(4, 6))
TWO = np.random.default_rng(1).normal(size=(4, 2, 6))
UNEQUAL = [TWO[0], TWO[1][:, :1], np.tile(TWO[2], 12), TWO[3][:, :4], TWO[1]]


def extract(X, name="series-cnn", **params):
    return PretrainedFeatureExtractor(name, **params).fit(X)


@pytest.mark.parametrize(
    "X",
    [
        ONE,
        ONE[:, None],
        list(ONE),
        ONE.tolist(),
        objects(list(ONE)),
        objects(list(ONE[:, None])).reshape(-1, 1),
        torch.tensor(ONE, requires_grad=True),
        [torch.tensor(row) for row in ONE],
        pd.DataFrame(ONE),
        pd.DataFrame(ONE, columns=list("abcdef")),
        pl.DataFrame(ONE, schema=list("abcdef")),
        pd.Series(list(ONE)),
        pd.DataFrame({"series": list(ONE)}),
        pl.Series(ONE.tolist()),
        pl.Series(ONE),
        pl.DataFrame({"series": ONE.tolist()}),
    ],
    ids=lambda X: f"{type(X).__module__.split('.')[0]} {type(X).__name__} {getattr(X, 'shape', '')}",
)
def test_series_of_one_channel_are_read_from_any_container(X):
    rows = read_series(X)
    assert all(row.shape == (1, 6) for row in rows)
    np.testing.assert_array_equal(np.stack(rows)[:, 0], ONE)


@pytest.mark.parametrize(
    "X",
    [TWO, list(TWO), TWO.tolist(), objects(list(TWO)), pd.Series(list(TWO)), pl.Series(TWO.tolist())],
    ids=lambda X: type(X).__name__,
)
def test_series_of_several_channels_are_read_from_any_container(X):
    np.testing.assert_array_equal(np.stack(read_series(X)), TWO)


def test_lengths_may_differ():
    assert [row.shape for row in read_series(UNEQUAL)] == [(2, 6), (2, 1), (2, 72), (2, 4), (2, 6)]


@pytest.mark.parametrize(
    "X, error, message",
    [
        ([], ValueError, "0 sample"),
        (np.ones((0, 1, 5)), ValueError, "0 sample"),
        (np.ones((3, 1, 0)), ValueError, r"shape \(3, 1, 0\)"),
        (np.ones(5), ValueError, "Expected 2D or 3D"),
        (np.ones((2, 3, 4, 5)), ValueError, "Expected 2D or 3D"),
        ([1.0, 2.0], ValueError, r"Row 0 of X has the shape \(\)"),
        ([ONE[0], np.ones((2, 3, 4))], ValueError, r"Row 1 of X has the shape \(2, 3, 4\)"),
        ([ONE[0], []], ValueError, r"Row 1 of X has the shape"),
        ([ONE[0], None], ValueError, "Row 1 of X is missing"),
        ([ONE[0], np.nan], ValueError, "Row 1 of X is missing"),
        ([ONE[0], "text"], TypeError, "Row 1 of X is of type str"),
        ([ONE[0], ["a", "b"]], TypeError, "Row 1 of X is an array of <U1"),
        ([[[1, 2], [3]]], ValueError, "Row 0 of X .*channels differ in length"),
        ("text", TypeError, "scalar"),
        (Image.new("L", (4, 4)), TypeError, "scalar"),
        (csr_array(np.eye(3)), TypeError, "Sparse data"),
        (np.ones((2, 1, 3), complex), ValueError, "Complex data not supported"),
        (np.array([["a", "b"]]), TypeError, "series are numbers"),
        (pd.DataFrame({"a": list(ONE), "b": list(ONE)}), ValueError, "2 columns that are not all numbers"),
        (objects([*ONE, *ONE]).reshape(4, 2), ValueError, "one column"),
        (pl.DataFrame({"a": [1.0, None], "b": [1.0, 2.0]}), ValueError, "Row 1 of X misses a value in column 'a'"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": [np.nan, 2.0]}), ValueError, "Row 0 of X misses a value in column 'b'"),
    ],
)
def test_what_is_no_series_is_an_error(X, error, message):
    with pytest.raises(error, match=message):
        read_series(X)


@pytest.mark.parametrize(
    "value, word", [(np.nan, "NaN, a missing value,"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
@pytest.mark.parametrize("form", [np.asarray, list])
def test_values_that_are_not_finite_are_named(value, word, form):
    X = TWO.copy()
    X[2, 1, 3] = value
    with pytest.raises(ValueError, match=f"Row 2 of X has {word} in channel 1, at time point 3. Fill gaps first"):
        extract(form(X))


def test_another_number_of_channels_is_an_error_that_names_the_row():
    extractor = extract(TWO)
    with pytest.raises(ValueError, match="Row 0 .*3 channel.* made for 2 channel"):
        extractor.transform(np.ones((2, 3, 5)))
    with pytest.raises(ValueError, match="Row 1 .*6 channel.*2 time points.*transpose"):
        extractor.transform([TWO[0], TWO[0].T])
    with pytest.raises(ValueError, match="Row 1 .*1 channel.*row 0 has 2"):
        extract([TWO[0], TWO[0][:1]])


def test_channels_are_standardised_over_all_rows_and_time_points():
    X = [row * [[3.0], [1e-3]] + [[100.0], [0.0]] for row in UNEQUAL]
    preparation = SeriesPreparation.learnt_from(X)
    together = np.hstack(preparation.prepare(X, 0))
    np.testing.assert_allclose(together.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(together.std(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e300])
def test_constant_series_are_not_blown_up(value):
    X = np.full((3, 1, 5), value)
    assert np.abs(extract(X).transform(X)).max() < 100


def test_huge_values_are_standardised_like_others():
    wanted = extract(TWO).transform(TWO)
    np.testing.assert_allclose(extract(TWO * 1e307).transform(TWO * 1e307), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_does_not_depend_on_its_batch_mates(name):
    extractor = extract(
        UNEQUAL, name, cache=None, batch_size=len(UNEQUAL), layer=[0, -1], pooling=["mean", "max", "last"]
    )
    together = extractor.transform(UNEQUAL)
    alone = np.vstack([extractor.transform([row]) for row in UNEQUAL])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6 * np.abs(together).max())
    backwards = extractor.transform(UNEQUAL[::-1])[::-1]
    np.testing.assert_allclose(together, backwards, rtol=0, atol=1e-6 * np.abs(together).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_is_not_read(name):
    extractor = extract(UNEQUAL, name)
    network, preparation = extractor.backbone_.snapshot(), extractor.backbone_.preparation
    inputs = preparation.collate(preparation.prepare(UNEQUAL, 0))
    inside = inputs.mask.bool()
    dirty = inputs.kwargs["series"].clone()
    dirty[~inside] = 7.0
    cleaned = {"series": dirty, "attention_mask": inputs.kwargs["attention_mask"]}
    with torch.no_grad():
        torch.testing.assert_close(network(**cleaned)[inside], network(**inputs.kwargs)[inside])


def test_order_matters_and_position_does_too():
    X = np.arange(12.0).reshape(1, 1, 12)
    for name in NETWORKS:
        extractor = extract(X, name)
        assert np.abs(extractor.transform(X) - extractor.transform(X[:, :, ::-1])).max() > 1e-4, name


def test_frames_keep_their_columns_and_arrays_have_none():
    extractor = extract(pd.DataFrame(ONE, columns=list("abcdef")))
    assert extractor.n_features_in_ == 6 and list(extractor.feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names should match"):
        extractor.transform(pd.DataFrame(ONE, columns=list("abcxyz")))
    extractor = extract(ONE)
    assert not hasattr(extractor, "n_features_in_")
    assert extractor.transform(ONE[:, :3]).shape == (4, 128), "time points are not features"


@pytest.mark.parametrize("params", [{"max_length": 5}, {"prompt": "x"}, {"weights": "file.safetensors"}])
def test_parameters_that_say_nothing_to_series_are_refused(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        extract(TWO, **params)


def test_auto_says_how_to_come_by_a_backbone_for_series():
    with pytest.raises(ValueError, match="a source.*ModuleBackbone.*'series-cnn' for random features"):
        PretrainedFeatureExtractor(modality="series").fit(TWO)


def test_tables_and_series_are_told_apart_by_the_backbone():
    with pytest.raises(ValueError, match="'series-cnn' reads series rows"):
        PretrainedFeatureExtractor("series-cnn", modality="table").fit(ONE)


def convolution():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv1d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv1d(5, 7, 3, padding=1))


def test_a_modules_output_is_pooled_over_time():
    module = convolution()
    extractor = extract(UNEQUAL, ModuleBackbone(module, modality="series"))
    with torch.no_grad():
        wanted = [module(torch.tensor(row[None], dtype=torch.float32)).mean(2)[0].numpy() for row in UNEQUAL]
    np.testing.assert_allclose(extractor.transform(UNEQUAL), wanted, atol=1e-6)
    assert extract(UNEQUAL, ModuleBackbone(module, modality="series"), layer=0).transform(UNEQUAL).shape == (5, 5)


def test_a_module_gets_series_of_one_length_to_a_batch():
    shapes = []

    class Watching(nn.Module):
        def forward(self, series):
            shapes.append(tuple(series.shape))
            return series.mean(2)

    X = [TWO[0], TWO[1], TWO[2][:, :3], TWO[3][:, :3]]
    out = extract(X, ModuleBackbone(Watching(), modality="series"), cache=None).transform(X)
    np.testing.assert_allclose(out, [row.mean(axis=1) for row in X], rtol=1e-5, atol=1e-6)
    assert {(2, 2, 6), (2, 2, 3)} == set(shapes) - {(1, 2, 6)}


@pytest.mark.parametrize(
    "X, preparation, message",
    [
        (np.ones((2, 3, 5)), None, "failed on an input of shape .1, 3, 5"),
        ([np.ones((2, 5)), np.ones((1, 5))], None, "Row 1 .*1 channel.*row 0 has 2"),
        (TWO, lambda row: row[0], r"shape \(6,\) of row 0"),
        (TWO, lambda row: row["a"], "The preparation failed on row 0 of X: IndexError"),
    ],
)
def test_what_a_module_cannot_read_is_an_error(X, preparation, message):
    with pytest.raises(ValueError, match=message):
        extract(X, ModuleBackbone(convolution(), modality="series", preparation=preparation))


def test_a_modules_preparation_is_applied():
    module = convolution()
    given = extract(TWO, ModuleBackbone(module, modality="series", preparation=lambda row: row[:, ::2])).transform(TWO)
    np.testing.assert_allclose(
        given, extract(TWO[:, :, ::2], ModuleBackbone(module, modality="series")).transform(TWO[:, :, ::2]), atol=1e-6
    )


def test_series_of_the_archive_in_a_search(data):
    archive = np.load(data / "series" / "ucr.npz")
    X, y = archive["GunPoint_x_train"], archive["GunPoint_y_train"]
    # Cut each at another place, so that lengths differ.
    cut = [row[:, : 150 - 5 * (place % 7)] for place, row in enumerate(X)]
    model = Pipeline(
        [
            ("features", PretrainedFeatureExtractor("series-cnn")),
            ("scale", StandardScaler()),
            ("head", LogisticRegression(max_iter=1000)),
        ]
    )
    search = GridSearchCV(model, {"features__layer": [None, 0], "head__C": [0.01, 0.1]}, cv=3, error_score="raise")
    search.fit(cut, y)
    assert search.score(archive["GunPoint_x_test"], archive["GunPoint_y_test"]) > 0.9


def test_a_source_on_one_set_reads_another_of_another_length(data):
    archive = np.load(data / "series" / "ucr.npz")
    source = extract(archive["Lightning2_x_train"][:8])
    target = PretrainedFeatureExtractor(source).fit(archive["Lightning7_x_train"][:4])
    assert target.backbone_ is source.backbone_
    assert target.transform(archive["Lightning7_x_test"][:4]).shape == (4, 128)
