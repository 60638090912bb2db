import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array, csr_matrix
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktransfer import ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.inputs.table import PlainTablePreparation, TablePreparation
from sktransfer.inputs.table_rows import read_table
from sktransfer.inputs.table_schema import CategoricalColumn, NumericColumn, TableSchema

NUMBERS = np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])


def frame():
    return pd.DataFrame(
        {
            "age": [20.0, 30.0, np.nan, 50.0],
            "job": ["cook", "smith", None, "cook"],
            "here": [True, False, True, True],
            "zone": pd.Categorical([1, 2, 1, None]),
            "rooms": pd.array([1, 2, None, 4], dtype="Int64"),
        }
    )


def extract(X, name="table-mlp", **params):
    return PretrainedFeatureExtractor(name, **params).fit(X)


FORMS = {
    "list of lists": lambda X: X.tolist(),
    "float32": lambda X: X.astype(np.float32),
    "Fortran order": np.asfortranarray,
    "objects": lambda X: X.astype(object),
    "integers": lambda X: X.astype(np.int64),
    "tensor": lambda X: torch.tensor(X, requires_grad=True),
    "pandas": pd.DataFrame,
    "pandas objects": lambda X: pd.DataFrame(X, dtype=object),
    "pandas nullable": lambda X: pd.DataFrame(X).convert_dtypes(),
    "polars": lambda X: pl.DataFrame(X, schema=["a", "b"]),
    "pyarrow": lambda X: pa.table({"a": X[:, 0], "b": X[:, 1]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_read_from_any_container(form):
    table = read_table(FORMS[form](NUMBERS))
    np.testing.assert_array_equal(table.numbers, NUMBERS)
    assert table.numbers.dtype == np.float64 and not table.strings


def test_columns_of_a_frame_are_numbers_or_strings():
    table = read_table(frame())
    assert table.names == ("age", "job", "here", "zone", "rooms")
    assert table.strings == {1: ["cook", "smith", None, "cook"], 3: ["1", "2", "1", None]}
    np.testing.assert_array_equal(table.numbers[:, 2], [1, 0, 1, 1])
    np.testing.assert_array_equal(table.numbers[:, 4], [1, 2, np.nan, 4])


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["b", None, "a"]),
        pd.Series(["b", np.nan, "a"], dtype=object),
        pd.Series(["b", pd.NA, "a"], dtype="string[pyarrow]"),
        pd.Series(["b", None, "a"], dtype="category"),
        pl.Series(["b", None, "a"]),
        pl.Series(["b", None, "a"], dtype=pl.Categorical),
        pl.Series(["b", None, "a"], dtype=pl.Enum(["b", "c", "a"])),
    ],
    ids=lambda column: f"{type(column).__module__.split('.')[0]} {column.dtype}",
)
def test_strings_of_every_type_of_column_are_the_same_categories(column):
    table = read_table(type(column.to_frame("x") if isinstance(column, pd.Series) else pl.DataFrame())({"x": column}))
    assert table.strings == {0: ["b", None, "a"]}
    schema = TableSchema.learnt_from(table)
    assert schema.columns == (CategoricalColumn(("a", "b"), True),)
    np.testing.assert_array_equal(schema.read(table)[:, 0], [1, 3, 0])


def test_mixed_rows_of_a_list_keep_their_types():
    table = read_table([[1, "3.5"], [2, "x"]])
    np.testing.assert_array_equal(table.numbers[:, 0], [1, 2])
    assert table.strings == {1: ["3.5", "x"]}, "strings are categories even where they look like numbers"


def test_a_frame_is_not_changed():
    X = frame()
    before = X.copy(deep=True)
    extract(X).transform(X)
    pd.testing.assert_frame_equal(X, before)


