"""Grey levels of more than 8 bits as bytes: 16-bit, 32-bit and float images, and DICOM.

    full        0 to 65535 are black to white, whatever the image uses of it: the high byte
    image       the least and the greatest value of each image are black and white
    LOW:HIGH    these values are; what lies outside is black or white

    byte = floor(256 (value - LOW) / (HIGH + 1 - LOW)) for whole numbers, with HIGH in place of HIGH + 1 for float

The values are read in strips, so that no copy of a large image is made in a wider type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.base.text import count, printable
from featurecache.extract.cache.spec import FULL_RANGE, bounds_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

WIDEST = (0.0, 65535.0)
STRIP_VALUES = 1 << 20
PPM_CODECS = {"ppm", "ppm_plain"}
# Of the codestream of JPEG 2000: its first two markers, and the byte that has the bits of the first channel.
START_OF_JPEG2000, BITS_AT, JPEG2000_HEAD = b"\xff\x4f\xff\x51", 42, 1 << 16
# Images that use fewer of the 65,536 values are named: 128 grey levels of 256 are left to them, or fewer.
DIM_VALUES = 1 << 15
# So few grey levels are left of an image whose unit is another than that of the range, as of 0..1 in 0:255.
FEW_LEVELS = 4


@dataclass(frozen=True)
class Span:
    """The least and the greatest value of an image of more than 8 bits."""

    least: float
    greatest: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Span:
        """Return the span of values that are all numbers."""
        return cls(float(values.min()), float(values.max()))


def is_wide(image: Image.Image) -> bool:
    """Whether an opened image has grey values of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def check_levels(image: Image.Image, levels: str) -> None:
    """Raise ImageRefused if the white of an opened image is not known, or the range cannot be applied to it."""
    if levels == FULL_RANGE:
        is_known = image.mode not in ("I", "F") or (image.mode == "I" and image.format in {"PNG", "PPM"})
        if not is_known:
            raise ImageRefused(
                "32-bit or float pixels, whose white is not known; name it with --range LOW:HIGH, "
                "or save it with 8 or 16 bits a channel"
            )
    elif not is_wide(image) and _is_wide_in_file(image):
        raise ImageRefused(
            "16 bits a channel in colour or with transparency, of which --range reads grey only; leave --range out"
        )


def _is_wide_in_file(image: Image.Image) -> bool:
    """Whether an opened image of 8 bits has more in its file."""
    if image.format == "JPEG2000":
        return _bits_of_jpeg2000(image) > 8
    return any(
        ";16" in str(args) or codec == "SGI16" or (codec in PPM_CODECS and isinstance(args, tuple) and args[-1] > 255)
        for codec, _, _, args in getattr(image, "tile", ())
    )


def _bits_of_jpeg2000(image: Any) -> int:
    """Return the bits a channel by the first marker of the image data, SIZ; 8 where it is not near the beginning."""
    before = image.fp.tell()
    image.fp.seek(0)
    head: bytes = image.fp.read(JPEG2000_HEAD)
    image.fp.seek(before)
    at = head.find(START_OF_JPEG2000)
    return (head[at + BITS_AT] & 0x7F) + 1 if 0 <= at < len(head) - BITS_AT else 8


def levels_of(image: Image.Image, levels: str) -> tuple[float, float, Span]:
    """Return the values that are black and white in a loaded image of more than 8 bits, and those that it has.

    Raises ImageRefused if no pixel is a number.
    """
    span = _span_of(image)
    low, high = bounds_of(levels) or (WIDEST if levels == FULL_RANGE else (span.least, span.greatest))
    return low, high, span


def wide_grey(image: Image.Image, low: float, high: float) -> NDArray[np.uint8]:
    """Return a part of a loaded image of more than 8 bits as bytes (H, W); what a PNG declares transparent is white."""
    values = np.asarray(image)
    grey = as_bytes(values, low, high)
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = 255
    return grey


class DimImages:
    """Images of 16 bits that use so few of their values that the high byte has few grey levels, counted."""

    def __init__(self) -> None:
        self.n, self.least, self.greatest = 0, np.inf, -np.inf
        self.name = ""

    def add(self, name: str, span: Span | None) -> None:
        """Count an image if it is one of them. span: its values, if it was read with the range `full`."""
        if span is None or span.greatest - span.least >= DIM_VALUES:
            return
        self.name = self.name or name
        self.n += 1
        self.least, self.greatest = min(self.least, span.least), max(self.greatest, span.greatest)

    def line(self) -> str:
        """Return what was counted and what helps, or an empty text."""
        if not self.n:
            return ""
        used = f"{self.least:.0f}:{self.greatest:.0f}"
        levels = count(int(self.greatest) // 256 - int(self.least) // 256 + 1, "grey level")
        return (
            f"{count(self.n, '16-bit image')}, the first '{printable(self.name)}', with values in {used} only, of "
            f"0:65535, so {levels} of 256. To use them all, give --range {used}, or that of the camera, such as "
            "0:4095, in every command."
        )


class FlatImages:
    """Images of which a range LOW:HIGH leaves few grey levels, though they have more values, counted by range."""

    def __init__(self) -> None:
        # Range -> number, name and span of the first.
        self.found: dict[str, tuple[int, str, Span]] = {}

    def add(self, name: str, spans: Mapping[str, Span]) -> None:
        """Count an image if it is one of them. spans: its values, for each range that it was read with."""
        for levels, span in spans.items():
            bounds = bounds_of(levels)
            if bounds is not None and _is_flat(span, *bounds):
                n, first, its_span = self.found.get(levels, (0, name, span))
                self.found[levels] = n + 1, first, its_span

    def lines(self) -> list[str]:
        """Return what was counted and what helps, a sentence for each range."""
        return [
            f"{count(n, 'image')} with fewer than {FEW_LEVELS} grey levels in the range {levels}, the first "
            f"'{printable(name)}' with values in {span.least:g}:{span.greatest:g}: wholly black, wholly white, or "
            "nearly of one grey. Put images of another unit into a folder of their own with a range of their own, or "
            "give --range image."
            for levels, (n, name, span) in self.found.items()
        ]


def _is_flat(span: Span, low: float, high: float) -> bool:
    """Whether the values lie outside the range, or are different ones of which it leaves few grey levels."""
    if span.greatest < low or span.least > high:
        return True
    darkest, brightest = as_bytes(np.array([span.least, span.greatest]), low, high).astype(int)
    return span.least < span.greatest and bool(brightest - darkest < FEW_LEVELS - 1)


def as_bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return values of any type as bytes, `low` black and `high` white; NaN is black."""
    if (low, high) == WIDEST and values.dtype.itemsize == 2 and values.dtype.kind == "u":
        return (values >> 8).astype(np.uint8)
    step = 1.0 if values.dtype.kind in "ui" else 0.0
    width = max(high - low + step, np.finfo(np.float64).tiny)
    scaled = np.nan_to_num((values.astype(np.float64) - low) * 256 / width, nan=0.0)
    return np.floor(scaled).clip(0, 255).astype(np.uint8)


def _span_of(image: Image.Image) -> Span:
    least, greatest = np.inf, -np.inf
    height = max(1, STRIP_VALUES // image.width)
    for top in range(0, image.height, height):
        strip = np.asarray(image.crop((0, top, image.width, min(image.height, top + height))))
        known = strip[np.isfinite(strip)] if strip.dtype.kind == "f" else strip
        if known.size:
            least, greatest = min(least, float(known.min())), max(greatest, float(known.max()))
    if least > greatest:
        raise ImageRefused("none of its pixels is a number")
    return Span(least, greatest)
