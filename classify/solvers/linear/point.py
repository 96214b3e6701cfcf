"""Where the members of a batch are on their way to an optimum."""

from dataclasses import dataclass, replace
from typing import Any

from featurecache.classify.arrays.array_types import FloatArray, IntArray


@dataclass(frozen=True)
class Point:
    """Slack 1 - t s (N, M) and theta (M, D + 1) of all members at one strength; gradient (G, D + 1) of `going`."""

    slack: FloatArray
    theta: Any
    strength: float
    going: IntArray
    gradient: Any

    def of(self, places: IntArray) -> "Point":
        """Return the point of some of the members that are going, by their places among these."""
        return replace(self, going=self.going[places], gradient=self.gradient[places])