@pytest.mark.parametrize(
    "X, error, message",
    [
        (csr_array(np.eye(2)), TypeError, "Sparse data was passed"),
        (csr_matrix(np.eye(2)), TypeError, "Sparse data was passed"),
        (pd.DataFrame.sparse.from_spmatrix(csr_array(np.eye(2))), TypeError, "Column 0 .*Sparse"),
        (np.ones(3), ValueError, "Expected 2D array, got 1D array"),
        (["a", "b"], ValueError, "Expected 2D array, got 1D array"),
        (np.ones((2, 2, 2)), ValueError, "dim 3"),
        (np.ones((0, 2)), ValueError, "0 sample"),
        (frame()[:0], ValueError, "0 sample"),
        (frame()[[]], ValueError, "0 feature"),
        ([[1, 2], [3]], ValueError, "differ in length"),
        (np.ones((2, 2), complex), ValueError, "Complex data not supported"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), TypeError, "year, month and day"),
        (np.array([[b"x"]]), TypeError, "bytes into str"),
        (pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}), TypeError, "'when' of X is of type datetime64"),
        (pl.DataFrame({"when": [datetime.date(2020, 1, 1)]}), TypeError, "'when' of X is of type Date,.*leave it out"),
        (pd.DataFrame({"when": [datetime.date(2020, 1, 1)]}), TypeError, "'when' of X holds a date in row 0"),
        (pd.DataFrame({"x": [1, {"a": 1}]}), TypeError, "'x' of X holds a dict in row 1.*argument must be a string or"),
        (pd.DataFrame({"x": [[1], [2]]}), TypeError, "'x' of X"),
        (pd.DataFrame({"x": [1, b"2"]}), TypeError, "'x' of X holds a bytes in row 1"),
        ([[1.0], [np.bytes_(b"2")]], TypeError, "holds a bytes_ in row 1"),
        ([[1.0], [np.datetime64("2020-01-01")]], TypeError, "holds a datetime64 in row 1"),
        ([[1.0], [np.timedelta64(3, "D")]], TypeError, "holds a timedelta64 in row 1"),
        ([[1.0], [pd.Timestamp("2020-01-01")]], TypeError, "holds a Timestamp in row 1"),
        (pd.DataFrame({"x": [1, np.complex128(2 + 1j)]}, dtype=object), TypeError, "holds a complex128 in row 1"),
        (pd.DataFrame({"x": ["a", "b", 3]}), ValueError, "'x' of X mixes strings.*row 2 holds 3 of type int"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), ValueError, "more than one column of the name 'x'"),
        (np.array([["a", 3], [4, 5]], dtype=object), ValueError, "Column 0 of X mixes strings.*row 1 holds 4"),
    ],
)
def test_what_is_no_table_is_an_error(X, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        extract(X)


def test_schema_holds_what_the_fit_saw():
    age, job, here, zone, rooms = TableSchema.learnt_from(read_table(frame())).columns
    assert age == NumericColumn(pytest.approx(100 / 3), pytest.approx(np.std([20, 30, 50])), True)
    assert job == CategoricalColumn(("cook", "smith"), True)
    assert here == NumericColumn(0.75, pytest.approx(np.std([1, 0, 1, 1])), False, median=1.0)
    assert zone.categories == ("1", "2")
    assert rooms.missing


@pytest.mark.parametrize("values", [[5.0] * 4, [0.1] * 4, [1e16, 1e16 + 2, 1e16, 1e16], [0.0] * 4, [np.nan] * 4])
def test_columns_without_spread_are_not_blown_up(values):
    X = np.column_stack([values, [1.0, 2.0, 3.0, 4.0]])
    assert TableSchema.learnt_from(read_table(X)).columns[0].scale == 1
    assert np.abs(extract(X).transform(X)).max() < 100


def test_huge_and_tiny_numbers_are_standardised_like_others():
    plain = np.random.default_rng(0).normal(size=(20, 1))
    wanted = TablePreparation(TableSchema.learnt_from(read_table(plain))).prepare(plain, 0)
    for factor in (1e307, 1e-300):
        X = plain * factor
        made = TablePreparation(TableSchema.learnt_from(read_table(X))).prepare(X, 0)
        np.testing.assert_allclose(made, wanted, rtol=1e-9)


def test_missing_numbers_are_the_mean_and_an_indicator():
    X = np.array([[1.0, 2.0], [np.nan, 4.0], [3.0, 6.0]])
    preparation = TablePreparation(TableSchema.learnt_from(read_table(X)))
    numbers, codes = preparation.collate(preparation.prepare(preparation.read(read_table(X)), 0)).args
    assert numbers.shape == (3, 3) and codes.shape == (3, 0)
    np.testing.assert_allclose(numbers[:, 0], [-1, 0, 1])
    np.testing.assert_array_equal(numbers[:, 2], [0, 1, 0])


@pytest.mark.parametrize("where", ["fit", "transform"])
def test_infinity_is_an_error_that_names_it(where):
    extractor = extract(frame())
    X = frame().assign(age=[1, 2, -np.inf, 3])
    with pytest.raises(ValueError, match="Row 2 of X has infinity in column 'age'"):
        extractor.fit(X) if where == "fit" else extractor.transform(X)


def test_unseen_and_missing_categories_have_embeddings_of_their_own():
    X = pd.DataFrame({"a": ["x", "y", None], "b": [1.0, 2.0, 3.0]})
    extractor = extract(X)
    new = pd.DataFrame({"a": ["x", "y", None, "new", "newer"], "b": [1.0] * 5})
    vectors = extractor.transform(new)
    assert len(np.unique(vectors, axis=0)) == 4
    np.testing.assert_array_equal(vectors[3], vectors[4])


def test_a_code_that_the_fit_does_not_show_says_nothing():
    extractor = extract(pd.DataFrame({"a": ["x", "y"], "b": ["u", None]}))
    preparation, network = extractor.backbone_.preparation, extractor.backbone_.snapshot()
    assert preparation.idle_codes == (2, 3, 5)  # unseen and missing of a; unseen of b
    silent = (network.stem.categories.weight == 0).all(1).nonzero().flatten().tolist()
    assert silent == [2, 3, 5]


def test_other_columns_than_at_fit_are_errors():
    X = frame()
    extractor = extract(X)
    for other in (X[X.columns[::-1]], X.rename(columns={"age": "Age"}), X.drop(columns="age")):
        with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
            extractor.transform(other)
    with pytest.raises(ValueError, match="X has 3 features, but PretrainedFeatureExtractor is expecting 2"):
        extract(NUMBERS).transform(np.ones((2, 3)))
    with pytest.raises(ValueError, match="X holds strings in column 'age', which held numbers"):
        extractor.transform(X.assign(age=list("abcd")))
    with pytest.raises(ValueError, match="X holds numbers in column 'job', which held strings"):
        extractor.transform(X.assign(job=[1, 2, 3, 4]))
    assert extractor.transform(X.assign(job=[None] * 4)).shape == (4, 256), "nothing but missing values is of no type"


@pytest.mark.parametrize(
    "empty",
    [
        pd.Series([None] * 4),
        pd.Series([np.nan] * 4),
        pd.Series([None] * 4, dtype="str"),
        pd.Series(pd.Categorical([None] * 4, categories=["a", "b"])),
    ],
    ids=lambda column: str(column.dtype),
)
def test_strings_in_a_column_that_was_all_missing_in_the_fit_are_an_error_that_says_so(empty):
    X = frame()
    extractor = extract(X.assign(job=empty))
    with pytest.raises(ValueError, match="X holds strings in column 'job', which held only missing values in the fit"):
        extractor.transform(X)


def test_numbers_in_a_column_that_was_all_missing_in_the_fit_are_missing():
    # They would come in their own unit, which the fit can't have known.
    X = pd.DataFrame({"a": [np.nan] * 4, "b": [1.0, 2.0, 3.0, 5.0]})
    numbers = X.assign(a=[1e6, -1.0, 0.0, np.nan])
    extractor = extract(X)
    np.testing.assert_array_equal(extractor.transform(numbers), extractor.transform(X))
    with pytest.warns(
        UserWarning, match="^X holds values in column 'a', of which the backbone's fit saw none"
    ) as caught:
        later = PretrainedFeatureExtractor(extractor).fit(numbers)
    assert caught[0].filename == __file__, "it points at the caller"
    np.testing.assert_array_equal(later.transform(numbers), extractor.transform(X))


def test_a_column_of_zeros_with_gaps_held_numbers():
    with pytest.raises(ValueError, match="X holds strings in column 'a', which held numbers in the fit"):
        extract(pd.DataFrame({"a": [0.0, np.nan]})).transform(pd.DataFrame({"a": ["x", "y"]}))


def test_whether_a_column_was_empty_is_no_part_of_the_key():
    # It decides what is said; with it in the key, what was cached before it was noted would be lost.
    X = pd.DataFrame({"a": [np.nan, np.nan]})
    (column,) = TableSchema.learnt_from(read_table(X)).describe()["columns"]
    assert column == {"mean": 0.0, "scale": 1.0, "missing": True}


@pytest.mark.parametrize("form", [pd.DataFrame, np.array, list], ids=["frame", "array", "list"])
def test_lone_surrogates_are_categories_like_others(form):
    X, alone = ([[row] for row in rows] for rows in (["a", "\ud800", "\udfff", None], ["\ud800"]))
    arguments = {} if form is list else {"dtype": object}
    extractor = extract(form(X, **arguments), cache=None)
    vectors = extractor.transform(form(X, **arguments))
    assert len(np.unique(vectors, axis=0)) == 4
    np.testing.assert_array_equal(extractor.transform(form(alone, **arguments)), vectors[1:2])


def test_a_pyarrow_table_is_read_like_other_frames():
    X = frame()[["age", "job"]]
    table = pa.Table.from_pandas(X)
    extractor = extract(table)
    assert list(extractor.feature_names_in_) == ["age", "job"]
    np.testing.assert_array_equal(extractor.transform(table), extract(X).transform(X))
    with pytest.raises(ValueError, match="feature names should match"):
        extractor.transform(table.rename_columns(["age", "task"]))


@pytest.mark.parametrize("backbone", ["auto", "table-mlp", "series-cnn"])
def test_a_lazy_frame_is_to_be_collected(backbone):
    with pytest.raises(TypeError, match=r"X is a LazyFrame.*Pass X.collect\(\) instead"):
        extract(pl.DataFrame({"a": [1.0, 2.0]}).lazy(), backbone)


def test_columns_are_known_to_scikit_learn():
    extractor = extract(frame()).set_output(transform="pandas")
    assert extractor.n_features_in_ == 5
    assert list(extractor.feature_names_in_) == ["age", "job", "here", "zone", "rooms"]
    assert list(extractor.transform(frame()).columns[:2]) == [
        "pretrainedfeatureextractor0",
        "pretrainedfeatureextractor1",
    ]
    extractor.fit(NUMBERS.tolist())
    assert extractor.n_features_in_ == 2 and not hasattr(extractor, "feature_names_in_")


def test_a_source_reads_target_rows_with_its_own_schema():
    source = extract(frame())
    target = PretrainedFeatureExtractor(source).fit(frame()[:1])
    assert target.backbone_ is source.backbone_ and target.modality_ == "table"
    np.testing.assert_array_equal(target.transform(frame()), source.transform(frame()))
    with pytest.raises(ValueError, match=r"should match.*\['age', 'job'.*X has \['Age'"):
        PretrainedFeatureExtractor(source).fit(frame().rename(columns={"age": "Age"}))
    with pytest.raises(ValueError, match="X has 2 features, but the backbone is expecting 5"):
        PretrainedFeatureExtractor(source).fit(NUMBERS)


@pytest.mark.parametrize("name", ["table-mlp", "table-resnet"])
def test_a_row_gives_the_same_bits_in_any_company(name):
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 7))
    X[5, 3] = np.nan
    extractor = extract(X, name, cache=None)
    wanted = extractor.transform(X)
    order = random.permutation(300)
    start, parts = 0, []
    for size in (1, 2, 3, 5, 8, 64, 217):
        parts.append(extractor.transform(X[order[start : start + size]]))
        start += size
    np.testing.assert_array_equal(np.vstack(parts), wanted[order])
    np.testing.assert_array_equal(extractor.set_params(batch_size=7).transform(X), wanted)


