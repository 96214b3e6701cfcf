"""Resizing by numpy has the pixels of torch's kernel, to the bit, and takes its place only for a few images."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images import transform
from featurecache.extract.images.decoding import picture, resizing
from featurecache.extract.images.decoding.picture import Picture
from featurecache.extract.images.transform import fit_pixels

MODES = ["bilinear", "bicubic"]
HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def by_numpy(monkeypatch):
    """Let numpy resize, though these tests have torch loaded."""
    monkeypatch.setattr(transform, "is_by_numpy", lambda mode, *, antialias: antialias and mode in MODES)


def noise(*shape, seed=0):
    """Half of the images have values at the ends only, where a cubic overshoots."""
    rng = np.random.default_rng([seed, *shape])
    return rng.integers(0, 256, shape, dtype=np.uint8) if seed % 2 else (255 * rng.integers(0, 2, shape)).astype("u1")


def torchs(image, size, mode):
    batch = torch.from_numpy(image)[None].contiguous(memory_format=torch.channels_last)
    return interpolate(batch, size, mode=mode, antialias=True)[0].numpy()


def whole(image, size, mode):
    source = image.shape[1:]
    return resizing.resize_part([image], source, size, (range(size[0]), range(size[1])), mode)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_are_those_of_torch_for_thousands_of_shapes(mode):
    """Each side of a source from 1 to 60, to every other side from 1 to 60, and random pairs of larger ones."""
    for m in range(1, 61):
        n = (7 * m) % 60 + 1
        image = noise(3, m, n, seed=m)
        for height in range(1, 61, 3):
            size = height, (height * 11 + m) % 60 + 1
            if min(size) > 1 or min(image.shape[1:]) > 1:
                assert np.array_equal(whole(image, size, mode), torchs(image, size, mode)), (image.shape, size)
    rng = np.random.default_rng(0)
    for seed in range(20):
        source, size = rng.integers(2, 700, 2), tuple(map(int, rng.integers(2, 300, 2)))
        image = noise(3, *source, seed=seed)
        assert np.array_equal(whole(image, size, mode), torchs(image, size, mode)), (source, size)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (40, 30), (32, 32), (36, 36), (20, 900), (900, 20), (3, 4)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_transform_gives_the_same_with_and_without_torch(by_numpy, monkeypatch, mode, shape, n_channels):
    spec = TransformSpec(36, 32, mode, True, HALF, HALF)
    pixels = noise(*shape, 3, seed=1)
    image = Picture.of(pixels if n_channels == 3 else pixels[..., 0])
    found = fit_pixels(image, spec)
    monkeypatch.setattr(transform, "is_by_numpy", lambda mode, *, antialias: False)
    assert np.array_equal(found, fit_pixels(image, spec))
    assert found.shape == (3, 32, 32)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("crop", [24, 40, 41])
def test_a_crop_larger_than_the_image_is_padded_with_black(by_numpy, monkeypatch, crop):
    spec, image = TransformSpec(32, crop, "bicubic", True, HALF, HALF), Picture.of(noise(64, 48, 3, seed=1))
    found = fit_pixels(image, spec)
    monkeypatch.setattr(transform, "is_by_numpy", lambda mode, *, antialias: False)
    assert np.array_equal(found, fit_pixels(image, spec))


def test_strips_of_a_large_image_are_resized_one_by_one(by_numpy, monkeypatch):
    spec, image = TransformSpec(36, 32, "bicubic", True, HALF, HALF), Picture.of(noise(300, 200, 3, seed=1))
    expected = fit_pixels(image, spec)
    for module in (picture, transform):
        monkeypatch.setattr(module, "STRIP_PIXELS", 1_500)
    assert np.array_equal(fit_pixels(image, spec), expected)


def test_numpy_resizes_until_that_takes_longer_than_to_load_torch(monkeypatch):
    modules = {name: module for name, module in sys.modules.items() if name != "torch"}
    assert not resizing.is_by_numpy("bilinear", antialias=True)
    monkeypatch.setattr(resizing.sys, "modules", modules)
    monkeypatch.setattr(resizing.Spent, "products", 0)
    assert resizing.is_by_numpy("bilinear", antialias=True)
    assert not resizing.is_by_numpy("bilinear", antialias=False)
    assert not resizing.is_by_numpy("nearest", antialias=True)
    whole(noise(3, 375, 500), (256, 341), "bicubic")
    # 375 x 341 x 3 numbers of 6 sources each, and 256 x 341 x 3 of as many.
    assert resizing.Spent.products == 6 * 3 * 341 * (375 + 256)
    monkeypatch.setattr(resizing.Spent, "products", resizing.MOST_PRODUCTS)
    assert not resizing.is_by_numpy("bilinear", antialias=True)


ALONE = """
import io, sys, numpy as np
from PIL import Image
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.decode import decode_pixels
from featurecache.extract.images.transform import fit_pixels
file = io.BytesIO()
Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)).save(file, sys.argv[1])
print(fit_pixels(decode_pixels(file.getvalue()), TransformSpec(36, 32, "bicubic", True, (0.5,) * 3, (0.5,) * 3)).sum())
print("torch" in sys.modules)
"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decoding_and_resizing_need_no_torch(kind):
    ended = subprocess.run([sys.executable, "-c", ALONE, kind], capture_output=True, text=True)
    assert ended.stdout.splitlines()[1:] == ["False"], ended.stderr
