"""The linear SVM's own descent: Newton's method on a piecewise quadratic, every class by itself.

    F(w, b) = C sum_i w_i max(0, 1 - t_i (w z_i + b))^2 + |w|^2 / 2,        H = 2 C sum_{i active} w_i [z 1][z 1]^T + I

Rows with a violated margin are active, and H changes only where a row comes in or goes out, so that its sum is kept and
updated by those rows. After a full step the active set is often the right one already; with an exact line search along
the step the method ends in a finite number of steps (Mangasarian 2002; Keerthi and DeCoste 2005, "A modified finite
Newton method for fast solution of large scale linear SVMs"). The strengths are climbed from weak to strong, each
started on the line through the last two optima, in log C; classes and rounds share the passes over the rows. Measured
on 2,500 x 320 features of ten classes, half a decade apart: 1 to 10 steps a strength; L-BFGS needed up to 143 passes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array
from scipy.linalg import cho_factor, cho_solve, get_lapack_funcs

from classify.arrays import BoolArray, FloatArray, IntArray
from classify.curvature import JITTER, TOGETHER, add_scatter, factorise
from classify.files import empty_beside
from classify.paths import EASY, PASSING, Optimum, rungs_above
from classify.rows import Rows, rows_within, to_numpy

# All matrices H may take this many bytes; the classes of all rounds are cut into batches accordingly. Five folds of ten
# classes, 10,000 x 1280, took 60 s with room for 25 of them at once, 76 with room for 14 and 54 with room for all.
CURVATURE_BYTES = 336 * 2**20
# Scores, and their change along a step, of a batch, in bytes.
SCORES_BYTES = 64 * 2**20
# A block of rows, in bytes.
BLOCK_BYTES = 16 * 2**20
Solve = Callable[[Any], Any]
# Where more rows than this part of the columns have gone, a new H costs no more than the old one without them.
GONE = 1 / 8
# Stands for the penalty that the intercept does not have, so that H is never singular.
LEAST = 1e-6
# Steps of the line search, itself a Newton method in one dimension kept within a bracket.
LINE_STEPS = 30
# The line search ends where the slope along the step has fallen to this part.
LINE_TOLERANCE = 1e-4


def solve_margins(
    rows: Rows,
    codes: IntArray,
    weights: FloatArray,
    n_classes: int,
    strengths: Sequence[float],
    *,
    tol: float,
    max_steps: int,
) -> Iterator[Optimum]:
    """Yield the optimum of every strength in every round, for class codes (N,) and weights (R, N), as each is found.

    A round is through with a strength when its last class is.
    """
    wanted, n_rounds = np.array(strengths, dtype=np.float64), len(weights)
    easy = EASY / (2.0 * float(weights.sum(axis=1).max()))
    ladder = np.union1d(wanted, rungs_above(min(easy, float(wanted.min())), np.unique(wanted).tolist()))
    n_members = n_rounds * n_classes
    width, itemsize = rows.shape[1] + 1, 8 if rows.dtype == rows.xp.float64 else 4
    at_once = min(CURVATURE_BYTES // (2 * width**2 * itemsize), SCORES_BYTES // (2 * rows.shape[0] * itemsize))
    found = [_Found(np.zeros((n_members, width)), np.zeros(n_members, int), np.zeros(n_members)) for _ in ladder]
    for first in range(0, n_members, max(at_once, 1)):
        members = np.arange(first, min(first + max(at_once, 1), n_members))
        batch = _Batch(rows, codes, weights, members // n_classes, members % n_classes)
        for place, strength in enumerate(ladder):
            enough = tol if strength in wanted else max(tol, PASSING)
            batch.climb(float(strength), tol=enough, max_steps=max_steps)
            found[place].theta[members] = to_numpy(batch.theta)
            found[place].n_steps[members], found[place].slope[members] = batch.n_steps, batch.slope
            for setting in np.flatnonzero(wanted == strength):
                for number in range(first // n_classes, (int(members[-1]) + 1) // n_classes):
                    yield found[place].optimum(int(setting), number, float(strength), n_classes, tol)


def curvature_fits(rows: Rows) -> bool:
    """Say whether a matrix H and its copy are within their budget."""
    itemsize = 8 if rows.dtype == rows.xp.float64 else 4
    return 2 * (rows.shape[1] + 1) ** 2 * itemsize <= CURVATURE_BYTES


class _Found:
    """Optima of one strength: theta (R C, D + 1), steps and slopes (R C,)."""

    def __init__(self, theta: FloatArray, n_steps: IntArray, slope: FloatArray) -> None:
        self.theta, self.n_steps, self.slope = theta, n_steps, slope

    def optimum(self, setting: int, number: int, strength: float, n_classes: int, tol: float) -> Optimum:
        here = slice(number * n_classes, (number + 1) * n_classes)
        n_steps, slope = int(self.n_steps[here].max()), float(self.slope[here].max())
        note = "" if slope <= tol else f"C={strength:g}: stopped after {n_steps} steps, slope {slope:.1e}."
        return Optimum(setting, number, self.theta[here, :-1], self.theta[here, -1], n_steps, slope, note)


class _Batch:
    """M classes, each in a round, on their way up the strengths: theta (M, D + 1), margins' slack (N, M) and its H."""

    def __init__(self, rows: Rows, codes: IntArray, weights: FloatArray, number: IntArray, classes: IntArray) -> None:
        self.rows, self.xp, self.number = rows, rows.xp, number
        n_members, width = len(number), rows.shape[1] + 1
        dtype: Any = np.float64 if rows.dtype == rows.xp.float64 else np.float32
        self.sign = np.where(codes[:, None] == classes, 1.0, -1.0).astype(dtype)
        self.weights = weights[number].T.astype(dtype)
        self.theta = self.xp.zeros((n_members, width), dtype=rows.dtype, device=rows.device)
        self.active = np.zeros((rows.shape[0], n_members), dtype=bool)
        self.sums = self._zeros(n_members, width)
        self.inverse: list[Solve | None] = [None for _ in number]
        self.strength = np.zeros(n_members)
        self.before: list[tuple[float, Any]] = []
        self.n_steps, self.slope = np.zeros(n_members, int), np.zeros(n_members)

    def _zeros(self, n_members: int, width: int) -> list[Any]:
        """Return a matrix of zeros for each member, in a file where the rows are in one."""
        rows, shape = self.rows, (n_members, width, width)
        if not is_numpy_array(rows.X):
            return list(self.xp.zeros(shape, dtype=rows.dtype, device=rows.device))
        found = empty_beside(rows.X, shape, rows.dtype)
        found[...] = 0.0
        return list(np.asarray(found))

    def climb(self, strength: float, *, tol: float, max_steps: int) -> None:
        """Go to the optimum of a strength; `n_steps` and `slope` (M,) say how it ended."""
        slack = self._start(strength)
        self.n_steps[:] = 0
        going = np.arange(len(self.number))
        for _ in range(max_steps + 1):
            value, gradient = self._look(slack, strength, going)
            self.slope[going] = self._slope(self._by_last(slack, gradient, going, tol**2 * value), value)
            left = np.flatnonzero(~(self.slope[going] <= tol))
            if not len(left):
                break
            going, value, gradient = going[left], value[left], gradient[self.rows.array(left, self.xp.int64)]
            step, decrement = self._newton_step(slack, gradient, strength, going)
            self.slope[going] = self._slope(decrement, value)
            left = np.flatnonzero((self.slope[going] > tol) & (decrement >= 0) & (self.n_steps[going] < max_steps))
            if not len(left):
                break
            going, step = going[left], step[self.rows.array(left, self.xp.int64)]
            self._advance(slack, step, strength, going)
        self.before = [*self.before, (strength, self.theta)][-2:]
        self.theta = self.xp.asarray(self.theta, copy=True)

    def _start(self, strength: float) -> FloatArray:
        """Move to the line through the last two optima where that is better; return the slack 1 - t s (N, M)."""
        here = 1.0 - self.sign * self._scores(self.theta, np.arange(len(self.number)))
        if len(self.before) < 2:
            return here
        (first, older), (last, newer) = self.before
        line = newer + (newer - older) * float(np.log(strength / last) / np.log(last / first))
        there = 1.0 - self.sign * self._scores(line, np.arange(len(self.number)))
        better = self._values(there, line, strength) < self._values(here, self.theta, strength)
        self.theta = self.xp.where(self.rows.array(better, self.xp.bool)[:, None], line, self.theta)
        return np.where(better, there, here)

    def _values(self, slack: FloatArray, theta: Any, strength: float) -> FloatArray:
        loss = np.einsum("nm,nm,nm->m", self.weights, np.maximum(slack, 0.0), np.maximum(slack, 0.0))
        return np.asarray(strength * loss + 0.5 * (to_numpy(theta)[:, :-1].astype(np.float64) ** 2).sum(axis=1))

    def _blocks(self, members: IntArray) -> Iterator[tuple[slice, Any, Any]]:
        """Yield blocks of rows, their places, and which of some members train on them."""
        itemsize = 8 if self.rows.dtype == self.xp.float64 else 4
        n_rows = rows_within(BLOCK_BYTES, self.rows.shape[1] + len(members), itemsize)
        for span, trained in self.rows.spans:
            here = np.flatnonzero(trained[self.number[members]])
            training: Any = slice(None) if len(here) == len(members) else here
            if len(here):
                yield from ((places, block, training) for places, block in self.rows.blocks(n_rows, span))

    def _scores(self, theta: Any, members: IntArray) -> FloatArray:
        """Return the scores (N, M) of the rows by theta (M, D + 1) of some members; 0 for rows it does not train on."""
        shift, stretch = self._own(members)
        weights = theta[:, :-1] / stretch
        intercept = theta[:, -1] - self.xp.sum(weights * shift, axis=1)
        scores = np.zeros((self.rows.shape[0], len(members)), dtype=to_numpy(theta).dtype)
        for places, block, here in self._blocks(members):
            scores[places, here] = to_numpy(block @ weights[here].T + intercept[here])
        return scores

    def _own(self, members: IntArray) -> tuple[Any, Any]:
        number = self.rows.array(self.number[members], self.xp.int64)
        return self.rows.shift[number], self.rows.stretch[number]

    def _look(self, slack: FloatArray, strength: float, going: IntArray) -> tuple[FloatArray, Any]:
        """Return the objective (M,) and its gradient (M, D + 1) for the members that are going."""
        shift, stretch = self._own(going)
        by_score = -2.0 * strength * self.sign[:, going] * self.weights[:, going] * np.maximum(slack[:, going], 0.0)
        total = self.xp.zeros((len(going), self.rows.shape[1]), dtype=self.rows.dtype, device=self.rows.device)
        for places, block, here in self._blocks(going):
            total[here] += self.rows.array(by_score[places, here]).T @ block
        by_intercept = self.rows.array(by_score.sum(axis=0, dtype=np.float64))[:, None]
        theta = self.theta[self.rows.array(going, self.xp.int64)]
        gradient = self.xp.concat([(total - by_intercept * shift) / stretch + theta[:, :-1], by_intercept], axis=1)
        loss = (0.5 / strength) * np.einsum("nm,nm,nm->m", by_score, -self.sign[:, going], slack[:, going])
        return strength * loss + 0.5 * (to_numpy(theta)[:, :-1].astype(np.float64) ** 2).sum(axis=1), gradient

    def _update(self, slack: FloatArray, going: IntArray) -> None:
        """Bring the sums over active rows up to date, by the rows that changed, or anew where that is less work."""
        active = (slack > 0) & (self.weights > 0)
        # At the start every row is active: one sum a round will do.
        if not self.active[:, going].any() and _alike(active[:, going], self.weights[:, going]):
            firsts = {int(number): int(going[self.number[going] == number][0]) for number in self.number[going]}
            for first in firsts.values():
                self._change(first, active[:, first])
            for member in going.tolist():
                self.sums[member][...] = self.sums[firsts[int(self.number[member])]]
        else:
            for member in going.tolist():
                self._change(member, active[:, member])
        self.active[:, going] = active[:, going]

    def _change(self, member: int, now: BoolArray) -> None:
        """Make a member's sum one over the rows that are active now (N,)."""
        before = self.active[:, member]
        changed = now != before
        if changed.sum() > now.sum():
            self.sums[member][...], changed, before = 0.0, now, np.zeros_like(before)
        self._add(member, np.flatnonzero(changed & now), 1.0)
        self._add(member, np.flatnonzero(changed & before), -1.0)

    def _add(self, member: int, places: IntArray, sign: float) -> None:
        for start in range(0, len(places), TOGETHER):
            part = places[start : start + TOGETHER]
            edged = self.rows.edged(part, int(self.number[member]), np.sqrt(self.weights[part, member]))
            add_scatter(self.sums[member], edged, sign)

    @staticmethod
    def _slope(decrement: FloatArray, value: FloatArray) -> FloatArray:
        """Return sqrt(g^T H^-1 g / F) (M,), infinite where rounding has left H indefinite."""
        usable = decrement >= 0
        tiny = np.finfo(np.float64).tiny
        return np.where(usable, np.sqrt(np.where(usable, decrement, 0.0) / np.maximum(value, tiny)), np.inf)

    def _by_last(self, slack: FloatArray, gradient: Any, going: IntArray, enough: FloatArray) -> FloatArray:
        """Return at least g^T H^-1 g (M,), by the last H of each member; infinite for those that have none.

        H grows with C, and with the rows that come in: by the last one, without the rows that have gone since, it is no
        less than the true one. Those rows are looked at only where without that it would be `enough` (M,), or less.
        """
        found = np.full(len(going), np.inf)
        for place, (member, right) in enumerate(zip(going.tolist(), gradient, strict=True)):
            solve = self.inverse[member]
            if solve is not None:
                solved = solve(right)
                found[place] = float(right @ solved)
                if found[place] <= enough[place]:
                    found[place] += self._by_gone(slack, solve, solved, member)
        return found

    def _by_gone(self, slack: FloatArray, solve: Solve, solved: Any, member: int) -> float:
        """Return what g^T H^-1 g gains, x = H^-1 g being solved, when a member's H loses the rows no longer active.

            g^T (H - U U^T)^-1 g - g^T H^-1 g = b^T (1 - U^T H^-1 U)^-1 b,     b = U^T x     (Woodbury)

        with a column sqrt(2 C w) [z 1] of U for each. Infinite where they are many, or H would be singular without.
        """
        gone = np.flatnonzero(self.active[:, member] & ~(slack[:, member] > 0))
        if len(gone) > GONE * len(solved):
            return float("inf")
        if not len(gone):
            return 0.0
        roots = np.sqrt(2.0 * self.strength[member] * self.weights[gone, member])
        rows = self.rows.edged(gone, int(self.number[member]), roots)
        lost, without = to_numpy(rows @ solved), np.eye(len(gone)) - to_numpy(rows @ solve(rows.T))
        try:
            return float(lost @ cho_solve(cho_factor(without), lost))
        except np.linalg.LinAlgError:
            return float("inf")

    def _newton_step(
        self, slack: FloatArray, gradient: Any, strength: float, going: IntArray
    ) -> tuple[Any, FloatArray]:
        """Return the step -H^-1 g (M, D + 1) and g^T H^-1 g (M,)."""
        self._update(slack, going)
        step, decrement = self._solve_all(gradient, strength, going)
        if not (decrement >= 0).all():  # additions and subtractions have spoilt a sum: take it anew
            spoilt = going[~(decrement >= 0)]
            self.active[:, spoilt] = False
            for member in spoilt.tolist():
                self.sums[member][...] = 0.0
            self._update(slack, going)
            step, decrement = self._solve_all(gradient, strength, going)
        return step, decrement

    def _solve_all(self, gradient: Any, strength: float, going: IntArray) -> tuple[Any, FloatArray]:
        steps = []
        for right, member in zip(gradient, going.tolist(), strict=True):
            self.inverse[member] = None  # makes room for the next
            solve = self.inverse[member] = self._factorise(strength, member)
            self.strength[member] = strength
            steps.append(self.xp.full_like(right, self.xp.nan) if solve is None else -solve(right))
        step = self.xp.stack(steps)
        return step, -np.einsum("md,md->m", to_numpy(gradient).astype(np.float64), to_numpy(step))

    def _factorise(self, strength: float, member: int) -> Solve | None:
        """Return what takes b to H^-1 b (D + 1,) of a member; None where rounding has left H indefinite."""
        xp, width = self.xp, self.theta.shape[1]
        places = xp.arange(width, device=self.rows.device)
        for jitter in (JITTER, 100.0 * JITTER):
            matrix = 2.0 * strength * self.sums[member]
            diagonal = np.full(width, 1.0 + jitter * float(xp.max(matrix[places, places])))
            diagonal[-1] += LEAST - 1.0  # the intercept is not penalised
            matrix[places, places] += self.rows.array(diagonal)
            if not is_numpy_array(matrix):
                inverse = xp.linalg.inv(matrix)
                return lambda right: inverse @ right
            with suppress(np.linalg.LinAlgError):
                return partial(_solve_by, get_lapack_funcs(("potrs",), (matrix,))[0], factorise(matrix, clean=False))
        return None

    def _advance(self, slack: FloatArray, step: Any, strength: float, going: IntArray) -> None:
        """Go along the steps (M, D + 1) to the minimum of each, in place."""
        change = -self.sign[:, going] * self._scores(step, going)
        along, theta = to_numpy(step)[:, :-1].astype(np.float64), to_numpy(self.theta)[going, :-1].astype(np.float64)
        length = line_minimum(
            slack[:, going], change, strength * self.weights[:, going], (along * theta).sum(1), (along**2).sum(1)
        )
        slack[:, going] += change * length.astype(slack.dtype)
        places = self.rows.array(going, self.xp.int64)
        self.theta[places] += self.rows.array(length)[:, None] * step
        self.n_steps[going] += 1


