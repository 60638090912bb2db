"""How a camera was held: the orientation in EXIF blocks, whatever else in them is broken.

Pillow reads whole blocks, and warns or fails where anything in them is broken; viewers show such pictures.
"""

from __future__ import annotations

import re
import struct

from PIL import Image

_ORIENTATION = 0x0112
_XMP = 700
# Blocks within a TIFF that only describe it: EXIF, GPS, interoperability.
_DESCRIPTIONS = (0x8769, 0x8825, 0xA005)
# What turns a stored picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INTEGERS = {1: "B", 3: "H", 4: "L"}
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}


def upright(picture: Image.Image) -> Image.Image:
    """Return a loaded picture as it is to be seen, itself where it need not be turned; it is not changed."""
    turn = _TURNS.get(orientation_of(picture))
    return picture if turn is None else picture.transpose(turn)


def orientation_of(picture: Image.Image) -> int:
    """Return a picture's orientation, 1 to 8; 1 where none can be read. Pillow itself turns a TIFF."""
    known = getattr(picture, "_exif", None)  # `getexif` would change the caller's picture
    if known is not None and known._loaded and (found := known.get(_ORIENTATION)) is not None:
        return found if type(found) is int and found in _TURNS else 1
    block, text = picture.info.get("exif"), picture.info.get("Raw profile type exif")
    if block is None and isinstance(text, str):  # so older programs wrote it into a PNG
        digits = "".join(text.split("\n")[3:])
        block = bytes.fromhex(digits) if re.fullmatch("([0-9a-fA-F]{2})*", digits) else None
    if isinstance(block, bytes) and (found := orientation_in(block)) is not None:
        return found
    packet = picture.info.get("XML:com.adobe.xmp") or picture.info.get("xmp")
    packet = packet.encode("utf-8", "ignore") if isinstance(packet, str) else packet
    match = re.search(rb'tiff:Orientation(?:="|>)([1-8])', packet) if isinstance(packet, bytes) else None
    return 1 if match is None else int(match[1])


def orientation_in(block: bytes) -> int | None:
    """Return the orientation in an EXIF block; 1 where it is none of 1 to 8, None where there is none."""
    block = re.sub(rb"\A(Exif\0\0)+", b"", block)
    for place, tag, type_, count, order in _entries(block):
        if tag == _ORIENTATION:
            code = _INTEGERS.get(type_, "") if count == 1 else ""
            found = struct.unpack_from(order + code, block, place + 8) if code else (1,)
            return found[0] if found[0] in _TURNS else 1
    return None


def without_descriptions(content: bytes) -> bytes:
    """Take out of a JPEG or TIFF what Pillow would read beside the pixels; of a JPEG all but the orientation."""
    if content.startswith(b"\xff\xd8\xff"):
        return _plain_jpeg(content)
    made = bytearray(content)
    for place, tag, type_, count, order in _entries(content):
        n_bytes = count * _TYPE_BYTES.get(type_, 0)
        (offset,) = struct.unpack_from(order + "L", content, place + 8)
        if tag == _ORIENTATION:
            struct.pack_into(order + "HLHH", made, place + 2, 3, 1, orientation_in(content) or 1, 0)
        elif (
            tag in _DESCRIPTIONS
            or (tag == _XMP and type_ not in (1, 7))
            or (n_bytes > 4 and offset + n_bytes > len(content))
        ):
            struct.pack_into(order + "HHL", made, place, 0xFFFF, 1, 1)  # one byte of no meaning
    return bytes(made)


def _entries(content: bytes) -> list[tuple[int, int, int, int, str]]:
    """Return place, tag, type, count and byte order of the entries in a TIFF's first directory; an EXIF block is a TIFF."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None or len(content) < 8:
        return []
    (start,) = struct.unpack_from(order + "L", content, 4)
    if start + 2 > len(content):
        return []
    (count,) = struct.unpack_from(order + "H", content, start)
    places = range(start + 2, min(start + 2 + 12 * count, len(content) - 11), 12)
    return [(place, *struct.unpack_from(order + "HHL", content, place), order) for place in places]


def _plain_jpeg(content: bytes) -> bytes:
    """Make EXIF one entry, or none, and take the list of further pictures (MPF) out."""
    made, block, place = [content[:2]], b"", 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] not in (b"\xff", b"\xda", b""):
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if content.startswith(b"\xff\xe1", place) and content.startswith(b"Exif\0\0", place + 4):
            block += content[place + 10 : end]
        elif not (content.startswith(b"\xff\xe2", place) and content.startswith(b"MPF\0", place + 4)):
            made.append(content[place:end])
        place = end
    found = orientation_in(block)
    if found is not None and found != 1:
        exif = b"Exif\0\0II*\0" + struct.pack("<LHHHLHHL", 8, 1, _ORIENTATION, 3, 1, found, 0, 0)
        made.insert(1, b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif)
    return b"".join([*made, content[place:]])
