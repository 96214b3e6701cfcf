"""Metrics that a choice may be made by: which value is better, and how it is shown. Imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan
from typing import Any


@dataclass(frozen=True)
class Criterion:
    """A metric by which settings are chosen and heads are ranked."""

    name: str
    """Its key in the metrics of results.json."""
    title: str
    column: str
    """Its title in a table, with its unit."""
    factor: float
    digits: int
    unit: str
    lower_is_better: bool = False

    def cost(self, value: float | None) -> float:
        """Return what is smaller for the better value; infinity for none, and for NaN."""
        if value is None or isnan(value):
            return inf
        return value if self.lower_is_better else -value

    def number(self, value: float) -> str:
        """Return a value as a table shows it, without the unit."""
        return f"{self.factor * value:.{self.digits}f}"

    def shown(self, value: float) -> str:
        """Return a value in a sentence: "93.12 %", "0.213"."""
        return f"{self.number(value)}{self.unit}"


ACCURACY = "accuracy"
_CRITERIA = (
    Criterion(ACCURACY, "accuracy", "accuracy %", 100, 2, " %"),
    Criterion("balanced_accuracy", "balanced accuracy", "balanced %", 100, 2, " %"),
    Criterion("macro_f1", "macro F1", "macro F1 %", 100, 2, " %"),
    Criterion("log_loss", "log loss", "log loss", 1, 3, "", lower_is_better=True),
)
CRITERIA: Mapping[str, Criterion] = {each.name: each for each in _CRITERIA}
METRICS = tuple(CRITERIA)


def preference(metrics: Mapping[str, Any], metric: str = ACCURACY) -> tuple[float, float, float]:
    """Return what is smallest for the best: by the metric, equals by log loss, then by accuracy.

    metrics: {name: value} as of `metrics.score`; one that is missing, None or NaN is the worst.
    """
    names = (metric, "log_loss", ACCURACY)
    first, second, third = (CRITERIA[name].cost(metrics.get(name)) for name in names)
    return first, second, third