@pytest.mark.parametrize("params", [{"max_length": 5}, {"prompt": "x"}, {"weights": "file.safetensors"}])
def test_parameters_that_say_nothing_to_tables_are_refused(params):
    with pytest.raises(ValueError, match=next(iter(params))):
        extract(NUMBERS, **params)


def test_auto_says_how_to_come_by_a_backbone_for_tables():
    with pytest.raises(ValueError, match="a source.*ModuleBackbone.*'table-mlp' for random features"):
        PretrainedFeatureExtractor().fit(NUMBERS)


def linear_module():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))


def test_a_module_reads_the_values_unchanged():
    module = linear_module()
    extractor = extract(NUMBERS, ModuleBackbone(module, modality="table"))
    with torch.no_grad():
        wanted = module(torch.tensor(NUMBERS, dtype=torch.float32))
    np.testing.assert_allclose(extractor.transform(NUMBERS), wanted, atol=1e-6)
    assert [stage.name for stage in extractor.backbone_.stages] == ["0", "2"]


def test_a_modules_preparation_is_applied_and_part_of_the_key():
    X = np.hstack([NUMBERS, NUMBERS])
    module = linear_module()
    halves = extract(X, ModuleBackbone(module, modality="table", preparation=lambda rows: rows[:, :2] / 2)).transform(X)
    wholes = extract(X, ModuleBackbone(module, modality="table", preparation=lambda rows: rows[:, :2])).transform(X)
    np.testing.assert_allclose(
        halves, extract(NUMBERS / 2, ModuleBackbone(module, modality="table")).transform(NUMBERS / 2)
    )
    assert np.abs(halves - wholes).max() > 1e-3


