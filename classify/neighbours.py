"""A table of nearest neighbours, by Euclidean distance and by cosine, from one matrix product.

    e_ij = (x_i - m)(x_j - m) - |x_i - m|^2 / 2 - |x_j - m|^2 / 2  =  -|x_i - x_j|^2 / 2
    cos_ij = (e_ij + |x_i|^2 / 2 + |x_j|^2 / 2) / (|x_i| |x_j|)

for any origin m: with that of the rows nothing is lost in rounding where features lie far from zero. Rows meet in
square blocks, so memory is a few blocks whatever N. Where both sides of a block look for neighbours on the other, as
folds do, the block serves both. Products are numpy's, whose BLAS makes 175 GFLOPS of blocks of this
shape where torch's makes 115 (two AMD cores), the best of a block are found by torch: on 512 x 48,000 with k = 200 its
topk took 43 ms, numpy's argpartition 270.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from classify.arrays import BoolArray, FloatArray, IntArray
from classify.files import empty_beside
from classify.plain import working, working_dtype

Tensor = torch.Tensor
METRICS = ("cosine", "euclidean")
# Rows of a block where both sides look, 4096 x 4096 float32, 67 MB; and where one does: there 1024 x 16384 is as fast
# (10,000 x 60,000 rows, within 3 %) and takes more memory.
SQUARE = (4096, 4096)
FLAT = (2048, 4096)
# Rows whose neighbours are put in order at a time: with k = 200 they are 5 MB.
SORTED = 1024


@dataclass(frozen=True)
class Neighbours:
    """For M rows the numbers (M, k) of their nearest, nearest first, and how near: cosine or -distance^2 / 2."""

    rows: IntArray
    similarity: FloatArray


class Points:
    """Rows of X (N, D) as they enter the product: X itself is never copied as a whole."""

    def __init__(self, X: FloatArray, origin: FloatArray) -> None:
        self.X, self.origin = X, origin.astype(working_dtype(X))

    def block(self, rows: IntArray) -> tuple[FloatArray, Tensor, Tensor]:
        """Return x - m (B, D), |x - m|^2 / 2 (B,) and |x|^2 / 2 (B,) of some rows."""
        raw = working(self.X[_as_slice(rows)])
        centred = raw - self.origin
        half, raw_half = (torch.from_numpy(np.einsum("ij,ij->i", each, each) / 2) for each in (centred, raw))
        return centred, half, raw_half


class Table:
    """The best k and more of what M rows have met so far, by one metric, in columns without order.

    Of a block only what is nearer than the k-th that a row had when its columns were last sorted out is looked at: the
    less, the more it has met. Rows that were met go by their places in an order, (N,), which the reader of the table
    turns into their numbers. The columns are in memory, or in a file where X is in one.
    """

    def __init__(self, n_rows: int, k: int, X: FloatArray) -> None:
        self.k = k
        self.best = torch.from_numpy(empty_beside(X, (n_rows, 2 * k), working_dtype(X))).fill_(-torch.inf)
        self.places = torch.from_numpy(empty_beside(X, (n_rows, 2 * k), np.int32)).fill_(0)
        self.filled = torch.zeros(n_rows, dtype=torch.int64)
        self.bound = torch.full((n_rows,), -torch.inf, dtype=self.best.dtype)

    def meet(self, here: slice, first: int, near: Tensor) -> None:
        """Let the rows `here` (B,) of the table meet n rows, at places from `first` on, that are so near: (B, n)."""
        if self._take_nearer(here, first, near):
            return
        self._sort_out(here)
        if not self._take_nearer(here, first, near):
            self._take_best(here, first, near)

    def _take_nearer(self, here: slice, first: int, near: Tensor) -> bool:
        """Take in what is nearer than the bound; return whether all rows have a bound, and room for it."""
        if bool(self.bound[here].isinf().any()):
            return False
        row, column = (near > self.bound[here, None]).nonzero(as_tuple=True)
        counts = torch.bincount(row, minlength=len(near))
        filled = self.filled[here]
        if bool((filled + counts > self.best.shape[1]).any()):
            return False
        slot = torch.arange(len(row)) + (filled - counts.cumsum(0) + counts)[row]
        self.best[here][row, slot] = near[row, column]
        self.places[here][row, slot] = (column + first).int()
        self.filled[here] += counts
        return True

    def _take_best(self, here: slice, first: int, near: Tensor) -> None:
        """Take in the k best of a block, after columns were sorted out."""
        found, column = near.topk(min(self.k, near.shape[1]), dim=1, sorted=False)
        start = int(self.filled[here].max())
        columns = slice(start, start + found.shape[1])
        self.best[here, columns] = found
        self.places[here, columns] = column.add_(first).int()
        self.filled[here] = columns.stop
        if columns.stop == self.k:
            self.bound[here] = self.best[here, : self.k].amin(dim=1)
        elif columns.stop > self.k:
            self._sort_out(here)

    def _sort_out(self, here: slice) -> None:
        """Keep the k best of the rows `here`, if they have so many."""
        if int(self.filled[here].max()) < self.k:
            return
        best, places = self.best[here], self.places[here]
        kept, column = best.topk(self.k, dim=1, sorted=False)
        places[:, : self.k] = places.gather(1, column)
        best[:, : self.k] = kept
        best[:, self.k :] = -torch.inf
        self.filled[here], self.bound[here] = self.k, kept.amin(dim=1)

    def neighbours(self, here: slice, order: IntArray) -> Neighbours:
        """Return what the rows `here` (M,) have found, as numbers of rows: once: they are put there."""
        numbers = torch.from_numpy(order.astype(np.int32))
        for start in range(here.start, here.stop, SORTED):
            rows = slice(start, min(start + SORTED, here.stop))
            best, column = self.best[rows].topk(self.k, dim=1, sorted=True)
            self.places[rows, : self.k] = numbers[self.places[rows].gather(1, column)]
            self.best[rows, : self.k] = best
        return Neighbours(self.places[here, : self.k].numpy(), self.best[here, : self.k].numpy())


def cosines(product: Tensor, half: Tensor, other_half: Tensor) -> Tensor:
    """Make of e (B, n), in place, cos (B, n), by |x|^2 / 2 of both sides, (B,) and (n,); 0 for a row of zeros."""
    inverse, other_inverse = (torch.where(h > 0, (2 * h).rsqrt(), 0.0) for h in (half, other_half))
    near = product.mul_(other_inverse)
    # (|x_i|^2 + |x_j|^2) / (2 |x_j|) as a product of rank two: one pass over the block instead of two.
    near.addmm_(
        torch.stack([half, torch.ones_like(half)], dim=1), torch.stack([other_inverse, other_half * other_inverse])
    )
    return near.mul_(inverse[:, None])


def find_neighbours(queries: FloatArray, X: FloatArray, k: int, metric: str, origin: FloatArray) -> Neighbours:
    """Return the k nearest rows of X (N, D), or all N, for each of the queries (M, D)."""
    k = min(k, len(X))
    table = Table(len(queries), k, X)
    every = np.arange(len(X))
    ours, theirs = Points(queries, origin), Points(X, origin)
    _meet({metric: table}, ours, theirs, np.arange(len(queries)), every, 0, 0, both=False)
    return table.neighbours(slice(0, len(queries)), every)


def round_neighbours(
    X: FloatArray, rounds: Sequence[BoolArray], k: int, metrics: Sequence[str], origin: FloatArray
) -> Iterator[dict[str, Neighbours]]:
    """Yield for each round the k nearest trained rows, or all, of its held-out rows, by each metric.

    X (N, D), rounds: bool (N,). Rounds that hold out different rows, as folds do, share one table.
    """
    points = Points(X, origin)
    held_out = [np.flatnonzero(each) for each in rounds]
    k = min(k, min(len(X) - len(rows) for rows in held_out))
    if sum(map(len, held_out)) > np.logical_or.reduce(list(rounds)).sum():
        for each in rounds:
            yield from round_neighbours(X, [each], k, metrics, origin)
        return
    never = np.flatnonzero(~np.logical_or.reduce(list(rounds)))
    # Held-out rows have the same places in the table and in the order of all rows, where those never held out are last.
    order = np.concatenate([*held_out, never])
    starts = np.cumsum([0, *map(len, held_out)]).tolist()
    tables = {metric: Table(starts[-1], k, X) for metric in metrics}
    for (at, one), (other_at, other) in combinations(zip(starts, held_out, strict=False), 2):
        _meet(tables, points, points, one, other, at, other_at, both=True)
    for at, rows in zip(starts, held_out, strict=False):
        _meet(tables, points, points, rows, never, at, starts[-1], both=False)
    for at, rows in zip(starts, held_out, strict=False):
        yield {metric: table.neighbours(slice(at, at + len(rows)), order) for metric, table in tables.items()}


def _meet(
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
    """Let `rows` of one meet `other_rows` of the other, block by block; with `both`, the others look as well.

    at, other_at: the places of their first.
    """
    size, other_size = SQUARE if both else FLAT
    # Fresh memory for every block would be cleared by the system, page by page.
    memory = np.empty(min(size, len(rows)) * min(other_size, len(other_rows)), dtype=working_dtype(one.X))
    for start in range(0, len(other_rows), other_size):
        across, across_half, across_raw = other.block(other_rows[start : start + other_size])
        there = slice(other_at + start, other_at + start + len(across))
        for begin in range(0, len(rows), size):
            centred, half, raw = one.block(rows[begin : begin + size])
            here = slice(at + begin, at + begin + len(centred))
            product = torch.from_numpy(_product(centred, across, memory)).sub_(half[:, None]).sub_(across_half)
            for metric in sorted(tables, reverse=True):  # the cosine last, which takes the place of the product
                near = product if metric == "euclidean" else cosines(product, raw, across_raw)
                tables[metric].meet(here, there.start, near)
                if both:
                    tables[metric].meet(there, here.start, near.T.contiguous())


def _as_slice(rows: IntArray) -> IntArray | slice:
    """Return rows side by side as a slice, which needs no copy; others as they are."""
    side_by_side = len(rows) > 0 and bool((np.diff(rows) == 1).all())
    return slice(int(rows[0]), int(rows[-1]) + 1) if side_by_side else rows


def _product(left: FloatArray, right: FloatArray, memory: FloatArray) -> FloatArray:
    """Return left (B, D) @ right.T (D, n), in the memory given."""
    shape = len(left), len(right)
    return np.matmul(left, right.T, out=memory[: shape[0] * shape[1]].reshape(shape))
