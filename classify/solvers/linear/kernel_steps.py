"""Newton steps for the squared hinge loss where the rows are hardly more than the columns: by products, or by kernels.

H, of a class with active rows Z_a, is estimated well by the spectrum of all rows while few directions are learned:

    d(C) = sum_j e l_j / (e l_j + 1),        e = 2 C sum_a w,   l_j the eigenvalues of the covariance

(the effective dimension; Zhang 2005, "Learning bounds for kernel regression using effective data dimensionality").
While that is a small part of the active rows, a few passes of conjugate gradients for all classes together are a step.
Beyond, the active rows of a class are fewer than the columns, and its step goes to the least squares solution on them,
which lies in their span (Suykens and Vandewalle 1999, "Least squares support vector machine classifiers"):

    w = Z_a^T a,        (K_aa + diag(1 / (2 C w_i))) a + b 1 = t,        1^T a = 0,        K = Z Z^T

one factor of the size of the active rows; K is computed once for all classes. Nothing in it cancels, so that in float64
a step ends at the minimum to all digits.
"""

from contextlib import suppress
from typing import Any

import numpy as np
from scipy.linalg import get_lapack_funcs

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.member_rows import MemberRows, inner_products
from featurecache.classify.solvers.linear.conjugate_gradient import ActiveProducts
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.optimum import Room
from featurecache.classify.solvers.linear.point import Point
from featurecache.classify.solvers.linear.preconditioning import JITTER, SpectralCurvature, factorise

# Up to this part of the active rows the effective dimension leaves a step to conjugate gradients.
LEARNED = 0.25
# Active rows up to this part of the columns have a factor of their own at any strength: it is less work than a pass.
SMALL = 0.15
# Steps in float64 that end at the minimum; from near it one or two are enough.
POLISHING = 20
# Kernels are for at most so many rows with a weight for each column: with more, the active ones soon are more than the
# columns.
ROWS_PER_COLUMN = 2.5


class Kernel:
    """Z (N, D) of the standardised rows of one round, and K = Z Z^T (U, U) of those with a weight in some round.

    Both are float64, and K for most steps float32. place (N,): of each row in K, -1 for those without a weight.
    """

    def __init__(self, each: MemberRows, number: int) -> None:
        rows = each.rows
        scaling = rows.scalings[number]
        self.number = number
        self.Z = scaling.apply(np.asarray(rows.X, dtype=np.float64))
        self.place = np.full(rows.shape[0], -1)
        self.place[rows.used] = np.arange(len(rows.used))
        used = self.Z[rows.used] if len(rows.used) < len(self.Z) else self.Z
        self.exact = used @ used.T
        self.rounded = self.exact.astype(np.float32)

    def targets(
        self, active: BoolArray, signs: FloatArray, weights: FloatArray, strength: float, *, dtype: Any
    ) -> tuple[FloatArray, FloatArray]:
        """Return the a (N, M), zero for rows that are not active, and b (M,) of members, NaN where that failed."""
        found, intercepts = np.zeros(active.shape), np.zeros(active.shape[1])
        matrix = self.exact if dtype == np.float64 else self.rounded
        for member in range(active.shape[1]):
            places = np.flatnonzero(active[:, member])
            if not len(places):
                continue
            ridge = (1.0 / (2.0 * strength * weights[places, member])).astype(dtype)
            right = np.stack([signs[places, member], np.ones(len(places))], axis=1).astype(dtype)
            own = self.place[places]
            solved = _solve(matrix[own].take(own, axis=1), ridge, right)
            if solved is None:
                found[:, member] = intercepts[member] = np.nan
                continue
            by_signs, by_ones = solved.T.astype(np.float64)
            intercepts[member] = by_signs.sum() / by_ones.sum()
            found[places, member] = by_signs - intercepts[member] * by_ones
        return found, intercepts


def _solve(matrix: FloatArray, ridge: FloatArray, right: FloatArray) -> FloatArray | None:
    """Return (K + diag(ridge))^-1 B (n, 2); None where rounding has left the matrix indefinite."""
    (potrs,) = get_lapack_funcs(("potrs",), (matrix,))
    diagonal = np.einsum("ii->i", matrix)
    diagonal += ridge
    before = diagonal.copy()
    for jitter in (0.0, JITTER):
        with suppress(np.linalg.LinAlgError):
            diagonal[:] = before + jitter * before.max(initial=0.0)
            factor = factorise(matrix if jitter else matrix.copy(), clean=False)
            return np.asarray(potrs(factor, right, lower=0)[0])
    return None


def kernel_fits(objective: Objective, room: Room) -> bool:
    """Return whether the rows with a weight are so few, and in memory, that kernels are less work than matrices."""
    rows = objective.rows
    (n_rows, n_columns), n_used = rows.shape, len(rows.used)
    is_plain = type(rows.X) is np.ndarray and rows.dtype == np.float32
    n_bytes = 12 * n_used**2 + 8 * n_rows * n_columns
    return is_plain and n_used <= ROWS_PER_COLUMN * n_columns and n_bytes <= room.matrices_bytes // 2


class KernelStepsMaker:
    """Makes the steps of members of one round; the kernel of the last round is kept."""

    def __init__(self, objective: Objective, codes: IntArray, room: Room) -> None:
        self.spectral, self.codes, self.n_classes = SpectralCurvature(objective, room), codes, objective.n_classes
        self.kernel: Kernel | None = None

    def __call__(self, each: MemberRows, weights: FloatArray, members: IntArray) -> "KernelSteps":
        """Return the steps of members (M,), all of one round, with weights (N, M)."""
        number = int(each.number[0])
        if self.kernel is None or self.kernel.number != number:
            self.kernel = None  # makes room for the next
            self.kernel = Kernel(each, number)
        signs = np.where(self.codes[:, None] == members % self.n_classes, 1.0, -1.0).astype(weights.dtype)
        return KernelSteps(self.spectral, self.kernel, each, weights, signs, members)


