"""Antialiased resizing of some rows or columns of an image, to the pixels of torch's integer kernel.

For output column i of n, of a source with m columns, s = m / n, and the filter f of radius r (1 linear, 2 cubic):

    centre = s (i + 1/2)        sources = [centre - r max(s, 1) + 1/2, centre + r max(s, 1) + 1/2)
    weights = f((j + 1/2 - centre) / max(s, 1)), divided by their sum, in whole multiples of 2^-p
    pixel = (2^(p-1) + sum of weights x sources) >> p, clamped to 0..255

p is the largest with which the greatest weight of any of the n columns is below 2^15. This is the arithmetic of ATen's
UpSampleKernel.cpp and of Pillow's Resample.c. The kernel itself resizes all columns of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BITS = 22
WEIGHT_LIMIT = 1 << 15
CUBIC = -0.5  # the free coefficient of Keys' cubic convolution, as in Pillow
BLOCK = 4096  # columns whose weights are computed at a time


def _linear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    linear: NDArray[np.float64] = np.maximum(1 - np.abs(x), 0.0)
    return linear


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x, a = np.abs(x), CUBIC
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


FILTERED: dict[str, tuple[float, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "bilinear": (1.0, _linear),
    "bicubic": (2.0, _cubic),
}


def resize_columns(
    image: NDArray[np.uint8], n: int, wanted: range, mode: str, *, n_source: int | None = None, start: int = 0
) -> NDArray[np.uint8]:
    """Return the columns `wanted` of an image (C, H, W) that is resized to n columns: uint8 (C, H, len(wanted)).

    n_source: the columns of the whole source, of which `image` begins at column `start`; all by default.
    """
    return resize_axis(image, 2, n, wanted, mode, n_source=n_source, start=start)


def resize_axis(
    image: NDArray[np.uint8],
    axis: int,
    n: int,
    wanted: range,
    mode: str,
    *,
    n_source: int | None = None,
    start: int = 0,
) -> NDArray[np.uint8]:
    """Return places `wanted` of an axis that is resized to n: uint8, the other axes as they are.

    n_source: the length of the axis in the whole source, of which `image` begins at `start`; all by default.
    """
    m = image.shape[axis] if n_source is None else n_source
    first, weights = _weights(m, n, np.arange(wanted.start, wanted.stop), mode)
    bits = _bits(m, n, mode)
    whole = np.where(weights < 0, weights * (1 << bits) - 0.5, weights * (1 << bits) + 0.5).astype(np.int32)
    shape = [1] * image.ndim
    shape[axis] = len(wanted)
    total = np.full([*image.shape[:axis], len(wanted), *image.shape[axis + 1 :]], 1 << (bits - 1), dtype=np.int32)
    for tap, weight in enumerate(whole.T):
        # Where a place has fewer sources than others, the weight of what is taken instead is zero.
        sources = image.take(first - start + tap, axis=axis, mode="clip")
        total += np.multiply(sources, weight.reshape(shape), dtype=np.int32)
    total >>= bits
    return np.asarray(total.clip(0, 255, out=total).astype(np.uint8))


def source_range(m: int, n: int, wanted: range, mode: str) -> range:
    """Return the columns of a source with m columns that the columns `wanted` of n depend on."""
    first, last = _sources(m, n, np.array([wanted.start, wanted.stop - 1]), mode)
    return range(int(first[0]), int(last[1]))


def count_taps(m: int, n: int, mode: str) -> int:
    """Return about how many sources each of n places has in a source of length m."""
    return math.ceil(2 * FILTERED[mode][0] * max(m / n, 1.0))


def _sources(m: int, n: int, columns: NDArray[Any], mode: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first source of each column, and the one after its last."""
    scale = m / n
    reach = FILTERED[mode][0] * max(scale, 1.0)
    centre = scale * (columns + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    return first, np.minimum((centre + reach + 0.5).astype(np.int64), m)


def _weights(m: int, n: int, columns: NDArray[Any], mode: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the first source of each column, and its weights (len(columns), K), zero after its last source."""
    scale = m / n
    first, last = _sources(m, n, columns, mode)
    each = np.arange(int((last - first).max()))
    distance = each + first[:, None] - (scale * (columns + 0.5))[:, None] + 0.5
    weights = FILTERED[mode][1](distance * (1 / scale if scale >= 1 else 1.0))
    weights[each >= (last - first)[:, None]] = 0.0
    return first, weights / weights.sum(1, keepdims=True)


def _bits(m: int, n: int, mode: str) -> int:
    """Return the number of binary digits of the weights, which is that of the greatest weight of all n columns."""
    greatest = max(
        float(_weights(m, n, np.arange(begin, min(n, begin + BLOCK)), mode)[1].max()) for begin in range(0, n, BLOCK)
    )
    bits = 0
    while bits < MOST_BITS and int(0.5 + greatest * (1 << (bits + 1))) < WEIGHT_LIMIT:
        bits += 1
    return bits
