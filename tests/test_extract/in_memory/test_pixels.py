"""An image has the same pixels however a program gives it: as a path, as bytes, as a PIL image open or loaded."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import View
from featurecache.extract.in_memory.items import list_items
from featurecache.extract.in_memory.pixels import PixelKind, read_pixels

SPEC = TransformSpec(24, 24, "bilinear", True, (), ())
PLAIN = PixelKind(None, "full", SPEC, None)


def colours(width=40, height=30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([5 * x, 8 * y, 3 * (x + y)], axis=2).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def wide(bits: int = 16) -> Image.Image:
    return Image.fromarray((np.arange(1200).reshape(30, 40) * 50).astype(np.uint16))


RGB = Image.fromarray(colours())
LAYERED = Image.fromarray(np.dstack([colours(), colours()[:, :, 0]]))
FILES = {
    "png": encoded(RGB, "PNG"),
    "turned png": encoded(RGB, "PNG", exif=turned(6)),
    "turned tiff": encoded(RGB, "TIFF", exif=turned(8)),
    "alpha": encoded(LAYERED, "PNG"),
    "palette": encoded(RGB.quantize(16), "PNG", transparency=3),
    "grey, transparent": encoded(RGB.convert("L"), "PNG", transparency=9),
    "grey of 2 bits, transparent": encoded(RGB.convert("L").quantize(4).convert("L"), "PNG", bits=2, transparency=1),
    "bilevel": encoded(RGB.convert("1"), "PNG"),
    "16 bits": encoded(wide(), "PNG"),
    "16-bit tiff": encoded(wide(), "TIFF"),
    "webp": encoded(RGB, "WEBP", lossless=True),
    "gif": encoded(RGB, "GIF"),
    "lab": encoded(RGB.convert("LAB"), "TIFF"),
}
JPEGS = {
    "jpeg": encoded(RGB, "JPEG", quality=90),
    "turned jpeg": encoded(RGB, "JPEG", exif=turned(5)),
    "cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "grey jpeg": encoded(RGB.convert("L"), "JPEG"),
}


@pytest.mark.parametrize("name", [*FILES, *JPEGS])
def test_a_file_has_its_pixels_as_path_bytes_and_pil_image(name, tmp_path):
    data = (FILES | JPEGS)[name]
    path = tmp_path / "image"
    path.write_bytes(data)
    (expected,) = read_pixels(data, [PLAIN])
    opened, loaded = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(data))
    loaded.load()
    exact = {"path": path, "view": memoryview(data), "bytearray": bytearray(data), "open": opened, "twice": opened}
    for kind, item in exact.items():
        assert np.array_equal(read_pixels(item, [PLAIN])[0], expected), kind
    if name != "grey of 2 bits, transparent":  # Pillow does not say how many bits a loaded image had
        (found,) = read_pixels(loaded, [PLAIN])
        np.testing.assert_allclose(found.astype(int), expected, atol=2 if name in JPEGS else 0)
    opened.load()  # the program goes on with it
    assert np.array_equal(np.asarray(opened), np.asarray(loaded))


def test_an_array_is_its_lossless_file():
    for pixels in (colours(), colours()[:, :, 0], colours()[::-2, ::-1], np.asfortranarray(colours())):
        (found,) = read_pixels(pixels, [PLAIN])
        (expected,) = read_pixels(encoded(Image.fromarray(np.ascontiguousarray(pixels)), "PNG"), [PLAIN])
        assert np.array_equal(found, expected)


def test_kinds_are_made_of_one_decoding():
    view = View("flip", 0, 1)
    small = PixelKind(None, "full", TransformSpec(16, 12, "bicubic", True, (), ()), None)
    wide_range = PixelKind(None, "image", SPEC, None)
    plain, mirrored, little, stretched = read_pixels(
        FILES["16 bits"], [PLAIN, PixelKind(None, "full", SPEC, view), small, wide_range]
    )
    assert np.array_equal(mirrored, plain[:, :, ::-1])
    assert little.shape == (3, 12, 12)
    assert stretched.max() > 240 > plain.max()


@pytest.mark.parametrize("item", [colours(60, 50), RGB.resize((60, 50)), encoded(RGB.resize((60, 50)), "PNG")])
def test_the_limit_of_pixels_is_for_every_kind(item):
    with pytest.raises(ImageRefused, match="60 x 50 pixels are more than the limit of 2,999"):
        read_pixels(item, [PLAIN], max_pixels=2999)


def test_a_pil_image_that_cannot_be_decoded_is_refused():
    with pytest.raises(ImageRefused, match="damaged"):
        read_pixels(Image.open(io.BytesIO(FILES["png"][: len(FILES["png"]) * 2 // 3])), [PLAIN])
    closed = Image.open(io.BytesIO(FILES["png"]))
    closed.close()
    with pytest.raises(ImageRefused, match="damaged"):
        read_pixels(closed, [PLAIN])


def test_a_stack_of_grey_images_is_several():
    assert [each.shape for each in list_items(np.zeros((5, 4, 6), np.uint8))] == [(4, 6)] * 5


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(ImageRefused, match="it has no pixels"):
        read_pixels(Image.new("RGB", size), [PLAIN])


def test_a_grey_image_whose_colours_are_multiplied_by_its_alpha_is_that_image():
    image = LAYERED.convert("LA")
    (expected,) = read_pixels(image, [PLAIN])
    np.testing.assert_allclose(read_pixels(image.convert("La"), [PLAIN])[0].astype(int), expected, atol=4)