class KernelSteps:
    """The steps of M members of one round, with weights (N, M) and signs (N, M)."""

    def __init__(
        self,
        spectral: SpectralCurvature,
        kernel: Kernel,
        each: MemberRows,
        weights: FloatArray,
        signs: FloatArray,
        members: IntArray,
    ) -> None:
        self.products = ActiveProducts(spectral, each, weights, members)
        self.eigenvalues, self.kernel, self.each = spectral.eigenvalues, kernel, each
        self.weights, self.signs = weights, signs
        self.active = np.zeros(weights.shape, dtype=bool)
        self.target = np.zeros((len(members), each.rows.shape[1] + 1))
        self.strength = np.zeros(len(members))

    def step(self, at: Point) -> tuple[Any, FloatArray]:
        """Return the steps (M, D + 1) of the members at a point and their decrements g^T H^-1 g (M,)."""
        slack, gradient, strength, going = at.slack, at.gradient, at.strength, at.going
        active = (slack[:, going] > 0) & (self.weights[:, going] > 0)
        is_easy = self._is_easy(active, strength, going)
        step, decrement = np.empty_like(gradient), np.empty(len(going))
        easy, hard = np.flatnonzero(is_easy), np.flatnonzero(~is_easy)
        if len(easy):
            step[easy], decrement[easy] = self.products.step(at.of(easy))
            self.strength[going[easy]] = 0.0
        if len(hard):
            among = going[hard]
            self.products.take_factors(at.of(hard))
            target = self._targets(active[:, hard], at.theta[among], strength, among)
            self.active[:, among], self.target[among], self.strength[among] = active[:, hard], target, strength
            step[hard] = target - at.theta[among]
            decrement[hard] = -inner_products(gradient[hard], step[hard], self.each.xp)
        return step, decrement

    def _is_easy(self, active: BoolArray, strength: float, going: IntArray) -> BoolArray:
        """Return which members (M,) have learned so few directions, of many rows, that the spectrum of all will do."""
        energy = 2.0 * strength * np.einsum("nm,nm->m", self.weights[:, going], active, dtype=np.float64)[:, None]
        learned = (energy * self.eigenvalues / (energy * self.eigenvalues + 1.0)).sum(axis=1)
        n_active = active.sum(axis=0)
        return np.asarray((learned < LEARNED * n_active) & (n_active > SMALL * self.each.rows.shape[1]))

    def _targets(self, active: BoolArray, theta: FloatArray, strength: float, members: IntArray) -> FloatArray:
        """Return the points (M, D + 1) that whole steps from theta (M, D + 1) lead to; NaN for rounding."""
        found, intercepts = self.kernel.targets(
            active, self.signs[:, members], self.weights[:, members], strength, dtype=np.float32
        )
        intercepts = np.where(active.any(axis=0), intercepts, theta[:, -1])
        return np.concatenate([found.T @ self.kernel.Z, intercepts[:, None]], axis=1)

    def at_least(self, at: Point, enough: FloatArray) -> FloatArray:
        """Return g^T H^-1 g (M,) of members whose active rows are those of their last step, else infinity."""
        slack, gradient, strength, going = at.slack, at.gradient, at.strength, at.going
        active = (slack[:, going] > 0) & (self.weights[:, going] > 0)
        same = (self.strength[going] == strength) & (active == self.active[:, going]).all(axis=0)
        found = np.full(len(going), np.inf)
        here = np.flatnonzero(same)
        left = self.target[going[here]] - at.theta[going[here]]
        found[here] = np.maximum(-np.einsum("md,md->m", gradient[here], left), 0.0)
        return found

    def polish(self, theta: FloatArray, strength: float, members: IntArray) -> FloatArray:
        """Return the points (M, D + 1) that whole steps in float64 lead to from theta (M, D + 1), float64.

        Of the rows of the last step those stay active whose a has the sign of the slack; others that have one come in
        (Hintermueller, Ito and Kunisch 2002, "The primal-dual active set strategy as a semismooth Newton method").
        """
        signs, kept = self.signs[:, members], self.weights[:, members] > 0
        scores = self.kernel.Z @ theta[:, :-1].T + theta[:, -1]
        by_step = self.strength[members] == strength
        active = np.where(by_step, self.active[:, members], signs * scores < 1.0) & kept
        found, left = theta.copy(), np.arange(len(members))
        for _ in range(POLISHING):
            here = members[left]
            duals, intercepts = self.kernel.targets(
                active[:, left], signs[:, left], self.weights[:, here], strength, dtype=np.float64
            )
            weights = duals.T @ self.kernel.Z
            intercepts = np.where(active[:, left].any(axis=0), intercepts, theta[left, -1])
            slack = 1.0 - signs[:, left] * (self.kernel.Z @ weights.T + intercepts)
            now = np.where(active[:, left], signs[:, left] * duals > 0, slack > 0) & kept[:, left]
            sound = np.isfinite(intercepts)
            found[left[sound]] = np.concatenate([weights, intercepts[:, None]], axis=1)[sound]
            moved = sound & (now != active[:, left]).any(axis=0)
            active[:, left] = now
            left = left[moved]
            if not len(left):
                break
        return found

    def solve(self, gradient: Any, members: IntArray) -> Any:
        """Return about H^-1 g (M, D + 1) by the spectrum of all rows, with the curvature of those that are active."""
        return self.products.precondition(gradient, members)
