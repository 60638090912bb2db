import enum
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import polars as pl
import pyarrow
import pytest
from PIL import Image
from scipy.sparse import csr_array
from sklearn.impute import SimpleImputer

from sktransfer.inputs.rows import read_rows

TEXTS = ["one", "", "Zürich 🎉"]

CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "object array": lambda rows: np.array(rows, dtype=object),
    "str array": np.array,
    "column array": lambda rows: np.array(rows, dtype=object)[:, None],
    "numpy strings": lambda rows: np.array(rows, dtype=np.dtypes.StringDType()),
    "pandas Series": pd.Series,
    "pandas object Series": lambda rows: pd.Series(rows, dtype=object, index=[5, 3, 9]),
    "pandas Arrow Series": lambda rows: pd.Series(rows, dtype="string[pyarrow]"),
    "pandas frame": lambda rows: pd.DataFrame({"text": rows}, index=[2, 1, 0]),
    "polars Series": pl.Series,
    "polars frame": lambda rows: pl.DataFrame({"text": rows}),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", [None, "text"])
def test_texts_are_read_from_any_container(container, kind):
    rows = read_rows(CONTAINERS[container](TEXTS), kind)
    assert rows.kind == "text"
    assert list(rows.values) == TEXTS
    assert all(type(value) is str for value in rows.values)


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_a_missing_text_is_an_error_that_names_its_row(missing):
    with pytest.raises(ValueError, match="Row 1 of X is missing.*SimpleImputer"):
        read_rows(["a", missing], "text")


@pytest.mark.parametrize("make", [pd.Series, pl.Series, lambda rows: pd.DataFrame({"a": rows})])
def test_a_missing_value_in_a_column_is_an_error(make):
    with pytest.raises(ValueError, match="Row 1 of X is missing"):
        read_rows(make(["a", None]), None)


@pytest.mark.parametrize("value", [3, 2.5, b"bytes", ["list"], Path("file")])
def test_something_else_among_texts_is_an_error_that_names_its_row(value):
    with pytest.raises(TypeError, match="Row 1 of X is of type"):
        read_rows(["a", value], "text")


@pytest.mark.parametrize("X", [[], (), np.array([]), pd.Series([], dtype=object), pl.DataFrame({"a": []})])
def test_an_empty_X_is_an_error(X):
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        read_rows(X, "text")


@pytest.mark.parametrize("X", ["one text", b"bytes", Path("file"), Image.new("L", (2, 2)), np.array("a"), 3, None])
def test_a_single_value_is_not_a_collection(X):
    with pytest.raises((TypeError, ValueError), match="scalar|must be a list"):
        read_rows(X, None)


def test_several_columns_are_an_error_that_points_to_column_transformer():
    for X in (pd.DataFrame({"a": ["x"], "b": ["y"]}), np.array([["x", "y"]], dtype=object)):
        with pytest.raises(ValueError, match="one column.*ColumnTransformer"):
            read_rows(X, "text")


def test_sparse_input_is_an_error():
    with pytest.raises(TypeError, match="Sparse data"):
        read_rows(csr_array(np.eye(2)), None)


def test_numbers_are_not_texts():
    with pytest.raises(TypeError, match="reads texts"):
        read_rows(np.zeros((3, 2)), "text")


def test_kind_is_told_from_the_rows(tmp_path, images):
    path = tmp_path / "a.png"
    Image.fromarray(images[0]).save(path)
    assert read_rows([path], None).kind == "image"
    with pytest.warns(UserWarning, match="is the name of a file"):
        assert read_rows([str(path)], None).kind == "text", "without a backbone a str is a text"
    assert read_rows([str(path)], "image").kind == "image"
    assert read_rows([Image.fromarray(images[0])], None).kind == "image"
    assert read_rows(images, None).kind == "image"
    assert read_rows(images[..., 0], None).kind == "image"
    assert read_rows(list(images), None).kind == "image"
    assert read_rows(np.zeros((3, 2)), None).kind == "table"
    assert read_rows([[1.0, 2.0]], None).kind == "table"


