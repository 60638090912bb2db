"""Pictures as the world has them: formats, damage, EXIF, colour modes, files that change."""

import io
import struct
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sktransfer import PretrainedFeatureExtractor
from sktransfer.inputs.image import ImagePreparation, ImageTransform, _middle
from sktransfer.inputs.rows import read_rows
from tests.support.estimators import ESTIMATORS

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
GREY = ImageTransform(resize=None, crop=None, mean=(0, 0, 0), std=(1, 1, 1))
CORNERS = np.zeros((8, 8, 3), np.uint8)
CORNERS[:4, :4], CORNERS[:4, 4:], CORNERS[4:, :4] = 250, 170, 90


def preparation(transform=GREY):
    description = transform.describe() if isinstance(transform, ImageTransform) else {}
    return ImagePreparation(transform, description=description)


def seen(row, transform=GREY):
    """What the network would see of one picture, in 0..255, channels last."""
    made = preparation(transform)
    rows = read_rows([row], "image").values
    made.digests(rows)
    batch = made.collate(made.prepare(rows, 0)).args[0][0]
    return (batch * 255).round().permute(1, 2, 0).numpy()


def encoded(picture, format="PNG", **settings):
    file = io.BytesIO()
    picture.save(file, format, **settings)
    return file.getvalue()


def exif_block(orientation=None, *, type_=3, broken=b""):
    entries = b"" if orientation is None else struct.pack("<HHLHH", 0x0112, type_, 1, orientation, 0)
    entries += broken
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries) // 12) + entries + bytes(4)


BROKEN = {
    "garbage": b"Exif\0\0 no such thing",
    "empty": b"Exif\0\0",
    "cut off": b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12",
    "out of the file": exif_block(broken=struct.pack("<HHLL", 0x010F, 2, 100, 2**31)),
    "string": exif_block(ord("6"), type_=2),
    "unknown type": exif_block(6, type_=99),
    **{f"orientation {value}": exif_block(value) for value in (0, 9, 99)},
}


# What may be read


@pytest.mark.parametrize("form", ["path", "str", "frame", "opened", "closed"])
def test_postscript_is_refused_whatever_its_name(form, tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(POSTSCRIPT)
    rows = {"path": [path], "str": [str(path)], "frame": pd.DataFrame({"picture": [str(path)]})}
    opened = Image.open(path)
    X = rows.get(form, [opened])
    if form == "closed":
        opened.close()
    with pytest.raises(ValueError, match=r"ow 0 of X .*JPEG, PNG, WEBP"):
        PretrainedFeatureExtractor("image-resnet").fit(X)
    opened.close()


@pytest.mark.parametrize("form", [lambda b: [b], lambda b: [np.bytes_(b)], lambda b: np.array([b]), pd.Series])
def test_encoded_pictures_as_bytes_are_refused(form):
    content = encoded(Image.fromarray(CORNERS))
    X = form([content]) if form is pd.Series else form(content)
    with pytest.raises(TypeError, match="PIL"):
        read_rows(X, "image")


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "ICO", "AVIF", "MPO"]
)
def test_formats_that_are_read(format, tmp_path):
    path = tmp_path / "picture"
    Image.fromarray(np.full((16, 16, 3), 120, np.uint8)).save(path, format)
    np.testing.assert_allclose(seen(path), 120, atol=4)


