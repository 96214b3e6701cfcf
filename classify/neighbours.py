"""A table of nearest neighbours, by Euclidean distance and by cosine, from one matrix product.

    e_ij = (x_i - m)(x_j - m) - |x_i - m|^2 / 2 - |x_j - m|^2 / 2  =  -|x_i - x_j|^2 / 2
    cos_ij = (e_ij + |x_i|^2 / 2 + |x_j|^2 / 2) / (|x_i| |x_j|)

for any origin m: with that of the rows nothing is lost in rounding where features lie far from zero. Rows meet in
square blocks, so memory is a few blocks whatever N. Where both sides of a block look for neighbours on the other, as
folds do, the block serves both. Products are numpy's, whose BLAS makes 175 GFLOPS of blocks of this
shape where torch's makes 115 (two AMD cores), the best of a block are found by torch: on 512 x 48,000 with k = 200 its
topk took 43 ms, numpy's argpartition 270.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from classify.arrays import BoolArray, FloatArray, IntArray
from classify.plain import working, working_dtype

Tensor = torch.Tensor
METRICS = ("cosine", "euclidean")
# Rows of a block where both sides look, 4096 x 4096 float32, 67 MB; and where one does, which is faster per row.
SQUARE = (4096, 4096)
FLAT = (1024, 16384)


@dataclass(frozen=True)
class Neighbours:
    """For M rows the positions (M, k) of their nearest, nearest first, and how near: cosine or -distance^2 / 2."""

    rows: IntArray
    similarity: FloatArray


class Points:
    """Rows of X (N, D) as they enter the product: X itself is never copied as a whole."""

    def __init__(self, X: FloatArray, origin: FloatArray) -> None:
        self.X, self.origin = X, origin.astype(working_dtype(X))

    def block(self, rows: IntArray | slice) -> tuple[FloatArray, Tensor, Tensor]:
        """Return x - m (B, D), |x - m|^2 / 2 (B,) and |x|^2 / 2 (B,) of some rows."""
        raw = working(self.X[rows])
        centred = raw - self.origin
        half, raw_half = (torch.from_numpy(np.einsum("ij,ij->i", each, each) / 2) for each in (centred, raw))
        return centred, half, raw_half


class Table:
    """The k best of what M rows have met so far, in no order, for each metric that is asked for."""

    def __init__(self, n_rows: int, k: int, metrics: Sequence[str], dtype: np.dtype[np.floating]) -> None:
        self.k = k
        empty = torch.full((n_rows, k), -torch.inf, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
        self.best = {metric: empty.clone() for metric in metrics}
        self.rows = {metric: torch.zeros((n_rows, k), dtype=torch.int32) for metric in metrics}

    def meet(self, at: Tensor, other: Tensor, product: Tensor, half: Tensor, other_half: Tensor) -> None:
        """Let the rows at positions `at` (B,) of the table meet rows numbered `other` (n,): e (B, n) and |x|^2 / 2."""
        for metric in self.best:
            near = product if metric == "euclidean" else cosines(product, half, other_half)
            found, column = near.topk(min(self.k, near.shape[1]), dim=1, sorted=False)
            both = torch.cat([self.best[metric][at], found], dim=1)
            rows = torch.cat([self.rows[metric][at], other[column]], dim=1)
            self.best[metric][at], kept = both.topk(self.k, dim=1, sorted=False)
            self.rows[metric][at] = rows.gather(1, kept)

    def neighbours(self, metric: str, at: IntArray) -> Neighbours:
        """Return what the rows at positions `at` (M,) have found."""
        at_these = torch.from_numpy(at)
        best, order = self.best[metric][at_these].sort(dim=1, descending=True, stable=True)
        return Neighbours(self.rows[metric][at_these].gather(1, order).numpy(), best.numpy())


def cosines(product: Tensor, half: Tensor, other_half: Tensor) -> Tensor:
    """Return cos (B, n) from e (B, n) and |x|^2 / 2 of both sides, (B,) and (n,); 0 for a row of zeros."""
    inverse, other_inverse = (torch.where(h > 0, (2 * h).rsqrt(), 0.0) for h in (half, other_half))
    near = product * other_inverse
    # (|x_i|^2 + |x_j|^2) / (2 |x_j|) as a product of rank two: one pass over the block instead of two.
    near.addmm_(
        torch.stack([half, torch.ones_like(half)], dim=1), torch.stack([other_inverse, other_half * other_inverse])
    )
    return near.mul_(inverse[:, None])


def find_neighbours(queries: FloatArray, X: FloatArray, k: int, metric: str, origin: FloatArray) -> Neighbours:
    """Return the k nearest rows of X (N, D), or all N, for each of the queries (M, D)."""
    table = Table(len(queries), min(k, len(X)), [metric], working_dtype(X))
    every = np.arange(len(queries)), np.arange(len(X))
    _meet(table, Points(queries, origin), Points(X, origin), *every, *every, both=False)
    return table.neighbours(metric, every[0])


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
    number = np.zeros(len(X), dtype=np.int64)
    number[np.concatenate(held_out)] = np.arange(sum(map(len, held_out)))
    table = Table(int(sum(map(len, held_out))), k, metrics, working_dtype(X))
    never = np.flatnonzero(~np.logical_or.reduce(list(rounds)))
    for one, other in combinations(held_out, 2):
        _meet(table, points, points, one, other, number[one], number[other], both=True)
    for rows in held_out:
        _meet(table, points, points, rows, never, number[rows], number[never], both=False)
    for rows in held_out:
        yield {metric: table.neighbours(metric, number[rows]) for metric in metrics}


def _meet(
    table: Table,
    one: Points,
    other: Points,
    rows: IntArray,
    other_rows: IntArray,
    at: IntArray,
    other_at: IntArray,
    *,
    both: bool,
) -> None:
    """Let `rows` of one meet `other_rows` of the other, block by block; with `both`, the others look as well."""
    size, other_size = SQUARE if both else FLAT
    # Fresh memory for every block would be cleared by the system, page by page.
    memory = np.empty(min(size, len(rows)) * min(other_size, len(other_rows)), dtype=working_dtype(one.X))
    for start in range(0, len(other_rows), other_size):
        there = slice(start, start + other_size)
        across, across_half, across_raw = other.block(other_rows[there])
        for begin in range(0, len(rows), size):
            here = slice(begin, begin + size)
            centred, half, raw = one.block(rows[here])
            product = torch.from_numpy(_product(centred, across, memory)).sub_(half[:, None]).sub_(across_half)
            ours, theirs = (torch.from_numpy(each).int() for each in (rows[here], other_rows[there]))
            table.meet(torch.from_numpy(at[here]), theirs, product, raw, across_raw)
            if both:
                table.meet(torch.from_numpy(other_at[there]), ours, product.T.contiguous(), across_raw, raw)


def _product(left: FloatArray, right: FloatArray, memory: FloatArray) -> FloatArray:
    """Return left (B, D) @ right.T (D, n), in the memory given."""
    shape = len(left), len(right)
    return np.matmul(left, right.T, out=memory[: shape[0] * shape[1]].reshape(shape))
