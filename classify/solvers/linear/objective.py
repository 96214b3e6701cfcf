"""The regularised loss of many linear heads at once: one pass over the rows serves every setting and every round.

    F(W, b) = C sum_i w_i loss(W z_i + b, y_i) + |W|^2 / 2

for each member: a strength C in a round, with that round's weights w and standardised rows z; for a loss that does not
couple the classes, one class of it. All members share one matrix product: S = W Z_b^T, then
G += dS Z_b, for one block of rows after the other. `parts` (M,) says which round, or class of a round, each member
is: round, or round C + class.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows, rows_within, to_numpy
from featurecache.classify.solvers.linear.losses import Loss

# A block of rows with its scores and their temporaries takes this many bytes: it stays in a large processor's cache.
BLOCK_BYTES = 8 * 2**20
# Arrays as large as the scores that a loss needs at a time.
TEMPORARIES = 4
# An objective so small is zero, and no part of it means anything: that of a class that no row of a round has.
NOTHING = 1e-60


class Objective:
    """Parameters are theta (M, K, D + 1), K = C or 1: weights on standardised columns, the intercept last."""

    def __init__(self, rows: Rows, codes: IntArray, weights: FloatArray, loss: Loss, n_classes: int) -> None:
        self.rows, self.loss, self.n_classes = rows, loss, n_classes
        self.xp, self.array, self.dtype = rows.xp, rows.array, rows.dtype
        self.n_rounds = len(weights)
        self.n_parts, self.width = (self.n_rounds, n_classes) if loss.joint else (self.n_rounds * n_classes, 1)
        self.codes = rows.array(codes, rows.xp.int64)
        self.weights = rows.array(weights)
        self.total = weights.sum(axis=1)
        # Where rows weigh 1 for all rounds that train on them there is nothing to multiply with.
        self.plain = all(bool((weights[:, span] == trained[:, None]).all()) for span, trained in rows.spans)
        self.n_passes = 0

    def __call__(self, theta: Any, strengths: FloatArray, parts: IntArray) -> tuple[FloatArray, Any]:
        """Return F (M,), float64, and its gradient (M, K, D + 1) for members with strengths (M,), parts (M,)."""
        xp, shape = self.rows.xp, theta.shape
        number, classes = self.round_and_class(parts)
        weights, intercept = self._to_common(theta, number)
        gradient, by_intercept = xp.zeros_like(weights), xp.zeros_like(intercept)
        total = xp.zeros(shape[0], dtype=xp.float64, device=self.rows.device)
        for span, members in self._member_spans(parts):
            found = self._sum_span(span, weights[members], intercept[members], number[members], classes[members])
            for whole, part in zip((total, gradient, by_intercept), found, strict=True):
                whole[members] += part
        self.n_passes += 1
        own = self._to_own(gradient, by_intercept, number)
        own *= self.rows.array(strengths)[:, None, None]
        own[:, :, :-1] += theta[:, :, :-1]
        penalty = 0.5 * xp.sum(theta[:, :, :-1] ** 2, axis=(1, 2), dtype=xp.float64)
        return strengths * to_numpy(total) + to_numpy(penalty), own

    def gap(self, value: FloatArray, gradient: Any) -> FloatArray:
        """Return about how far F (M,) is above its minimum, as a part of that: no more is known in so few digits."""
        return gap_by_gradient(value, gradient, self.xp)

    def _member_spans(self, parts: IntArray) -> Iterator[tuple[slice, Any]]:
        """Yield spans of rows, and which of the members train on them."""
        number = parts // (self.n_parts // self.n_rounds)
        for span, trained in self.rows.spans:
            here = np.flatnonzero(trained[number])
            if len(here) == len(parts):
                yield span, slice(None)
            elif len(here):
                yield span, self.rows.array(here, self.rows.xp.int64)

    def _sum_span(self, span: slice, weights: Any, intercept: Any, number: Any, classes: Any) -> tuple[Any, Any, Any]:
        """Return the loss (M,) of some members in a span, and its gradient by weights and intercept (M, K)."""
        xp, shape = self.rows.xp, intercept.shape
        gradient = xp.zeros((shape[0] * shape[1], weights.shape[2]), dtype=weights.dtype, device=self.rows.device)
        by_intercept = xp.zeros_like(gradient[:, 0])
        total = xp.zeros(shape[0], dtype=xp.float64, device=self.rows.device)
        for places, block, scores in self._score_blocks(weights, intercept, span):
            loss, by_score = self.loss.evaluate(scores, self.codes[places], classes)
            if not self.plain:
                here = self.weights[:, places][number]
                loss, by_score = loss * here, by_score * here[:, None, :]
            by_score = xp.reshape(by_score, (-1, scores.shape[2]))
            total += xp.sum(loss, axis=1, dtype=xp.float64)
            gradient += by_score @ block
            by_intercept += xp.sum(by_score, axis=1)
        return total, xp.reshape(gradient, weights.shape), xp.reshape(by_intercept, shape)

    def seconds(self, theta: Any, strengths: FloatArray, parts: IntArray) -> FloatArray:
        """Return the curvature C w loss'' (N, M K), float32, of every row by every score of members (M,)."""
        found = np.zeros((self.rows.shape[0], theta.shape[0] * theta.shape[1]), dtype=np.float32)
        factor = self.rows.array(strengths)[:, None, None]
        for places, second in self._seconds(theta, parts):
            found[places] = to_numpy(self.xp.reshape(second * factor, (found.shape[1], -1))).T
        return found

    def seconds_summed(self, theta: Any, parts: IntArray) -> FloatArray:
        """Return the curvature w loss'' by every score (M, K) of members (M,), summed over the rows."""
        found = np.zeros(theta.shape[:2])
        for _, second in self._seconds(theta, parts):
            found += to_numpy(self.xp.sum(second, axis=2, dtype=self.xp.float64))
        return found

    def _seconds(self, theta: Any, parts: IntArray) -> Iterator[tuple[slice, Any]]:
        """Yield places and w loss'' (M, K, B), block by block."""
        number, classes = self.round_and_class(parts)
        for places, _, scores in self._score_blocks(*self._to_common(theta, number), None):
            second = self.loss.second(scores, self.codes[places], classes)
            yield places, second * self.weights[:, places][number][:, None, :]

    def round_and_class(self, parts: IntArray) -> tuple[Any, Any]:
        """Return the round (M,) and, for a loss that is not joint, the class (M,) of every member."""
        per_round, array = self.n_parts // self.n_rounds, self.rows.array
        return array(parts // per_round, self.rows.xp.int64), array(parts % per_round, self.rows.xp.int64)

    def _score_blocks(self, weights: Any, intercept: Any, span: slice | None) -> Iterator[tuple[slice, Any, Any]]:
        """Yield places, rows (B, D) and the scores (M, K, B) of members, block by block, in a span or everywhere."""
        xp, shape = self.rows.xp, intercept.shape
        flat, offset = xp.reshape(weights, (-1, weights.shape[2])), xp.reshape(intercept, (-1, 1))
        itemsize = 8 if self.rows.dtype == xp.float64 else 4
        n_rows = rows_within(BLOCK_BYTES, self.rows.shape[1] + TEMPORARIES * flat.shape[0], itemsize)
        for places, block in self.rows.blocks(n_rows, span):
            scores = xp.empty((flat.shape[0], block.shape[0]), dtype=flat.dtype, device=self.rows.device)
            scores[...] = (block @ flat.T).T  # is quicker than flat @ block.T
            scores += offset
            yield places, block, xp.reshape(scores, (*shape, -1))

    def _to_common(self, theta: Any, number: Any) -> tuple[Any, Any]:
        """Fold the rounds' own shift and stretch into weights (M, K, D) and intercepts (M, K) for the common rows."""
        weights = theta[:, :, :-1] / self.rows.stretch[number][:, None, :]
        return weights, theta[:, :, -1] - self.rows.xp.sum(weights * self.rows.shift[number][:, None, :], axis=2)

    def _to_own(self, gradient: Any, by_intercept: Any, number: Any) -> Any:
        """Turn the gradient by common weights (M, K, D) and intercepts (M, K) into that by theta (M, K, D + 1)."""
        by_intercept = by_intercept[:, :, None]
        own = gradient - by_intercept * self.rows.shift[number][:, None, :]
        return self.rows.xp.concat([own / self.rows.stretch[number][:, None, :], by_intercept], axis=2)


def gap_by_gradient(value: FloatArray, gradient: Any, xp: Any) -> FloatArray:
    """Return |g|^2 / 2 as a part of F - |g|^2 / 2, g the gradient (M, K, D) by the weights, of (M, K, D + 1).

    F (M,) is strongly convex with constant 1 in the weights: where the intercepts are at their minimum its own is at
    most |g|^2 / 2 below it (Boyd and Vandenberghe 2004, equation 9.9).
    """
    above = 0.5 * to_numpy(xp.sum(gradient[:, :, :-1] ** 2, axis=(1, 2), dtype=xp.float64))
    least = value - above
    part = np.where(least > 0, above / np.where(least > 0, least, 1.0), np.inf)
    return np.where((above == 0) | (value <= NOTHING), 0.0, part)
