"""Timing of calls, alternating."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median


def timed(go: Callable[[], object]) -> float:
    """Return how many seconds a call takes; its warnings, that something did not converge, are not for the reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        go()
        return time.perf_counter() - started


def alternating(one: Callable[[], object], other: Callable[[], object], *, rounds: int = 5) -> tuple[float, float]:
    """Return the medians of the seconds of two calls in turn; the first round, which also imports, is left out."""
    one()
    other()
    both = [(timed(one), timed(other)) for _ in range(rounds)]
    return median(first for first, _ in both), median(second for _, second in both)