def _solve_by(solve: Any, factor: FloatArray, right: FloatArray) -> FloatArray:
    """Return H^-1 b (D,) from LAPACK's factor of H."""
    return np.asarray(solve(factor, right, lower=0)[0])


def _alike(active: BoolArray, weights: FloatArray) -> bool:
    """Say whether every row (N, M) that has a weight is active."""
    return bool((active == (weights > 0)).all())


def line_minimum(
    slack: FloatArray, change: FloatArray, weights: FloatArray, linear: FloatArray, square: FloatArray
) -> FloatArray:
    """Return the a >= 0 (M,) that minimises sum_i w_i max(0, slack_i + a change_i)^2 + a linear + a^2 square / 2.

    slack, change, weights (N, M); linear, square (M,). The derivative rises, piecewise linearly: Newton's method on it,
    kept within the bracket of signs already seen.
    """

    def derivative(length: FloatArray) -> tuple[FloatArray, FloatArray]:
        rest = np.maximum(slack + length.astype(slack.dtype) * change, 0.0)
        pull = weights * change
        first = 2.0 * np.einsum("nm,nm->m", pull, rest, dtype=np.float64)
        second = 2.0 * np.einsum("nm,nm,nm->m", pull, change, rest > 0, dtype=np.float64)
        return first + linear + length * square, second + square

    low, high, length = np.zeros(len(linear)), np.full(len(linear), np.inf), np.ones(len(linear))
    start, _ = derivative(low)
    for _ in range(LINE_STEPS):
        slope, rise = derivative(length)
        if (np.abs(slope) <= LINE_TOLERANCE * np.abs(start)).all():
            break
        low, high = np.where(slope < 0, length, low), np.where(slope > 0, length, high)
        newton = length - slope / np.where(rise > 0, rise, 1.0)
        middle = np.where(np.isfinite(high), 0.5 * (low + high), 2.0 * length)
        length = np.where((newton > low) & (newton < high), newton, middle)
    return length
