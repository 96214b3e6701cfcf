"""Rows of features in blocks: the features themselves are never copied as a whole.

Every round of a sweep has a mean and a scale of its own, those of the rows it trains on; both are folded into its
weights. Only where some column lies far from zero are blocks centred first, so that float32 keeps its digits. Written
against the array API: a numpy array or memory map is worked on by numpy, a torch tensor by torch on its device. float16
is computed in float32.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from array_api_compat import device, is_numpy_array

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.namespaces import namespace_of
from featurecache.classify.arrays.scaling import Scaling, fit_scalings

# A column whose mean is this many deviations from zero would lose digits if it were not centred first.
FAR = 16.0
# Rows scored at a time: 2048 x 1280 float32 is 10 MB.
BLOCK = 2048
# A pass goes by spans of rows, each for the rounds that train on it, while they are so few.
MOST_SPANS = 32
# Features up to this many bytes are copied, so that what a fold holds out is a span, and costs nothing: 12,000 x 1280.
COPIED_BYTES = 64 * 2**20


class Rows:
    """X (N, D) block by block, for R rounds with weights (R, N), 0 for the rows a round holds out.

    centre (D,): the mean of all rows, taken off every block; None where no column is far from zero, and rows come as
    they are. standard: they are standardised already. shift, stretch (R, D): what takes such rows r to the standardised
    ones of a round, z = (r - shift) / stretch. spans: rows side by side, and bool (R,), which rounds train on them.
    Arrays are of the kind of X.
    """

    def __init__(self, X: Any, weights: FloatArray, *, standard: bool = False) -> None:
        self.X, self.xp = X, namespace_of(X)
        self.shape: tuple[int, int] = (X.shape[0], X.shape[1])
        self.device = device(X)
        self.dtype: Any = self.xp.float64 if X.dtype == self.xp.float64 else self.xp.float32
        self.used = np.flatnonzero(weights.any(axis=0))
        self.spans = _training_spans(weights > 0, slice(int(self.used[0]), int(self.used[-1]) + 1))
        totals = np.vstack([weights.sum(axis=0), weights])
        as_is = Scaling(np.zeros(self.shape[1]), np.ones(self.shape[1]))
        whole, *self.scalings = [as_is] * len(totals) if standard else self._scalings(totals)
        is_far = (np.abs(whole.mean) > FAR * whole.scale).any()
        centre = whole.mean if is_far else np.zeros_like(whole.mean)
        self.centre = self.array(centre) if is_far else None
        self.shift = self.array(np.stack([each.mean - centre for each in self.scalings]))
        self.stretch = self.array(np.stack([each.scale for each in self.scalings]))
        self.buffer: Any = None
        self.edge: Any = None

    def array(self, values: Any, dtype: Any = None) -> Any:
        """Return numbers as an array of the kind, dtype and device of the blocks."""
        return self.xp.asarray(values, dtype=dtype or self.dtype, device=self.device)

    def blocks(self, n_rows: int, span: slice | None = None) -> Iterator[tuple[slice, Any]]:
        """Yield places and centred rows (B, D), B <= n_rows, of a span, or from the first with a weight to the last.

        A numpy block is good until the next one: they share their memory.
        """
        if self.centre is not None and is_numpy_array(self.X) and (self.buffer is None or len(self.buffer) < n_rows):
            self.buffer = np.empty((n_rows, self.shape[1]), dtype=self.dtype)
        span = slice(int(self.used[0]), int(self.used[-1]) + 1) if span is None else span
        for start in range(span.start, span.stop, n_rows):
            places = slice(start, min(start + n_rows, span.stop))
            if self.centre is None:
                yield places, self._plain(self.X[places])
            elif self.buffer is None:
                yield places, self._plain(self.X[places]) - self.centre
            else:
                yield places, np.subtract(self.X[places], self.centre, out=self.buffer[: places.stop - places.start])

    def take(self, places: IntArray) -> Any:
        """Return the centred rows (B, D) at some places (B,), ascending; perhaps a view of X."""
        wanted: Any = places if is_numpy_array(self.X) else self.array(places, self.xp.int64)
        if len(places) and len(places) == places[-1] - places[0] + 1:  # rows side by side need no copy
            wanted = slice(int(places[0]), int(places[-1]) + 1)
        block = self._plain(self.X[wanted])
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

    def edged(self, places: IntArray, number: int, roots: FloatArray) -> Any:
        """Return a [z 1] (B, D + 1) for the rows at some places (B,) as a round sees them, and numbers a (B,).

        Numpy rows are good until the next call: they share their memory.
        """
        xp, n = self.xp, len(places)
        if not is_numpy_array(self.X):
            rows = self.standardised(places, number)
            return xp.concat([rows, xp.ones_like(rows[:, :1])], axis=1) * self.array(roots)[:, None]
        if self.edge is None or len(self.edge) < n:
            self.edge = np.empty((n, self.shape[1] + 1), dtype=self.dtype)
        found = self.edge[:n]
        np.subtract(self.take(places), self.shift[number], out=found[:, :-1])
        found[:, :-1] /= self.stretch[number]
        found[:, -1] = 1.0
        found *= self.array(roots)[:, None]
        return found

    def _scalings(self, weights: FloatArray) -> list[Scaling]:
        """Return the standardisation of the columns under every row of weights (R, N)."""
        return fit_scalings(self.X, weights)


def _training_spans(trained: BoolArray, used: slice) -> list[tuple[slice, BoolArray]]:
    """Return spans of rows that the same rounds train on, bool (R,), from trained (R, N); one where those are many."""
    edges = np.flatnonzero((trained[:, 1:] != trained[:, :-1]).any(axis=0)) + 1
    if len(edges) > MOST_SPANS:
        return [(used, np.ones(len(trained), dtype=bool))]
    ends = [0, *edges.tolist(), trained.shape[1]]
    spans = [slice(start, stop) for start, stop in pairwise(ends)]
    return [(span, trained[:, span.start]) for span in spans if trained[:, span.start].any()]


def side_by_side(X: Any, own: FloatArray) -> IntArray | None:
    """Return an order (N,) that brings rows of X side by side that the same rounds train on, by weights own (R, N).

    None where the rows stay as they are: those of one round, those on a device, and those that a copy of would be
    large.
    """
    if len(own) == 1 or type(X) is not np.ndarray or X.nbytes > COPIED_BYTES:
        return None
    order = np.lexsort(own > 0)
    return None if (order[1:] > order[:-1]).all() else order


def to_numpy(values: Any) -> FloatArray:
    """Return an array of any kind and device as a numpy array."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def scores_of(X: Any, places: slice | IntArray, coef: FloatArray, intercept: FloatArray) -> FloatArray:
    """Return X coef^T + intercept (M, C), a block at a time, for some rows of X (N, D): float32, or float64 like X."""
    if is_numpy_array(X):
        return _numpy_scores(X, places, coef, intercept)
    xp = namespace_of(X)
    dtype = xp.float64 if X.dtype == xp.float64 else xp.float32
    weights, offset = (xp.asarray(each, dtype=dtype, device=device(X)) for each in (coef.T, intercept))
    if isinstance(places, np.ndarray) and len(places) and len(places) == places[-1] - places[0] + 1:
        places = slice(int(places[0]), int(places[-1]) + 1)
    picked: Any = places if isinstance(places, slice) else xp.asarray(places, device=device(X))
    order = range(*places.indices(X.shape[0])) if isinstance(places, slice) else range(len(places))
    found = np.empty((len(order), len(intercept)), dtype=np.float64 if dtype == xp.float64 else np.float32)
    for start in range(0, len(order), BLOCK):
        stop = min(start + BLOCK, len(order))
        block = X[order[start] : order[stop - 1] + 1] if isinstance(places, slice) else X[picked[start:stop]]
        found[start:stop] = to_numpy(xp.astype(block, dtype, copy=False) @ weights + offset)
    return found


