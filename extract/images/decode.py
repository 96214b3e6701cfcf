"""Decoding: image file to uint8 RGB pixels (3, H, W), upright. All rules for image formats are here.

`decode_rules.py` says what happens to features that are there when one of these rules changes a pixel:

    orientation       rotated upright by EXIF (orientation.py)
    grey, bilevel     the value in all three channels
    palette           its colours
    transparent       on white
    CMYK, YCbCr, LAB  converted to RGB, embedded profiles not applied
    16 bits a channel the high byte, or the range that was asked for (levels.py)
    32-bit, float     the range that was asked for, else refused: the value of white is unknown
    animated, paged   the first frame
    HEIC, HEIF        the main picture; by pillow-heif
    DICOM             the first frame in its window (dicom.py)
    damaged           refused, even if a part could be decoded

On request a large JPEG is decoded at a fraction of its size, which changes the pixels and so is part of the key. JPEG
is decoded by libjpeg-turbo itself (jpeg.py), other formats by Pillow, which is the reference in the tests. Both release
the interpreter lock. Pillow reads the headers, but those of plain JPEGs (plain_jpeg.py): that would hold the lock for
longer than everything else that an image needs.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.spec import FULL_RANGE
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.decoding.dicom import decode_dicom, is_dicom
from featurecache.extract.images.decoding.heif import is_heif, open_heif
from featurecache.extract.images.decoding.jpeg import (
    JPEG_FORMATS,
    LEAST_REDUCED_SIDE,
    check_jpeg,
    decode_jpeg,
    decode_whole,
    read_jpeg,
)
from featurecache.extract.images.decoding.levels import check_levels, is_wide, levels_of, wide_grey
from featurecache.extract.images.decoding.memory import DECODING
from featurecache.extract.images.decoding.orientation import orientation_of, turned_upright
from featurecache.extract.images.decoding.picture import SWAPPED, Picture, rows_of
from featurecache.extract.images.decoding.pillow_formats import readable_formats
from featurecache.extract.images.decoding.plain_jpeg import read_header
from featurecache.extract.images.decoding.tiff import has_wide_planes, name_wide_planes
from featurecache.extract.images.formats import N_FIRST_BYTES, why_unread

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

START_OF_PNG = b"\x89PNG\r\n\x1a\n"
FAST_MODES = {"L", "RGB"}
GREY_STEPS: dict[object, int] = {"L;2": 85, "L;4": 17}
NO_MEMORY = "decoding it needs more memory than there is"

# Pillow's warning at this size is replaced by ImageRefused, which names the file; its error at twice the size remains.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode_image(
    data: bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None, levels: str = FULL_RANGE
) -> torch.Tensor:
    """Decode an image as `decode_pixels` does, to a tensor: uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(decode_pixels(data, max_pixels=max_pixels, at_least=at_least, levels=levels))


def decode_pixels(
    data: bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None, levels: str = FULL_RANGE
) -> NDArray[np.uint8]:
    """Decode an image as `decode_picture` does: uint8 (3, H, W), RGB, upright; grey has strides of 0 between channels.

    It waits while other threads decode as many pixels as are decoded at once.
    """
    with _reserved(data, max_pixels=max_pixels, at_least=at_least, levels=levels) as picture:
        return picture.channels()


def decode_array(data: bytes | BinaryIO, *, levels: str = FULL_RANGE) -> NDArray[np.uint8]:
    """Decode an image as `decode_image` does, without torch: uint8 (H, W, 3), or (H, W) of a grey one."""
    with _reserved(data, max_pixels=MAX_PIXELS, at_least=None, levels=levels) as picture:
        return picture.array()


@contextmanager
def _reserved(data: bytes | BinaryIO, *, max_pixels: int, at_least: int | None, levels: str) -> Iterator[Picture]:
    """Yield the picture of an image when other threads leave room for its pixels."""
    with DECODING.reservation() as reservation, _refusing():
        yield decode_picture(data, max_pixels=max_pixels, at_least=at_least, levels=levels, reserve=reservation.reserve)


def decode_picture(
    data: bytes | BinaryIO, *, max_pixels: int, at_least: int | None, levels: str, reserve: Callable[[int], None]
) -> Picture:
    """Decode an image file of any format, given as its bytes or as an open file.

    at_least: decode a JPEG at 1/2, 1/4 or 1/8 of its size, from fewer DCT coefficients, if its shortest side still has
    this many pixels; None for full size.
    levels: which values of an image of more than 8 bits are black and white (levels.py).
    reserve: called with the number of pixels before they are decoded; it may wait.
    Raises ImageRefused with the reason if the bytes are not an image, are damaged, or have more than `max_pixels`.
    """

    def take(width: int, height: int) -> None:
        if width * height > max_pixels:
            size = f"{width} x {height} pixels"
            raise ImageRefused(f"{size} are more than the limit of {max_pixels:,} (see --max-pixels)")
        reserve(width * height)

    with _refusing():
        if isinstance(data, bytes) and at_least is None and (plain := _decode_plain(data, take)) is not None:
            return plain
        file = io.BytesIO(data) if isinstance(data, bytes) else data
        head = _head_of(file)
        if not head:
            raise ImageRefused("the file is empty")
        if is_dicom(head):
            pixels, values = decode_dicom(file, levels, take)
            return replace(Picture.of(pixels), span=values)
        with open_heif(file) if is_heif(head) else _open(file, head) as image:
            take(*image.size)
            return _decoded(image, file, at_least, levels)


