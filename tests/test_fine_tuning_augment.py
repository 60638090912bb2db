"""Random changes of training images, and what they leave alone."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.networks import seeded
from torch import nn
from torchvision.transforms import v2

from sktransfer import FineTunedClassifier, ModuleBackbone
from sktransfer.inputs.augmentation import resolve_augment


class TinyNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.top = nn.Conv2d(6, 8, 3)

    def forward(self, pixels):
        return self.top(torch.relu(self.stem(pixels))).amax((2, 3))


@pytest.fixture
def backbone():
    return ModuleBackbone(seeded(TinyNetwork), name="tiny", stages=["stem", "top"])


@pytest.fixture
def images():
    """Bright left or bright right halves."""
    generator = np.random.default_rng(0)
    made = generator.integers(0, 60, (24, 16, 16, 3))
    y = np.arange(24) % 2
    for image, side in zip(made, y, strict=True):
        image[:, 8 * side : 8 * side + 8] += 150
    return made.astype(np.uint8), y


def model(backbone, **parameters):
    return FineTunedClassifier(backbone, **{"freeze_depth": 1, "max_epochs": 3, "random_state": 0, **parameters})


def test_the_automatic_policy_keeps_the_shape_and_changes_the_picture_anew_each_time():
    image = torch.rand(3, 20, 12)
    change = resolve_augment("auto", "image")
    made = [change(image.clone()) for _ in range(20)]
    assert {tuple(one.shape) for one in made} == {(3, 20, 12)}
    assert len({one.sum().item() for one in made}) > 10
    assert all(image.min() - 0.1 <= one.min() and one.max() <= image.max() + 0.1 for one in made)


def test_half_of_the_images_are_mirrored():
    image = torch.zeros(1, 8, 8)
    image[:, :, :4] = 1
    change = resolve_augment("auto", "image")
    made = [change(image) for _ in range(200)]
    left = np.mean([bool(one[..., :2].mean() > one[..., -2:].mean()) for one in made])
    assert 0.35 < left < 0.65


@pytest.mark.parametrize("depth", [0, 1, "all"])
def test_the_seed_decides_what_is_changed_and_global_generators_stay(backbone, images, depth):
    made = []
    for seed, other in ((0, 1), (0, 2), (3, 1)):
        torch.manual_seed(other)
        before = torch.random.get_rng_state()
        fitted = model(backbone, augment="auto", freeze_depth=depth, random_state=seed).fit(*images)
        assert torch.equal(torch.random.get_rng_state(), before)
        made.append(fitted.decision_function(images[0]))
    np.testing.assert_array_equal(made[0], made[1])
    assert np.abs(made[0] - made[2]).max() > 1e-6


def test_mirrored_images_can_not_be_told_apart_by_side(backbone, images):
    """A network that has seen each picture both ways round knows no side any more."""
    X, y = images
    quick = {
        "learning_rate": 0.03,
        "max_epochs": 20,
        "head_lr_ratio": 1,
        "freeze_depth": 0,
        "head_init": "random",
    }
    assert model(backbone, **quick).fit(X, y).score(X, y) > 0.9
    augmented = model(backbone, augment=v2.RandomHorizontalFlip(0.5), **quick).fit(X, y)
    assert augmented.score(X, y) < 0.8


def test_a_frozen_head_is_trained_on_changed_images(backbone, images):
    X, y = images
    plain = model(backbone, freeze_depth="all").fit(X, y)
    assert plain.n_epochs_ == 0
    trained = model(backbone, freeze_depth="all", augment="auto").fit(X, y)
    assert trained.n_epochs_ == 3
    assert np.abs(trained.decision_function(X) - plain.decision_function(X)).max() > 1e-6


def test_changes_work_on_copies(backbone, images):
    X, y = images
    before = X.copy()
    seen = []

    def spoil(image):
        seen.append(image.sum().item())
        return image.zero_()

    model(backbone, augment=spoil, max_epochs=3).fit(X, y)
    np.testing.assert_array_equal(X, before)
    # Each epoch begins with the pictures as they were.
    epochs = np.sort(np.reshape(seen[1:], (3, len(X))))  # one picture is tried first
    assert epochs.min() > 0
    np.testing.assert_array_equal(epochs[1:], epochs[:-1])


def test_validation_rows_are_seen_as_they_are(backbone, images):
    X, y = images
    seen = []

    def note(image):
        seen.append(image)
        return image

    model(backbone, augment=note, max_epochs=2).fit(X, y, X_val=X[:7], y_val=y[:7])
    assert len(seen) == 1 + 2 * len(X)  # one picture is tried first


def test_clones_keep_the_transform(backbone, images):
    change = v2.RandomHorizontalFlip(0.5)
    cloned = clone(model(backbone, augment=change))
    assert isinstance(cloned.augment, v2.RandomHorizontalFlip)
    assert cloned.fit(*images).n_epochs_ == 3


@pytest.mark.parametrize(
    "change",
    [lambda image: image[:, 1:], lambda image: image.numpy(), lambda image: None, lambda image: image.float() / 255],
    ids=["cut", "array", "none", "scaled"],
)
def test_a_change_of_shape_or_type_is_refused(backbone, images, change):
    with pytest.raises(ValueError, match=r"augment made .* it has to return a tensor of the same shape and type"):
        model(backbone, augment=change).fit(*images)


def test_only_images_are_changed():
    with pytest.raises(ValueError, match="augment changes images, but X holds text rows"):
        FineTunedClassifier(augment="auto").fit(["one text", "another"] * 4, [0, 1] * 4)
