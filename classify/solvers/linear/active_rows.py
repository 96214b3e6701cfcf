"""Second derivatives of the squared hinge loss, one matrix for each member, updated as rows become active or inactive.

H = 2 C sum_{i active} w_i [z_i 1][z_i 1]^T + I
"""

from contextlib import suppress
from typing import Any, Protocol

import numpy as np
from array_api_compat import is_numpy_array
from scipy.linalg import cho_factor, cho_solve, get_blas_funcs, get_lapack_funcs

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.blocks import to_numpy
from featurecache.classify.arrays.member_rows import MemberRows
from featurecache.classify.arrays.memmap import array_stored_like
from featurecache.classify.solvers.linear.point import Point
from featurecache.classify.solvers.linear.preconditioning import JITTER, TOGETHER, add_scatter, factorise

# Where more rows than this part of the columns have gone, a new H costs no more than the old one without them.
GONE = 1 / 8
# Stands for the penalty that the intercept does not have, so that H is never singular.
LEAST = 1e-6


class _InverseHessian(Protocol):
    """The inverse of the second derivative of one member."""

    def solve(self, right: Any) -> Any:
        """Return H^-1 b for b (D + 1,), or for the columns of b (D + 1, B)."""
        ...

    def squared(self, right: Any) -> float:
        """Return b^T H^-1 b for b (D + 1,)."""
        ...


class _CholeskyFactor:
    """H = U^T U, by LAPACK's factor; H^-1 b by BLAS, which takes 1 ms for 1281 columns where LAPACK's own takes 2."""

    def __init__(self, factor: FloatArray) -> None:
        self.factor = factor
        (self.half,), (self.whole,) = get_blas_funcs(("trsv",), (factor,)), get_lapack_funcs(("potrs",), (factor,))

    def solve(self, right: Any) -> Any:
        """Return H^-1 b for b (D + 1,), or for the columns of b (D + 1, B)."""
        if right.ndim > 1:
            return np.asarray(self.whole(self.factor, right, lower=0)[0])
        return self.half(self.factor, self.half(self.factor, right, lower=0, trans=1), lower=0)

    def squared(self, right: Any) -> float:
        """Return b^T H^-1 b = |U^-T b|^2 for b (D + 1,)."""
        half = self.half(self.factor, right, lower=0, trans=1)
        return float(half @ half)


class _InverseMatrix:
    """H^-1 itself, (D + 1, D + 1)."""

    def __init__(self, inverse: Any) -> None:
        self.inverse = inverse

    def solve(self, right: Any) -> Any:
        """Return H^-1 b for b (D + 1,), or for the columns of b (D + 1, B)."""
        return self.inverse @ right

    def squared(self, right: Any) -> float:
        """Return b^T H^-1 b for b (D + 1,)."""
        return float(right @ (self.inverse @ right))