@pytest.mark.parametrize("X", [np.zeros((2, 3, 4)), np.zeros((2, 3, 4, 3)), [np.zeros((3, 4))]])
def test_float_arrays_of_three_dimensions_are_ambiguous(X):
    with pytest.raises(ValueError, match="modality='image' or modality='series'"):
        read_rows(X, None)


def test_layouts_and_types_of_one_array_give_the_same_images(images):
    expected = list(read_rows(images, "image").values)
    for same in (images.transpose(0, 3, 1, 2), images.astype(int), images / 255, (images / 255).astype(np.float32)):
        for a, b in zip(expected, read_rows(same, "image").values, strict=True):
            np.testing.assert_array_equal(a, b)


def test_images_of_a_list_may_differ_in_size():
    values = [np.zeros((4, 5), np.uint8), np.zeros((9, 3, 3), np.uint8), np.ones((4, 4, 4))]
    assert [value.shape for value in read_rows(values, "image").values] == [(4, 5), (9, 3, 3), (4, 4, 4)]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((1, 4, 4), 16.0), "from 16 to 16.*Rescale"),
        (np.full((1, 4, 4), -0.1), "from -0.1"),
        (np.full((1, 4, 4), 300), "from 300 to 300"),
        (np.full((1, 4, 4), np.nan), "NaN or infinity"),
        (np.zeros((3, 64)), r"reshape\(n, height, width\)"),
        (np.zeros((1, 4, 4, 7)), "1, 3 or 4 channels"),
        (np.zeros((2, 0, 4), np.uint8), "shape"),
    ],
)
def test_pixels_that_are_none_are_errors(pixels, message):
    with pytest.raises(ValueError, match=message):
        read_rows(pixels, "image")


def test_a_bad_image_of_a_list_is_named_by_its_row(images):
    with pytest.raises(ValueError, match="row 1 of X contains NaN"):
        read_rows([images[0], np.full((4, 4), np.nan)], "image")
    with pytest.raises(TypeError, match="Row 1 of X is of type int"):
        read_rows([images[0], 3], "image")
    with pytest.raises(ValueError, match="Row 1 of X is missing"):
        read_rows([images[0], None], "image")


def test_missing_files_are_all_found_before_anything_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="2 of 2 image files do not exist.*row 0.*nothing.png.*row 1"):
        read_rows([tmp_path / "nothing.png", str(tmp_path / "no.jpg")], "image")


@pytest.mark.parametrize("name", [0, 1, 2.5, ("a", "b"), None, "text"])
def test_the_column_of_a_frame_may_have_any_name(name):
    frame = pd.DataFrame({"text": TEXTS}, index=[7, 8, 9])
    frame.columns = [name]
    assert list(read_rows(frame, "text").values) == TEXTS


def test_two_columns_of_one_name_are_two_columns():
    with pytest.raises(ValueError, match="frame of 2 columns"):
        read_rows(pd.DataFrame([["a", "b"]], columns=["x", "x"]), "text")


@pytest.mark.parametrize("value", [b"bytes", {"a": 1}, pd.Timestamp(0), ["nested"]])
def test_rows_that_no_backbone_reads_are_named(value):
    with pytest.raises(TypeError, match="Row 0 of X is of type"):
        read_rows([value], None)


def test_rows_that_are_all_missing_are_an_error():
    with pytest.raises(ValueError, match="Row 0 of X is missing"):
        read_rows([None, None], None)


def test_a_text_given_to_a_network_for_images_is_no_file(tmp_path):
    for path in ("a whole text " * 100, "short", str(tmp_path), "null\0byte", ""):
        with pytest.raises(FileNotFoundError, match="row 0.*takes every str as the path"):
            read_rows([path], "image")


