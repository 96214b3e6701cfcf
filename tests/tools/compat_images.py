"""JPEG and PNG files of many kinds and shapes, the same bytes for the same seed, and damaged ones among them.

The content is made with whole numbers and the files are written once, so that all environments read the same bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile

Pixels = NDArray[np.uint8]
# Makes a file from colours (H, W, 3) and a source of random numbers.
Encoder = Callable[[Pixels, np.random.Generator], bytes]

# Height and width; a number of them that has no divisor in common with that of KINDS, so that all pairs come.
SHAPES = (
    (375, 500), (500, 333), (224, 224), (341, 256), (1, 1), (7, 1), (2, 3), (96, 96), (481, 639), (17, 900), (2700, 1),
    (20, 2000), (257, 255), (427, 640), (768, 1023), (64, 48), (900, 31),
)  # fmt: skip
# Above the number of pixels that are converted at a time.
LARGE = (2100, 2050)
ORIENTATION_TAG = 0x0112
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
DAMAGED_EVERY = 25
# What Pillow estimates for a progressive JPEG is too little for noise.
BUFFER_BYTES = 1 << 24


def make_images(
    n: int = 200, *, seed: int = 19, shapes: Sequence[tuple[int, int]] = SHAPES
) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of `n` images, and of damaged copies of a few of them.

    Image i depends on the seed and i alone, but for two of the last ones, which are large.
    """
    kinds = list(KINDS)
    for i in range(n):
        rng, kind = np.random.default_rng([seed, i]), kinds[i % len(kinds)]
        is_large = kind in LARGE_KINDS and i >= max(len(kinds), n - len(kinds))
        data = KINDS[kind](drawing(rng, LARGE if is_large else shapes[i % len(shapes)]), rng)
        suffix = kind.split("-")[0]
        yield f"{i:03}-{kind}.{suffix}", data
        if i % DAMAGED_EVERY == 0:
            yield f"{i:03}-{kind}-cut.{suffix}", data[: len(data) * 2 // 3]


def drawing(rng: np.random.Generator, shape: tuple[int, int]) -> Pixels:
    """Return colours (H, W, 3): slopes, a rectangle with sharp edges, and noise."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    channels = []
    for _ in range(3):
        across, down, bend = (int(value) for value in rng.integers(-9, 10, 3))
        channels.append(abs((across * x + down * y + bend * (x * y // 64) + int(rng.integers(510))) % 510 - 255))
    colours = np.stack(channels, axis=2)
    top, left = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
    colours[top : top + shape[0] // 3 + 1, left : left + shape[1] // 3 + 1] = rng.integers(0, 256, 3)
    strength = int(rng.integers(0, 80))
    noise = rng.integers(-strength, strength + 1, colours.shape)
    return (colours + noise).clip(0, 255).astype(np.uint8)


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    usual, ImageFile.MAXBLOCK = ImageFile.MAXBLOCK, BUFFER_BYTES
    try:
        image.save(file, form, **options)
    finally:
        ImageFile.MAXBLOCK = usual
    return file.getvalue()


def _jpeg(mode: str = "RGB", *, is_turned: bool = False, **options: object) -> Encoder:
    def encode(colours: Pixels, rng: np.random.Generator) -> bytes:
        exif = _exif(rng) if is_turned else {}
        quality = int(rng.integers(20, 99))
        return _saved(Image.fromarray(colours).convert(mode), "JPEG", **{"quality": quality, **exif, **options})

    return encode


def _jpeg_sampled(subsampling: str) -> Encoder:
    """Return the encoder for a subsampling of colours that Pillow does not write."""

    def encode(colours: Pixels, rng: np.random.Generator) -> bytes:
        return simplejpeg.encode_jpeg(colours, int(rng.integers(20, 99)), "RGB", subsampling)

    return encode


def _png(mode: str, *, is_turned: bool = False, **options: object) -> Encoder:
    def encode(colours: Pixels, rng: np.random.Generator) -> bytes:
        exif = _exif(rng) if is_turned else {}
        return _saved(Image.fromarray(colours).convert(mode), "PNG", compress_level=1, **exif, **options)

    return encode


def _png_alpha(mode: str) -> Encoder:
    def encode(colours: Pixels, rng: np.random.Generator) -> bytes:
        image = Image.fromarray(colours).convert(mode)
        image.putalpha(Image.fromarray(drawing(rng, colours.shape[:2])[..., 0]))
        return _saved(image, "PNG", compress_level=1)

    return encode


def _png_palette(n_colours: int, **options: object) -> Encoder:
    def encode(colours: Pixels, _: np.random.Generator) -> bytes:
        image = Image.fromarray(colours).quantize(n_colours, Image.Quantize.MEDIANCUT)
        return _saved(image, "PNG", compress_level=1, **options)

    return encode


def _png16(n_channels: int, greatest: int = 65535) -> Encoder:
    """Return the encoder for 16 bits a channel, with values up to `greatest`."""

    def encode(colours: Pixels, rng: np.random.Generator) -> bytes:
        fourth = drawing(rng, colours.shape[:2])[..., :1]
        values = np.concatenate([colours, fourth], axis=2)[..., :n_channels].astype(np.uint32)
        fine = rng.integers(0, 256, values.shape, dtype=np.uint32)
        return _png16_file(((values * 256 + fine) * greatest // 65535).astype(">u2"))

    return encode


def _png16_file(values: NDArray[np.uint16]) -> bytes:
    """Return a PNG of big-endian values (H, W, 1 to 4 channels); Pillow writes grey ones only."""
    height, width, n_channels = values.shape
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOUR_TYPES[n_channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
             for name, body in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _exif(rng: np.random.Generator) -> dict[str, object]:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = int(rng.integers(1, 9))
    return {"exif": exif}


KINDS: dict[str, Encoder] = {
    "jpg-444": _jpeg(subsampling=0),
    "png-rgb": _png("RGB"),
    "jpg-422": _jpeg(subsampling=1),
    "png-grey": _png("L"),
    "jpg-420": _jpeg(subsampling=2),
    "png-rgba": _png_alpha("RGB"),
    "jpg-440": _jpeg_sampled("440"),
    "jpg-411": _jpeg_sampled("411"),
    "png-grey-alpha": _png_alpha("L"),
    "jpg-progressive-444": _jpeg(subsampling=0, progressive=True),
    "png-palette": _png_palette(200),
    "jpg-progressive-420": _jpeg(subsampling=2, progressive=True),
    "png-palette-transparent": _png_palette(64, transparency=3),
    "jpg-grey": _jpeg("L"),
    "png-palette-4": _png_palette(16, bits=4),
    "jpg-grey-progressive": _jpeg("L", progressive=True),
    "png-bilevel": _png("1"),
    "jpg-cmyk": _jpeg("CMYK"),
    "png-16-grey": _png16(1),
    "jpg-turned-420": _jpeg(is_turned=True, subsampling=2),
    "png-16-grey-dim": _png16(1, greatest=4095),
    "jpg-turned-progressive": _jpeg(is_turned=True, progressive=True, subsampling=1),
    "png-16-grey-alpha": _png16(2),
    "jpg-restarts": _jpeg(subsampling=2, restart_marker_blocks=3),
    "png-16-rgb": _png16(3),
    "jpg-optimised": _jpeg(subsampling=2, optimize=True),
    "png-16-rgba": _png16(4),
    "png-turned": _png("RGB", is_turned=True),
    "png-rgb-transparent": _png("RGB", transparency=(255, 0, 0)),
    "jpg-cmyk-progressive": _jpeg("CMYK", progressive=True),
}
LARGE_KINDS = ("png-rgba", "png-turned")
