"""One picture in kinds of files that programs read differently: orientation, CMYK, transparency, 16 bits and so on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

# Of the picture, which is neither square nor the same from any two sides.
HEIGHT, WIDTH = 150, 200
QUALITY = 90
ORIENTATION_TAG = 0x0112


def write_odd_images(folder: Path) -> list[Path]:
    """Write the files into a new folder and return their paths; the name of each says its kind."""
    folder.mkdir()
    paths = []
    for name, make in KINDS.items():
        image, options = make(picture())
        paths.append(folder / name)
        image.save(paths[-1], **options)
    return paths


def picture() -> NDArray[np.uint8]:
    """Return the picture: uint8 (HEIGHT, WIDTH, 3), colours that differ between its sides, edges and fine lines."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    red, green = 255 * columns / WIDTH, 255 * rows / HEIGHT
    blue = np.where((rows // 10 + columns // 10) % 2 == 0, 30, 200)
    pixels = np.stack([red, green, blue], axis=2)
    pixels[20:60, 20:50] = (220, 30, 40)
    pixels[(rows - 100) ** 2 + (columns - 150) ** 2 < 900] = (250, 240, 60)
    pixels[90:140:3, 20:80] = (20, 20, 20)
    return pixels.astype(np.uint8)


def _of(pixels: NDArray[Any], mode: str | None = None) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(pixels)
    return image if mode is None else image.convert(mode)


def _turned(orientation: int) -> Callable[[NDArray[np.uint8]], tuple[Image.Image, dict[str, Any]]]:
    def make(pixels: NDArray[np.uint8]) -> tuple[Image.Image, dict[str, Any]]:
        from PIL import Image

        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        return _of(pixels), {"quality": QUALITY, "exif": exif}

    return make


def _with_alpha(pixels: NDArray[np.uint8]) -> tuple[Image.Image, dict[str, Any]]:
    alpha = np.linspace(0, 255, pixels.shape[1]).astype(np.uint8)
    return _of(np.dstack([pixels, np.broadcast_to(alpha, pixels.shape[:2])])), {}


def _palette_with_alpha(pixels: NDArray[np.uint8]) -> tuple[Image.Image, dict[str, Any]]:
    return _of(pixels).quantize(16), {"transparency": 3}


def _sixteen_bits(pixels: NDArray[np.uint8]) -> tuple[Image.Image, dict[str, Any]]:
    return _of(pixels.mean(axis=2).astype(np.uint16) * 257), {}


KINDS: dict[str, Callable[[NDArray[np.uint8]], tuple[Image.Image, dict[str, Any]]]] = {
    "plain.jpg": lambda pixels: (_of(pixels), {"quality": QUALITY}),
    "progressive.jpg": lambda pixels: (_of(pixels), {"quality": QUALITY, "progressive": True}),
    "orientation-2.jpg": _turned(2),
    "orientation-3.jpg": _turned(3),
    "orientation-6.jpg": _turned(6),
    "orientation-8.jpg": _turned(8),
    "cmyk.jpg": lambda pixels: (_of(pixels, "CMYK"), {"quality": QUALITY}),
    "grey.jpg": lambda pixels: (_of(pixels, "L"), {"quality": QUALITY}),
    "grey.png": lambda pixels: (_of(pixels, "L"), {}),
    "bilevel.png": lambda pixels: (_of(pixels, "1"), {}),
    "palette.png": lambda pixels: (_of(pixels).quantize(16), {}),
    "palette-transparent.png": _palette_with_alpha,
    "alpha.png": _with_alpha,
    "grey-alpha.png": lambda pixels: (_with_alpha(pixels)[0].convert("LA"), {}),
    "16-bits.png": _sixteen_bits,
    "animated.gif": lambda pixels: (_of(pixels).quantize(16),
                                    {"save_all": True, "append_images": [_of(pixels[::-1]).quantize(16)]}),
    "plain.tif": lambda pixels: (_of(pixels), {}),
    "wide.png": lambda pixels: (_of(np.tile(pixels[:20], (1, 8, 1))), {}),
    "tall.png": lambda pixels: (_of(np.tile(pixels[:, :20], (8, 1, 1))), {}),
    "small.png": lambda pixels: (_of(pixels[20:28, 15:27]), {}),
    "one-pixel.png": lambda pixels: (_of(pixels[30:31, 30:31]), {}),
}  # fmt: skip