# EXIF


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG", "TIFF"])
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_exif_is_passed_over(format, kind, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(with_exif(format, BROKEN[kind]))
    expected = with_exif(format, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = seen(path)
        path.write_bytes(expected)
        np.testing.assert_array_equal(found, seen(path))


def with_exif(format, block):
    picture = Image.fromarray(CORNERS)
    settings = {"quality": 100} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    if format != "TIFF":
        content = encoded(picture, format, **settings, **({} if block is None else {"exif": block}))
        # With no resolution in its header, Pillow looks for one in the EXIF block.
        return content.replace(b"JFIF\0", b"JFXX\0") if format == "JPEG" else content
    entry = block[16:28].ljust(12, b"\xff") if block is not None else None
    content = bytearray(encoded(picture, "TIFF", tiffinfo={0x0112: 1, 0x010F: "maker of cameras"}))
    start = struct.unpack_from("<L", content, 4)[0]
    for i in range(struct.unpack_from("<H", content, start)[0]):
        place = start + 2 + 12 * i
        tag = struct.unpack_from("<H", content, place)[0]
        if entry is not None and tag == (0x010F if entry[:2] == b"\x0f\x01" else 0x0112):
            content[place + 2 : place + 12] = entry[2:]
    return bytes(content)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_respected(format, orientation, tmp_path):
    turns = [lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud, lambda a: a.transpose(1, 0, 2)]
    turns += [lambda a: np.rot90(a, -1), lambda a: np.rot90(a, 2).transpose(1, 0, 2), np.rot90]
    path = tmp_path / "picture"
    path.write_bytes(with_exif(format, exif_block(orientation)))
    expected = turns[orientation - 1](CORNERS)
    np.testing.assert_allclose(seen(path), expected, atol=6)
    with Image.open(path) as opened:
        np.testing.assert_allclose(seen(opened), expected, atol=6)


@pytest.mark.parametrize("block", [exif_block(6), BROKEN["garbage"], BROKEN["string"]])
def test_exif_of_pictures_handed_in_is_not_touched(block):
    picture = Image.open(io.BytesIO(with_exif("PNG", block)))
    seen(picture)
    assert picture._exif is None
    assert picture.info["exif"] in (block, block[6:])


# Damage


def closed_picture():
    picture = Image.open(io.BytesIO(encoded(Image.fromarray(CORNERS))))
    picture.close()
    return picture


def closed_loaded():
    picture = Image.fromarray(CORNERS)
    picture.close()
    return picture


@pytest.mark.parametrize("make", [closed_picture, closed_loaded])
def test_closed_pictures_name_their_row(make):
    with pytest.raises(ValueError, match="row 1 of X .*closed"):
        PretrainedFeatureExtractor("image-resnet").fit_transform([CORNERS, make()])


@pytest.mark.parametrize(
    "row", [Image.new("RGB", (0, 5)), Image.new("L", (5, 0)), np.zeros((0, 5, 3), np.uint8), np.zeros((5, 0), np.uint8)]
)
def test_pictures_without_pixels_name_their_row(row):
    with pytest.raises(ValueError, match="Row 1 of X .*a pixel or more"):
        read_rows([CORNERS, row], "image")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "ICO", "PPM", "AVIF"])
def test_truncated_files_name_their_row(format, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8).astype(np.uint8))
    content = encoded(noise, format)
    path = tmp_path / "picture"
    for length in (0, 1, 4, 9, 20, 26, 40, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="he image in row 0 of X"):
            seen(path)


def test_large_files_are_read_up_to_pillows_limit(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 5_000), 1).save(path)
    small = ImageTransform(resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_array_equal(seen(path, small), 255)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000_000)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ValueError, match="row 0 of X .*bomb"):
        seen(path, small)


# Shapes


@pytest.mark.parametrize("size", [(1, 3_000), (3_000, 1), (2, 20_000)])
def test_extreme_ratios_need_little_memory(size):
    picture = Image.fromarray(np.full((*size, 3), 77, np.uint8))
    transform = ImageTransform(mean=(0, 0, 0), std=(1, 1, 1))
    assert transform.resized(picture).unique().tolist() == [77]
    # What is enlarged is at most 64 times as long as wide: of a usual ratio it is all.
    assert max(_middle(picture).size) <= 64 * min(picture.size)
    usual = Image.fromarray(CORNERS)
    assert _middle(usual) is usual


