"""HEIC and HEIF are read by pillow-heif, AVIF by Pillow, and a missing package is named."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from featurecache.base.errors import ImageRefused
from featurecache.extract.images.decode import decode_image
from featurecache.extract.images.decoding.heif import is_heif

pillow_heif = pytest.importorskip("pillow_heif")
Y, X = np.mgrid[:48, :64]
PIXELS = np.stack([3 * X, 4 * Y, X + Y], axis=2).astype(np.uint8)


def heic(orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    image = pillow_heif.from_pillow(Image.fromarray(PIXELS))
    image[0].info["exif"] = exif.tobytes()  # stored as a rotation of the file too
    image.save(file, quality=90)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_heic_is_read_upright(orientation):
    data = heic(orientation)
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    pixels = decode_image(data).permute(1, 2, 0).numpy().astype(int)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < 6


def test_a_missing_package_is_named(monkeypatch):
    data = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageRefused) as refused:
        decode_image(data)
    assert str(refused.value) == "HEIC, which needs the package pillow-heif: pip install 'featurecache[heif]'"


def test_a_cut_heic_is_refused():
    data = heic()
    with pytest.raises(ImageRefused):
        decode_image(data[: len(data) // 2])


def test_avif_is_pillows():
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "AVIF")
    assert not is_heif(file.getvalue()[:132])
    assert decode_image(file.getvalue()).shape == (3, 48, 64)
