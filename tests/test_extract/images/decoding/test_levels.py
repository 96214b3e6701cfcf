"""Values of more than 8 bits become grey levels as the range says, and images that use few of them are named."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from featurecache.base.errors import ImageRefused, RequestError
from featurecache.extract.images.decode import decode_image
from featurecache.extract.images.decoding import picture
from featurecache.extract.images.decoding.levels import DimImages, FlatImages, Span, as_bytes
from featurecache.extract.job.request import FeatureRequest


def saved(values: np.ndarray, file_format: str = "TIFF") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, file_format)
    return file.getvalue()


def grey(data: bytes, levels: str) -> np.ndarray:
    pixels = decode_image(data, levels=levels).numpy()
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[0] == pixels[2]).all()
    return pixels[0]


TWELVE_BITS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


@pytest.mark.parametrize("file_format", ["TIFF", "PNG"])
def test_a_range_maps_its_values_to_all_grey_levels(file_format):
    data = saved(TWELVE_BITS, file_format)
    np.testing.assert_array_equal(grey(data, "full"), TWELVE_BITS >> 8)
    np.testing.assert_array_equal(grey(data, "0:65535"), TWELVE_BITS >> 8)
    np.testing.assert_array_equal(grey(data, "0:4095"), TWELVE_BITS >> 4)
    np.testing.assert_array_equal(grey(data, "image"), TWELVE_BITS >> 4)
    clipped = grey(data, "1000:1255")
    assert [clipped.flat[i] for i in (0, 1000, 1001, 1255, 4095)] == [0, 0, 1, 255, 255]


def test_whole_and_float_values_are_read_where_a_range_is_named():
    values = np.array([[-1000, 0, 400, 9000]], dtype=np.int32)
    assert grey(saved(values), "-1000:400").tolist() == [[0, 182, 255, 255]]
    floats = np.array([[0.0, 0.25, 1.0, np.nan, np.inf]], dtype=np.float32)
    assert grey(saved(floats), "0:1").tolist() == [[0, 64, 255, 0, 255]]
    assert grey(saved(floats), "image").tolist() == [[0, 64, 255, 0, 255]]
    with pytest.raises(ImageRefused, match="--range LOW:HIGH"):
        decode_image(saved(floats))
    with pytest.raises(ImageRefused, match="none of its pixels is a number"):
        decode_image(saved(np.full((2, 2), np.nan, np.float32)), levels="image")


def test_images_of_8_bits_are_not_changed_by_a_range():
    colours = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for file_format in ("TIFF", "PNG", "PPM", "SGI", "JPEG2000", "WEBP"):
        data = saved(colours, file_format)
        assert decode_image(data, levels="0:10").equal(decode_image(data))
    for data in (b"P1 2 1\n1 0\n", b"P4 2 1\n\x40", b"P2 2 1 255\n7 9\n", b"P3 1 1 255\n7 9 5\n"):
        assert decode_image(data, levels="0:10").equal(decode_image(data))


@pytest.mark.parametrize("text", ["", "0", "5:5", "9:1", "a:b", "0:1:2", "1e3:1e4", "full "])
def test_other_ranges_are_no_request(text):
    with pytest.raises(RequestError, match="LOW:HIGH"):
        FeatureRequest("pixels", range=text)


def test_the_whole_range_of_16_bits_is_the_high_byte():
    values = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(as_bytes(values, 0.0, 65535.0), values >> 8)
    np.testing.assert_array_equal(as_bytes(values.astype(np.int32), 0.0, 65535.0), values >> 8)


def test_images_that_use_few_of_their_values_are_counted_with_these_values():
    dim = DimImages()
    assert dim.line() == ""
    dim.add("bright.png", Span(0, 60000))
    dim.add("plain.png", None)
    assert dim.line() == ""
    dim.add("a.png", Span(38, 200))
    dim.add("b.png", Span(40, 263))
    assert dim.line() == (
        "2 16-bit images, the first 'a.png', with values in 38:263 only, of 0:65535, so 2 grey levels of 256. To use "
        "them all, give --range 38:263, or that of the camera, such as 0:4095, in every command."
    )


@pytest.mark.parametrize(
    ("least", "greatest", "levels", "counts"),
    [
        (0.0, 1.0, "0:4095", True),
        (0.0, 1.0, "0:255", True),
        (5000, 60000, "0:4095", True),
        (-1000, -20, "0:400", True),
        (5000, 5000, "0:4095", True),
        (0, 4095, "0:4095", False),
        (0, 70, "0:4095", False),
        (0, 0, "0:4095", False),
        (0.0, 1.0, "image", False),
        (0, 100, "full", False),
    ],
)
def test_images_that_a_range_makes_black_or_white_are_counted(least, greatest, levels, counts):
    flat = FlatImages()
    flat.add("a.tif", {levels: Span(least, greatest)})
    assert bool(flat.lines()) == counts


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1", "LA", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_strips_of_rows_are_the_rows_of_the_whole(mode, orientation, monkeypatch):
    random = np.random.default_rng(1)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (13, 7), dtype=np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (13, 7, 4), dtype=np.uint8)).convert("RGB").convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(random.integers(0, 256, (13, 7), dtype=np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG", exif=exif)
    whole = decode_image(file.getvalue())
    monkeypatch.setattr(picture, "STRIP_PIXELS", 20)
    assert decode_image(file.getvalue()).equal(whole)
