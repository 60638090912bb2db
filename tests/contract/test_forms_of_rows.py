"""Every estimator reads the same rows from every form alike, at fit and afterwards, and refuses what holds none."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import GridSearchCV
from support import forms
from support.estimators import ESTIMATORS
from support.networks import own_images, own_series, own_texts, three_layers

from sktransfer import PretrainedFeatureExtractor

EACH = pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)
_RANDOM = np.random.default_rng(0)
TEXTS = ["the delivery was late", "how do i reset my pin", "", "Zürich 🎉", "thanks a card", "two three"]
IMAGES = list(_RANDOM.integers(0, 256, (6, 9, 8, 3)).astype(np.uint8))
SERIES = list(_RANDOM.normal(size=(6, 2, 12)))
TABLE = _RANDOM.normal(size=(6, 6)).tolist()
ROWS = {
    "text": (TEXTS, forms.TEXTS, {"backbone": own_texts()}),
    "image": (IMAGES, forms.IMAGES, {"backbone": own_images()}),
    "series": (SERIES, forms.SERIES, {"backbone": own_series()}),
    "table": (TABLE, forms.TABLES, {"backbone": three_layers()}),
}


@EACH
@pytest.mark.parametrize("kind", ROWS)
def test_every_form_is_read_as_the_list_of_its_rows(listed, kind):
    rows, made_of, parameters = ROWS[kind]
    expected = listed.predict(listed.fit(rows, **parameters), rows)
    for name, make in made_of.items():
        fitted = listed.fit(make(rows), **parameters)
        np.testing.assert_array_equal(listed.predict(fitted, make(rows)), expected, err_msg=name)


@EACH
def test_kinds_are_told_from_every_form(listed):
    # Networks that "auto" stands for cost more, so all forms are tried where nothing is trained.
    for rows, made_of in ((TEXTS, forms.TEXTS), (IMAGES, {**forms.SEQUENCES, "tensors": forms.IMAGES["tensors"]})):
        names = (
            made_of
            if listed.targets(1) is None
            else {"deque", "array protocol", "Arrow array", "tensors"} & set(made_of)
        )
        expected = listed.predict(listed.fit(rows), rows)
        for name in names:
            np.testing.assert_array_equal(listed.predict(listed.fit(made_of[name](rows)), rows), expected, err_msg=name)


@EACH
@pytest.mark.parametrize("kind", ROWS)
def test_what_holds_no_rows_is_refused_with_a_way_out(listed, kind):
    rows, _, parameters = ROWS[kind]
    fitted = listed.fit(rows, **parameters)
    y = listed.targets(len(rows))
    for name, (make, message) in forms.REFUSED.items():
        with pytest.raises((TypeError, ValueError), match=f"(?s){message}"):
            listed.make(**parameters).fit(make(rows), y)
            pytest.fail(f"{name} was fitted")
        with pytest.raises((TypeError, ValueError), match=f"(?s){message}"):
            listed.predict(fitted, make(rows))
            pytest.fail(f"{name} was read")


@pytest.mark.parametrize(
    "form", ["deque", "lazy sequence", "pandas Index", "Arrow array", "Arrow table", "pandas array"]
)
@pytest.mark.parametrize("listed", ESTIMATORS[1:], ids=lambda listed: listed.name)
def test_rows_are_held_back_and_left_out_of_every_form(listed, form):
    rows, y = TEXTS * 4, listed.targets(24)
    weights = np.array([1.0, 2.0, 0.0] * 8)
    kept = {"backbone": own_texts(), "early_stopping": True, "validation_fraction": 6}

    def answers(X):
        fit = {"sample_weight": weights}
        model = listed.make(**kept)
        if listed.name.startswith("Distilled"):
            fit["sample_labeled"] = np.arange(24) % 4 > 0
            model.set_params(report_fraction=6, cv=2)
        return listed.predict(model.fit(X, y, **fit), rows)

    np.testing.assert_array_equal(answers(forms.TEXTS[form](rows)), answers(rows))


@pytest.mark.parametrize("listed", ESTIMATORS[1:], ids=lambda listed: listed.name)
def test_searches_split_every_form(listed):
    rows, y = TEXTS * 3, listed.targets(18)
    search = GridSearchCV(listed.make(backbone=own_texts()), {"random_state": [0]}, cv=2)
    expected = search.fit(rows, y).best_score_
    for name in ("deque", "UserList", "lazy sequence", "Arrow array", "Arrow table", "polars Series"):
        assert search.fit(forms.TEXTS[name](rows), y).best_score_ == expected, name


@pytest.mark.parametrize("listed", ESTIMATORS[1:3], ids=lambda listed: listed.name)
def test_validation_rows_come_in_every_form(listed):
    rows, y = TEXTS * 2, listed.targets(12)
    parameters = {"backbone": own_texts(), "early_stopping": True}
    expected = listed.predict(listed.make(**parameters).fit(rows, y, X_val=rows[:5], y_val=y[:5]), rows)
    for name in ("deque", "Arrow array", "pandas Index", "lazy sequence", "polars frame"):
        fitted = listed.make(**parameters).fit(rows, y, X_val=forms.TEXTS[name](rows[:5]), y_val=y[:5])
        np.testing.assert_array_equal(listed.predict(fitted, rows), expected, err_msg=name)
    for make, message in forms.REFUSED.values():
        with pytest.raises((TypeError, ValueError), match=f"(?s)X_val.*({message})"):
            listed.make(**parameters).fit(rows, y, X_val=make(rows[:6]), y_val=y[:6])


# One image

COLOUR = _RANDOM.integers(0, 256, (6, 40, 36, 3)).astype(np.uint8)
GREY = COLOUR[..., 0]
ONE = {
    "channels last": COLOUR[0],
    "channels first": COLOUR[0].transpose(2, 0, 1),
    "with transparency": np.concatenate([COLOUR[0], COLOUR[0, ..., :1]], axis=2),
    "transparent, channels first": np.concatenate([COLOUR[0], COLOUR[0, ..., :1]], axis=2).transpose(2, 0, 1),
    "one channel": COLOUR[0, ..., :1],
    "grey with transparency": COLOUR[0, ..., :2],
    "grey": GREY[0],
    "floats": COLOUR[0] / 255,
    "floats, channels first": COLOUR[0].transpose(2, 0, 1) / 255,
    "lines in a list": list(COLOUR[0]),
    "lines in a tuple": tuple(COLOUR[0] / 255),
}


@EACH
@pytest.mark.parametrize("tensor", [False, True], ids=["array", "tensor"])
def test_one_image_as_X_is_refused(listed, tensor):
    models = {
        "colour": listed.fit(COLOUR, backbone=own_images()),
        "grey": listed.fit(GREY, backbone=own_images()),
        "colour list": listed.fit(list(COLOUR), backbone=own_images()),
    }
    for name, X in ONE.items():
        if tensor:
            import torch

            X = [torch.tensor(line) for line in X] if isinstance(X, list | tuple) else torch.tensor(X)
        message = r"One grey image is X\[None\]|For one image pass (X\[None(\]|, \.\.\.)|\[numpy.array\(X\)\])"
        for of, fitted in models.items():
            if of == "grey" and name.endswith("channels first"):
                continue  # three grey images, as those of the fit
            if of.startswith("colour") and name == "transparent, channels first":
                continue  # four grey images
            with pytest.raises(ValueError, match=message):
                listed.predict(fitted, X)
                pytest.fail(f"{name} was read after a fit to {of}")
        for parameters in ({"backbone": own_images()}, {"backbone": "image-resnet", "modality": "image"}):
            for n_labels in (1, len(X)):
                with pytest.raises(ValueError, match=message):
                    listed.make(**parameters).fit(X, listed.targets(n_labels))
                    pytest.fail(f"{name} was fitted")


@EACH
def test_the_advice_of_the_refusal_works(listed):
    fitted = listed.fit(COLOUR, backbone=own_images())
    expected = listed.predict(fitted, COLOUR[:1])
    X = COLOUR[0]
    np.testing.assert_array_equal(listed.predict(fitted, X[None]), expected)
    np.testing.assert_array_equal(listed.predict(fitted, X.transpose(2, 0, 1)[None]), expected)
    np.testing.assert_array_equal(listed.predict(fitted, [np.array(list(X))]), expected)
    X = np.concatenate([X, np.full_like(X[..., :1], 255)], axis=2)
    np.testing.assert_array_equal(listed.predict(fitted, X.transpose(2, 0, 1)[None]), expected)
    X = GREY[:3]
    expected = listed.predict(fitted, list(X))
    with pytest.raises(ValueError, match=re.escape("if it is a set of grey ones, X[..., None]")):
        listed.predict(fitted, X)
    np.testing.assert_array_equal(listed.predict(fitted, X[..., None]), expected)


@EACH
@pytest.mark.parametrize("n", [2, 3, 4, 28])
def test_sets_of_grey_images_are_read_whatever_their_number(listed, n):
    X = _RANDOM.integers(0, 256, (n, 28, 28)).astype(np.uint8)
    few = listed.fit(X, backbone=own_images())
    np.testing.assert_array_equal(listed.predict(few, X), listed.predict(few, list(X)))
    # After a fit to grey images, three larger ones are three.
    X = _RANDOM.integers(0, 256, (n, 40, 36)).astype(np.uint8)
    for seen in (GREY, list(GREY), GREY[..., None], GREY / 255):
        fitted = listed.fit(seen, backbone=own_images())
        assert len(listed.predict(fitted, X)) == n
        assert len(listed.predict(fitted, X[:1])) == 1


def test_one_image_among_validation_rows_is_refused():
    listed, y = ESTIMATORS[1], ESTIMATORS[1].targets(40)
    model = listed.make(backbone=own_images(), early_stopping=True)
    with pytest.raises(ValueError, match=r"X_val.*X\[None\]"):
        model.fit(COLOUR, y[:6], X_val=COLOUR[0], y_val=y)


def test_three_grey_rows_may_be_held_back():
    listed = ESTIMATORS[1]
    model = listed.make(backbone=own_images(), early_stopping=True, validation_fraction=3)
    X = np.concatenate([GREY, GREY])
    assert model.fit(X, listed.targets(12)).predict(X).shape == (12,)


# Texts that are hard to read


BROKEN = ["half a \ud83d", "\ude42 half", "a pair \ud83d\ude42", "null \0 character", "long " * 20_000, "plain"]
SHORT = [*BROKEN[:3], "plain"]
WHOLE = ["half a \ufffd", "\ufffd half", "a pair 🙂", *BROKEN[3:]]


@EACH
def test_surrogates_are_replaced_and_pairs_joined(listed):
    parameters = {"backbone": own_texts()}
    fitted = listed.fit(BROKEN, **parameters)
    answers = listed.predict(fitted, BROKEN)
    np.testing.assert_array_equal(answers, listed.predict(listed.fit(WHOLE, **parameters), WHOLE))
    np.testing.assert_array_equal(answers, listed.predict(fitted, pd.Series(BROKEN, dtype=object)))


@pytest.mark.parametrize("backbone", ["text-static", "minilm", "vectorizer"])
def test_every_backbone_reads_surrogates_alike(backbone, request, tmp_path):
    if backbone == "minilm":
        backbone = str(request.getfixturevalue("minilm"))
    elif backbone == "vectorizer":
        backbone = HashingVectorizer(n_features=64).fit(WHOLE)
    extractor = PretrainedFeatureExtractor(backbone, cache=tmp_path / "cache").fit(SHORT)
    found = extractor.transform(SHORT)
    assert abs(found - extractor.transform([*WHOLE[:3], "plain"])).max() == 0
    assert abs(found - extractor.set_params(cache=None).transform(SHORT)).max() < 1e-5
    assert abs(found[2] - found[0]).max() > 0, "a pair is a character, not two halves"