@pytest.mark.parametrize(
    "X, preparation, message",
    [
        (frame()[["job"]], None, "strings in column 'job'.*OneHotEncoder"),
        ([[1.0, np.nan]], None, "Row 0 of X has NaN.*column 1"),
        ([[1.0, np.inf]], None, "Row 0 of X has infinity"),
        (np.ones((2, 5)), None, "failed on an input of shape .1, 5.*cannot be multiplied"),
        (NUMBERS, lambda rows: rows[0], r"shape \(2,\) of a table of shape \(1, 2\)"),
        (NUMBERS, lambda rows: rows["a"], "The preparation failed on rows of X from row 0 on: IndexError"),
    ],
)
def test_what_a_module_cannot_read_is_an_error(X, preparation, message):
    with pytest.raises(ValueError, match=message):
        extract(X, ModuleBackbone(linear_module(), modality="table", preparation=preparation))


def test_a_preparation_that_writes_to_its_rows_does_not_reach_the_callers():
    def spoil(rows):
        rows[:] = 0
        return rows

    X = NUMBERS.copy()
    extract(X, ModuleBackbone(linear_module(), modality="table", preparation=spoil)).transform(X)
    np.testing.assert_array_equal(X, NUMBERS)


def test_examples_have_the_shape_that_rows_showed():
    preparation = PlainTablePreparation(lambda rows: rows[:, :1], description={}, shape=(2,))
    assert [example.args[0].shape for example in preparation.fitted_to(NUMBERS).examples()] == [(3, 1), (3, 1)]
    assert preparation.shape == (2,)


