"""Real ImageNet weights on real photographs, from file paths."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from support.mobilenet import load_mobilenet_v1
from torchvision import transforms

from sktransfer import ModuleBackbone, PretrainedFeatureExtractor


def part(data, name):
    paths = sorted((data / "hymenoptera" / name).glob("*/*.jp*g"))
    return paths, [path.parent.name for path in paths]


@pytest.fixture(scope="module")
def backbone(data):
    preparation = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    return ModuleBackbone(load_mobilenet_v1(data), preparation=preparation, name="mobilenet-v1")


def test_ants_and_bees_are_told_apart_from_file_paths(data, backbone):
    X_train, y_train = part(data, "train")
    X_val, y_val = part(data, "val")
    assert (len(X_train), len(X_val)) == (244, 153)
    model = make_pipeline(PretrainedFeatureExtractor(backbone), LogisticRegression(max_iter=5000))
    model.fit([str(path) for path in X_train], y_train)
    assert model.score([str(path) for path in X_val], y_val) >= 0.94


def test_embeddings_equal_a_plain_loop(data, backbone):
    paths = part(data, "val")[0][::30]
    found = PretrainedFeatureExtractor(backbone).fit_transform(paths)
    network = load_mobilenet_v1(data)
    for path, row in zip(paths, found, strict=True):
        with Image.open(path) as image, torch.no_grad():
            maps = network(backbone.preparation(image.convert("RGB"))[None])
        np.testing.assert_allclose(row, maps.mean((2, 3))[0], atol=1e-4)
