"""Scores of rows, and sums over them, for many members at once, each with the standardisation of its round."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows, rows_within, to_numpy

# A block of rows, in bytes.
BLOCK_BYTES = 16 * 2**20


class MemberRows:
    """Standardised rows z of rounds `number` (M,), by blocks; parameters are theta (M, D + 1), the intercept last."""

    def __init__(self, rows: Rows, number: IntArray) -> None:
        self.rows, self.xp, self.number = rows, rows.xp, number

    def _training_blocks(self, members: IntArray) -> Iterator[tuple[slice, Any, Any]]:
        """Yield blocks of rows, their places, and which of some members train on them."""
        itemsize = 8 if self.rows.dtype == self.xp.float64 else 4
        n_rows = rows_within(BLOCK_BYTES, self.rows.shape[1] + len(members), itemsize)
        for span, trained in self.rows.spans:
            here = np.flatnonzero(trained[self.number[members]])
            training: Any = slice(None) if len(here) == len(members) else here
            if len(here):
                yield from ((places, block, training) for places, block in self.rows.blocks(n_rows, span))

    def _own(self, members: IntArray) -> tuple[Any, Any]:
        number = self.rows.array(self.number[members], self.xp.int64)
        return self.rows.shift[number], self.rows.stretch[number]

    def scores(self, theta: Any, members: IntArray) -> FloatArray:
        """Return the scores (N, M) of the rows by theta (M, D + 1) of some members; 0 for rows it does not train on."""
        shift, stretch = self._own(members)
        weights = theta[:, :-1] / stretch
        intercept = theta[:, -1] - self.xp.sum(weights * shift, axis=1)
        scores = np.zeros((self.rows.shape[0], len(members)), dtype=to_numpy(theta).dtype)
        for places, block, here in self._training_blocks(members):
            scores[places, here] = to_numpy(block @ weights[here].T + intercept[here])
        return scores

    def summed(self, factors: FloatArray, members: IntArray) -> Any:
        """Return sum_i f_i [z_i 1] (M, D + 1) for factors f (N, M) of some members."""
        shift, stretch = self._own(members)
        total = self.xp.zeros((len(members), self.rows.shape[1]), dtype=self.rows.dtype, device=self.rows.device)
        for places, block, here in self._training_blocks(members):
            total[here] += self.rows.array(factors[places, here]).T @ block
        by_intercept = self.rows.array(factors.sum(axis=0, dtype=np.float64))[:, None]
        return self.xp.concat([(total - by_intercept * shift) / stretch, by_intercept], axis=1)


def inner_products(a: Any, b: Any, xp: Any) -> FloatArray:
    """Return the inner product (M,), float64, of every member's a and b, (M, D) or (M, K, D)."""
    return to_numpy(xp.vecdot(xp.reshape(a, (a.shape[0], -1)), xp.reshape(b, (b.shape[0], -1)))).astype(np.float64)
