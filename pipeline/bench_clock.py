"""Seconds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable


def timed(go: Callable[[], object]) -> float:
    """Return how many seconds a call takes; its warnings, that something did not converge, are not for the reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        go()
        return time.perf_counter() - started
