"""Nearest neighbours by Euclidean distance and by cosine, from one matrix product.

    e_ij = (x_i - m)(x_j - m) - |x_i - m|^2 / 2 - |x_j - m|^2 / 2  =  -|x_i - x_j|^2 / 2
    cos_ij = (e_ij + |x_i|^2 / 2 + |x_j|^2 / 2) / (|x_i| |x_j|)

for any origin m: with the mean of the rows nothing is lost in rounding where features lie far from zero. Rows are
compared in blocks, so memory is a few blocks whatever N. Where both sides of a block need neighbours from the other, as
folds do, the block serves both. Products are torch's, and the best of a block are found by it: its topk took 43 ms for
512 x 48,000 with k = 200, numpy's argpartition 270 (two AMD cores); and threads of numpy's BLAS stay awake after a
product, where they are in the way of torch's: topk of 2000 x 4096 took 90 ms then instead of 52 (two AVX-512 cores).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import torch

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.as_numpy import working, working_dtype
from featurecache.classify.arrays.memmap import array_stored_like
from featurecache.classify.solvers.nearest_rows import Neighbours

Tensor = torch.Tensor
# Rows of a block where both sides look, 2048 x 2048 float32, 17 MB, taken twice; and where one does, 17 MB. Blocks of
# twice or half the size are not faster by more than 5 % (10,000 x 1280 rows, two AVX-512 cores).
SQUARE = (2048, 2048)
FLAT = (1024, 4096)
# Rows whose neighbours are put in order at a time: with k = 200 they are 5 MB.
SORTED = 1024
# Columns of a table beyond 2 k, so that a row has room for k more and what it has by chance, however small k is.
SPARE = 64
# Rows that are transposed at a time: as long as they and their columns stay in the processor's cache.
STRIP = 64


class Points:
    """Rows of X (N, D) centred block by block for the product: X itself is never copied as a whole."""

    def __init__(self, X: FloatArray, origin: FloatArray) -> None:
        self.X, self.origin = X, origin.astype(working_dtype(X))

    def memory(self, n_rows: int) -> FloatArray:
        """Return a buffer for so many rows: allocating one for every block would fragment memory."""
        return np.empty((n_rows, self.X.shape[1]), working_dtype(self.X))

    def block(self, rows: IntArray, memory: FloatArray) -> tuple[Tensor, Tensor, Tensor]:
        """Return x - m (B, D), in the given buffer, |x - m|^2 / 2 (B,) and |x|^2 / 2 (B,) of some rows."""
        centred, picked = memory[: len(rows)], _as_slice(rows)
        if isinstance(picked, slice):
            raw = working(self.X[picked])
        elif self.X.dtype == centred.dtype:
            raw = np.take(self.X, picked, axis=0, out=centred, mode="clip")  # other modes need a copy besides
        else:
            raw = working(self.X[picked])
        raw_half = torch.from_numpy(np.einsum("ij,ij->i", raw, raw) / 2)
        np.subtract(raw, self.origin, out=centred)
        half = torch.from_numpy(np.einsum("ij,ij->i", centred, centred) / 2)
        return torch.from_numpy(centred), half, raw_half


class Table:
    """The nearest k or more candidates so far for each of M rows, by one metric, in columns without order.

    Of a block only candidates nearer than a row's k-th at the last pruning are added: ever fewer as blocks go by. A row
    with fewer than k so far, or without room for all nearer ones, takes the k best of the block. Candidates are stored
    as places in an order, (N,), which `neighbours` turns into row numbers. absent (N,): rows of X that are never
    neighbours; None for none. The columns are in memory, or in a file where X is in one.
    """

    def __init__(self, n_rows: int, k: int, X: FloatArray, absent: BoolArray | None = None) -> None:
        self.k, self.room = k, 2 * k + SPARE
        self.absent = absent if absent is not None and absent.any() else None
        self.best = torch.from_numpy(array_stored_like(X, (n_rows, self.room), working_dtype(X))).fill_(-torch.inf)
        self.places = torch.from_numpy(array_stored_like(X, (n_rows, self.room), np.int32)).fill_(0)
        self.filled = torch.zeros(n_rows, dtype=torch.int64)
        self.bound = torch.full((n_rows,), -torch.inf, dtype=self.best.dtype)

    def add(self, here: slice, first: int, near: Tensor) -> None:
        """Add n candidates, at places from `first` on, to the rows `here` (B,); near (B, n): similarity."""
        if int(self.filled[here].max()) > self.k + SPARE // 2 or self._unbounded(here):
            self._prune(here)
        if self._unbounded(here):
            self._take_best(torch.arange(here.start, here.stop), first, near)
            return
        row, column = (near > self.bound[here, None]).nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(near))
        crowded = self.filled[here] + counts > self.room
        if bool(crowded.any()):
            left = (~crowded[row]).nonzero()[:, 0]
            row, column, counts = row[left], column[left], counts.where(~crowded, 0)
            self._take_best(here.start + crowded.nonzero()[:, 0], first, near[crowded])
        slot = torch.arange(len(row)) + (self.filled[here] - counts.cumsum(0) + counts)[row]
        self.best[here][row, slot] = near[row, column]
        self.places[here][row, slot] = (column + first).int()
        self.filled[here] += counts

    def add_present(self, here: slice, first: int, near: Tensor, others: IntArray) -> None:
        """Add the candidates numbered `others` (n,) that are not absent; near (B, n) is unchanged afterwards."""
        absent = np.empty(0, dtype=np.int64) if self.absent is None else np.flatnonzero(self.absent[others])
        if not len(absent):
            self.add(here, first, near)
            return
        columns = torch.from_numpy(absent)
        kept = near[:, columns]
        near[:, columns] = -torch.inf
        self.add(here, first, near)
        near[:, columns] = kept

    def _unbounded(self, here: slice) -> bool:
        """Return whether a row has fewer than k candidates, or was never pruned."""
        return bool(self.bound[here].isinf().any())

    def _take_best(self, rows: Tensor, first: int, near: Tensor) -> None:
        """Add the k best of a block (R, n), or all, for some rows (R,), which have room for k more."""
        found, column = near.topk(min(self.k, near.shape[1]), dim=1, sorted=False)
        slot = self.filled[rows, None] + torch.arange(found.shape[1])
        self.best[rows[:, None], slot] = found
        self.places[rows[:, None], slot] = column.add_(first).int()
        self.filled[rows] += found.shape[1]
        if found.shape[1] == self.k:
            self.bound[rows] = found.amin(dim=1)

    def _prune(self, here: slice) -> None:
        """Prune the rows `here` to their k best, if they have so many."""
        if int(self.filled[here].max()) < self.k:
            return
        best, places = self.best[here], self.places[here]
        kept, column = best.topk(self.k, dim=1, sorted=False)
        places[:, : self.k] = places.gather(1, column)
        best[:, : self.k] = kept
        best[:, self.k :] = -torch.inf
        self.filled[here], self.bound[here] = self.k, kept.amin(dim=1)

    def neighbours(self, here: slice, order: IntArray) -> Neighbours:
        """Return the neighbours of the rows `here` (M,); can be called once, as the table is sorted in place."""
        numbers = torch.from_numpy(order.astype(np.int32))
        for start in range(here.start, here.stop, SORTED):
            rows = slice(start, min(start + SORTED, here.stop))
            best, column = self.best[rows].topk(self.k, dim=1, sorted=True)
            self.places[rows, : self.k] = numbers[self.places[rows].gather(1, column)]
            self.best[rows, : self.k] = best
        return Neighbours(self.places[here, : self.k].numpy(), self.best[here, : self.k].numpy())


def cosines(product: Tensor, half: Tensor, other_half: Tensor) -> Tensor:
    """Turn e (B, n) into cos (B, n), in place, by |x|^2 / 2 of both sides, (B,) and (n,); 0 for a row of zeros."""
    inverse, other_inverse = (torch.where(h > 0, (2 * h).rsqrt(), 0.0) for h in (half, other_half))
    near = product.mul_(other_inverse)
    # (|x_i|^2 + |x_j|^2) / (2 |x_j|) as a product of rank two: one pass over the block instead of two.
    near.addmm_(
        torch.stack([half, torch.ones_like(half)], dim=1), torch.stack([other_inverse, other_half * other_inverse])
    )
    return near.mul_(inverse[:, None])


def find_neighbours(
    queries: FloatArray, X: FloatArray, k: int, metric: str, origin: FloatArray, absent: BoolArray | None = None
) -> Neighbours:
    """Return the k nearest rows of X (N, D), or all N, for each of the queries (M, D).

    absent (N,): rows that are never neighbours. Where fewer than k others are left, the similarity is -inf.
    """
    k = min(k, len(X))
    table = Table(len(queries), k, X, absent)
    every = np.arange(len(X))
    ours, theirs = Points(queries, origin), Points(X, origin)
    _compare_rows({metric: table}, ours, theirs, np.arange(len(queries)), every, 0, 0, both=False)
    return table.neighbours(slice(0, len(queries)), every)


def round_neighbours(
    X: FloatArray,
    rounds: Sequence[BoolArray],
    k: int,
    metrics: Sequence[str],
    origin: FloatArray,
    absent: Mapping[str, BoolArray] | None = None,
) -> Iterator[dict[str, Neighbours]]:
    """Yield for each round the k nearest trained rows, or all, of its held-out rows, by each metric.

    X (N, D), rounds: bool (N,). Rounds that hold out different rows, as folds do, share one table. absent: by metric,
    as for `find_neighbours`.
    """
    points = Points(X, origin)
    held_out = [np.flatnonzero(each) for each in rounds]
    k = min(k, min(len(X) - len(rows) for rows in held_out))
    if sum(map(len, held_out)) > np.logical_or.reduce(list(rounds)).sum():
        for each in rounds:
            yield from round_neighbours(X, [each], k, metrics, origin, absent)
        return
    never = np.flatnonzero(~np.logical_or.reduce(list(rounds)))
    # Held-out rows have the same places in the table and in the order of all rows, where those never held out are last.
    order = np.concatenate([*held_out, never])
    starts = np.cumsum([0, *map(len, held_out)]).tolist()
    tables = {metric: Table(starts[-1], k, X, (absent or {}).get(metric)) for metric in metrics}
    for (at, one), (other_at, other) in combinations(zip(starts, held_out, strict=False), 2):
        _compare_rows(tables, points, points, one, other, at, other_at, both=True)
    for at, rows in zip(starts, held_out, strict=False):
        _compare_rows(tables, points, points, rows, never, at, starts[-1], both=False)
    for at, rows in zip(starts, held_out, strict=False):
        yield {metric: table.neighbours(slice(at, at + len(rows)), order) for metric, table in tables.items()}


def _compare_rows(
    tables: Mapping[str, Table],
    one: Points,
    other: Points,
    rows: IntArray,
    other_rows: IntArray,
    at: int,
    other_at: int,
    *,
    both: bool,
) -> None:
    """Add `other_rows` of the other as candidates for `rows` of one, in blocks; with `both`, the reverse as well.

    at, other_at: the places of their first rows.
    """
    size, other_size = SQUARE if both else FLAT
    own, others = one.memory(min(size, len(rows))), other.memory(min(other_size, len(other_rows)))
    memory = [torch.from_numpy(np.empty(len(own) * len(others), own.dtype)) for _ in range(1 + both)]
    for start in range(0, len(other_rows), other_size):
        across, across_half, across_raw = other.block(other_rows[start : start + other_size], others)
        there = slice(other_at + start, other_at + start + len(across))
        for begin in range(0, len(rows), size):
            centred, half, raw = one.block(rows[begin : begin + size], own)
            here = slice(at + begin, at + begin + len(centred))
            product = _product(centred, across, memory[0]).sub_(half[:, None]).sub_(across_half)
            for metric in sorted(tables, reverse=True):  # the cosine last, which takes the place of the product
                near = product if metric == "euclidean" else cosines(product, raw, across_raw)
                tables[metric].add_present(here, there.start, near, other_rows[start : start + other_size])
                if both:
                    turned = _turned(near, memory[1])
                    tables[metric].add_present(there, here.start, turned, rows[begin : begin + size])


def _as_slice(rows: IntArray) -> IntArray | slice:
    """Return consecutive rows as a slice, which needs no copy; others as they are."""
    side_by_side = len(rows) > 0 and bool((np.diff(rows) == 1).all())
    return slice(int(rows[0]), int(rows[-1]) + 1) if side_by_side else rows


def _product(left: Tensor, right: Tensor, memory: Tensor) -> Tensor:
    """Return left (B, D) @ right.T (D, n), in the given buffer."""
    shape = len(left), len(right)
    return torch.mm(left, right.T, out=memory[: shape[0] * shape[1]].view(shape))


def _turned(near: Tensor, memory: Tensor) -> Tensor:
    """Return near.T, in the given buffer: strip by strip, which takes a fifth of the time."""
    turned = memory[: near.numel()].view(near.shape[1], near.shape[0])
    for start in range(0, len(near), STRIP):
        turned[:, start : start + STRIP] = near[start : start + STRIP].T
    return turned
