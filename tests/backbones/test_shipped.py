import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sktransfer
from sktransfer import PretrainedFeatureExtractor, list_backbones
from sktransfer.backbones.sources import shipped

WEIGHTS = Path(sktransfer.__file__).parent / "weights"


def test_both_networks_together_are_at_most_ten_megabytes():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.suffix != ".pyc") <= 10_000_000


@pytest.mark.parametrize("name", shipped.names())
def test_the_card_says_what_the_network_is(name):
    card = json.loads((WEIGHTS / name / "card.json").read_text())
    assert {"data", "licence", "training", "scores", "source", "summary"} <= card.keys()
    backbone = shipped.load_shipped(name)
    assert backbone.card in list_backbones(card["modality"])
    assert sum(parameter.numel() for parameter in backbone.snapshot().parameters()) == card["parameters"]
    assert [stage.name for stage in backbone.stages] == card["stages"]


def test_texts_get_the_dimension_on_the_card_and_an_empty_one_gets_zeros(texts):
    E = PretrainedFeatureExtractor().fit_transform(texts)
    assert E.shape == (len(texts), next(c.dimension for c in list_backbones() if c.name == "text-static"))
    assert (E[1] == 0).all()
    assert np.isfinite(E).all()


def test_a_mean_of_token_vectors_does_not_depend_on_their_order():
    a, b = PretrainedFeatureExtractor().fit_transform(["late delivery again", "again late delivery"])
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 90), (500, 20)])
def test_images_of_any_size_are_read(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8))
    E = PretrainedFeatureExtractor().fit_transform([image, image.convert("L")])
    assert E.shape == (2, next(c.dimension for c in list_backbones() if c.name == "image-resnet"))


@pytest.mark.parametrize("name", shipped.names())
def test_random_weights_are_others_and_always_the_same(name, texts, images):
    X = texts if name == "text-static" else images
    trained = PretrainedFeatureExtractor(name).fit_transform(X)
    first = PretrainedFeatureExtractor(name, weights="random").fit_transform(X)
    sktransfer.unload_backbones()
    sktransfer.cache_clear()
    np.testing.assert_array_equal(PretrainedFeatureExtractor(name, weights="random").fit_transform(X), first)
    assert np.abs(first - trained).max() > 0.1


def test_other_weights_are_refused(texts):
    with pytest.raises(ValueError, match="has its own weights"):
        PretrainedFeatureExtractor("text-static", weights="IMAGENET1K_V1").fit(texts)


def test_no_transformers_is_imported_for_the_shipped_networks():
    code = """
import sys
import numpy as np
from sktransfer import PretrainedFeatureExtractor
PretrainedFeatureExtractor().fit_transform(["a"])
PretrainedFeatureExtractor().fit_transform(np.zeros((2, 8, 8), np.uint8))
print("transformers" in sys.modules, "timm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
