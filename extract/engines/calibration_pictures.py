"""Synthetic pictures for the calibration of a network in int8: the same on every machine, made from a seed.

    scenes     overlapping discs and boxes of all sizes with shading, under noise in octaves, a little blurred, of
               the brightness and contrast of photographs
    strokes    lines of varying width on a plain ground, light or dark: digits, drawings, text

The ranges of activations depend on such statistics and hardly on what is shown. Blurred and with the contrast of
photographs, the scenes are nearly as similar to fp32 in int8 as photographs are (efficientnet_lite0: 0.987 and 0.996;
0.962 with sharp edges), so that their mean cosine says whether int8 suits a network. Only sums, products and
comparisons of numbers from the bit stream of PCG64, which numpy keeps, so that the bits do not depend on the machine.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 20
# Numbers of pictures of each kind.
N_SCENES, N_STROKES = 42, 6
N_PICTURES = N_SCENES + N_STROKES
# Brightness and contrast of a scene before it is blurred, of 1; and the boxes that blur it, in pixels.
MEAN, CONTRAST, BLURS = 0.45, 0.25, (5, 3)
# Shares of grey and of coloured noise.
GREY_NOISE, COLOUR_NOISE = 1.2, 0.45
# Shapes of a scene, and their radii as shares of the side.
N_SHAPES, LEAST_RADIUS, MOST_RADIUS = 160, 0.02, 0.6
# Cells of the coarsest octave; each further one has twice as many and half of the contrast.
COARSEST, N_OCTAVES = 2, 6
# Numbers that are drawn ahead.
N_READY = 4096


@lru_cache(maxsize=1)
def calibration_pictures(side: int) -> NDArray[np.uint8]:
    """Return the pictures: uint8 (N_PICTURES, 3, side, side), RGB, which are not to be written to."""
    draw = _Draws(SEED)
    kinds = [_scene] * N_SCENES + [_strokes] * N_STROKES
    return np.stack([_as_uint8(kind(draw, side)) for kind in kinds])


class _Draws:
    """Numbers from 0 to 1 from a bit stream, of which many are made at a time: most are asked for one by one."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)
        self._ready, self._next = np.empty(0), 0

    def __call__(self, *shape: int) -> NDArray[np.float64]:
        """Return numbers in an array of a shape."""
        return self._take(math.prod(shape)).reshape(shape)

    def one(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return one number from `low` to `high`."""
        return low + (high - low) * float(self._take(1)[0])

    def _take(self, n: int) -> NDArray[np.float64]:
        """Return the next n numbers."""
        if self._next + n > len(self._ready):
            raw = np.asarray(self._bits.random_raw(n + N_READY), dtype=np.uint64) >> np.uint64(11)
            self._ready = np.concatenate([self._ready[self._next :], raw.astype(np.float64) * 2.0**-53])
            self._next = 0
        self._next += n
        return self._ready[self._next - n : self._next]

    def colour(self) -> NDArray[np.float64]:
        """Return a colour (3, 1, 1): a grey, and a third of a colour of its own."""
        return (0.67 * self(1) + 0.33 * self(3)).reshape(3, 1, 1)


def _as_uint8(picture: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _grid(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return y (side, 1) and x (1, side) of the pixels' centres, from 0 to 1."""
    centres = (np.arange(side) + 0.5) / side
    return centres[:, None], centres[None, :]


def _scene(draw: _Draws, side: int) -> NDArray[np.float64]:
    picture = _shapes(draw, side) + GREY_NOISE * (_octaves(draw, side) - 0.5)
    picture = _standardised(picture + COLOUR_NOISE * (np.stack([_octaves(draw, side) for _ in range(3)]) - 0.5))
    for width in BLURS:
        for axis in (1, 2):
            shifted = [np.roll(picture, i - width // 2, axis) for i in range(width)]
            picture = sum(shifted[1:], start=shifted[0]) / width
    return picture


def _standardised(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a picture with MEAN and CONTRAST; by sums of integers, which have no order of summation."""
    whole = (picture * 4096.0).astype(np.int64)
    mean = int(whole.sum()) / whole.size
    deviation = max(int((whole * whole).sum()) / whole.size - mean * mean, 1.0) ** 0.5
    standardised: NDArray[np.float64] = (picture * 4096.0 - mean) / deviation * CONTRAST + MEAN
    return standardised


def _shapes(draw: _Draws, side: int) -> NDArray[np.float64]:
    y, x = _grid(side)
    texture = _octaves(draw, side) - 0.5
    picture = np.broadcast_to(draw.colour(), (3, side, side)) + draw.one(0, 0.3) * texture
    for share in draw(N_SHAPES):
        # Of density r**-3, that of objects at all distances: most are small.
        radius = LEAST_RADIUS / max(1.0 - share, LEAST_RADIUS**2 / MOST_RADIUS**2) ** 0.5
        at_y, at_x, is_disc, stretch = draw.one(-0.1, 1.1), draw.one(-0.1, 1.1), draw.one() < 0.6, draw.one(0.4, 1.0)
        slope_y, slope_x, colour, grain = draw.one(-0.3, 0.3), draw.one(-0.3, 0.3), draw.colour(), draw.one(0, 0.4)
        rows, columns = _span(at_y, radius, side), _span(at_x, radius, side)
        dy, dx = y[rows] - at_y, x[:, columns] - at_x
        apart = dy * dy / stretch + dx * dx if is_disc else np.maximum(np.abs(dy) / stretch, np.abs(dx)) ** 2
        surface = colour + (slope_y * dy + slope_x * dx) / radius + grain * texture[rows, columns]
        part = picture[:, rows, columns]
        part[:] = np.where(apart < radius * radius, surface, part)
    return picture


def _span(centre: float, radius: float, side: int) -> slice:
    """Return the pixels within a radius of a centre, and perhaps one more at each end."""
    return slice(max(0, int((centre - radius) * side) - 1), max(0, int((centre + radius) * side) + 2))


def _strokes(draw: _Draws, side: int) -> NDArray[np.float64]:
    y, x = _grid(side)
    is_dark = draw.one() < 0.6
    ground, ink = (0.0, 1.0) if is_dark else (1.0, 0.0)
    cover = np.zeros((side, side))
    width = draw.one(0.01, 0.06)
    ends = 0.15 + 0.7 * draw(7, 2)
    for (y0, x0), (y1, x1) in pairwise(ends):
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx + 1e-9), 0.0, 1.0)
        apart = np.sqrt((y - y0 - along * dy) ** 2 + (x - x0 - along * dx) ** 2)
        cover = np.maximum(cover, np.clip((width - apart) * 40.0 + 0.5, 0.0, 1.0))
    tint = 1.0 if draw.one() < 0.7 else draw.colour()
    return np.broadcast_to(ground + (ink * tint - ground) * cover, (3, side, side))


def _octaves(draw: _Draws, side: int) -> NDArray[np.float64]:
    """Return noise (side, side) around 0.5: grids of random numbers of rising fineness, each resized linearly."""
    total, weight, whole = np.zeros((side, side)), 1.0, 0.0
    for octave in range(N_OCTAVES):
        n = COARSEST << octave
        place = (np.arange(side) + 0.5) / side * n
        low = np.floor(place).astype(int)
        part = place - low
        grid = draw(n + 1, n + 1)
        rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
        total += weight * (rows[:, low] * (1 - part) + rows[:, low + 1] * part)
        whole, weight = whole + weight, weight / 2
    return total / whole
