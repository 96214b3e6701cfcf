"""Every decoder and both decode policies turn a JPEG as its EXIF says, wherever and however that is stored."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from featurecache.extract.images.decode import decode_image
from featurecache.extract.images.decoding.orientation import orientation_of, turned_upright
from featurecache.extract.images.decoding.revisions import reads_otherwise

SHORT, LONG = 3, 4
Y, X = np.mgrid[:40, :80]
PIXELS = np.stack([3 * X, 6 * Y, X + Y], axis=2).astype(np.uint8)
OTHER_APP1 = b"FLIR\0" + bytes(60), b"http://ns.adobe.com/xmp/extension/\0" + bytes(90)


def exif(orientation: int, kind: int, order: str) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    value = struct.pack(f"{order}I", orientation) if kind == LONG else struct.pack(f"{order}HH", orientation, 0)
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    return b"Exif\0\0" + mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)


def app1(content: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments: bytes, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, "JPEG", quality=95, subsampling=0)
    data = file.getvalue()
    return data[:2] + b"".join(map(app1, segments)) + data[2:]


def upright(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("before", [(), OTHER_APP1[:1], OTHER_APP1], ids=["first", "second", "third"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_all_orientations_are_turned_wherever_exif_is_and_however_it_is_stored(kind, order, before, mode):
    for orientation in range(1, 9):
        data = jpeg(*before, exif(orientation, kind, order), mode=mode)
        expected = upright(data)
        assert expected.shape[:2] == ((40, 80) if orientation < 5 else (80, 40))
        np.testing.assert_array_equal(decode_image(data).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_decode_policies_turn_alike(orientation):
    data = jpeg(OTHER_APP1[0], exif(orientation, LONG, ">"))
    whole, reduced = decode_image(data), decode_image(data, at_least=20)
    assert (2 * reduced.shape[1], 2 * reduced.shape[2]) == tuple(whole.shape[1:])
    halved = whole.float().unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
    assert (halved - reduced.float()).abs().max() < 8


@pytest.mark.parametrize("orientation", [0, 9, 65536])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    data = jpeg(exif(orientation, LONG, "<"))
    with Image.open(io.BytesIO(data)) as image:
        assert orientation_of(image) == 1
    assert decode_image(data).shape == (3, 40, 80)


def test_turning_is_pillows_transposition():
    for orientation in range(1, 9):
        image = Image.fromarray(PIXELS)
        image.getexif()[0x0112] = orientation
        np.testing.assert_array_equal(turned_upright(PIXELS, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize(
    ("data", "differs"),
    [
        (jpeg(exif(6, SHORT, "<")), False),
        (jpeg(exif(6, SHORT, ">")), False),
        (jpeg(exif(6, LONG, "<")), False),
        (jpeg(exif(6, LONG, ">")), True),
        (jpeg(OTHER_APP1[0], exif(6, SHORT, ">")), True),
        (jpeg(OTHER_APP1[0], exif(1, SHORT, ">")), False),
        (jpeg(OTHER_APP1[0]), False),
        (jpeg(), False),
        (b"\x89PNG\r\n\x1a\n no image", False),
        (b"\xff\xd8\xff", False),
    ],
)
def test_the_header_tells_which_images_the_first_rules_turned_otherwise(data, differs):
    assert reads_otherwise(io.BytesIO(data), 1, 4) == differs
    assert not reads_otherwise(io.BytesIO(data), 2, 4)


def test_the_judgement_of_the_first_rules_is_what_their_decoder_did():
    torch = pytest.importorskip("torch")
    decode_jpeg = pytest.importorskip("torchvision.io").decode_jpeg
    for before in ((), OTHER_APP1[:1]):
        for kind in (SHORT, LONG):
            for order in "<>":
                for orientation in (0, 1, 2, 3, 6, 8, 9):
                    data = jpeg(*before, exif(orientation, kind, order))
                    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                    then = decode_jpeg(raw, apply_exif_orientation=True)
                    same = then.shape == decode_image(data).shape and torch.equal(then, decode_image(data))
                    assert reads_otherwise(io.BytesIO(data), 1, 4) == (not same)
