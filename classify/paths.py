"""All strengths of a linear head whose loss ties the classes together, in all rounds, solved together.

The strengths are climbed on a ladder, weakly fitted (small C) to strongly fitted:

1.  Strengths that leave the penalty in charge (C h n <= EASY) start at zero and are one batch, preconditioned by the
    eigendecomposition of the covariance.
2.  From there up the rungs stand at most a decade apart; one that nobody asked for is solved roughly. A rung starts on
    the line through the last two, in log C. The first ones (C h n <= GENTLE) go on with the eigendecomposition and the
    h of that point.
3.  Above, the curvature of every class is measured at that point (`BlockCurvature`), by each round for itself: rows
    that one round holds out decide in another. Shared by five folds it took six times the passes. So rounds climb one
    after the other: the curvature of one is kept from rung to rung, and those of all would not fit.
4.  The strengths between two rungs start on the parabola through the last three rungs, in log C, and are one batch with
    the same curvature. They are a few passes away: where the loss is nearly gone, W grows like log C.

Separable data at C = 1e5, where a descent from zero takes hundreds of passes, are ten passes from C = 1e4. A batch is
cut into pieces where its memory would pass the budget.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from classify.arrays import FloatArray, IntArray
from classify.curvature import ROOM, BlockCurvature, Curvature, Room, RoundedCurvature, SpectralCurvature, blocks_fit
from classify.exact import ExactObjective
from classify.lbfgs import MEMORY, Found, descend
from classify.objective import Objective
from classify.rows import to_numpy

# Up to this C h n, h the second derivative of the loss before anything is learned, the eigendecomposition is all the
# curvature needed: with 5 the largest such C of 10 classes of 2048 columns took 80 passes, with 0.3 it takes 20.
EASY = 0.3
# Up to this one it serves with an h that was measured, and above it where blocks have no room. 10,000 x 1280, ten
# classes, took 14.0 s with 5, 16.3 s with 0.3.
GENTLE = 5.0
# Passes after which the curvature of what has not converged is measured anew.
REFRESH = 25
# A rung that was reached in so few passes lends its curvature to the next: new curvature costs as much as these.
QUICK = 8
# Distance of two rungs, as a factor of C.
RUNG = 10.0
# Slope that is enough at a strength nobody asked for. With 0.03 one C = 0.01 on 60,000 x 1280 took 70 passes, with the
# optimum on the way 98; C = 10 on 20,000 took 176 instead of 236, but with 0.1 it took 246.
PASSING = 0.03
# Gap that is to be proven, as a part of tol^2: 1e-4 for a slope of 4e-3.
PROVEN = 6.25
# A pass in float64 takes as long as two or three in float32; a proof has at least so many passes.
EXACT_COST, LEAST_PROOF = 2, 10
# No gap smaller than this is asked for: float64 has no more digits.
DIGITS = 1e-14
# A descent in float32 ends at this part of it, as its own gradient, with intercepts on their way, has it.
AHEAD = 0.8
# What L-BFGS may keep in memory, in bytes.
BATCH_BYTES = 128 * 2**20
# Arrays as large as the parameters that a descent holds besides its pairs.
BESIDES = 10


@dataclass(frozen=True)
class Optimum:
    """One strength in one round: weights (C, D) on that round's standardised columns, intercept (C,), how it ended.

    gap: how far the objective is at most above its minimum, as a part of that.
    """

    setting: int
    number: int
    weights: FloatArray
    intercept: FloatArray
    n_passes: int
    slope: float
    gap: float
    note: str


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
    steps = list(itertools.pairwise(rungs_above(low[-1], [c for c in strengths if c > low[-1]])))
    by_blocks = [step for step in steps if step[1] * unlearned > GENTLE] if blocks_fit(objective, room) else []
    climbs = [(together, steps[: len(steps) - len(by_blocks)])]
    for climb, own in itertools.chain(climbs, ((each, by_blocks) for each in together.apart() if by_blocks)):
        for below, above in own:
            between = [c for c in strengths if below < c < above]
            for strength, found in zip([above, *between], climb.step(above, between), strict=True):
                yield strength, climb.rounds, found


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
    """Return how many passes in float64 may follow so many in float32: as long as those took, or ten.

    Without that, 48,000 x 1280 at C = 56 spent 40 s in float64 after 16 s in float32, and was not near enough then.
    """
    return max(spent // EXACT_COST, LEAST_PROOF)


def joint_gap(objective: FloatArray, gap: FloatArray) -> float:
    """Return the gap of a sum of objectives (P,), each at most that part above its minimum."""
    least = objective / (1.0 + gap)
    return float((objective - least).sum() / least.sum()) if np.isfinite(gap).all() else float("inf")


def not_converged(strength: float, spent: str, gap: float, enough: float) -> str:
    """Return the sentence on a strength whose optimum is not proven to be near."""
    far = f"at most {gap:.1e} of it" if np.isfinite(gap) else "an unknown distance"
    return f"C={strength:g}: not converged after {spent}: {far} above the minimum, {enough:.0e} was asked for."


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
        self.stale = True

    def start(self, strengths: list[float]) -> list[tuple[float, Found]]:
        """Descend from zero for the low strengths."""
        founds = self._descend(strengths, self._zeros(len(strengths)))
        solved = list(zip(strengths, founds, strict=True))
        self.rungs = [(strength, self.objective.array(found.theta)) for strength, found in solved[-2:]]
        return solved

    def apart(self) -> Iterator["_Climb"]:
        """Yield one climb a round, from where all stand: each has rows, and so a curvature, of its own."""
        for place, number in enumerate(self.rounds):
            own = _Climb(
                self.objective, range(number, number + 1), self.spectral, True, self.wanted, self.tol, self.max_passes
            )
            own.rungs = [(c, theta[place : place + 1]) for c, theta in self.rungs]
            yield own

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
        self.rungs = [*self.rungs, (above, self.objective.array(top.theta))][-3:]
        starts = [self._interpolate(strength) for strength in between]
        found = self._descend(between, self.objective.rows.xp.concat(starts, axis=0)) if between else []
        measured_anew = any(int(each.n_passes.max()) > REFRESH for each in found)
        self.stale = measured_anew or int(top.n_passes.max()) > QUICK
        return [top, *found]

    def _zeros(self, n_strengths: int) -> Any:
        rows = self.objective.rows
        shape = (n_strengths * len(self.parts), self.objective.width, rows.shape[1] + 1)
        return rows.xp.zeros(shape, dtype=rows.dtype, device=rows.device)

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
        """Descend with some strengths in all rounds, as many at a time as the budget allows."""
        itemsize, n = 8 if start.dtype == self.objective.rows.xp.float64 else 4, len(self.parts)
        member = (2 * MEMORY + BESIDES) * start.shape[1] * start.shape[2] * itemsize
        at_once = max(BATCH_BYTES // member // n, 1)
        solved: list[Found] = []
        for first in range(0, len(strengths), at_once):
            some = strengths[first : first + at_once]
            found = self._converge(np.array(some), start[first * n : (first + len(some)) * n])
            solved += [found.part(place, len(some)) for place in range(len(some))]
        return solved

    def _converge(self, strengths: FloatArray, start: Any) -> Found:
        """Descend with some strengths in all rounds, and prove how far it came where one of them is wanted."""
        own, parts = np.repeat(strengths, len(self.parts)), np.tile(self.parts, len(strengths))
        if not set(strengths.tolist()) & set(self.wanted):
            return self._approach(own, parts, start, max(self.tol, PASSING), np.inf)
        enough = proven_by(self.tol)
        found = self._approach(own, parts, start, self.tol, AHEAD * enough)
        exact = ExactObjective(self.objective)
        spent = int(found.n_passes.max())
        limit = min(max(self.max_passes - spent, 1), passes_of_proof(spent))
        theta, curvature = exact.array(found.theta), RoundedCurvature(self.curvature, exact)
        proven = descend(exact, theta, own, parts, curvature, tol=np.inf, gap=enough, max_passes=limit)
        proven.n_passes += found.n_passes - 1
        return proven

    def _approach(self, own: FloatArray, parts: IntArray, start: Any, tol: float, enough: float) -> Found:
        """Descend in the digits of the rows; curvature in blocks is measured anew while some need it."""
        array, xp = self.objective.array, self.objective.xp
        limit = min(REFRESH, self.max_passes) if isinstance(self.curvature, BlockCurvature) else self.max_passes
        ends = partial(descend, self.objective, tol=tol, gap=enough, max_passes=limit)
        found = ends(start, own, parts, self.curvature)
        while limit < self.max_passes and found.n_passes.max() < self.max_passes:
            left = np.flatnonzero(found.n_passes % limit == 0)  # those that were not at their end
            left = left[~found.converged[left]]
            if not len(left):
                break
            theta, steepest = found.theta[array(left, xp.int64)], int(np.argmax(found.slope[left]))
            self._measure(theta[steepest : steepest + 1], float(own[left[steepest]]))
            found.replace(left, ends(theta, own[left], parts[left], self.curvature), array(left, xp.int64))
        return found


def rungs_above(low: float, strengths: Sequence[float]) -> list[float]:
    """Return `low` and strengths above it up to the largest, at most RUNG apart: wanted ones where there are some.

    Where there are none, as many as it takes stand at equal distances up to the next wanted one.
    """
    rungs, reach = [low], RUNG * (1.0 + 1e-9)
    while strengths and rungs[-1] < strengths[-1]:
        within = [c for c in strengths if rungs[-1] < c <= rungs[-1] * reach]
        if within:
            rungs.append(within[-1])
            continue
        gap = min(c for c in strengths if c > rungs[-1]) / rungs[-1]
        rungs.append(rungs[-1] * gap ** (1.0 / np.ceil(np.log(gap) / np.log(RUNG))))
    return rungs
