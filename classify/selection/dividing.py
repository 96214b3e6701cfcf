"""Assignment of units to sides (test, val, train), with each class on every side that it has enough units for.

Every unit goes where its hash u sends it. A class that misses a side has its units ordered by u and the first sent to
test, the next to val, the last to train. Where units hold several classes one class can undo this for another. Then a
search decides, a constraint satisfaction problem: the demands are pairs (class, side), and each must be met by a unit.

    rarest first    the class with fewest units to spare (units not placed yet minus sides not reached yet) is next;
                    its units on that side already are tried before those that would have to move
    backtracking    a placement that leaves any class with fewer units than sides to reach is taken back

It finds an assignment whenever there is one, within MAX_STEPS placements. Where there is none, the demands of the
classes with fewest units are given up step by step: val first, then test, never train.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from featurecache.classify.arrays.array_types import BoolArray, FloatArray, IntArray
from featurecache.classify.evaluation.units import class_units

# Placements tried for one set of demands. A search that succeeds takes few more than there are demands.
MAX_STEPS = 10_000
ANY = np.inf
# Units that a class must have for a demand on each side, by number of sides; the first that can be met counts.
DEMANDS: dict[int, tuple[tuple[float, ...], ...]] = {
    3: ((2, 3, 1), (2, 4, 1), (2, 6, 1), (2, ANY, 1), (3, ANY, 1), (4, ANY, 1), (ANY, ANY, 1)),
    2: ((2, 1), (3, 1), (4, 1), (ANY, 1)),
}


def divide_units(y: IntArray, units: IntArray, u: FloatArray, ends: Sequence[float]) -> IntArray:
    """Return the side 0..S-1 (U,) of each unit, the last side being train.

    y (N,): class codes; units (N,): the unit 0..U-1 of each sample; u (U,): hash of each unit; ends (S,), 2 or 3: a
    unit goes to the first side whose end is above its u. Every class is in train. The first side is empty only where
    no unit can leave train.
    """
    side = np.minimum(np.searchsorted(np.asarray(ends), u, side="right"), len(ends) - 1)
    hashed = side.copy()
    members = _Members(y, units, u)
    for own in members.of_class:
        if len(set(side[own])) < len(ends):
            _mend(side, own, len(ends))
    first, *weaker = DEMANDS[len(ends)]
    if members.meets(side, first):
        return side
    for thresholds in (first, *weaker):
        found = _search(members, hashed, thresholds)
        if found is not None:
            return _with_test(found, members, u, len(ends))
    raise AssertionError("all units in train meet the last demands")


class _Members:
    """Which units each class has, ordered by u, and which classes each unit has."""

    def __init__(self, y: IntArray, units: IntArray, u: FloatArray) -> None:
        codes, members = class_units(units, np.unique(y, return_inverse=True)[1].ravel())
        self.n_units = np.bincount(codes)
        self.of_class = np.split(members[np.lexsort((u[members], codes))], np.cumsum(self.n_units)[:-1])
        self._classes = codes[np.argsort(members, kind="stable")]
        self._starts = np.searchsorted(np.sort(members), np.arange(len(u) + 1))

    def classes_of(self, unit: int) -> IntArray:
        """Return the classes of a unit."""
        own: IntArray = self._classes[self._starts[unit] : self._starts[unit + 1]]
        return own

    def demands(self, thresholds: Sequence[float]) -> BoolArray:
        """Return whether each class must be on each side, (C, S)."""
        return np.asarray(self.n_units[:, None] >= np.asarray(thresholds), dtype=np.bool_)

    def on_sides(self, side: IntArray, n_sides: int) -> IntArray:
        """Return how many units each class has on each side, (C, S)."""
        return np.array([np.bincount(side[own], minlength=n_sides) for own in self.of_class])

    def meets(self, side: IntArray, thresholds: Sequence[float]) -> bool:
        """Return whether every demand is met."""
        return not (self.demands(thresholds) & (self.on_sides(side, len(thresholds)) == 0)).any()


def _mend(side: IntArray, ordered: IntArray, n_sides: int) -> None:
    """Give a class, its units ordered by u, a member on each side as far as they go, train before the others."""
    last = n_sides - 1
    side[ordered[-1]] = last
    for place, unit in enumerate(ordered[: min(last, len(ordered) - 1)]):
        side[unit] = place


def _search(members: _Members, hashed: IntArray, thresholds: Sequence[float]) -> IntArray | None:
    """Return sides (U,) that meet the demands, units that none needs staying where hashed; None where none is found."""
    unmet = members.demands(thresholds)
    free = members.n_units.copy()  # of each class, units that are not placed
    placed = np.full(len(hashed), -1)
    stack: list[tuple[int, Iterator[int], int | None, list[int]]] = []  # side, candidates, what was placed, what it met
    n_steps = 0
    while unmet.any():
        spare = np.where(unmet.any(axis=1), free - unmet.sum(axis=1), np.iinfo(np.int64).max)
        rarest = int(spare.argmin())
        if spare[rarest] >= 0 and n_steps < MAX_STEPS:
            wanted = int(np.flatnonzero(unmet[rarest])[-1])  # train before the others
            stack.append((wanted, _candidates(members.of_class[rarest], wanted, placed, hashed, unmet), None, []))
        while True:  # the next placement, or back to the demand before
            if not stack or n_steps >= MAX_STEPS:
                return None
            wanted, candidates, unit, met = stack.pop()
            if unit is not None:
                placed[unit] = -1
                free[members.classes_of(unit)] += 1
                unmet[met, wanted] = True
            unit = next(candidates, None)
            if unit is not None:
                break
        own = members.classes_of(unit)
        met = own[unmet[own, wanted]].tolist()
        placed[unit] = wanted
        free[own] -= 1
        unmet[met, wanted] = False
        stack.append((wanted, candidates, unit, met))
        n_steps += 1
    return np.where(placed >= 0, placed, hashed)


def _candidates(ordered: IntArray, wanted: int, placed: IntArray, hashed: IntArray, unmet: BoolArray) -> Iterator[int]:
    """Yield the units (ordered by u) that can be placed on the wanted side, those that are hashed there first."""
    free = ordered[placed[ordered] < 0]
    if wanted == unmet.shape[1] - 1:
        free = free[::-1]  # train has the largest u
    order = np.argsort(hashed[free] != wanted, kind="stable")
    return iter(free[order].tolist())


def _with_test(side: IntArray, members: _Members, u: FloatArray, n_sides: int) -> IntArray:
    """Move the first unit by u that train can spare to an empty test; none where train cannot spare any."""
    if (side == 0).any():
        return side
    in_train = members.on_sides(side, n_sides)[:, -1]
    for unit in np.argsort(u, kind="stable").tolist():
        if side[unit] != n_sides - 1 or (in_train[members.classes_of(unit)] > 1).all():
            side[unit] = 0
            break
    return side