def _decode_plain(data: bytes, take: Callable[[int, int], None]) -> Picture | None:
    """Decode a plain JPEG without Pillow; None for any other file, and for one of which the decoder has a warning."""
    header = read_header(data)
    if header is None:
        return None
    take(header.width, header.height)
    found = decode_whole(data, (header.height, header.width), is_grey=header.is_grey)
    return None if found is None else Picture.of(turned_upright(found, header.orientation))


def _open(file: BinaryIO, head: bytes) -> ImageFile.ImageFile:
    if head.startswith(START_OF_PNG):  # one that Pillow has without importing its plug-ins for all other formats
        with suppress(UnidentifiedImageError):
            return Image.open(file, formats=("PNG",))
        file.seek(0)
    try:
        return Image.open(file, formats=readable_formats())
    except UnidentifiedImageError:
        raise ImageRefused(why_unread(head)) from None


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise ImageRefused for every error of decoding, and OSError for one of the system: Pillow's own have no errno."""
    try:
        yield
    except ImageRefused:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise ImageRefused(refusal_of(error)) from None
    except Exception as error:  # noqa: BLE001  (Pillow's plug-ins raise anything on damaged files)
        raise ImageRefused(refusal_of(error)) from None


def refusal_of(error: Exception) -> str:
    """Return why an image is refused whose decoding or resizing raised an error."""
    if isinstance(error, UnidentifiedImageError):  # of an image within the file
        return "no image format that can be read"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * MAX_PIXELS:,} pixels, which no limit allows"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch raises a RuntimeError
        return NO_MEMORY
    return f"damaged: {_one_line(error)}"


def _head_of(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(N_FIRST_BYTES)
    file.seek(0)
    return head


def _decoded(image: ImageFile.ImageFile, file: BinaryIO, at_least: int | None, levels: str) -> Picture:
    if image.format in JPEG_FORMATS:
        data = read_jpeg(file, *image.size)
        is_reduced = at_least is not None and _reduce(image, at_least)
        found = _decode_fast(image, data, is_reduced=is_reduced)
        if found is not None:
            return Picture.of(turned_upright(found, orientation_of(image)))
    return _from_pillow(image, levels)


def _reduce(image: ImageFile.ImageFile, at_least: int) -> bool:
    """Let Pillow decode a JPEG at the smallest scale with a shortest side of `at_least`; return whether one has it."""
    whole = image.size
    image.draft(None, (at_least * whole[0] // min(whole), at_least * whole[1] // min(whole)))
    return image.size != whole


def _decode_fast(image: ImageFile.ImageFile, data: bytes, *, is_reduced: bool) -> NDArray[np.uint8] | None:
    """Return a JPEG's pixels as they are stored, or None if Pillow has to decode them. Raises ImageRefused."""
    if image.mode in FAST_MODES and not (is_reduced and min(image.size) < LEAST_REDUCED_SIDE):
        shape = (image.height, image.width)
        return decode_jpeg(data, shape, is_reduced=is_reduced, is_grey=image.mode == "L")
    check_jpeg(data)
    return None


def _from_pillow(image: ImageFile.ImageFile, levels: str) -> Picture:
    if image.format == "PNG" and image.mode == "L" and "transparency" in image.info:
        # Pillow scales 2 and 4 bits to 0..255, but not the grey value that is declared transparent.
        image.info["transparency"] *= GREY_STEPS.get(image.tile[0].args, 1)
    if has_wide_planes(image):
        name_wide_planes(image)
    check_levels(image, levels)
    image.load()
    return _as_picture(image, levels)


def _as_picture(image: Image.Image, levels: str) -> Picture:
    """Return the picture of a loaded image."""
    convert, span = _plain, None
    if is_wide(image):
        low, high, span = levels_of(image, levels)
        convert = partial(wide_grey, low=low, high=high)
    orientation = orientation_of(image)
    height, width = image.size if orientation in SWAPPED else (image.height, image.width)
    return Picture(height, width, rows_of(image, orientation, convert), span)


def picture_of_image(image: Image.Image, levels: str) -> Picture:
    """Return a PIL image as the picture that its file would give: a copy, upright, by the rules of this module.

    levels: as for `decode_picture`. Raises ImageRefused where the white of its values is not known; decoding what was
    not decoded yet may raise anything.
    """
    if not image.width or not image.height:
        raise ImageRefused("it has no pixels")
    tile = getattr(image, "tile", None)  # of an image that is not decoded yet
    is_stepped = bool(tile) and image.format == "PNG" and image.mode == "L" and "transparency" in image.info
    steps = GREY_STEPS.get(tile[0].args, 1) if tile and is_stepped else 1
    whole = image.copy()
    if steps != 1:
        whole.info["transparency"] *= steps
    check_levels(image if levels == FULL_RANGE else whole, levels)
    return _as_picture(whole, levels)


def _plain(image: Image.Image) -> NDArray[np.uint8]:
    return np.array(_to_plain(image), dtype=np.uint8)


def _to_plain(image: Image.Image) -> Image.Image:
    """Return the image in 8 bits, grey or RGB."""
    if image.mode == "LAB":
        return _from_lab(image)
    if image.mode == "La":  # Pillow makes nothing else of it
        image = image.convert("LA")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    lab: Any = ImageCms.createProfile("LAB")
    srgb: Any = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only None when asked to work in place
    return converted


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] if text else type(error).__name__
