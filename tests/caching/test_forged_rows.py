"""Rows that somebody else wrote into a cache directory, with a valid checksum: used only if the network could give them."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from support.networks import own_images, own_texts

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, unload_backbones
from sktransfer.caching import row_file
from sktransfer.caching.directory import FILE_NAME

TEXTS = ["how do i reset my card", "thanks", "the delivery was late again"]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 40, 36, 3), dtype=np.uint8)


def forge(directory, change):
    """Put something else in the place of each row, under its key and with the checksum that belongs to it."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        for number, key, content in connection.execute("SELECT id, key, content FROM rows").fetchall():
            made = change(np.frombuffer(content, "<f4", offset=16))
            packed = made if isinstance(made, bytes) else row_file.pack(key, made)
            if isinstance(made, bytes):
                packed = row_file._checksum(key, made) + made
            connection.execute("UPDATE rows SET content = ? WHERE id = ?", [packed, number])
        connection.commit()


FORGED = {
    "longer": lambda row: np.append(row, row[:1]),
    "shorter": lambda row: row[:-1],
    "empty": lambda row: row[:0],
    "nan": lambda row: np.where(np.arange(len(row)) == 1, np.nan, row).astype("f4"),
    "infinite": lambda row: np.full_like(row, np.inf),
    "double": lambda row: row.astype("f8"),
    "half": lambda row: row.astype("f2"),
    "integers": lambda row: row.astype("i4"),
    "complex": lambda row: b"<c8\0\0\0\0\0" + row.astype("c8").tobytes(),
    "strings": lambda row: b"|S4\0\0\0\0\0" + row.tobytes(),
    "swapped": lambda row: row.astype(">f4"),
    "objects": lambda row: b"|O\0\0\0\0\0\0" + row.tobytes(),
    "no type": lambda row: b"\xff" * 8 + row.tobytes(),
    "torn": lambda row: b"<f4\0\0\0\0\0" + row.tobytes()[:-1],
}
every_forgery = pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)


@every_forgery
@pytest.mark.parametrize("kind", ["text", "image"])
def test_an_embedding_that_cannot_be_the_networks_is_computed_anew(change, kind, tmp_path):
    backbone, X = (own_texts(), TEXTS) if kind == "text" else (own_images(), IMAGES)
    expected = PretrainedFeatureExtractor(backbone, cache=tmp_path).fit_transform(X)
    for _ in range(2):
        forge(tmp_path, change)
        np.testing.assert_array_equal(PretrainedFeatureExtractor(backbone, cache=tmp_path).fit_transform(X), expected)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:  # and the right ones are stored again
        stored = dict(connection.execute("SELECT key, content FROM rows"))
    assert len(stored) == len(X)
    found = {row_file.unpack(key, content).tobytes() for key, content in stored.items()}
    assert found == {row.tobytes() for row in expected}


@every_forgery
def test_an_activation_that_cannot_be_the_networks_is_computed_anew(change, tmp_path):
    def fit():
        model = FineTunedClassifier("image-resnet", freeze_depth=3, max_epochs=1, cache=tmp_path, random_state=0)
        return model.fit(IMAGES, [0, 1, 0, 1]).predict_proba(IMAGES)

    expected = fit()
    forge(tmp_path, change)
    np.testing.assert_array_equal(fit(), expected)


@pytest.mark.parametrize(
    "head",
    [[0], [99], [-3], [3, 1, 1, 1], [3, 0, 16, 16], [2, 64], [1e30], [np.nan]],
    ids=str,
)
def test_a_forged_shape_is_noticed(head, tmp_path):
    def fit():
        model = FineTunedClassifier("image-resnet", freeze_depth=3, max_epochs=1, cache=tmp_path, random_state=0)
        return model.fit(IMAGES, [0, 1, 0, 1]).predict_proba(IMAGES)

    expected = fit()

    def change(row):
        n_forged = len(head) if row[0] == 3 else 0  # embeddings are in the cache too, without a shape in front
        return np.concatenate([np.array(head[:n_forged], "f4"), row[n_forged:]])

    forge(tmp_path, change)
    np.testing.assert_array_equal(fit(), expected)


def test_of_rows_of_an_unknown_network_those_that_it_computes_decide(tmp_path):
    backbone = own_texts()
    expected = PretrainedFeatureExtractor(backbone, cache=tmp_path).fit_transform(TEXTS)
    forge(tmp_path, FORGED["longer"])
    unload_backbones()
    found = PretrainedFeatureExtractor(backbone, cache=tmp_path).fit_transform([*TEXTS, "late again"])
    np.testing.assert_array_equal(found[:3], expected)


@pytest.mark.parametrize("name", ["text-static", "image-resnet"])
def test_a_network_with_a_name_knows_its_length(name, tmp_path):
    X = TEXTS if name == "text-static" else IMAGES
    expected = PretrainedFeatureExtractor(name, cache=tmp_path).fit_transform(X)
    for change in ("longer", "shorter"):
        forge(tmp_path, FORGED[change])
        unload_backbones()
        np.testing.assert_array_equal(PretrainedFeatureExtractor(name, cache=tmp_path).fit_transform(X), expected)
