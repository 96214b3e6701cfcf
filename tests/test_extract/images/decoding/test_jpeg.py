"""JPEGs have Pillow's pixels bit for bit, at every scale, and damaged ones are refused by both decode policies."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageFile

from featurecache.base.errors import ImageRefused
from featurecache.extract.images.decode import decode_image
from featurecache.extract.images.decode_rules import DECODE_REVISION
from featurecache.extract.images.decoding import jpeg as jpegs
from featurecache.extract.images.decoding import jpeg_holes
from featurecache.extract.images.decoding.revisions import refusal_since


@pytest.fixture(autouse=True)
def room_to_write(monkeypatch):
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 1 << 22)


def textured(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).integers(-9, 10, (height, width, channels))
    return np.cumsum(steps, axis=0).astype(np.uint8)


def jpeg(mode: str, height: int, width: int, seed: int, **options: object) -> bytes:
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    pixels = textured(height, width, channels, seed)
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    image = image if image.mode == mode else Image.frombytes(mode, (width, height), pixels.tobytes())
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def random_jpegs(n: int, least: int, most: int) -> list[bytes]:
    chance, found = random.Random(3), []
    for seed in range(n):
        mode = chance.choice(["L", "RGB", "RGB", "RGB", "CMYK"])
        options = {"quality": chance.randint(5, 100), "progressive": chance.random() < 0.5}
        if mode == "RGB":
            options["subsampling"] = chance.choice([0, 1, 2])
        if chance.random() < 0.3:
            options["restart_marker_blocks"] = chance.randint(1, 9)
        found.append(jpeg(mode, chance.randint(least, most), chance.randint(least, most), seed, **options))
    return found


def test_random_jpegs_have_pillows_pixels():
    for data in random_jpegs(80, 1, 70):
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(decode_image(data).permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB")))


def test_reduced_jpegs_have_pillows_pixels():
    chance, n_reduced = random.Random(4), 0
    for data in random_jpegs(50, 40, 300):
        at_least = chance.randint(1, 60)
        with Image.open(io.BytesIO(data)) as image:
            whole = image.size
            image.draft(None, tuple(at_least * side // min(whole) for side in whole))
            n_reduced += image.size != whole
            np.testing.assert_array_equal(
                decode_image(data, at_least=at_least).permute(1, 2, 0).numpy(), np.asarray(image.convert("RGB"))
            )
    assert n_reduced > 20


def test_a_reduced_jpeg_is_read_as_far_as_its_whole_size_may_reach(monkeypatch):
    monkeypatch.setattr(jpegs, "JPEG_BYTES", 0)
    data = jpeg("RGB", 256, 256, 0, quality=95, subsampling=0)
    assert len(data) > jpegs.JPEG_BYTES_A_PIXEL * 32 * 32
    assert decode_image(data, at_least=32).shape == (3, 32, 32)


def cut_and_closed(data: bytes) -> bytes:
    """What downloaders and recovery tools leave: three fifths of the image data, and an end marker."""
    start = data.index(b"\xff\xda")
    return data[: start + int(0.6 * (len(data) - start))] + b"\xff\xd9"


def with_a_hole(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(200) + data[middle + 200 :]


@pytest.mark.parametrize("at_least", [None, 30])
@pytest.mark.parametrize("damage", [cut_and_closed, with_a_hole])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_damaged_image_data_is_refused(mode, progressive, damage, at_least):
    data = damage(jpeg(mode, 150, 190, 5, quality=85, progressive=progressive))
    with pytest.raises(ImageRefused) as refused:
        decode_image(data, at_least=at_least)
    assert str(refused.value).startswith("damaged: ")


def test_whole_image_data_with_something_behind_it_is_read():
    data = jpeg("RGB", 50, 60, 0)
    assert decode_image(data + bytes(1000) + b"a film").equal(decode_image(data))


def test_an_odd_header_next_to_whole_image_data_is_read():
    data = jpeg("RGB", 50, 60, 0)
    assert data[6:13] == b"JFIF\0\x01\x01"
    assert decode_image(data[:11] + b"\x09" + data[12:]).equal(decode_image(data))


def of_odd_version(data: bytes) -> bytes:
    return data[:11] + b"\x09" + data[12:]


def of_odd_scan(data: bytes) -> bytes:
    end = data.index(b"\xff\xda") + 4 + 10
    assert data[end - 3 : end] == b"\0\x3f\0"
    return data[: end - 2] + b"\x3e" + data[end - 1 :]


def with_a_gap(data: bytes) -> bytes:
    """Other bytes than the decoder's own in the middle, and no zeros."""
    middle = len(data) // 2
    return data[:middle] + b"\xfe" * 200 + data[middle + 200 :]


@pytest.mark.parametrize("at_least", [None, 30])
@pytest.mark.parametrize("odd", [of_odd_version, of_odd_scan])
@pytest.mark.parametrize("damage", [cut_and_closed, with_a_hole, with_a_gap])
def test_damage_behind_an_odd_header_is_refused(damage, odd, at_least):
    whole = odd(jpeg("RGB", 150, 190, 5, quality=85))
    decode_image(whole, at_least=at_least)
    with pytest.raises(ImageRefused, match="damaged: "):
        decode_image(damage(whole), at_least=at_least)
    for since in (1, 2, 3):
        assert refusal_since(io.BytesIO(damage(whole)), since).startswith("damaged: ")
        assert refusal_since(io.BytesIO(whole), since) == ""
    assert refusal_since(io.BytesIO(damage(whole)), DECODE_REVISION) == ""


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 20}])
def test_a_hole_of_zeros_is_refused_wherever_it_is(mode, options):
    data = jpeg(mode, 120, 160, 5, quality=85, **options)
    start = data.index(b"\xff\xda") + 20
    for place in range(start, len(data) - 400, (len(data) - start) // 40):
        with pytest.raises(ImageRefused, match="damaged: "):
            decode_image(data[:place] + bytes(200) + data[place + 200 :])


def plain_pictures() -> list[np.ndarray]:
    ramp = np.tile(np.linspace(0, 255, 800).astype(np.uint8), (320, 1))
    half = textured(320, 800, 3, 1)
    half[:, 300:] = 255
    board = (np.indices((320, 800)).sum(0) % 2 * 255).astype(np.uint8)
    flat = [np.full((320, 800, 3), colour, np.uint8) for colour in (0, 128, 255)]
    return [*flat, ramp, np.ascontiguousarray(ramp.T), half, board]


@pytest.mark.parametrize("optimize", [False, True])
def test_plain_areas_are_no_holes(optimize):
    n_with_zeros = 0
    for pixels in plain_pictures():
        for quality in (1, 30, 75, 100):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=optimize)
            n_with_zeros += jpeg_holes.HOLE in file.getvalue()
            assert not jpeg_holes.has_hole(file.getvalue())
    assert n_with_zeros > 5 or not optimize


def test_zeros_in_front_of_and_behind_the_image_data_are_no_holes():
    data = jpeg("RGB", 50, 60, 0)
    padding = b"\xff\xe5" + (402).to_bytes(2, "big") + bytes(400)
    assert decode_image(data[:2] + padding + data[2:] + bytes(400)).equal(decode_image(data))


def test_damaged_headers_are_no_error_in_looking_for_holes():
    data = jpeg("RGB", 30, 30, 0)
    for place in range(2, data.index(b"\xff\xda") + 20):
        jpeg_holes.has_hole(data[:place] + bytes(100))
        jpeg_holes.has_hole(data[:place] + b"\xff" + data[place + 1 :] + bytes(100))