@pytest.mark.parametrize("transform", [ImageTransform(crop=None), lambda picture: torch.zeros(3, 4, 4)])
def test_extreme_ratios_are_refused_where_all_may_be_enlarged(transform):
    with pytest.raises(ValueError, match="row 0 of X is 3000 x 1 pixels"):
        seen(np.zeros((1, 3_000, 3), np.uint8), transform)


# Colours


def palette(transparent):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    return encoded(picture, "PNG", **({"transparency": 1} if transparent else {}))


def animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
        (palette(False), (200, 100, 50)),
        (palette(True), (255, 255, 255)),
        (animation(), (255, 0, 0)),
        (encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 0))), (255, 255, 255)),
        (encoded(Image.new("LA", (4, 4), (0, 51))), (204, 204, 204)),
        (encoded(Image.new("1", (4, 4), 1)), (255, 255, 255)),
        (encoded(Image.fromarray(np.full((4, 4), 32896, np.uint16))), (128, 128, 128)),
        (encoded(Image.fromarray(np.full((4, 4), 32896, np.uint16)), "TIFF"), (128, 128, 128)),
        (encoded(Image.fromarray(np.zeros((4, 4), np.uint16))), (0, 0, 0)),
    ],
)
def test_colour_modes(content, expected, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(content)
    for row in (path, Image.open(io.BytesIO(path.read_bytes()))):
        np.testing.assert_array_equal(seen(row), np.broadcast_to(np.float32(expected), (4, 4, 3)))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_range_are_refused(mode):
    with pytest.raises(ValueError, match=f"row 0 of X .*{mode}"):
        seen(Image.new(mode, (4, 4), 1))


def png_of_16_bit_colours(value):
    """Pillow can't write one."""
    import zlib

    def chunk(name, content):
        return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))

    lines = (b"\0" + struct.pack(">H", value) * 12) * 4
    header = struct.pack(">LLBBBBB", 4, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "colours"])
def test_twelve_bits_in_sixteen_are_refused(format, tmp_path):
    path = tmp_path / "picture"
    grey = np.full((4, 4), 4000, np.uint16)
    path.write_bytes(png_of_16_bit_colours(4000) if format == "colours" else encoded(Image.fromarray(grey), format))
    for row in (path, Image.open(io.BytesIO(path.read_bytes()))):
        with pytest.raises(ValueError, match="row 0 of X.* has 16 bits.*nearly black"):
            seen(row)
    path.write_bytes(png_of_16_bit_colours(32896))
    np.testing.assert_array_equal(seen(path), 128)
    with pytest.raises(ValueError, match="row 0 of X has uint16 pixels"):
        seen(grey)


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)
@pytest.mark.parametrize("form", [lambda masked: masked, list])
def test_masked_pictures_are_refused(listed, form):
    pixels = np.zeros((6, 8, 8, 3), np.uint8)
    mask = np.zeros(pixels.shape, bool)
    mask[2, 0, 0, 0] = True
    with pytest.raises(ValueError, match="masked"):
        listed.fit(form(np.ma.array(pixels, mask=mask)), backbone="image-resnet")


# Files that change


def test_a_file_that_changes_is_never_kept_under_its_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), "red").save(path)
    embedder = PretrainedFeatureExtractor("image-resnet", cache=tmp_path / "cache").fit([CORNERS])
    digests = ImagePreparation.digests

    def digests_then_rewrites(self, rows):
        found = digests(self, rows)
        Image.new("RGB", (8, 8), "blue").save(path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ImagePreparation, "digests", digests_then_rewrites)
        with pytest.raises(ValueError, match="row 0 of X .*changed while it was read"):
            embedder.transform([path])
    Image.new("RGB", (8, 8), "red").save(path)
    expected = PretrainedFeatureExtractor("image-resnet").fit_transform([Image.new("RGB", (8, 8), "red")])
    np.testing.assert_array_equal(embedder.transform([path]), expected)