def test_torch_tensors_are_arrays():
    import torch

    pixels = torch.rand(2, 3, 4, 5, requires_grad=True)
    assert [value.shape for value in read_rows(pixels, "image").values] == [(4, 5, 3)] * 2


# Words: what is refused says what to do, and that works


def _said(call):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return str(caught.value)


MISSING_TEXTS = {
    "list": ["a", None, "c"],
    "tuple": ("a", float("nan"), "c"),
    "array": np.array(["a", np.nan, "c"], dtype=object),
    "column": np.array([["a"], [None], ["c"]], dtype=object),
    "Series": pd.Series(["a", None, "c"]),
    "Series of objects": pd.Series(["a", None, "c"], dtype=object),
    "Series with NaT": pd.Series(["a", pd.NaT, "c"], dtype=object),
    "string": pd.Series(["a", None, "c"], dtype="string"),
    "string[pyarrow]": pd.Series(["a", None, "c"], dtype="string[pyarrow]"),
    "Arrow": pd.Series(["a", None, "c"], dtype=pd.ArrowDtype(pyarrow.string())),
    "category": pd.Series(["a", None, "c"], dtype="category"),
    "Index": pd.Index(["a", None, "c"]),
    "pandas array": pd.array(["a", None, "c"]),
    "frame": pd.DataFrame({"text": ["a", None, "c"]}),
    "frame of objects": pd.DataFrame({"text": pd.Series(["a", None, "c"], dtype=object)}),
    "frame of strings": pd.DataFrame({"text": pd.Series(["a", None, "c"], dtype="string")}),
    "frame of categories": pd.DataFrame({"text": pd.Series(["a", None, "c"], dtype="category")}),
    "polars": pl.Series(["a", None, "c"]),
    "polars category": pl.Series(["a", None, "c"], dtype=pl.Categorical),
    "polars enum": pl.Series(["a", None, "c"], dtype=pl.Enum(["a", "c"])),
    "polars frame": pl.DataFrame({"text": ["a", None, "c"]}),
    "Arrow array": pyarrow.array(["a", None, "c"]),
    "Arrow table": pyarrow.table({"text": ["a", None, "c"]}),
}


@pytest.mark.parametrize("form", MISSING_TEXTS)
def test_the_advice_for_missing_texts_works(form):
    X = MISSING_TEXTS[form]
    message = _said(lambda: read_rows(X, "text"))
    filling, imputer = re.search(r"will do: (.*)\. In a pipeline over a column of a frame: (.*)\.$", message).groups()
    filling, _, of_arrow = filling.partition(" (of an Arrow array: ")
    if form == "Arrow array":
        filling = of_arrow.removesuffix(")")
    filled = eval(filling, {"X": X, "polars": pl})
    assert read_rows(filled, "text").values == ["a", "", "c"]
    if getattr(X, "ndim", 1) == 2 or isinstance(X, pd.DataFrame | pl.DataFrame):
        made = eval(imputer, {"SimpleImputer": SimpleImputer, "pandas": pd})
        assert read_rows(made.fit_transform(X), "text").values == ["a", "", "c"]


def test_the_advice_for_bytes_works(tmp_path, images):
    assert "row.decode('utf-8')" in _said(lambda: read_rows(["a", b"b"], "text"))
    X = np.array([b"one", "Zürich".encode()])
    advice = re.search(r"numpy\.char\.decode\(X, 'utf-8'\)", _said(lambda: read_rows(X, "text"))).group()
    assert read_rows(eval(advice, {"numpy": np, "X": X}), "text").values == ["one", "Zürich"]
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, "png")
    row = buffer.getvalue()
    for kind in (None, "image"):
        message = _said(lambda kind=kind: read_rows([row], kind))
        advice = re.search(r"PIL\.Image\.open\(io\.BytesIO\(row\)\)", message).group()
        opened = eval(advice, {"PIL": PIL, "io": io, "row": row})
        assert np.array_equal(read_rows([opened], "image").values[0], images[0])
    for single in (row, bytearray(row)):
        assert "PIL.Image.open(io.BytesIO(X))" in _said(lambda single=single: read_rows(single, "image"))


