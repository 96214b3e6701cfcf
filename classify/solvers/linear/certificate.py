"""The objective in float64 with its intercept at the minimum, and what its gradient proves.

    phi(W) = min_b F(W, b),        F(W, b) = C sum_i w_i loss(W z_i + b, y_i) + |W|^2 / 2

phi minus |W|^2 / 2 is the minimum of a convex function over b, and so convex; phi therefore is strongly convex with
constant 1, and at every W

    phi(W) - min F  <=  |grad phi(W)|^2 / 2,        grad phi(W) = dF/dW at (W, b(W))

(Boyd and Vandenberghe 2004, sections 3.2.5 and 9.1.2, equation 9.9). It is the duality gap, too, of the dual point
a_i = C w_i loss'(W z_i + b(W)), which is feasible, sum_i a_i = 0, because b(W) is a minimum. Nothing in it is
estimated: neither a preconditioner nor a sample of the rows enters.

Scores and gradients are computed from the features as they are, block by block in float64: a float32 gradient of
cancelling terms is too coarse to prove anything at a large C.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import rows_within, to_numpy
from featurecache.classify.arrays.memmap import array_stored_like
from featurecache.classify.solvers.linear.objective import TEMPORARIES, Objective, gap_by_gradient

# A block of rows with its scores, in bytes. All blocks take the same memory: with memory of its own for each,
# 10,000 x 1280 and their scores took 35 ms instead of 17.
BLOCK_BYTES = 4 * 2**20
# Scores (N, M, K) of the members evaluated together, in bytes; of one member at least.
SCORES_BYTES = 64 * 2**20
# Newton steps for the intercepts, which start near their minimum: two or three are taken.
INTERCEPT_STEPS = 50
# No step of an intercept is longer: where every row is far on the wrong side there is next to no second derivative.
LONGEST = 8.0
# The intercepts are at their minimum where another step promises to lower the loss by this part, or less. What is left
# of it is in the gradient by the weights, squared; ...
INTERCEPT_DIGITS = 1e-20
# ... where rounding ends the steps before, this part will do; ...
ROUNDED = 1e-14
# ... and where the loss is this small for a row of weight 1: where all rows have one label it has no minimum.
NO_LOSS = 1e-20
# A step is short enough where the slope along it has fallen to this part, or below zero: unlike the loss itself it has
# digits left where the loss is nearly flat (Hager and Zhang 2005, section 1, the approximate Wolfe condition).
CURVING = 0.5


class ExactObjective:
    """phi and its gradient for the members of an `Objective`, of which only the rows, codes and weights are read."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.rows, self.xp = objective, objective.rows, objective.rows.xp
        self.dtype = self.xp.float64

    def array(self, values: Any, dtype: Any = None) -> Any:
        """Return numbers as an array of the kind and device of the rows, float64 by default."""
        return self.xp.asarray(values, dtype=dtype or self.dtype, device=self.rows.device)

    def __call__(self, theta: Any, strengths: FloatArray, parts: IntArray) -> tuple[FloatArray, Any]:
        """Return phi (M,) and its gradient (M, K, D + 1) at theta (M, K, D + 1), float64.

        The intercepts of theta are moved to their minimum, in place; the gradient by them then is 0.
        """
        gradient, value = self.xp.zeros_like(theta), np.zeros(len(parts))
        per_member = 8 * self.rows.shape[0] * theta.shape[1]
        at_once = max(SCORES_BYTES // per_member, 1)
        for first in range(0, len(parts), at_once):
            some = slice(first, first + at_once)
            value[some], gradient[some] = self._value_and_gradient_of(theta[some], strengths[some], parts[some])
        return value, gradient

    def gap(self, value: FloatArray, gradient: Any) -> FloatArray:
        """Return how far phi (M,) is at most above its minimum, as a part of that, by its gradient (M, K, D + 1)."""
        settled = to_numpy(self.xp.all(gradient[:, :, -1] == 0, axis=1))
        return np.where(settled, gap_by_gradient(value, gradient, self.xp), np.inf)

    def _value_and_gradient_of(self, theta: Any, strengths: FloatArray, parts: IntArray) -> tuple[FloatArray, Any]:
        xp, objective = self.xp, self.objective
        number = parts // (objective.n_parts // objective.n_rounds)
        scalings = [self.rows.scalings[each] for each in number.tolist()]
        mean, scale = (self.array(np.stack([getattr(s, name) for s in scalings])) for name in ("mean", "scale"))
        coef = theta[:, :, :-1] / scale[:, None, :]
        offset = -xp.sum(coef * mean[:, None, :], axis=2)
        scores = self._member_scores(coef, offset, number)
        total, shift, by_intercept = self._settle(scores, theta[:, :, -1], parts)
        theta[:, :, -1] = shift
        raw = xp.zeros_like(coef)
        for places, block, here in self._exact_blocks(number, theta.shape[1]):
            _, by_score, weights = self._evaluate(scores, shift, places, parts)
            flat = xp.reshape((by_score * weights[:, None, :])[here], (-1, block.shape[0]))
            raw[here] += xp.reshape(flat @ block, (-1, *raw.shape[1:]))
        own = (raw - by_intercept[:, :, None] * mean[:, None, :]) / scale[:, None, :]
        gradient = xp.concat([own, by_intercept[:, :, None]], axis=2) * self.array(strengths)[:, None, None]
        gradient[:, :, :-1] += theta[:, :, :-1]
        penalty = 0.5 * xp.sum(theta[:, :, :-1] ** 2, axis=(1, 2))
        return strengths * to_numpy(total) + to_numpy(penalty), gradient

    def _exact_blocks(self, number: IntArray, width: int) -> Iterator[tuple[slice, Any, Any]]:
        """Yield places, rows (B, D) in float64, and which of the members, in rounds `number` (M,), train on them.

        The next block takes the place of this one.
        """
        n_rows = rows_within(BLOCK_BYTES, self.rows.shape[1] + TEMPORARIES * width * len(number), 8)
        own = np.empty((n_rows, self.rows.shape[1])) if is_numpy_array(self.rows.X) else None
        for span, trained in self.rows.spans:
            training = np.flatnonzero(trained[number])
            if not len(training):
                continue
            here: Any = slice(None) if len(training) == len(number) else self.array(training, self.xp.int64)
            for start in range(span.start, span.stop, n_rows):
                places = slice(start, min(start + n_rows, span.stop))
                if own is None:
                    yield places, self.xp.astype(self.rows.X[places], self.dtype, copy=False), here
                else:
                    block = own[: places.stop - places.start]
                    block[:] = self.rows.X[places]
                    yield places, block, here

    def _member_scores(self, coef: Any, offset: Any, number: IntArray) -> Any:
        """Return coef X^T + offset (M, K, N), in a file where the rows are in one; 0 where a member does not train."""
        shape = (*offset.shape, self.rows.shape[0])
        if is_numpy_array(self.rows.X):
            scores = array_stored_like(self.rows.X, shape, np.float64)
            scores[...] = 0.0
        else:
            scores = self.xp.zeros(shape, dtype=self.dtype, device=self.rows.device)
        for places, block, here in self._exact_blocks(number, shape[1]):
            flat = self.xp.reshape(coef[here], (-1, coef.shape[2]))
            own = self.xp.reshape((block @ flat.T).T, (-1, shape[1], block.shape[0]))
            scores[here, :, places] = own + offset[here][:, :, None]
        return scores

    def _evaluate(self, scores: Any, shift: Any, places: slice, parts: IntArray) -> tuple[Any, Any, Any]:
        """Return the loss (M, B) of some rows, its gradient (M, K, B) at scores + shift, and their weights (M, B)."""
        number, classes = self.objective.round_and_class(parts)
        moved = scores[:, :, places] + shift[:, :, None]
        loss, by_score = self.objective.loss.evaluate(moved, self.objective.codes[places], classes)
        return loss, by_score, self.xp.astype(self.objective.weights[:, places][number], self.dtype)

    def _settle(self, scores: Any, shift: Any, parts: IntArray) -> tuple[Any, Any, Any]:
        """Return the loss (M,) at its minimum over the intercepts, these (M, K), and its gradient by them.

        Newton's method, each member with a step of its own, halved while it goes too far. At the minimum that gradient
        is 0; where the steps do not end there it is not, and nothing is proven.
        """
        xp = self.xp
        total, slope, curvature = self._summed(scores, shift, parts)
        least = self.array(NO_LOSS * self.objective.total[parts // (self.objective.n_parts // self.objective.n_rounds)])
        step, last = self.array(np.ones(len(parts))), self.array(np.full(len(parts), np.inf))
        best = (total, shift, slope, curvature)
        for _ in range(INTERCEPT_STEPS):
            total, shift, slope, curvature = best
            direction = self._direction(curvature, slope)
            promised = -xp.sum(direction * slope, axis=1)
            ended = (promised <= ROUNDED * total) & (promised > last / 4.0)
            going, last = (promised > INTERCEPT_DIGITS * total) & (total > least) & ~ended, promised
            if not bool(xp.any(going)):
                break
            moved = shift + (xp.where(going, step, xp.zeros_like(step)))[:, None] * direction
            found = self._summed(scores, moved, parts)
            good = (xp.sum(direction * found[1], axis=1) <= CURVING * promised) | ~going
            fresh = (found[0], moved, *found[1:])
            best = tuple(
                xp.where(xp.reshape(good, (-1, *[1] * (new.ndim - 1))), new, old)
                for new, old in zip(fresh, best, strict=True)
            )
            step = xp.where(good, xp.ones_like(step), 0.5 * step)
        total, shift, slope, _ = best
        settled = (last <= ROUNDED * total) | (total <= least)
        return total, shift, xp.where(settled[:, None], xp.zeros_like(slope), slope)

    def _summed(self, scores: Any, shift: Any, parts: IntArray) -> tuple[Any, Any, Any]:
        """Return the loss (M,), its gradient (M, K) and second derivative (M, K, K) by the intercepts."""
        xp, (n_members, width, n) = self.xp, scores.shape
        zeros = [self.array(np.zeros(shape)) for shape in ((n_members,), (n_members, width), (n_members, width, width))]
        total, slope, curvature = zeros
        n_rows = rows_within(BLOCK_BYTES, TEMPORARIES * width * n_members, 8)
        for start in range(0, n, n_rows):
            places = slice(start, min(start + n_rows, n))
            loss, by_score, weights = self._evaluate(scores, shift, places, parts)
            total += xp.sum(loss * weights, axis=1)
            slope += xp.sum(by_score * weights[:, None, :], axis=2)
            curvature += self.objective.loss.by_intercepts(by_score, self.objective.codes[places], weights)
        return total, slope, curvature

    def _direction(self, curvature: Any, slope: Any) -> Any:
        """Return -H^-1 g (M, K), H (M, K, K) scaled to a diagonal of ones; it sums to zero where only that counts."""
        second, right = to_numpy(curvature), to_numpy(slope)
        root = np.sqrt(np.maximum(np.einsum("mkk->mk", second), np.finfo(np.float64).tiny))
        found = np.zeros_like(right)
        for own, one, matrix, out in zip(right, root, second, found, strict=True):
            scaled = matrix / np.outer(one, one)
            if self.objective.loss.joint:  # all intercepts may rise together
                scaled += np.outer(one, one) / (one @ one)
            step = -np.linalg.lstsq(scaled, own / one, rcond=None)[0] / one
            out[:] = step / max(float(np.abs(step).max()) / LONGEST, 1.0)
        return self.array(found)