class ActiveMatrices:
    """H of M members with weights (N, M): its sum over active rows, and its last factor."""

    def __init__(self, each: MemberRows, weights: FloatArray, members: IntArray) -> None:
        self.rows, self.xp, self.weights, self.number = each.rows, each.xp, weights, each.number
        self.active = np.zeros(weights.shape, dtype=bool)
        self.sums = self._zeros(len(members), self.rows.shape[1] + 1)
        self.inverse: list[_InverseHessian | None] = [None for _ in members]
        self.strength = np.zeros(len(members))

    def _zeros(self, n_members: int, width: int) -> list[Any]:
        """Return a matrix of zeros for each member, in a file where the rows are in one."""
        rows, shape = self.rows, (n_members, width, width)
        if not is_numpy_array(rows.X):
            return list(self.xp.zeros(shape, dtype=rows.dtype, device=rows.device))
        found = array_stored_like(rows.X, shape, rows.dtype)
        found[...] = 0.0
        return list(np.asarray(found))

    def step(self, at: Point) -> tuple[Any, FloatArray]:
        """Return the steps -H^-1 g (M, D + 1) of the members at a point, and g^T H^-1 g (M,)."""
        slack, gradient, strength, going = at.slack, at.gradient, at.strength, at.going
        self._update_sums(slack, going)
        step, decrement = self._solve_all(gradient, strength, going)
        if not (decrement >= 0).all():  # rounding has accumulated in a sum: recompute it
            spoilt = going[~(decrement >= 0)]
            self.active[:, spoilt] = False
            for member in spoilt.tolist():
                self.sums[member][...] = 0.0
            self._update_sums(slack, going)
            step, decrement = self._solve_all(gradient, strength, going)
        return step, decrement

    def _solve_all(self, gradient: Any, strength: float, going: IntArray) -> tuple[Any, FloatArray]:
        steps = []
        for right, member in zip(gradient, going.tolist(), strict=True):
            self.inverse[member] = None  # makes room for the next
            inverse = self.inverse[member] = self._invert(strength, member)
            self.strength[member] = strength
            steps.append(self.xp.full_like(right, self.xp.nan) if inverse is None else -inverse.solve(right))
        step = self.xp.stack(steps)
        return step, -np.einsum("md,md->m", to_numpy(gradient).astype(np.float64), to_numpy(step))

    def _invert(self, strength: float, member: int) -> _InverseHessian | None:
        """Return H^-1 of a member; None where rounding has left H indefinite."""
        xp, width = self.xp, self.rows.shape[1] + 1
        places = xp.arange(width, device=self.rows.device)
        for jitter in (JITTER, 100.0 * JITTER):
            matrix = 2.0 * strength * self.sums[member]
            diagonal = np.full(width, 1.0 + jitter * float(xp.max(matrix[places, places])))
            diagonal[-1] += LEAST - 1.0  # the intercept is not penalised
            matrix[places, places] += self.rows.array(diagonal)
            if not is_numpy_array(matrix):
                return _InverseMatrix(xp.linalg.inv(matrix))
            with suppress(np.linalg.LinAlgError):
                return _CholeskyFactor(factorise(matrix, clean=False))
        return None

    def at_least(self, at: Point, enough: FloatArray) -> FloatArray:
        """Return at least g^T H^-1 g (M,), by the last H of each member; infinite for those that have none.

        H grows with C, and with the rows that come in: by the last one, without the rows that have gone since, it is no
        less than the true one. Those rows are counted only where the value would otherwise be `enough` (M,), or less.
        """
        found = np.full(len(at.going), np.inf)
        for place, (member, right) in enumerate(zip(at.going.tolist(), at.gradient, strict=True)):
            inverse = self.inverse[member]
            if inverse is not None:
                found[place] = inverse.squared(right)
                if found[place] <= enough[place]:
                    found[place] += self._gain_without(at.slack, inverse, right, member)
        return found

    def _gain_without(self, slack: FloatArray, inverse: _InverseHessian, right: Any, member: int) -> float:
        """Return what g^T H^-1 g gains, with x = H^-1 g, when a member's H loses the rows no longer active.

            g^T (H - U U^T)^-1 g - g^T H^-1 g = b^T (1 - U^T H^-1 U)^-1 b,     b = U^T x     (Woodbury)

        with a column sqrt(2 C w) [z 1] of U for each. Infinite where they are many, or H would be singular without.
        """
        gone = np.flatnonzero(self.active[:, member] & ~(slack[:, member] > 0))
        if len(gone) > GONE * len(right):
            return float("inf")
        if not len(gone):
            return 0.0
        roots = np.sqrt(2.0 * self.strength[member] * self.weights[gone, member])
        rows = self.rows.edged(gone, int(self.number[member]), roots)
        lost = to_numpy(rows @ inverse.solve(right))
        without = np.eye(len(gone)) - to_numpy(rows @ inverse.solve(rows.T))
        try:
            return float(lost @ cho_solve(cho_factor(without), lost))
        except np.linalg.LinAlgError:
            return float("inf")

    def solve(self, gradient: Any, members: IntArray) -> Any:
        """Return about H^-1 g (M, D + 1) by the last H of some members."""
        solved = self.xp.zeros_like(gradient)
        for out, right, member in zip(solved, gradient, members.tolist(), strict=True):
            inverse = self.inverse[member]
            out[...] = right if inverse is None else inverse.solve(right)
        return solved

    def _update_sums(self, slack: FloatArray, going: IntArray) -> None:
        """Update the sums over active rows by the rows that changed, or recompute them where that is less work."""
        active = (slack > 0) & (self.weights > 0)
        # At the start every row is active: one sum a round will do.
        if not self.active[:, going].any() and _all_weighted_are_active(active[:, going], self.weights[:, going]):
            firsts = {int(number): int(going[self.number[going] == number][0]) for number in self.number[going]}
            for first in firsts.values():
                self._set_active(first, active[:, first])
            for member in going.tolist():
                self.sums[member][...] = self.sums[firsts[int(self.number[member])]]
        else:
            for member in going.tolist():
                self._set_active(member, active[:, member])
        self.active[:, going] = active[:, going]

    def _set_active(self, member: int, now: BoolArray) -> None:
        """Update a member's sum to the rows that are active now, bool (N,)."""
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


def _all_weighted_are_active(active: BoolArray, weights: FloatArray) -> bool:
    """Say whether every row (N, M) that has a weight is active."""
    return bool((active == (weights > 0)).all())
