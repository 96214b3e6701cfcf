"""JPEG files decoded strictly by libjpeg-turbo, and by the same decoder at 1/2, 1/4 or 1/8 of their size.

libjpeg goes on after an error and fills what is lost with grey or garbage. Strictly, its warnings about the image data
are errors: a file that was cut and closed again, or that has a hole of zeros, is refused (most holes of zeros that it
does not notice are found by jpeg_holes.py). Its other warnings, about odd headers next to whole data, are none; since
it reports the first warning of a file only, the data is looked at once more without what is odd in its headers. The
pixels are those of Pillow, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.extract.images.decoding.jpeg_holes import has_hole, segments

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
APPLICATION, SCAN, SEQUENTIAL_FRAMES = range(0xE0, 0xF0), 0xDA, {0xC0, 0xC1}
# How the header of a scan ends in a JPEG that is not progressive: all 64 coefficients, in all their bits.
WHOLE_SCAN = b"\x00\x3f\x00"


def decode_jpeg(data: bytes, shape: tuple[int, int], *, is_reduced: bool, is_grey: bool) -> NDArray[np.uint8] | None:
    """Return a grey (H, W) or colour (H, W, 3) JPEG of this shape (H, W); None if Pillow has to decode it.

    is_reduced: whether the shape is that of 1/2, 1/4 or 1/8 of the size, from LEAST_REDUCED_SIDE on.
    Raises ImageRefused if its image data is damaged.
    """
    import simplejpeg

    refuse_hole(data)
    colours, least = "Gray" if is_grey else "RGB", shape if is_reduced else (0, 0)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, min_height=least[0], min_width=least[1])
    except ValueError as error:
        _refuse_damage(error)
        _refuse_damage_behind_headers(data)
        return None
    if pixels.shape[:2] != shape:
        return None
    return pixels[..., 0] if is_grey else pixels


def decode_whole(data: bytes, shape: tuple[int, int], *, is_grey: bool) -> NDArray[np.uint8] | None:
    """Return a JPEG of this shape as `decode_jpeg` does; None where anything about it has to be looked at again."""
    import simplejpeg

    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "Gray" if is_grey else "RGB")
    except ValueError:
        return None
    if pixels.shape[:2] != shape or has_hole(data):
        return None
    return pixels[..., 0] if is_grey else pixels


def decode_stack(
    files: Sequence[bytes], shape: tuple[int, int], *, is_grey: bool, begin: Callable[[int], None]
) -> tuple[NDArray[np.uint8], list[int]]:
    """Return JPEGs of a shape (H, W) as one array (n, H, W, C), and the positions of those that `decode_whole` takes.

    begin: called with the position of each before it is decoded.
    """
    import simplejpeg

    stack = np.empty((len(files), *shape, 1 if is_grey else 3), dtype=np.uint8)
    colours, whole = "Gray" if is_grey else "RGB", []
    for i, data in enumerate(files):
        begin(i)
        try:
            pixels = simplejpeg.decode_jpeg(data, colours, buffer=stack[i])
        except ValueError:
            continue
        if pixels.shape[:2] == shape and not has_hole(data):
            whole.append(i)
    return stack, whole


def read_jpeg(file: BinaryIO, width: int, height: int) -> bytes:
    """Return the bytes of a JPEG of this size from its file, without most of what follows its pixels."""
    file.seek(0)
    return file.read(JPEG_BYTES + JPEG_BYTES_A_PIXEL * width * height)


def check_jpeg(data: bytes) -> None:
    """Raise ImageRefused if the image data of a JPEG, of any colour space, is damaged."""
    refuse_hole(data)
    if (error := _warning(data)) is not None:
        _refuse_damage(error)
        _refuse_damage_behind_headers(data)


def has_odd_headers(head: bytes) -> bool:
    """Whether the decoder has a warning about the headers of a JPEG that begins like this, or reads more of it."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg_header(head)
    except ValueError:
        return True
    is_sequential = False
    for segment in segments(head):
        is_sequential = is_sequential or segment.marker in SEQUENTIAL_FRAMES
        if segment.marker == SCAN:
            return is_sequential and not segment.content.endswith(WHOLE_SCAN)
    return True


def refuse_hole(data: bytes) -> None:
    """Raise ImageRefused if the image data of a JPEG has a hole of zeros that the decoder may not notice."""
    if has_hole(data):
        raise ImageRefused("damaged: a hole of zeros in the image data")


def _warning(data: bytes) -> ValueError | None:
    """Return the first warning or error in decoding a JPEG at an eighth of its size."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(data, "Gray", min_height=1, min_width=1)
    except ValueError as error:
        return error.with_traceback(None)
    return None


def _refuse_damage_behind_headers(data: bytes) -> None:
    if (error := _warning(_with_usual_headers(data))) is not None:
        _refuse_damage(error)


def _with_usual_headers(data: bytes) -> bytes:
    """Return a JPEG without its application segments, and with the scan parameters that its frame asks for."""
    parts, at, is_sequential = list[bytes](), 0, False
    for segment in segments(data):
        start = segment.end - len(segment.content) - 4
        is_sequential = is_sequential or segment.marker in SEQUENTIAL_FRAMES
        if segment.marker in APPLICATION:
            parts.append(data[at:start])
            at = segment.end
        elif segment.marker == SCAN and is_sequential:
            parts += [data[at : segment.end - len(WHOLE_SCAN)], WHOLE_SCAN]
            at = segment.end
    return b"".join([*parts, data[at:]])


def _refuse_damage(error: ValueError) -> None:
    text = str(error)
    if text.lower().startswith(DATA_WARNINGS):
        raise ImageRefused(f"damaged: {text[0].lower()}{text[1:]}") from None