def _numpy_scores(X: Any, places: slice | IntArray, coef: FloatArray, intercept: FloatArray) -> FloatArray:
    """Do the same for a numpy array, without the array API, whose module of numpy takes a tenth of a second to make."""
    dtype: Any = np.float64 if X.dtype == np.float64 else np.float32
    weights, offset = np.asarray(coef.T, dtype=dtype), np.asarray(intercept, dtype=dtype)
    chosen = range(*places.indices(len(X))) if isinstance(places, slice) else places
    found = np.empty((len(chosen), len(intercept)), dtype=dtype)
    for start in range(0, len(chosen), BLOCK):
        some = chosen[start : start + BLOCK]
        is_whole = isinstance(some, range) or bool((np.diff(some) == 1).all())
        rows = slice(int(some[0]), int(some[-1]) + 1) if is_whole else some
        found[start : start + BLOCK] = np.asarray(X[rows]).astype(dtype, copy=False) @ weights + offset
    return found


def rows_within(budget: int, columns: int, itemsize: int) -> int:
    """Return how many rows of so many numbers each fit into a budget in bytes: a power of two, 64 to 4096."""
    fitting = max(budget // max(columns * itemsize, 1), 1)
    return int(min(max(2 ** int(np.log2(fitting)), 64), 4096))
