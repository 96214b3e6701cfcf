"""The regularisation path of a loss that couples the classes: all strengths in all rounds, solved together.

The strengths are climbed on a ladder, weakly fitted (small C) to strongly fitted:

1.  Strengths that leave the penalty in charge (C h n <= EASY) start at zero and are one batch, preconditioned by the
    eigendecomposition of the covariance.
2.  From there up the rungs are at most a decade apart, see `rungs`; one that was not asked for is solved roughly. A
    rung starts on the line through the last two, in log C. The first ones (C h n <= GENTLE) go on with the
    eigendecomposition and the h of that point.
3.  Above, the curvature of every class is measured at that point (`BlockCurvature`), by each round for itself: rows
    that one round holds out decide in another. Shared by five folds it took six times the passes. So rounds climb one
    after the other: the curvature of one is kept from rung to rung, and those of all would not fit. Above a rung on
    whose path it had to be measured again they are half a decade apart: 48,000 x 1280 took 116 s instead of 138, and
    what was proven reached C = 100 instead of 3.
4.  The strengths between two rungs start on the parabola through the last three rungs, in log C, and are one batch with
    the same curvature. They are a few passes away: where the loss is nearly gone, W grows like log C.
5.  How far they are above the minimum is proven for a rung and those below it together, see `exact`.

Separable data at C = 1e5, where a descent from zero takes hundreds of passes, are ten passes from C = 1e4. A batch is
cut into pieces where its memory would pass the budget.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import to_numpy
from featurecache.classify.solvers.linear.certificate import ExactObjective
from featurecache.classify.solvers.linear.lbfgs import MEMORY, PROVING, Found, descend
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.optimum import ROOM, Optimum, Room
from featurecache.classify.solvers.linear.preconditioning import (
    BlockCurvature,
    Curvature,
    RoundedCurvature,
    SpectralCurvature,
    blocks_fit,
)
from featurecache.classify.solvers.linear.rungs import NEAR_RUNG, RUNG, next_rung

# Up to this C h n, h the second derivative of the loss before anything is learned, the eigendecomposition is all the
# curvature needed: with 5 the largest such C of 10 classes of 2048 columns took 80 passes, with 0.3 it takes 20.
EASY = 0.3
# Up to this one it serves with an h that was measured, and above it where blocks have no room. 10,000 x 1280, ten
# classes, took 14.0 s with 5, 16.3 s with 0.3.
GENTLE = 5.0
# Passes after which the curvature of what has not converged is measured again.
REFRESH = 25
# A rung that was reached in so few passes lends its curvature to the next: new curvature costs as much as these.
QUICK = 8
# Slope that is enough at a strength that was not asked for. With 0.03 one C = 0.01 on 60,000 x 1280 took 70 passes,
# with the optimum on the way 98; C = 10 on 20,000 took 176 instead of 236, but with 0.1 it took 246.
PASSING = 0.03
# A gap so many times larger than what is to be proven is not made smaller in float64, where a pass takes several times
# as long: on 48,000 x 1280 none of the 16 strengths from C = 18 to 1e5 was proven so, and up to C = 2e3 float64 took 74
# of 163 s.
FAR = 30.0
# Gap that is to be proven, as a part of tol^2: 1e-4 for a slope of 4e-3.
PROVEN = 6.25
# No gap smaller than this is asked for: float64 has no more digits.
DIGITS = 1e-14
# A descent in float32 ends at this part of it, as its own gradient, with intercepts on their way, has it.
AHEAD = 0.8
# What L-BFGS may keep in memory, in bytes.
BATCH_BYTES = 128 * 2**20
# Arrays as large as the parameters that a descent holds besides its pairs.
BESIDES = 10


def solve_path(
    objective: Objective, strengths: Sequence[float], *, tol: float, max_passes: int, room: Room = ROOM
) -> Iterator[Optimum]:
    """Yield the optimum for every strength in every round, of a joint loss.

    Above the easy strengths one round comes after the other, where the curvature of classes has room.
    """
    wanted = np.array(strengths, dtype=np.float64)
    for strength, rounds, found in _ladder(objective, np.unique(wanted).tolist(), tol, max_passes, room):
        for setting in np.flatnonzero(wanted == strength):
            for place, number in enumerate(rounds):
                part = found.part(place, len(rounds))
                yield _optimum(int(setting), number, strength, part, proven_by(tol))


def _ladder(
    objective: Objective, strengths: list[float], tol: float, max_passes: int, room: Room
) -> Iterator[tuple[float, range, Found]]:
    """Yield strength, rounds and their optima for ascending strengths, and for rungs besides."""
    spectral = SpectralCurvature(objective, room)
    together = _Climb(objective, range(objective.n_rounds), spectral, False, strengths, tol, max_passes)
    unlearned = objective.loss.curvature * float(objective.total.max())
    low = [c for c in strengths if c <= EASY / unlearned] or [min(EASY / unlearned, strengths[0])]
    for strength, found in together.start(low):
        yield strength, together.rounds, found
    yield from together.climb(GENTLE / unlearned if blocks_fit(objective, room) else np.inf)
    for each in together.apart():
        yield from each.climb(np.inf)


def _optimum(setting: int, number: int, strength: float, found: Found, enough: float) -> Optimum:
    """Return the optimum in one round, a single member, at one strength."""
    theta = to_numpy(found.theta[0, :, :]).astype(np.float64)
    n_passes, slope, gap = int(found.n_passes[0]), float(found.slope[0]), float(found.gap[0])
    note = "" if found.converged[0] else not_converged(strength, f"{n_passes} passes", gap, enough)
    return Optimum(setting, number, theta[:, :-1], theta[:, -1], n_passes, slope, gap, note)


def proven_by(tol: float) -> float:
    """Return the gap to the minimum that is to be proven where the slope is to be `tol`."""
    return max(PROVEN * tol**2, DIGITS)


def passes_of_proof(spent: int) -> int:
    """Return how many passes in float64 may follow so many passes, or steps, in float32."""
    return max(spent, PROVING)


def joint_gap(objective: FloatArray, gap: FloatArray) -> float:
    """Return the gap of a sum of objectives (P,), each at most that part above its minimum."""
    least = objective / (1.0 + gap)
    return float((objective - least).sum() / least.sum()) if np.isfinite(gap).all() else float("inf")


def not_converged(strength: float, spent: str, gap: float, enough: float) -> str:
    """Return the note on a strength whose optimum is not proven to be near enough."""
    relative = f"at most {gap:.1e}" if np.isfinite(gap) else "unknown"
    return f"C={strength:g}: not converged after {spent}: relative gap to the minimum {relative}, allowed {enough:.0e}."


class _Climb:
    """Some rounds of an objective on the ladder; a rung is a strength and theta (R, C, D + 1), their optima."""

    def __init__(
        self,
        objective: Objective,
        rounds: range,
        spectral: SpectralCurvature,
        blocked: bool,
        wanted: Sequence[float],
        tol: float,
        max_passes: int,
    ) -> None:
        self.objective, self.rounds, self.spectral = objective, rounds, spectral
        self.wanted, self.tol, self.max_passes = wanted, tol, max_passes
        self.parts = np.arange(rounds.start, rounds.stop)
        self.blocked = blocked
        self.rungs: list[tuple[float, Any]] = []
        self.curvature: Curvature = spectral
        self.stale, self.reach = True, RUNG

    def start(self, strengths: list[float]) -> list[tuple[float, Found]]:
        """Descend from zero for the low strengths."""
        rows = self.objective.rows
        shape = (len(strengths) * len(self.parts), self.objective.width, rows.shape[1] + 1)
        founds = self._descend(strengths, rows.xp.zeros(shape, dtype=rows.dtype, device=rows.device))
        self.rungs = [(strength, found.theta) for strength, found in list(zip(strengths, founds, strict=True))[-2:]]
        return list(zip(strengths, self._prove(strengths, founds), strict=True))

    def apart(self) -> Iterator["_Climb"]:
        """Yield one climb a round, from the current rung: each has rows, and so a curvature, of its own."""
        for place, number in enumerate(self.rounds):
            own = _Climb(
                self.objective, range(number, number + 1), self.spectral, True, self.wanted, self.tol, self.max_passes
            )
            own.rungs = [(c, theta[place : place + 1]) for c, theta in self.rungs]
            yield own

    def climb(self, limit: float) -> Iterator[tuple[float, range, Found]]:
        """Yield strength, rounds and their optima, rung by rung up to a limit or the largest strength."""
        while self.rungs[-1][0] < self.wanted[-1]:
            below, above = self.rungs[-1][0], next_rung(self.rungs[-1][0], self.wanted, self.reach)
            if above > limit:
                break
            between = [c for c in self.wanted if below < c < above]
            for strength, found in zip([above, *between], self.step(above, between), strict=True):
                yield strength, self.rounds, found

    def step(self, above: float, between: list[float]) -> list[Found]:
        """Climb to the rung above; return its optimum and those of the strengths between."""
        start = self._predict(above)
        if not self.blocked:
            if len(self.rungs) == 1 or not self.spectral.measured[-1][0]:
                self.spectral.measure(self.rungs[-1][1], self.rungs[-1][0])
            self.spectral.measure(start, above)
        elif self.stale:
            self._measure(start, above)
        (top,) = self._descend([above], start)
        self.rungs = [*self.rungs, (above, top.theta)][-3:]
        if self.blocked and int(top.n_passes.max()) > REFRESH:
            self.reach = NEAR_RUNG
        starts = [self._interpolate(strength) for strength in between]
        found = self._descend(between, self.objective.rows.xp.concat(starts, axis=0)) if between else []
        measured_again = any(int(each.n_passes.max()) > REFRESH for each in found)
        self.stale = measured_again or int(top.n_passes.max()) > QUICK
        return self._prove([above, *between], [top, *found])

    def _predict(self, strength: float) -> Any:
        """Return the line through the last two rungs, in log C; for rounds where that is worse, the last rung."""
        (last, theta), before = self.rungs[-1], self.rungs[-2:-1]
        if not before:
            return theta
        line = theta + (theta - before[0][1]) * float(np.log(strength / last) / np.log(last / before[0][0]))
        xp, array, n = self.objective.rows.xp, self.objective.rows.array, len(self.parts)
        value, _ = self.objective(xp.concat([line, theta], axis=0), np.full(2 * n, strength), np.tile(self.parts, 2))
        return xp.where(array(value[:n] < value[n:], xp.bool)[:, None, None], line, theta)

    def _interpolate(self, strength: float) -> Any:
        """Return the polynomial through the rungs that are kept, in log C (Lagrange)."""
        logs = np.log([each / strength for each, _ in self.rungs])
        terms = [
            theta * float(np.prod([other / (other - own) for j, other in enumerate(logs) if j != i]))
            for i, (own, (_, theta)) in enumerate(zip(logs, self.rungs, strict=True))
        ]
        return sum(terms[1:], terms[0])

    def _measure(self, theta: Any, strength: float) -> None:
        """Take the curvature in blocks at theta (1, C, D + 1), in the only round."""
        if not isinstance(self.curvature, BlockCurvature):
            self.curvature = BlockCurvature(self.objective)
        self.curvature.measure(theta, strength, self.rounds.start)

    def _descend(self, strengths: list[float], start: Any) -> list[Found]:
        """Descend with some strengths in all rounds, in the digits of the rows, as many at a time as memory allows."""
        solved: list[Found] = []
        for places, here in self._batches(len(strengths), start):
            some = strengths[places]
            own, parts = np.repeat(some, len(self.parts)), np.tile(self.parts, len(some))
            wanted = not set(some).isdisjoint(self.wanted)
            tol, enough = (self.tol, AHEAD * proven_by(self.tol)) if wanted else (max(self.tol, PASSING), np.inf)
            found = self._approach(own, parts, start[here], tol, enough)
            solved += [found.part(place, len(some)) for place in range(len(some))]
        return solved

    def _prove(self, strengths: list[float], solved: list[Found]) -> list[Found]:
        """Return how far the asked-for optima are above the minimum, after a descent in float64 where it is too far."""
        exact, solved = ExactObjective(self.objective), list(solved)
        curvature = RoundedCurvature(self.curvature, exact)
        wanted = [place for place, strength in enumerate(strengths) if strength in self.wanted]
        theta: Any = exact.xp.concat([exact.array(solved[place].theta) for place in wanted]) if wanted else None
        enough = proven_by(self.tol)
        for places, here in self._batches(len(wanted), theta):
            some = wanted[places]
            own = np.repeat([strengths[place] for place in some], len(self.parts))
            spent = np.concatenate([solved[place].n_passes for place in some])
            ends = partial(descend, tol=np.inf, gap=enough, most=passes_of_proof(int(spent.max())), far=FAR * enough)
            limit = max(self.max_passes - int(spent.max()), 1)
            found = ends(exact, theta[here], own, np.tile(self.parts, len(some)), curvature, max_passes=limit)
            found.n_passes += spent - 1
            for part, place in enumerate(some):
                solved[place] = found.part(part, len(some))
        return solved

    def _batches(self, n_strengths: int, theta: Any) -> Iterator[tuple[slice, slice]]:
        """Yield as many strengths as the budget allows, and which members of theta (M, K, D + 1) they are."""
        n, at_once = len(self.parts), 1
        if n_strengths:
            itemsize = 8 if theta.dtype == self.objective.xp.float64 else 4
            at_once = max(BATCH_BYTES // ((2 * MEMORY + BESIDES) * theta.shape[1] * theta.shape[2] * itemsize * n), 1)
        for first in range(0, n_strengths, at_once):
            some = slice(first, min(first + at_once, n_strengths))
            yield some, slice(some.start * n, some.stop * n)

    def _approach(self, own: FloatArray, parts: IntArray, start: Any, tol: float, enough: float) -> Found:
        """Descend in the precision of the rows; curvature in blocks is measured again while some need it."""
        array, xp = self.objective.array, self.objective.xp
        limit = min(REFRESH, self.max_passes) if isinstance(self.curvature, BlockCurvature) else self.max_passes
        ends = partial(descend, self.objective, tol=tol, gap=enough, max_passes=limit)
        found = ends(start, own, parts, self.curvature)
        while limit < self.max_passes and found.n_passes.max() < self.max_passes:
            left = np.flatnonzero((found.n_passes % limit == 0) & (found.slope > tol))  # not at their end
            if not len(left):
                break
            theta, steepest = found.theta[array(left, xp.int64)], int(np.argmax(found.slope[left]))
            self._measure(theta[steepest : steepest + 1], float(own[left[steepest]]))
            found.replace(left, ends(theta, own[left], parts[left], self.curvature), array(left, xp.int64))
        return found
