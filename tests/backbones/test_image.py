import io

import numpy as np
import pytest
import torch
from PIL import Image

from sktransfer.inputs.image import ImagePreparation, ImageTransform
from sktransfer.inputs.rows import read_rows


def preparation(**settings):
    transform = ImageTransform(**{"resize": 16, "crop": 16, **settings})
    return ImagePreparation(transform, description=transform.describe(), channels=transform.channels)


def prepared(X, preparation):
    rows = read_rows(X, "image")
    items = preparation.prepare(rows.values, 0)
    return [preparation.collate([item]).args[0][0] for item in items]


def picture(size=(20, 30)):
    values = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(values)


def test_array_pil_image_and_file_of_the_same_pixels_are_prepared_alike(tmp_path):
    image = picture()
    image.save(tmp_path / "a.png")
    first, *others = prepared([image, np.asarray(image), tmp_path / "a.png", str(tmp_path / "a.png")], preparation())
    assert first.shape == (3, 16, 16)
    for other in others:
        torch.testing.assert_close(first, other, rtol=0, atol=0)


def test_transform_equals_torchvisions_preset():
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(crop_size=24, resize_size=28)
    mine = ImageTransform(resize=28, crop=24)
    torch.testing.assert_close(mine(picture()), preset(picture()), rtol=0, atol=1e-6)


def test_mixed_modes_become_rgb_and_grey_becomes_three_equal_channels():
    grey = Image.new("L", (20, 20), 100)
    for image in (grey, grey.convert("RGB"), grey.convert("P"), grey.convert("RGBA"), grey.convert("CMYK")):
        (tensor,) = prepared([image], preparation(mean=(0, 0, 0), std=(1, 1, 1)))
        torch.testing.assert_close(tensor, torch.full((3, 16, 16), 100 / 255), rtol=0, atol=2 / 255)


def test_transparent_pixels_are_seen_as_white():
    image = Image.new("RGBA", (16, 16), (200, 0, 0, 0))
    (tensor,) = prepared([image], preparation(mean=(0, 0, 0), std=(1, 1, 1)))
    torch.testing.assert_close(tensor, torch.ones(3, 16, 16))


def test_sixteen_bit_grey_keeps_its_range():
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    (tensor,) = prepared([Image.fromarray(values)], preparation(mean=(0, 0, 0), std=(1, 1, 1)))
    torch.testing.assert_close(tensor[0].flatten(), torch.linspace(0, 1, 256), rtol=0, atol=3e-3)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_an_agreed_range_are_refused(mode):
    with pytest.raises(ValueError, match=f"row 0 of X .*mode '{mode}'"):
        prepared([Image.new(mode, (16, 16))], preparation())


def test_photos_are_turned_as_their_camera_says(tmp_path):
    image = picture((20, 20))
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        turned, same, upright = prepared([tmp_path / "a.png", opened, image.rotate(180)], preparation())
    torch.testing.assert_close(turned, upright)
    torch.testing.assert_close(same, upright)


def test_one_channel_networks_get_grey():
    (tensor,) = prepared([picture()], preparation(mean=(0.5,), std=(0.5,), channels=1))
    assert tensor.shape == (1, 16, 16)


