"""Columns that are no features: free text, identifiers, dates; and values that are hard to read."""

import datetime
import decimal
import uuid
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sktransfer import PretrainedFeatureExtractor
from sktransfer.inputs.table_columns import one_warning, refuse_texts, warn_of_columns
from sktransfer.inputs.table_rows import read_table

N = 40
SENTENCES = [f"the order number {place} came late again" for place in range(N)]


def warned(X):
    """Return what is said of the columns of a table, an empty string for nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_columns(read_table(X))
    assert len(caught) <= 1, "one warning for all columns"
    assert all(one.category is UserWarning and one.filename == __file__ for one in caught), "it points at the caller"
    return "".join(str(one.message) for one in caught)


FRAMES = {
    "pandas": pd.DataFrame,
    "objects": lambda columns: pd.DataFrame(columns).astype(object),
    "categories": lambda columns: pd.DataFrame(columns).astype("category"),
    "pyarrow strings": lambda columns: pd.DataFrame(columns).astype("string[pyarrow]"),
    "polars": pl.DataFrame,
    "polars categories": lambda columns: pl.DataFrame(
        columns, schema_overrides={"a": pl.Categorical, "b": pl.Categorical}
    ),
    "pyarrow": pa.table,
}


@pytest.mark.parametrize("form", FRAMES)
def test_free_text_is_refused_in_every_frame(form):
    X = FRAMES[form]({"a": SENTENCES, "b": SENTENCES[::-1], "c": ["x", "y"] * (N // 2)})
    with pytest.raises(
        ValueError, match=r"free text in column 'a' \(6 words on average, 40 of 40.*, column 'b'"
    ) as error:
        refuse_texts(read_table(X))
    for advice in ("ColumnTransformer(", "PretrainedFeatureExtractor(), 'a')", "X['a'];", "X['a'] + \" \" + X['b']"):
        assert advice in str(error.value)
    assert "'c'" not in str(error.value)


@pytest.mark.parametrize(
    "form",
    [list, lambda rows: np.array(rows), lambda rows: np.array(rows, dtype=object)],
    ids=["lists", "str", "objects"],
)
def test_free_text_is_refused_in_lists_and_arrays(form):
    X = form([[text, "x", text.upper()] for text in SENTENCES])
    with pytest.raises(ValueError, match=r"free text in column 0 .*, column 2 .*X\[:, 0\] \+ "):
        refuse_texts(read_table(X))


def test_one_column_of_text_beside_numbers_is_refused_with_advice_that_works():
    X = pd.DataFrame({"text": SENTENCES, "n": np.arange(N)})
    with pytest.raises(ValueError, match="remainder='passthrough'") as error:
        PretrainedFeatureExtractor("table-mlp").fit(X)
    from sklearn.compose import ColumnTransformer

    advice = str(error.value).split("network for texts, ")[1].split("; or")[0]
    names = {"ColumnTransformer": ColumnTransformer, "PretrainedFeatureExtractor": PretrainedFeatureExtractor}
    assert eval(advice, names).fit_transform(X).shape[0] == N
    with pytest.raises(ValueError, match="or leave it out"):
        refuse_texts(read_table(X))


@pytest.mark.parametrize(
    "values",
    [
        SENTENCES[:6],
        [*SENTENCES[:20], *([None] * 20)],
        [*SENTENCES[:10], *([""] * 30)],
        [*SENTENCES[:30], *SENTENCES[:10]],
        [f"{text} and would you believe it, so did the next" for text in SENTENCES[:20]] * 4,
        [f"服务很好我们会再来一次真的非常感谢{place}" for place in range(N)],
        [f"บริการดีมากแล้วจะกลับมาอีกแน่นอน{place}" for place in range(N)],
    ],
    ids=["few rows", "half missing", "most empty", "some twice", "long and four times", "Chinese", "Thai"],
)
def test_what_free_text_is(values):
    with pytest.raises(ValueError, match="free text"):
        refuse_texts(read_table(pd.DataFrame({"text": values, "n": 1.0})))


@pytest.mark.parametrize(
    "values",
    [
        ["Ann Smith", "Bob Miller", "Chris de Jong", "Di", "Ed van der Berg", "Flo"],
        ["France", "United Kingdom of Great Britain and Northern Ireland", "Peru", "Chad", "Spain", "Côte d'Ivoire"],
        ["I strongly agree with this", "I strongly disagree with this", "I neither agree nor disagree"] * 3,
        ["less than a year", "one to five years", "more than five years"] * 200,
        ["a category that is described at great length and in many words, as codes are", "another of that sort"] * 10,
        ["王小明", "李雷", "陈大文", "สมชาย"],
        [None] * 6,
        ["", " "] * 3,
        ["12 34 56 78 90", "11 22 33 44 55", "1 2 3 4 5"],
    ],
)
def test_what_no_free_text_is(values):
    X = pd.DataFrame({"c": values, "n": 1.0})
    refuse_texts(read_table(X))
    assert warned(X) == ""


IDENTIFIERS = {
    "counted": [f"id{place}" for place in range(N)],
    "uuid": [str(uuid.UUID(int=place << 70)) for place in range(N)],
    "mail": [f"{chr(97 + place % 26)}{'x' * place}@example.org" for place in range(N)],
    "integers": [str(1000 + place) for place in range(N)],
    "names": [f"{chr(97 + place % 26) * (1 + place)}" for place in range(N)],
    "nearly": [f"id{max(place, 2)}" for place in range(N)],
    "gaps": [None if place % 2 else f"id{place}" for place in range(N)],
}


@pytest.mark.parametrize("form", FRAMES)
def test_one_warning_names_all_identifiers(form):
    X = FRAMES[form]({"a": IDENTIFIERS["counted"], "b": IDENTIFIERS["uuid"], "c": ["x", "y"] * (N // 2)})
    message = warned(X)
    assert "column 'a' (40 of 40 values differ: 'id0', 'id1', ...), column 'b'" in message and "'c'" not in message
    assert "Every value occurs once" in message and "nothing can be learnt" in message and "drop(columns=" in message


@pytest.mark.parametrize("values", IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_what_identifiers_are(values):
    assert "identifiers in column 'c'" in warned(pd.DataFrame({"c": values, "n": 1.0}))


def test_identifiers_of_few_rows_look_like_some():
    assert "column 'c'" in warned(pd.DataFrame({"c": [f"id{place}" for place in range(6)]}))
    assert warned(pd.DataFrame({"c": [f"id{place}" for place in range(3)]})) == ""


@pytest.mark.parametrize(
    "X",
    [
        {"c": ["1", "2", "3", "4"] * 10},
        {"year": np.arange(1980, 2020)},
        {"x": np.random.default_rng(0).normal(size=N)},
        {"id": np.random.default_rng(0).normal(size=N)},
        {"id": [1, 2] * 20},
        {"paid": np.arange(N), "grid": np.arange(N), "valid": np.arange(N)},
    ],
)
def test_what_no_identifiers_are(X):
    assert warned(pd.DataFrame(X)) == ""


@pytest.mark.parametrize(
    "name", ["id", "ID", "PassengerId", "patient_id", "userID", "index", "Unnamed: 0", "row index"]
)
def test_numbers_are_identifiers_by_their_name(name):
    numbers = np.random.default_rng(0).permutation(N)
    assert f"column {name!r}" in warned(pd.DataFrame({name: numbers, "x": numbers}))
    assert "column 'x'" not in warned(pd.DataFrame({name: numbers, "x": numbers}))


DATES = [
    "%Y-%m-%d",
    "%d/%m/%Y",
    "%m/%d/%y",
    "%d.%m.%Y",
    "%Y/%m/%d %H:%M",
    "%Y-%m-%dT%H:%M:%S.%fZ",
    "%Y-%m-%d %H:%M:%S+01:00",
    "%Y%m%d",
    "%Y-%m",
    "%d %B %Y",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%m/%d/%Y %I:%M %p",
    "%m/%Y",
    "%G-W%V",
    "%Y年%m月%d日",
    "%Y-%b-%d",
    "%a %b %d %H:%M:%S %Y",
    "%dth of %B %Y",
]


@pytest.mark.parametrize("written", DATES)
@pytest.mark.parametrize("days", [1, 31])
def test_dates_as_strings_are_named(written, days):
    first = datetime.datetime(2023, 1, 31, 9, 5, 7, 123)
    values = [(first + datetime.timedelta(days=days * (place % 20))).strftime(written) for place in range(N)]
    message = warned(pd.DataFrame({"when": values, "n": 1.0}))
    assert "dates as strings in column 'when'" in message and "days since" in message and "identifiers" not in message


@pytest.mark.parametrize(
    "value", ["555-12-3456", "1.2.3", "10-20", "192.168.1.1", "8001", "2024", "1/2", "May 5", "2024-13-45"]
)
def test_what_no_date_is(value):
    assert warned(pd.DataFrame({"c": [value, value[::-1]] * 10})) == ""


def test_a_column_is_named_once_inside_of_one_fit():
    X = pd.DataFrame({"c": IDENTIFIERS["counted"]})
    with one_warning():
        assert warned(X)
        with one_warning():
            assert warned(X) == ""
        assert warned(X) == ""
    assert warned(X), "the next fit says it again"


def test_rows_of_a_source_with_few_words_more_are_measured_by_what_it_knows():
    levels = ["I strongly agree with this", "I strongly disagree with this", "neither agree nor disagree here"]
    source = PretrainedFeatureExtractor("table-mlp").fit(pd.DataFrame({"c": levels * 10}))
    PretrainedFeatureExtractor(source).fit(pd.DataFrame({"c": levels[:2]}))
    with pytest.raises(ValueError, match="free text in column 'c'"):
        PretrainedFeatureExtractor(source).fit(pd.DataFrame({"c": SENTENCES}))


def test_prediction_is_silent():
    with pytest.warns(UserWarning, match="column 'c'"):
        extractor = PretrainedFeatureExtractor("table-mlp").fit(pd.DataFrame({"c": IDENTIFIERS["counted"]}))
    assert extractor.transform(pd.DataFrame({"c": IDENTIFIERS["uuid"]})).shape == (N, 256)


# Values


@pytest.mark.parametrize(
    "X, numbers",
    [
        (pd.DataFrame({"x": [2**64, 1]}, dtype=object), [2.0**64, 1]),
        (pd.DataFrame({"x": [10**30, None]}, dtype=object), [1e30, np.nan]),
        ([[2**63], [1]], [2.0**63, 1]),
        (pl.DataFrame({"x": pl.Series([1, 2**64 - 1], dtype=pl.UInt64)}), [1, 2.0**64]),
        (pd.DataFrame({"x": [decimal.Decimal("1.5"), None]}), [1.5, np.nan]),
        (pl.DataFrame({"x": [decimal.Decimal("1.5"), decimal.Decimal(2)]}), [1.5, 2]),
        (pd.DataFrame({"x": [True, 2, None]}, dtype=object), [1, 2, np.nan]),
        (pd.DataFrame({"x": pd.array([True, None], dtype="bool[pyarrow]")}), [1, np.nan]),
        (pd.DataFrame({"x": [pd.NaT, pd.NaT]}, dtype=object), [np.nan, np.nan]),
        (pl.DataFrame({"x": [None, None]}), [np.nan, np.nan]),
        (np.array([[1.5], [2]], np.longdouble), [1.5, 2]),
    ],
)
def test_numbers_that_are_hard_to_read(X, numbers):
    np.testing.assert_array_equal(read_table(X).numbers[:, 0], numbers)


@pytest.mark.parametrize(
    "form", [lambda value: pd.DataFrame({"x": [1, value]}, dtype=object), lambda value: [[1], [value]]]
)
@pytest.mark.parametrize("value, digits", [(10**400, 401), (-(10**5000), 5001)], ids=["400", "5000"])
def test_integers_beyond_a_float_are_named(form, value, digits):
    with pytest.raises(ValueError, match=rf"^Column .* of X holds an integer of {digits} digits in row 1.*1.8e308"):
        read_table(form(value))


@pytest.mark.parametrize("value", [decimal.Decimal("1e400"), np.longdouble("1e400")], ids=["decimal", "long double"])
def test_other_numbers_beyond_a_float_are_infinite(value):
    with pytest.raises(ValueError, match="Row 1 of X has infinity"):
        PretrainedFeatureExtractor("table-mlp").fit(np.array([[1], [value]]))


@pytest.mark.parametrize(
    "values",
    [
        [datetime.time(1), datetime.time(2)],
        [datetime.date(2020, 1, 1), None],
        [datetime.date(2020, 1, 1), pd.NaT],
        [pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01")],
        [pd.Timedelta(days=1), pd.Timedelta(days=2)],
        [pd.Period("2020-01"), pd.Period("2020-02")],
    ],
    ids=lambda values: type(values[0]).__name__,
)
@pytest.mark.parametrize("dtype", [object, None])
def test_dates_and_times_are_refused_by_name(values, dtype):
    with pytest.raises(TypeError, match="Column 'when' of X .* numbers or strings"):
        read_table(pd.DataFrame({"when": pd.Series(values, dtype=dtype)}))


@pytest.mark.parametrize("name", ["Date32", "Timestamp", "Duration", "Time64"])
def test_dates_and_times_of_arrow_are_refused_by_name(name):
    made = {
        "Date32": pa.date32(),
        "Timestamp": pa.timestamp("us"),
        "Duration": pa.duration("s"),
        "Time64": pa.time64("us"),
    }
    column = pa.array([1, 2], pa.int32() if name == "Date32" else pa.int64()).cast(made[name])
    for frame in (
        pa.table({"when": column}),
        pd.DataFrame({"when": pd.Series(column, dtype=pd.ArrowDtype(made[name]))}),
    ):
        with pytest.raises(TypeError, match="Column 'when' of X .* numbers or strings"):
            read_table(frame)


def test_an_arrow_table_with_a_name_twice_is_refused():
    with pytest.raises(ValueError, match="more than one column of the name 'a'"):
        read_table(pa.table([[1, 2], [3, 4]], names=["a", "a"]))


def test_categories_that_are_written_alike_are_refused():
    with pytest.raises(ValueError, match="Column 'c' of X has categories of different types that are both written '1'"):
        read_table(pd.DataFrame({"c": pd.Categorical([1, "1", "a"])}))


def test_unused_categories_are_none():
    X = pd.DataFrame({"c": pd.Categorical(["a", "b"], categories=["z", "b", "a"])})
    other = X.assign(c=["a", "b"])
    np.testing.assert_array_equal(
        *(PretrainedFeatureExtractor("table-mlp").fit(one).transform(one) for one in (X, other))
    )


def test_a_column_may_be_called_like_an_attribute():
    X = pd.DataFrame({"column_names": [1, 2], "columns": [3, 4], "shape": [5, 6]})
    assert read_table(X).names == ("column_names", "columns", "shape")