def test_adult_in_a_search(data):
    rows = pd.read_csv(data / "adult" / "train.csv.gz", nrows=1500)
    X, y = rows.drop(columns="income"), rows["income"]
    model = Pipeline(
        [
            ("features", PretrainedFeatureExtractor("table-resnet")),
            ("scale", StandardScaler()),
            ("head", LogisticRegression(max_iter=500)),
        ]
    )
    search = GridSearchCV(model, {"features__layer": [None, 0], "head__C": [0.001, 0.01]}, cv=3, error_score="raise")
    search.fit(X[:1000], y[:1000])
    assert search.score(X[1000:], y[1000:]) > 0.79, "the larger class has 0.76"


def test_some_columns_of_a_frame_go_through_column_transformer():
    X = frame()
    columns = make_column_transformer(
        (PretrainedFeatureExtractor("table-mlp", truncate_dim=3), ["age", "job"]), ("passthrough", ["here"])
    )
    assert columns.fit_transform(X).shape == (4, 4)


def test_a_bare_module_reads_tables_when_modality_says_so():
    module = linear_module()
    bare = extract(NUMBERS, module, modality="table").transform(NUMBERS)
    np.testing.assert_array_equal(bare, extract(NUMBERS, ModuleBackbone(module, modality="table")).transform(NUMBERS))