def test_images_of_one_size_give_the_network_its_size_whatever_they_come_in(images, tmp_path):
    transform = ImageTransform(mean=(0,) * 3, std=(1,) * 3)
    open_size = ImagePreparation(transform, description=transform.describe(), size_from_rows=True)
    image = Image.fromarray(images[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(images[0].transpose(1, 0, 2)).save(tmp_path / "turned.png", exif=exif)
    for X in (images, [image], [images[0], image, tmp_path / "turned.png"]):
        fitted = open_size.fitted_to(read_rows(X, "image").values)
        assert prepared(X, fitted)[0].shape == (3, 12, 10)
        assert prepared([picture()], fitted)[0].shape == (3, 12, 10), "others are resized to it"
        assert fitted.examples()[0].args[0].shape == (2, 3, 12, 10)
        assert fitted.describe() != open_size.describe()
    mixed = open_size.fitted_to(read_rows([image, picture()], "image").values)
    assert prepared([image], mixed)[0].shape == (3, 224, 224)


def test_digest_is_of_the_content_not_of_the_name(tmp_path):
    image = picture()
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png")
    rows = read_rows([tmp_path / "a.png", tmp_path / "b.png"], "image").values
    first, second = preparation().digests(rows)
    assert first == second
    picture((20, 31)).save(tmp_path / "a.png")
    assert preparation().digests(read_rows([tmp_path / "a.png"], "image").values)[0] != second


def test_digests_tell_pixels_modes_and_shapes_apart():
    base = np.zeros((4, 6), np.uint8)
    palette = Image.new("P", (6, 4))
    palette.putpalette([255, 0, 0] * 256)
    rows = [base, base.reshape(6, 4), base + 1, Image.new("L", (6, 4)), Image.new("L", (4, 6)), palette]
    assert len(set(preparation().digests(read_rows(rows, "image").values))) == len(rows)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_image_is_named_before_anything_runs(tmp_path, content):
    picture().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(content)
    rows = read_rows([tmp_path / "good.png", tmp_path / "bad.png"], "image").values
    with pytest.raises(ValueError, match=r"row 1 of X \('.*bad.png'\) is not a readable image"):
        preparation().digests(rows)


def test_a_truncated_file_is_named(tmp_path):
    stream = io.BytesIO()
    picture((200, 200)).save(stream, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(stream.getvalue()[:2000])
    rows = read_rows([tmp_path / "cut.jpg"], "image").values
    with pytest.raises(ValueError, match=r"row 7 of X \('.*cut.jpg'\) is damaged"):
        preparation().prepare(rows, 7)


@pytest.mark.parametrize("times", [1.5, 10])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, times):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("1", (100, int(10 * times))).save(tmp_path / "bomb.png")
    rows = read_rows([tmp_path / "bomb.png"], "image").values
    with pytest.raises(ValueError, match="row 0 of X .*bomb.png.*decompression bomb"):
        preparation().digests(rows)


def test_the_callers_images_stay_as_they_are(images):
    before = images.copy()
    image = Image.fromarray(images[0]).convert("P")
    preparation().digests(read_rows([image, *images], "image").values)
    prepared([image, *images], preparation())
    np.testing.assert_array_equal(images, before)
    assert image.mode == "P"


def test_a_collated_batch_goes_in_by_place_or_keyword(images):
    items = prepared(images, preparation())
    assert preparation().collate(items).args[0].shape == (6, 3, 16, 16)
    named = ImagePreparation(ImageTransform(), description={}, keyword="pixel_values")
    assert named.collate(items).kwargs["pixel_values"].shape == (6, 3, 16, 16)


def test_transparency_and_palettes_are_content():
    grey = Image.new("L", (6, 4))
    clear = grey.copy()
    clear.info["transparency"] = 0
    first, second = preparation().digests([grey, clear])
    assert first != second


def test_a_preparation_that_fails_or_gives_no_tensor_names_the_row(images):
    def prepared_by(function):
        return ImagePreparation(function, description={}).prepare([images[0]], 3)

    with pytest.raises(ValueError, match="preparation failed on the image in row 3 of X: ZeroDivisionError"):
        prepared_by(lambda image: 1 / 0)
    with pytest.raises(TypeError, match="preparation gave a ndarray for the image in row 3"):
        prepared_by(np.asarray)
    with pytest.raises(TypeError, match=r"preparation gave a Tensor of shape \(3,\)"):
        prepared_by(lambda image: torch.zeros(3))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_colour_that_stands_for_transparency_is_seen_as_white(mode):
    image = Image.new(mode, (16, 16), 7 if mode == "L" else (1, 2, 3))
    image.info["transparency"] = 7 if mode == "L" else (1, 2, 3)
    for channels in (1, 3):
        (tensor,) = prepared([image], preparation(mean=(0,) * channels, std=(1,) * channels, channels=channels))
        torch.testing.assert_close(tensor, torch.ones(channels, 16, 16))
