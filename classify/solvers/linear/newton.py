"""Newton's method for the linear SVM, whose objective is piecewise quadratic, for every class separately.

    F(w, b) = C sum_i w_i max(0, 1 - t_i (w z_i + b))^2 + |w|^2 / 2,        H = 2 C sum_{i active} w_i [z 1][z 1]^T + I

Rows with a violated margin are active, and H changes only where a row comes in or goes out, so that its sum is kept and
updated by those rows. After a full step the active set is often the right one already; with an exact line search along
the step the method ends in a finite number of steps (Mangasarian 2002; Keerthi and DeCoste 2005, "A modified finite
Newton method for fast solution of large scale linear SVMs"). The strengths are climbed from weak to strong, each
started on the line through the last two optima, in log C; classes and rounds share the passes over the rows. Measured
on 2,500 x 320 features of ten classes, half a decade apart: 1 to 10 steps a strength; L-BFGS needed up to 143 passes.

Where the rows are hardly more than the columns the active ones soon are fewer than these, and so is what is factorised:
see `kernel_steps`.

H in float32 has a jitter on its diagonal, at a large C larger than the penalty, and so the slope comes out too small:
how far an optimum that was asked for is above the minimum is proven in float64, see `exact`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows, to_numpy
from featurecache.classify.arrays.member_rows import MemberRows
from featurecache.classify.solvers.linear.active_rows import ActiveMatrices
from featurecache.classify.solvers.linear.certificate import ExactObjective
from featurecache.classify.solvers.linear.conjugate_gradient import ActiveProducts
from featurecache.classify.solvers.linear.kernel_steps import KernelSteps, KernelStepsMaker, kernel_fits
from featurecache.classify.solvers.linear.lbfgs import Found, descend
from featurecache.classify.solvers.linear.line_search import line_minimum
from featurecache.classify.solvers.linear.losses import SquaredHingeLoss
from featurecache.classify.solvers.linear.objective import NOTHING, Objective
from featurecache.classify.solvers.linear.optimum import ROOM, Optimum, Room
from featurecache.classify.solvers.linear.point import Point
from featurecache.classify.solvers.linear.preconditioning import SpectralCurvature
from featurecache.classify.solvers.linear.regularization_path import (
    PASSING,
    joint_gap,
    not_converged,
    passes_of_proof,
    proven_by,
)
from featurecache.classify.solvers.linear.rungs import rungs_above

# The first rung has this C h n, or less where less was asked for: the penalty is in charge there.
EASY = 5.0
# Scores, and their change along a step, of a batch, in bytes.
SCORES_BYTES = 64 * 2**20
MakeSecond = Callable[[MemberRows, FloatArray, IntArray], ActiveMatrices | ActiveProducts | KernelSteps]


def solve_margins(
    rows: Rows,
    codes: IntArray,
    weights: FloatArray,
    n_classes: int,
    strengths: Sequence[float],
    *,
    tol: float,
    max_steps: int,
    room: Room = ROOM,
) -> Iterator[Optimum]:
    """Yield the optimum of every strength in every round, for class codes (N,) and weights (R, N), as each is found.

    A round is through with a strength when its last class is.
    """
    wanted, n_rounds = np.array(strengths, dtype=np.float64), len(weights)
    easy = EASY / (2.0 * float(weights.sum(axis=1).max()))
    ladder = np.union1d(wanted, rungs_above(min(easy, float(wanted.min())), np.unique(wanted).tolist()))
    n_members = n_rounds * n_classes
    objective = Objective(rows, codes, weights, SquaredHingeLoss(), n_classes)
    exact, (at_once, second) = ExactObjective(objective), _hessian_maker(objective, codes, room)
    found = [_ClassOptima(n_members, rows.shape[1] + 1) for _ in ladder]
    for members in _batches(n_rounds, n_classes, at_once, apart=isinstance(second, KernelStepsMaker)):
        first = int(members[0])
        batch = NewtonBatch(objective, codes, weights, members, second)
        for place, strength in enumerate(ladder):
            enough = tol if strength in wanted else max(tol, PASSING)
            batch.climb(float(strength), tol=enough, max_steps=max_steps)
            if strength not in wanted:
                continue
            found[place].take(members, batch.prove(exact, float(strength), tol=tol, max_passes=max_steps))
            for setting in np.flatnonzero(wanted == strength):
                for number in range(first // n_classes, (int(members[-1]) + 1) // n_classes):
                    yield found[place].optimum(int(setting), number, float(strength), n_classes, tol)


def _batches(n_rounds: int, n_classes: int, at_once: int, *, apart: bool) -> Iterator[IntArray]:
    """Yield the members in batches; apart: each of one round."""
    size = n_classes if apart else n_rounds * n_classes
    for start in range(0, n_rounds * n_classes, size):
        for first in range(start, start + size, at_once):
            yield np.arange(first, min(first + at_once, start + size))


def _hessian_maker(objective: Objective, codes: IntArray, room: Room) -> tuple[int, MakeSecond]:
    """Return how many members fit in memory together, and what makes their H: matrices, or products if those do not."""
    rows, itemsize = objective.rows, 8 if objective.dtype == objective.xp.float64 else 4
    by_scores = max(SCORES_BYTES // (2 * rows.shape[0] * itemsize), 1)
    if kernel_fits(objective, room):
        return by_scores, KernelStepsMaker(objective, codes, room)
    by_matrices = room.matrices_bytes // (2 * (rows.shape[1] + 1) ** 2 * itemsize)
    if by_matrices:
        return min(by_scores, by_matrices), ActiveMatrices
    return by_scores, partial(ActiveProducts, SpectralCurvature(objective, room))


class _ClassOptima:
    """Optima of one strength: theta (R C, D + 1), objective, gap, steps and slopes (R C,)."""

    def __init__(self, n_members: int, width: int) -> None:
        self.theta, self.n_steps = np.zeros((n_members, width)), np.zeros(n_members, int)
        self.objective, self.gap, self.slope = (np.zeros(n_members) for _ in range(3))

    def take(self, members: IntArray, found: Found) -> None:
        """Keep what was found for some members."""
        self.theta[members] = to_numpy(found.theta)[:, 0, :]
        self.objective[members], self.gap[members] = found.objective, found.gap
        self.n_steps[members], self.slope[members] = found.n_passes, found.slope

    def optimum(self, setting: int, number: int, strength: float, n_classes: int, tol: float) -> Optimum:
        here = slice(number * n_classes, (number + 1) * n_classes)
        n_steps, slope, enough = int(self.n_steps[here].max()), float(self.slope[here].max()), proven_by(tol)
        gap, proven = joint_gap(self.objective[here], self.gap[here]), bool((self.gap[here] <= enough).all())
        note = "" if proven else not_converged(strength, f"{n_steps} steps", gap, enough)
        theta = self.theta[here]
        return Optimum(setting, number, theta[:, :-1], theta[:, -1], n_steps, slope, gap, note)


class NewtonBatch:
    """M classes, each in a round, at the current strength: theta (M, D + 1) and the second derivatives H."""

    def __init__(
        self, objective: Objective, codes: IntArray, weights: FloatArray, members: IntArray, make: MakeSecond
    ) -> None:
        rows, n_classes = objective.rows, objective.n_classes
        number, classes = members // n_classes, members % n_classes
        self.rows, self.xp, self.members, self.each = rows, rows.xp, members, MemberRows(rows, number)
        dtype: Any = np.float64 if rows.dtype == rows.xp.float64 else np.float32
        self.sign = np.where(codes[:, None] == classes, 1.0, -1.0).astype(dtype)
        self.weights = weights[number].T.astype(dtype)
        self.theta = self.xp.zeros((len(members), rows.shape[1] + 1), dtype=rows.dtype, device=rows.device)
        self.second = make(self.each, self.weights, members)
        self.before: list[tuple[float, Any]] = []
        self.n_steps, self.slope = np.zeros(len(members), int), np.zeros(len(members))

    def climb(self, strength: float, *, tol: float, max_steps: int) -> None:
        """Move to the optimum of a strength, and set `n_steps` and `slope` (M,)."""
        slack = self._start(strength)
        self.n_steps[:] = 0
        going = np.arange(len(self.members))
        for _ in range(max_steps + 1):
            value, gradient = self._value_and_gradient(slack, strength, going)
            at = Point(slack, self.theta, strength, going, gradient)
            self.slope[going] = self._newton_slope(self.second.at_least(at, tol**2 * value), value)
            left = np.flatnonzero(~(self.slope[going] <= tol))
            if not len(left):
                break
            going, value = going[left], value[left]
            gradient = gradient[self.rows.array(left, self.xp.int64)]
            step, decrement = self.second.step(replace(at, going=going, gradient=gradient))
            self.slope[going] = self._newton_slope(decrement, value)
            left = np.flatnonzero((self.slope[going] > tol) & (decrement >= 0) & (self.n_steps[going] < max_steps))
            if not len(left):
                break
            going, step = going[left], step[self.rows.array(left, self.xp.int64)]
            self._step_to_line_minimum(slack, step, strength, going)
        self.before = [*self.before, (strength, self.theta)][-2:]
        self.theta = self.xp.asarray(self.theta, copy=True)

    def prove(self, exact: ExactObjective, strength: float, *, tol: float, max_passes: int) -> Found:
        """Return how far the members are above their minimum, after a descent in float64 of those not near enough."""
        strengths, theta = np.full(len(self.members), strength), exact.array(self.theta)[:, None, :]
        most = passes_of_proof(int(self.n_steps.max()))
        ends = partial(descend, tol=np.inf, gap=proven_by(tol), most=most, max_passes=max_passes)
        if isinstance(self.second, KernelSteps):
            found = self._polished(ends, exact, theta, strengths, tol, max_passes)
            self.slope = np.minimum(self.slope, np.sqrt(2.0 * found.gap))  # H is at least 1 where b is at its minimum
            found.slope = np.minimum(found.slope, np.sqrt(2.0 * found.gap))
        else:
            found = ends(exact, theta, strengths, self.members, self)
        found.slope = np.where(found.n_passes > 1, found.slope, self.slope)
        found.n_passes += self.n_steps - 1
        return found

    def _polished(
        self,
        ends: Callable[..., Found],
        exact: ExactObjective,
        theta: Any,
        strengths: FloatArray,
        tol: float,
        most: int,
    ) -> Found:
        """Return how far the members are above their minimum after steps in float64 of those not near enough."""
        assert isinstance(self.second, KernelSteps)
        enough = proven_by(tol)
        found = ends(exact, theta, strengths, self.members, self, max_passes=1)
        for is_step, max_passes in ((True, 1), (False, most)):
            left = np.flatnonzero(found.gap > enough)
            if not len(left):
                break
            start = found.theta[left]
            if is_step:
                start = self.second.polish(start[:, 0, :], float(strengths[0]), left)[:, None, :]
            again = ends(exact, start, strengths[left], self.members[left], self, max_passes=max_passes)
            nearer = np.flatnonzero(again.gap < found.gap[left])
            found.replace(left[nearer], again.among(nearer), left[nearer])
        return found

    def solve(self, gradient: Any, strengths: FloatArray, parts: IntArray) -> Any:
        """Return about H^-1 g for gradients g (M, 1, D + 1) in float64."""
        rounded = self.rows.array(gradient[:, 0, :])
        solved = self.second.solve(rounded, np.searchsorted(self.members, parts))
        return self.xp.astype(solved, gradient.dtype)[:, None, :]

    def _start(self, strength: float) -> FloatArray:
        """Move to the line through the last two optima where that is better; return the slack 1 - t s (N, M)."""
        here = 1.0 - self.sign * self.each.scores(self.theta, np.arange(len(self.members)))
        if len(self.before) < 2:
            return here
        (first, older), (last, newer) = self.before
        line = newer + (newer - older) * float(np.log(strength / last) / np.log(last / first))
        there = 1.0 - self.sign * self.each.scores(line, np.arange(len(self.members)))
        better = self._objective_values(there, line, strength) < self._objective_values(here, self.theta, strength)
        self.theta = self.xp.where(self.rows.array(better, self.xp.bool)[:, None], line, self.theta)
        return np.where(better, there, here)

    def _objective_values(self, slack: FloatArray, theta: Any, strength: float) -> FloatArray:
        loss = np.einsum("nm,nm,nm->m", self.weights, np.maximum(slack, 0.0), np.maximum(slack, 0.0))
        return np.asarray(strength * loss + 0.5 * (to_numpy(theta)[:, :-1].astype(np.float64) ** 2).sum(axis=1))

    def _value_and_gradient(self, slack: FloatArray, strength: float, going: IntArray) -> tuple[FloatArray, Any]:
        """Return the objective (M,) and its gradient (M, D + 1) for the members that are going."""
        by_score = -2.0 * strength * self.sign[:, going] * self.weights[:, going] * np.maximum(slack[:, going], 0.0)
        theta = self.theta[self.rows.array(going, self.xp.int64)]
        gradient = self.each.summed(by_score, going)
        gradient[:, :-1] += theta[:, :-1]
        loss = (0.5 / strength) * np.einsum("nm,nm,nm->m", by_score, -self.sign[:, going], slack[:, going])
        return strength * loss + 0.5 * (to_numpy(theta)[:, :-1].astype(np.float64) ** 2).sum(axis=1), gradient

    @staticmethod
    def _newton_slope(decrement: FloatArray, value: FloatArray) -> FloatArray:
        """Return sqrt(g^T H^-1 g / F) (M,), infinite where rounding has left H indefinite."""
        usable = decrement >= 0
        slope = np.sqrt(np.where(usable, decrement, 0.0) / np.maximum(value, NOTHING))
        return np.where(value <= NOTHING, 0.0, np.where(usable, slope, np.inf))

    def _step_to_line_minimum(self, slack: FloatArray, step: Any, strength: float, going: IntArray) -> None:
        """Move along the steps (M, D + 1) to the minimum of each, in place."""
        change = -self.sign[:, going] * self.each.scores(step, going)
        along, theta = to_numpy(step)[:, :-1].astype(np.float64), to_numpy(self.theta)[going, :-1].astype(np.float64)
        length = line_minimum(
            slack[:, going], change, strength * self.weights[:, going], (along * theta).sum(1), (along**2).sum(1)
        )
        slack[:, going] += change * length.astype(slack.dtype)
        places = self.rows.array(going, self.xp.int64)
        self.theta[places] += self.rows.array(length)[:, None] * step
        self.n_steps[going] += 1