def test_tags_say_what_is_read_before_anything_is_loaded():
    def tags(*args, **params):
        return PretrainedFeatureExtractor(*args, **params).__sklearn_tags__().input_tags

    assert tags("table-mlp").two_d_array and tags("table-mlp").allow_nan
    assert not tags("table-mlp").string and not tags("table-mlp").one_d_array and not tags("table-mlp").sparse
    assert tags("series-cnn").three_d_array and not tags("series-cnn").two_d_array
    for backbone in (ModuleBackbone(linear_module(), modality="table"), linear_module()):
        given = tags(backbone, modality="table")
        assert given.two_d_array and not given.allow_nan
    assert tags(extract(NUMBERS)).allow_nan
    assert not tags(extract(NUMBERS, ModuleBackbone(linear_module(), modality="table"))).allow_nan
    assert tags().string and not tags().two_d_array


def test_whole_numbers_are_the_same_category_as_int_and_as_float():
    import pandas as pd

    from sktransfer import PretrainedFeatureExtractor

    with_gap = pd.DataFrame({"zip": pd.Series([1, 2, np.nan, 3]).astype("category"), "n": [1.0, 2.0, 3.0, 4.0]})
    whole = pd.DataFrame({"zip": pd.Series([1, 2, 3]).astype("category"), "n": [1.0, 2.0, 4.0]})
    extractor = PretrainedFeatureExtractor("table-mlp").fit(with_gap)
    np.testing.assert_array_equal(extractor.transform(whole), extractor.transform(with_gap)[[0, 1, 3]])


def test_members_of_an_enumeration_of_strings_are_their_values():
    import enum

    import pandas as pd

    from sktransfer import PretrainedFeatureExtractor

    class Colour(str, enum.Enum):  # noqa: UP042 - a StrEnum names its members by their values anyway
        RED = "red"
        GREEN = "green"

    extractor = PretrainedFeatureExtractor("table-mlp").fit(
        pd.DataFrame({"c": [Colour.RED, Colour.GREEN]}, dtype=object)
    )
    members = extractor.transform(pd.DataFrame({"c": [Colour.GREEN, Colour.RED]}, dtype=object))
    np.testing.assert_array_equal(members, extractor.transform(pd.DataFrame({"c": ["green", "red"]}, dtype=object)))


@pytest.mark.parametrize("backbone", ["table-mlp", "series-cnn"])
def test_masked_values_are_refused(backbone):
    from sktransfer import PretrainedFeatureExtractor

    values = np.random.default_rng(0).normal(size=(6, 9))
    extractor = PretrainedFeatureExtractor(backbone).fit(values)
    with pytest.raises(ValueError, match="masked array with masked values.*NaN"):
        extractor.transform(np.ma.array(values, mask=values > 1))
    np.testing.assert_array_equal(extractor.transform(np.ma.array(values)), extractor.transform(values))
