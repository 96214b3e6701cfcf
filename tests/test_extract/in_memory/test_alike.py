"""Images that are decoded together have the pixels of each alone, and one that is refused spoils no other."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch  # noqa: F401 (with which images are resized together)
from PIL import Image

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.augmentation import View
from featurecache.extract.in_memory import alike
from featurecache.extract.in_memory.alike import read_all_pixels
from featurecache.extract.in_memory.pixels import PixelKind, read_pixels

PLAIN = PixelKind(None, "full", TransformSpec(24, 24, "bilinear", True, (), ()), None)
SMALL = PixelKind(None, "full", TransformSpec(20, 16, "bicubic", True, (), ()), None)


def jpeg(number: int, mode: str = "RGB", size=(40, 30), **options) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def together(monkeypatch) -> list[int]:
    """How many images each call decodes together."""
    sizes, decode = [], alike.decode_stack

    def counted(files, *given, **how):
        sizes.append(len(files))
        return decode(files, *given, **how)

    monkeypatch.setattr(alike, "decode_stack", counted)
    return sizes


def test_every_image_has_the_pixels_that_it_has_alone(together):
    items = [
        jpeg(0), jpeg(1), png(), jpeg(2, "L"), bytearray(jpeg(3)), jpeg(4, exif=turned()), jpeg(5, size=(50, 30)),
        jpeg(6, "L"), jpeg(7, "CMYK"), np.asarray(Image.open(io.BytesIO(jpeg(8)))), jpeg(9, progressive=True),
    ]  # fmt: skip
    for kinds in ([PLAIN], [PLAIN, SMALL]):
        together.clear()
        for item, found in zip(items, read_all_pixels(items, kinds, max_pixels=10**6), strict=True):
            wanted = read_pixels(item, kinds)
            assert [each.shape for each in found] == [each.shape for each in wanted]
            assert all(map(np.array_equal, found, wanted))
        assert sorted(together) == [1, 2, 4]


def test_what_is_refused_says_why_and_the_others_are_read(together):
    broken = jpeg(1)[:-300] + b"\xff\xd9"
    items = [jpeg(0), broken, b"hello", jpeg(2), jpeg(3, size=(80, 60))]
    found = read_all_pixels(items, [PLAIN], max_pixels=2000)
    assert [isinstance(each, ImageRefused) for each in found] == [False, True, True, False, True]
    for item, each in zip(items, found, strict=True):
        if isinstance(each, ImageRefused):
            with pytest.raises(ImageRefused) as alone:
                read_pixels(item, [PLAIN], max_pixels=2000)
            assert str(each) == str(alone.value)
    assert together == [3]


@pytest.mark.parametrize(
    "kind",
    [
        PixelKind(16, "full", SMALL.geometry, None),
        PixelKind(None, "full", SMALL.geometry, View("flip", 0, 1)),
        PixelKind(None, "full", None, None),
    ],
)
def test_pixels_of_other_kinds_are_read_one_by_one(kind, together):
    items = [jpeg(0), jpeg(1)]
    found = read_all_pixels(items, [kind], max_pixels=10**6)
    assert all(np.array_equal(each[0], read_pixels(item, [kind])[0]) for each, item in zip(found, items, strict=True))
    assert together == []


def test_where_the_memory_does_not_take_them_together_they_are_read_one_by_one(monkeypatch):
    def fail(*given):
        raise MemoryError

    monkeypatch.setattr(alike, "fit_together", fail)
    items = [jpeg(0), jpeg(1)]
    found = read_all_pixels(items, [PLAIN], max_pixels=10**6)
    assert all(np.array_equal(each[0], read_pixels(item, [PLAIN])[0]) for each, item in zip(found, items, strict=True))
