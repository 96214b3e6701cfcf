"""JPEG files decoded strictly by libjpeg-turbo, and by the same decoder at 1/2, 1/4 or 1/8 of their size.

libjpeg goes on after an error and fills what is lost with grey or garbage. Strictly, its warnings about the image data
are errors: a file that was cut and closed again, or that has a hole of zeros, is refused (most holes of zeros that it
does not notice are found by jpeg_holes.py). Its other warnings, about odd
headers next to whole data, are none. The pixels are those of Pillow, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.extract.images.decoding.jpeg_holes import has_hole

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pillow's names of them: a MPO is a JPEG with more pictures behind it.
JPEG_FORMATS = {"JPEG", "MPO"}
# More than a JPEG can have; what follows in a file, such as the film of a motion photo, is not read.
JPEG_BYTES, JPEG_BYTES_A_PIXEL = 16 << 20, 16
# How libjpeg's warnings about missing or impossible image data begin.
DATA_WARNINGS = ("corrupt jpeg data", "premature end")
# From this side on, no other scale of libjpeg gives a reduced image of the same size.
LEAST_REDUCED_SIDE = 8


def decode_jpeg(data: bytes, shape: tuple[int, int], *, is_reduced: bool, is_grey: bool) -> NDArray[np.uint8] | None:
    """Return a grey (H, W) or colour (H, W, 3) JPEG of this shape (H, W); None if Pillow has to decode it.

    is_reduced: whether the shape is that of 1/2, 1/4 or 1/8 of the size, from LEAST_REDUCED_SIDE on.
    Raises ImageRefused if its image data is damaged.
    """
    import simplejpeg

    colours, least = "Gray" if is_grey else "RGB", shape if is_reduced else (0, 0)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, min_height=least[0], min_width=least[1])
    except ValueError as error:
        _refuse_damage(error)
        return None
    refuse_hole(data)
    if pixels.shape[:2] != shape:
        return None
    return pixels[..., 0] if is_grey else pixels


def read_jpeg(file: BinaryIO, width: int, height: int) -> bytes:
    """Return the bytes of a JPEG of this size from its file, without most of what follows its pixels."""
    file.seek(0)
    return file.read(JPEG_BYTES + JPEG_BYTES_A_PIXEL * width * height)


def check_jpeg(data: bytes) -> None:
    """Raise ImageRefused if the image data of a JPEG, of any colour space, is damaged."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(data, "Gray", min_height=1, min_width=1)
    except ValueError as error:
        _refuse_damage(error)
    refuse_hole(data)


def refuse_hole(data: bytes) -> None:
    """Raise ImageRefused if the image data of a JPEG has a hole of zeros that the decoder may not notice."""
    if has_hole(data):
        raise ImageRefused("damaged: a hole of zeros in the image data")


def _refuse_damage(error: ValueError) -> None:
    text = str(error)
    if text.lower().startswith(DATA_WARNINGS):
        raise ImageRefused(f"damaged: {text[0].lower()}{text[1:]}") from None
