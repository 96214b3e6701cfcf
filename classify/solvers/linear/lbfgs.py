"""L-BFGS for many members at once: one pass over the rows gives every member its next step.

Each member has its own memory, step length and stopping; a member that has converged leaves the batch, so that later
passes are cheaper. A step that does not lower the objective enough is shortened for that member alone, while the others
go on (Liu and Nocedal 1989; Nocedal and Wright 2006, algorithm 7.4 and equation 3.57, with a preconditioner as H_0).

A member has arrived when its slope, sqrt(g^T H g / F), is at most `tol`, H being what the memory and the
preconditioner know of the inverse of the second derivative, and the gap to the minimum that its gradient proves at most
`gap`, see `exact`. The slope alone proves nothing: where H is far too small so is the slope.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.arrays.member_rows import inner_products
from featurecache.classify.solvers.linear.certificate import ExactObjective
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.preconditioning import Curvature

Solve = Callable[[Any], Any]
# Pairs of steps and gradient changes that are kept.
MEMORY = 10
# A step must lower the objective by this part of what its slope promises.
SUFFICIENT = 1e-4
# The objective of a member is not known better than to this many units of rounding.
NOISE = 8.0
# A member whose slope has not fallen for so many passes is at the limit of its precision.
PATIENCE = 40
# Rounding can end a descent a little above `tol`; up to this factor the optimum is still the optimum.
SLACK = 3.0
# One that is flat enough has so many passes to prove its gap, or as many as the caller says, or half as many as it took
# to become flat. In float64 it ends where, at the speed of so many steps and later, it would take too many.
PROVING, LOOKED = 10, 6


@dataclass
class Found:
    """Where the descent of M members ended: theta (M, K, D + 1), objective, slope, gap, passes and converged (M,).

    gap: how far the objective is at most above its minimum, as a part of that.
    """

    theta: Any
    objective: FloatArray
    slope: FloatArray
    gap: FloatArray
    n_passes: IntArray
    converged: BoolArray

    def part(self, place: int, n_parts: int) -> "Found":
        """Return the members of one of so many equal parts."""
        size = len(self.slope) // n_parts
        here = slice(place * size, (place + 1) * size)
        numbers = (self.theta[here], self.objective[here], self.slope[here], self.gap[here])
        return Found(*numbers, self.n_passes[here], self.converged[here])

    def among(self, places: IntArray) -> "Found":
        """Return the members at some places."""
        numbers = (self.theta[places], self.objective[places], self.slope[places], self.gap[places])
        return Found(*numbers, self.n_passes[places], self.converged[places])

    def replace(self, index: IntArray, other: "Found", places: Any) -> None:
        """Put the further descent of some members, at `index` (or as an array of theta's kind, `places`), in place."""
        self.theta[places] = other.theta
        self.objective[index], self.slope[index], self.gap[index] = other.objective, other.slope, other.gap
        self.converged[index] = other.converged
        self.n_passes[index] += other.n_passes


@dataclass
class _DescentBatch:
    """The members still under way: `index` in the result, point, objective, gradient, direction, step, memory.

    best, waited: the smallest slope so far, and passes since. proving: passes since it was flat first;
    first: its gap there. least: what no value of the objective is below, as far as proven.
    """

    index: IntArray
    theta: Any
    value: FloatArray
    gradient: Any
    direction: Any
    step: FloatArray
    best: FloatArray
    waited: IntArray
    proving: IntArray
    first: FloatArray
    least: FloatArray
    pairs: list[tuple[Any, Any, FloatArray]]

    def keep(self, going: BoolArray, xp: Any, array: Any) -> None:
        """Drop the members that are not going, bool (M,)."""
        chosen = array(np.flatnonzero(going), xp.int64)
        self.index, self.value, self.step = self.index[going], self.value[going], self.step[going]
        self.best, self.waited = self.best[going], self.waited[going]
        self.proving, self.first, self.least = self.proving[going], self.first[going], self.least[going]
        self.theta, self.gradient, self.direction = (a[chosen] for a in (self.theta, self.gradient, self.direction))
        self.pairs = [(s[chosen], y[chosen], rho[going]) for s, y, rho in self.pairs]

    def closest(self, gap: FloatArray) -> FloatArray:
        """Return the gap (M,) to what is proven so far, here or at a point before; gap: what is proven here."""
        self.least = np.maximum(self.least, self.value / (1.0 + gap))
        above = np.full_like(gap, np.inf)
        with np.errstate(over="ignore"):
            np.divide(self.value - self.least, self.least, out=above, where=self.least > 0)
        return np.minimum(gap, np.maximum(above, 0.0))

    def judge(self, slope: FloatArray, gap: FloatArray, *, tol: float, enough: float) -> tuple[BoolArray, BoolArray]:
        """Return which members (M,) have converged, and which stop here, converged or at their limit of precision."""
        self.waited = np.where(slope < self.best, 0, self.waited + 1)
        self.best = np.minimum(self.best, slope)
        flat, proven, stuck = slope <= tol, gap <= enough, self.waited >= PATIENCE
        self.first = np.where(self.proving == 0, gap, self.first)
        self.proving += flat | (self.proving > 0)
        arrived = proven & (flat | (stuck & (slope <= SLACK * tol)))
        return arrived, arrived | stuck

    def too_slow(self, gap: FloatArray, enough: float, most: int) -> BoolArray:
        """Return which members (M,) will not prove their gap within so many passes at the speed so far."""
        steps, first, gap = self.proving - 1, np.minimum(self.first, 1.0), np.minimum(gap, 1.0)  # infinite at times
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = steps * np.log(first / enough) / np.log(first / gap)
        return np.asarray((steps >= LOOKED) & ~(needed < most))


def descend(
    objective: Objective | ExactObjective,
    start: Any,
    strengths: FloatArray,
    parts: IntArray,
    curvature: Curvature,
    *,
    tol: float,
    max_passes: int,
    gap: float = np.inf,
    most: int = PROVING,
    far: float = np.inf,
) -> Found:
    """Minimise for members with strengths (M,) and parts (M,), from start (M, K, D + 1).

    tol, gap: what ends it, the slope and the gap that is proven; most: passes for that once the slope is, or more; far:
    a gap above which they are not spent. An `ExactObjective` proves it, by this point or by one before; an `Objective`
    in float32, with intercepts on their way, tells about what it is.
    """
    xp, array = objective.xp, objective.array
    is_exact = isinstance(objective, ExactObjective)
    noise = NOISE * float(xp.finfo(objective.dtype).eps)
    batch, found = _start_batch(objective, start, strengths, parts)
    fresh = np.ones(len(strengths), dtype=bool)
    for n_passes in range(1, max_passes + 1):
        solve = partial(curvature.solve, strengths=strengths[batch.index], parts=parts[batch.index])
        promised = _new_directions(batch, fresh, solve, xp, array)
        slope, proven = _preconditioned_slope(-promised, batch.value), objective.gap(batch.value, batch.gradient)
        proven = batch.closest(proven) if is_exact else proven
        arrived, leaving = batch.judge(slope, proven, tol=tol, enough=gap)
        leaving |= (n_passes == max_passes) | (batch.proving >= np.maximum(most, (n_passes - batch.proving) // 2))
        leaving |= proven > far
        if is_exact:
            leaving |= batch.too_slow(proven, gap, most)
        if leaving.any():
            places = batch.index[leaving]
            found.theta[array(places, xp.int64)] = batch.theta[array(np.flatnonzero(leaving), xp.int64)]
            found.objective[places], found.slope[places] = batch.value[leaving], slope[leaving]
            found.gap[places], found.n_passes[places] = proven[leaving], n_passes
            found.converged[places] = arrived[leaving]
            if leaving.all():
                break
            batch.keep(~leaving, xp, array)
            promised = promised[~leaving]
        trial = batch.theta + array(batch.step)[:, None, None] * batch.direction
        value, gradient = objective(trial, strengths[batch.index], parts[batch.index])
        fresh = value <= batch.value + SUFFICIENT * batch.step * promised + noise * np.abs(batch.value)
        _move_members(batch, fresh, trial, value, gradient, promised, xp, array)
    return found


def _start_batch(
    objective: Objective | ExactObjective, start: Any, strengths: FloatArray, parts: IntArray
) -> tuple[_DescentBatch, Found]:
    """Return the members (M,) at their start, and room for where they end."""
    xp, n = objective.xp, len(strengths)
    start = xp.asarray(start, copy=True)
    value, gradient = objective(start, strengths, parts)
    counts = (np.zeros(n), np.full(n, np.inf), np.zeros(n, int), np.zeros(n, int), np.zeros(n), np.zeros(n))
    batch = _DescentBatch(np.arange(n), start, value, gradient, xp.zeros_like(start), *counts, [])
    numbers = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, int), np.zeros(n, bool)
    return batch, Found(xp.zeros_like(start), *numbers)


def _preconditioned_slope(squared: FloatArray, value: FloatArray) -> FloatArray:
    """Return sqrt(g^T H g / F); infinite where rounding has left H indefinite."""
    usable = np.isfinite(squared) & (squared >= 0)
    return np.where(usable, np.sqrt(np.where(usable, squared, 0.0) / np.maximum(value, np.finfo(float).tiny)), np.inf)


def _new_directions(batch: _DescentBatch, fresh: BoolArray, solve: Solve, xp: Any, array: Any) -> FloatArray:
    """Give members that have just moved a new direction, step 1; return the slope along the direction of all (M,)."""
    direction = _two_loops(batch, solve, xp, array)
    downhill = inner_products(batch.gradient, direction, xp)
    if (downhill >= 0).any():  # rounding has spoilt the memory
        plain = -solve(batch.gradient)
        direction = xp.where(array(downhill >= 0, xp.bool)[:, None, None], plain, direction)
    batch.direction = xp.where(array(fresh, xp.bool)[:, None, None], direction, batch.direction)
    batch.step = np.where(fresh, 1.0, batch.step)
    return inner_products(batch.gradient, batch.direction, xp)


def _two_loops(batch: _DescentBatch, solve: Solve, xp: Any, array: Any) -> Any:
    """Return -H g, H from the pairs in memory (Nocedal and Wright 2006, algorithm 7.4)."""
    q, kept = xp.asarray(batch.gradient, copy=True), []
    for s, y, rho in reversed(batch.pairs):
        alpha = rho * inner_products(s, q, xp)
        kept.append(alpha)
        q -= array(alpha)[:, None, None] * y
    q = solve(q)
    for (s, y, rho), alpha in zip(batch.pairs, reversed(kept), strict=True):
        q += array(alpha - rho * inner_products(y, q, xp))[:, None, None] * s
    return -q


def _move_members(
    batch: _DescentBatch,
    moved: BoolArray,
    trial: Any,
    value: FloatArray,
    gradient: Any,
    promised: FloatArray,
    xp: Any,
    array: Any,
) -> None:
    """Move the members whose step was good enough, and shorten the steps of the others by a parabola's minimum."""
    here = array(moved, xp.bool)[:, None, None]
    nothing = xp.zeros_like(trial)
    s, y = xp.where(here, trial - batch.theta, nothing), xp.where(here, gradient - batch.gradient, nothing)
    along = inner_products(s, y, xp)
    usable = along > np.finfo(np.float64).tiny
    batch.pairs = [*batch.pairs, (s, y, np.where(usable, 1.0 / np.where(usable, along, 1.0), 0.0))][-MEMORY:]
    with np.errstate(invalid="ignore", over="ignore"):
        rise = 2.0 * (value - batch.value - batch.step * promised)
        parabola = -promised * batch.step**2 / np.where(rise > 0, rise, np.inf)
    batch.step = np.where(moved, batch.step, np.clip(parabola, 0.1 * batch.step, 0.5 * batch.step))
    batch.theta = xp.where(here, trial, batch.theta)
    batch.gradient = xp.where(here, gradient, batch.gradient)
    batch.value = np.where(moved, value, batch.value)
