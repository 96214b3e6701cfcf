"""A decoded image, whose rows are converted to uint8 RGB where they are wanted: a large one never as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from featurecache.extract.images.decoding.levels import Span
from featurecache.extract.images.decoding.orientation import turned_upright

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

# Rows are converted so many pixels at a time.
STRIP_PIXELS = 1 << 22
SWAPPED, FROM_THE_END = (5, 6, 7, 8), (3, 4, 7, 8)

Rows = Callable[[int, int], "NDArray[np.uint8]"]


@dataclass(frozen=True)
class Picture:
    """An image of `height` x `width` pixels, upright.

    rows: returns the rows of a range, uint8 (h, W, 3), or (h, W) of a grey image.
    span: the values of an image of more than 8 bits; None for others.
    """

    height: int
    width: int
    rows: Rows
    span: Span | None = None

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Picture:
        """Return pixels (H, W) or (H, W, 3) as a picture."""
        return cls(pixels.shape[0], pixels.shape[1], lambda top, bottom: pixels[top:bottom])

    def strips(self, wanted: range) -> Iterator[NDArray[np.uint8]]:
        """Yield the wanted rows in strips (3, h, W); a grey strip has its values once, and strides of 0."""
        step = max(1, STRIP_PIXELS // self.width)
        for top in range(wanted.start, wanted.stop, step):
            yield _channels_first(self.rows(top, min(wanted.stop, top + step)))

    def pixels(self) -> torch.Tensor:
        """Return all pixels: uint8 (3, H, W), RGB."""
        import torch

        return torch.from_numpy(self.channels())

    def channels(self) -> NDArray[np.uint8]:
        """Return all pixels: uint8 (3, H, W), RGB; a grey image has its values once, and strides of 0."""
        return _channels_first(self.array())

    def array(self) -> NDArray[np.uint8]:
        """Return all pixels: uint8 (H, W, 3), or (H, W) of a grey image; imports no torch."""
        if self.height * self.width <= STRIP_PIXELS:
            return self.rows(0, self.height)
        step = max(1, STRIP_PIXELS // self.width)
        strips = (self.rows(top, min(self.height, top + step)) for top in range(0, self.height, step))
        first = next(strips)
        whole, top = np.empty((self.height, *first.shape[1:]), dtype=np.uint8), 0
        for strip in chain([first], strips):
            whole[top : top + len(strip)] = strip
            top += len(strip)
        return whole


def rows_of(image: Image.Image, orientation: int, convert: Callable[[Image.Image], NDArray[np.uint8]]) -> Rows:
    """Return the function to read upright rows of a loaded image; `convert` makes pixels of a part of it."""
    n = image.width if orientation in SWAPPED else image.height

    def rows(top: int, bottom: int) -> NDArray[np.uint8]:
        first, last = (n - bottom, n - top) if orientation in FROM_THE_END else (top, bottom)
        box = (first, 0, last, image.height) if orientation in SWAPPED else (0, first, image.width, last)
        part = image if last - first == n else image.crop(box)
        return turned_upright(convert(part), orientation)

    return rows


def _channels_first(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pixels (H, W, 3), or (H, W) of a grey image, as (3, H, W) in the same memory."""
    # A side of one pixel may have a negative stride and count as contiguous; torch takes none.
    plain = pixels.copy() if min(pixels.strides) < 0 else np.ascontiguousarray(pixels)
    if plain.ndim == 3:
        return plain.transpose(2, 0, 1)
    return np.lib.stride_tricks.as_strided(plain, (3, *plain.shape), (0, *plain.strides))
