"""Newton steps for the squared hinge loss by conjugate gradients, where its matrices do not fit in memory.

    H v = 2 C Z_a^T W_a Z_a v + v,        Z_a the active rows

costs one pass over the rows for all members, and conjugate gradients with the spectral curvature as preconditioner,
each class with the weight of its own active rows, solve with it in a few dozen (Keerthi and DeCoste 2005, section 4.2;
Nocedal and Wright 2006, algorithm 5.3).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.member_rows import MemberRows, inner_products
from featurecache.classify.solvers.linear.point import Point
from featurecache.classify.solvers.linear.preconditioning import SpectralCurvature

# Conjugate gradients end where the residual, as the preconditioner measures it, has fallen to this part ...
FORCING = 0.1
# ... or after so many products.
MOST_PRODUCTS = 200
# Stands for the penalty that the intercept does not have, so that H is never singular.
LEAST = 1e-6


class ActiveProducts:
    """H of M members with weights (N, M), by products with it; members (M,): their parts in the spectral curvature."""

    def __init__(self, spectral: SpectralCurvature, each: MemberRows, weights: FloatArray, members: IntArray) -> None:
        self.spectral, self.each, self.weights, self.members = spectral, each, weights, members
        self.factors, self.strength = np.zeros_like(weights), 1.0

    def step(self, at: Point) -> tuple[Any, FloatArray]:
        """Return the steps -H^-1 g (M, D + 1) of the members at a point, and g^T H^-1 g (M,)."""
        self.take_factors(at)
        solved = self.solve(at.gradient, at.going)
        return -solved, inner_products(at.gradient, solved, self.each.xp)

    def take_factors(self, at: Point) -> None:
        """Take the rows that are active at a point as those of H."""
        self.factors[:, at.going] = 2.0 * at.strength * self.weights[:, at.going] * (at.slack[:, at.going] > 0)
        self.strength = at.strength

    def at_least(self, at: Point, enough: FloatArray) -> FloatArray:
        """Return infinity (M,): no factor is kept that would bound g^T H^-1 g for less than the cost of a solution."""
        return np.full(len(at.going), np.inf)

    def solve(self, gradient: Any, members: IntArray) -> Any:
        """Return about H^-1 g (M, D + 1) with the rows that were active for some members at their last step."""
        strengths, parts = self._measured(members)

        def product(vectors: Any, places: IntArray) -> Any:
            among = members[places]
            found = self.each.summed(self.each.scores(vectors, among) * self.factors[:, among], among)
            found[:, :-1] += vectors[:, :-1]
            found[:, -1] += LEAST * vectors[:, -1]
            return found

        def precondition(vectors: Any, places: IntArray) -> Any:
            return self.spectral.solve(vectors[:, None, :], strengths[places], parts[places])[:, 0, :]

        return conjugate_gradients(product, precondition, gradient, self.each.xp, self.each.rows.array)

    def precondition(self, gradient: Any, members: IntArray) -> Any:
        """Return H^-1 g (M, D + 1) as the spectrum of all rows has it, with the weight of those that are active."""
        strengths, parts = self._measured(members)
        return self.spectral.solve(gradient[:, None, :], strengths, parts)[:, 0, :]

    def _measured(self, members: IntArray) -> tuple[FloatArray, IntArray]:
        """Let the spectral curvature have the weight of the active rows; return strengths and parts of members (M,)."""
        total = self.factors.sum(axis=0, dtype=np.float64)[members, None] / self.strength
        strengths, parts = np.full(len(members), self.strength), self.members[members]
        curvature = np.zeros((self.spectral.objective.n_parts, 1))
        curvature[parts] = total
        self.spectral.measured = [(self.strength, curvature)]
        return strengths, parts


def conjugate_gradients(
    product: Callable[[Any, IntArray], Any],
    precondition: Callable[[Any, IntArray], Any],
    right: Any,
    xp: Any,
    array: Any,
) -> Any:
    """Return about H^-1 b (M, D) for right sides b (M, D) of members with matrices of their own, side by side.

    product(v, places), precondition(v, places): H v and about H^-1 v (m, D) of the members at `places` (m,). A member
    whose residual is small enough leaves.
    """
    solved, places = xp.zeros_like(right), np.arange(len(right))
    residual = right
    direction = precondition(residual, places)
    energy = inner_products(residual, direction, xp)
    enough = FORCING**2 * energy
    for _ in range(MOST_PRODUCTS):
        going = np.flatnonzero((energy > enough[places]) & (energy > 0))
        if not len(going):
            break
        chosen = array(going, xp.int64)
        places, energy, residual, direction = places[going], energy[going], residual[chosen], direction[chosen]
        moved = product(direction, places)
        curved = inner_products(direction, moved, xp)
        energy = np.where(curved > 0, energy, 0.0)  # a direction so short that its square is 0 leads nowhere
        length = array(energy / np.where(curved > 0, curved, 1.0))[:, None]
        solved[array(places, xp.int64)] += length * direction
        residual = residual - length * moved
        steepest = precondition(residual, places)
        before, energy = energy, np.where(energy > 0, inner_products(residual, steepest, xp), 0.0)
        direction = steepest + array(energy / np.where(before > 0, before, 1.0))[:, None] * direction
    return solved
