"""Rows of features in blocks: the features themselves are never copied as a whole.

Every round of a sweep has a mean and a scale of its own, those of the rows it trains on; both are folded into its
weights. Only where some column lies far from zero are blocks centred first, so that float32 keeps its digits. Written
against the array API: a numpy array or memory map is worked on by numpy, a torch tensor by torch on its device. float16
is computed in float32.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from classify.arrays import FloatArray, IntArray
from classify.scaling import CONSTANT, Scaling

# A column whose mean is this many deviations from zero would lose digits if it were not centred first.
FAR = 16.0
# Rows in float64 at a time where statistics are taken: 2048 x 1280 is 21 MB.
BLOCK = 2048


class Rows:
    """X (N, D) block by block, for R rounds with weights (R, N), 0 for the rows a round holds out.

    centre (D,): the mean of all rows, taken off every block; None where no column is far from zero, and rows come as
    they are. standard: they are standardised already. shift, stretch (R, D): what takes such rows r to the standardised
    ones of a round, z = (r - shift) / stretch. Arrays are of the kind of X.
    """

    def __init__(self, X: Any, weights: FloatArray, *, standard: bool = False) -> None:
        self.X, self.xp = X, array_namespace(X)
        self.shape: tuple[int, int] = (X.shape[0], X.shape[1])
        self.device = device(X)
        self.dtype: Any = self.xp.float64 if X.dtype == self.xp.float64 else self.xp.float32
        self.used = np.flatnonzero(weights.any(axis=0))
        shape = 1 + len(weights), self.shape[1]
        totals = np.vstack([weights.sum(axis=0), weights])
        mean, scale = (np.zeros(shape), np.ones(shape)) if standard else self._moments(totals)
        self.scalings = [Scaling(m, s) for m, s in zip(mean[1:], scale[1:], strict=True)]
        centre = mean[0] if (np.abs(mean[0]) > FAR * scale[0]).any() else np.zeros_like(mean[0])
        self.centre = self.array(centre) if centre.any() else None
        self.shift, self.stretch = self.array(mean[1:] - centre), self.array(scale[1:])
        self.buffer: Any = None

    def array(self, values: Any, dtype: Any = None) -> Any:
        """Return numbers as an array of the kind, dtype and device of the blocks."""
        return self.xp.asarray(values, dtype=dtype or self.dtype, device=self.device)

    def blocks(self, n_rows: int) -> Iterator[tuple[slice, Any]]:
        """Yield places and centred rows (B, D), B <= n_rows, from the first row that has a weight to the last.

        A numpy block is good until the next one: they share their memory.
        """
        if self.centre is not None and is_numpy_array(self.X) and (self.buffer is None or len(self.buffer) < n_rows):
            self.buffer = np.empty((n_rows, self.shape[1]), dtype=self.dtype)
        for start in range(int(self.used[0]), int(self.used[-1]) + 1, n_rows):
            places = slice(start, min(start + n_rows, int(self.used[-1]) + 1))
            if self.centre is None:
                yield places, self._plain(self.X[places])
            elif self.buffer is None:
                yield places, self._plain(self.X[places]) - self.centre
            else:
                yield places, np.subtract(self.X[places], self.centre, out=self.buffer[: places.stop - places.start])

    def take(self, places: IntArray) -> Any:
        """Return the centred rows (B, D) at some places (B,)."""
        block = self._plain(self.X[places if is_numpy_array(self.X) else self.array(places, self.xp.int64)])
        return block if self.centre is None else block - self.centre

    def _plain(self, block: Any) -> Any:
        """Return rows as a plain array of the dtype worked in: no copy where they are that already."""
        block = np.asarray(block) if is_numpy_array(block) else block
        return self.xp.astype(block, self.dtype, copy=False)

    def standardised(self, places: IntArray, number: int) -> Any:
        """Return the rows (B, D) at some places (B,) as round `number` sees them."""
        block = self.take(places) - self.shift[number]
        block /= self.stretch[number]
        return block

    def _moments(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the mean and the scale (R, D) of the columns under every row of weights; constant columns get 1."""
        xp, n_columns = self.xp, self.shape[1]
        shift = xp.mean(xp.astype(self.X[:BLOCK], xp.float64), axis=0)
        sums, squares = (xp.zeros((len(weights), n_columns), dtype=xp.float64, device=self.device) for _ in range(2))
        largest = xp.zeros(n_columns, dtype=xp.float64, device=self.device)
        for start in range(0, self.shape[0], BLOCK):
            block = xp.astype(self.X[start : start + BLOCK], xp.float64)
            largest = xp.maximum(largest, xp.max(xp.abs(block), axis=0))
            block = block - shift
            here = self.array(weights[:, start : start + BLOCK], xp.float64)
            sums += here @ block
            squares += here @ block**2
        total = self.array(weights.sum(axis=1), xp.float64)[:, None]
        mean = sums / total
        scale = xp.sqrt(xp.maximum(squares / total - mean**2, xp.zeros_like(mean)))
        rounding = CONSTANT * float(xp.finfo(self.X.dtype).eps) * largest
        scale = xp.where(scale > rounding, scale, xp.ones_like(scale))
        return to_numpy(mean + shift), to_numpy(scale)


def to_numpy(values: Any) -> FloatArray:
    """Return an array of any kind and device as a numpy array."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def scores_of(X: Any, places: slice | IntArray, coef: FloatArray, intercept: FloatArray) -> FloatArray:
    """Return X coef^T + intercept (M, C), a block at a time, for some rows of X (N, D): float32, or float64 like X."""
    xp = array_namespace(X)
    dtype = xp.float64 if X.dtype == xp.float64 else xp.float32
    weights, offset = (xp.asarray(each, dtype=dtype, device=device(X)) for each in (coef.T, intercept))
    if isinstance(places, np.ndarray) and len(places) == places[-1] - places[0] + 1:
        places = slice(int(places[0]), int(places[-1]) + 1)
    picked: Any = places if isinstance(places, slice) or is_numpy_array(X) else xp.asarray(places, device=device(X))
    order = range(*places.indices(X.shape[0])) if isinstance(places, slice) else range(len(places))
    found = np.empty((len(order), len(intercept)), dtype=np.float64 if dtype == xp.float64 else np.float32)
    for start in range(0, len(order), BLOCK):
        stop = min(start + BLOCK, len(order))
        block = X[order[start] : order[stop - 1] + 1] if isinstance(places, slice) else X[picked[start:stop]]
        found[start:stop] = to_numpy(xp.astype(block, dtype, copy=False) @ weights + offset)
    return found


def rows_within(budget: int, columns: int, itemsize: int) -> int:
    """Return how many rows of so many numbers each fit into a budget in bytes: a power of two, 64 to 4096."""
    fitting = max(budget // max(columns * itemsize, 1), 1)
    return int(min(max(2 ** int(np.log2(fitting)), 64), 4096))