def test_paths_are_shown_in_full(tmp_path):
    long = tmp_path / "a folder with spaces" / ("x" * 200) / "nothing there.png"
    with pytest.raises(FileNotFoundError, match=re.escape(repr(str(long)))):
        read_rows([long], "image")
    with pytest.raises(FileNotFoundError, match=re.escape(f"{str(tmp_path)!r}, a directory")):
        read_rows([tmp_path], "image")
    with pytest.raises(FileNotFoundError, match="5000 characters, too many for a path"):
        read_rows(["x" * 5000], "image")
    with pytest.raises(FileNotFoundError, match="null character, which no path has"):
        read_rows([Path("a\0b")], "image")
    file = tmp_path / ("y" * 200)
    file.write_text("")
    with pytest.warns(UserWarning, match=re.escape(repr(str(file)))):
        read_rows([str(file)], None)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 8, 8, 3), complex), "complex128.*uint8 in 0..255"),
        (np.zeros((2, 8, 8, 3), "M8[s]"), "datetime64.*uint8 in 0..255"),
        (np.zeros((2, 8, 8, 3), object), "dtype='uint8'"),
        (np.full((2, 8, 8), -3.0), r"from -3 to -3.*X.min\(\)"),
        ([np.zeros((8, 8), complex)], "Row 0 of X is an array of complex128"),
        ([np.zeros((0, 8), np.uint8)], "of a pixel or more"),
        ([np.zeros((1, 8, 8, 3), np.uint8)], r"row\[0\]"),
        ([[[0, 1], [2, 3]]], r"numpy.array\(row, dtype='uint8'\)"),
        ([np.array(3)], "shape ()"),
        ([np.ma.MaskedArray(np.zeros((8, 8), np.uint8), mask=np.eye(8))], "Row 0 of X is a masked array"),
        (pd.Series([np.ma.MaskedArray(np.zeros((8, 8), np.uint8), mask=np.eye(8))]), "Row 0 of X is a masked array"),
    ],
)
def test_arrays_that_are_no_images_are_refused_with_a_word(X, message):
    with pytest.raises((TypeError, ValueError), match=message):
        read_rows(X, "image")


def test_masked_series_are_refused():
    masked = np.ma.MaskedArray(np.zeros((2, 8)), mask=np.eye(2, 8))
    for X in (masked, [masked], (masked,), pd.Series([masked]), [[masked[0], masked[1]]]):
        with pytest.raises(ValueError, match="masked"):
            read_rows(X, "series")


def test_rows_of_several_types_are_read_or_named(tmp_path, images):
    path = tmp_path / "a.png"
    Image.fromarray(images[0]).save(path)
    for X in ([path, str(path), images[0], Image.fromarray(images[0])], [images[0], str(path)]):
        assert len(read_rows(X, None).values) == len(X)
    with pytest.raises(TypeError, match="Row 1 of X is of type PosixPath, not a text"):
        read_rows(["a text", path], None)


class Colour(str, enum.Enum):  # noqa: UP042 - str() of a StrEnum would be its text anyway
    RED = "red"


def test_texts_of_derived_types_are_their_text():
    assert read_rows([Colour.RED, np.str_("a")], None).values == ["red", "a"]
    assert {type(text) for text in read_rows([Colour.RED, np.str_("a")], None).values} == {str}


def test_lists_of_numbers_and_strings_are_a_table():
    assert read_rows([[1, "a"], [2, "b"]], None).kind == "table"
    with pytest.raises(TypeError, match=r"row\[0\] for row in X"):
        read_rows([["a"], ["b"]], "text")
    with pytest.raises(TypeError, match="Row 0 of X is of type list"):
        read_rows([[[1], [1, 2]]], None)
