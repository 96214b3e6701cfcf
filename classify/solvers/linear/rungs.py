"""Strengths C between those asked for, at which a path of optima is continued."""

from collections.abc import Sequence

import numpy as np

# Distance of two rungs, as a factor of C; and where the way from one to the next is hard.
RUNG, NEAR_RUNG = 10.0, 10.0**0.5


def rungs_above(low: float, strengths: Sequence[float]) -> list[float]:
    """Return `low` and rungs above it up to the largest of the ascending strengths."""
    rungs = [low]
    while strengths and rungs[-1] < strengths[-1]:
        rungs.append(next_rung(rungs[-1], strengths, RUNG))
    return rungs


def next_rung(last: float, strengths: Sequence[float], reach: float) -> float:
    """Return the largest of the ascending strengths within `reach`, a factor, of the last rung.

    Where there is none, as few rungs as needed divide the way to the next strength equally: return the first of them.
    """
    within = [c for c in strengths if last < c <= last * reach * (1.0 + 1e-9)]
    if within:
        return within[-1]
    gap = min(c for c in strengths if c > last) / last
    return float(last * gap ** (1.0 / np.ceil(np.log(gap) / np.log(reach))))
