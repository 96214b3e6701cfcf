"""Outcomes of the settings of a sweep, joined over the rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray, BoolArray, IntArray
from featurecache.classify.evaluation.calibration import TemperatureFit, combine_temperatures
from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA, preference
from featurecache.classify.evaluation.metric_sums import MetricSums
from featurecache.classify.heads.shared.trials import Trial


@dataclass(frozen=True)
class Outcome:
    """A setting on all held-out rows: metrics, and what the rounds agreed on."""

    params: dict[str, Any]
    metrics: dict[str, float]
    converged: bool
    notes: tuple[str, ...]
    seconds: float
    tempering: float
    """The T for `calibration.temper_head` that suits its probabilities of the held-out rows."""
    hint: str = ""
    """What to say if it is chosen."""

    def row(self, metric: str = ACCURACY) -> dict[str, Any]:
        """Return the line of this setting in results.json, with the metric that it is chosen by."""
        row = {f"val_{name}": self.metrics[name] for name in dict.fromkeys((ACCURACY, "log_loss", metric))}
        return {"params": self.params, **row, "converged": self.converged, "seconds": self.seconds}


@dataclass
class _Joined:
    """A setting in the rounds that it is through, by their numbers: sums, however many rows there are."""

    sums: MetricSums | None = None
    seconds: float = 0.0
    decided: dict[int, dict[str, float]] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    temperings: dict[int, TemperatureFit] = field(default_factory=dict)
    converged: bool = True
    hint: str = ""


class Tally:
    """Adds up trials; a setting that is through all rounds has an outcome.

    It can be read wherever it was interrupted.
    """

    def __init__(
        self,
        grid: Sequence[dict[str, Any]],
        rounds: Sequence[BoolArray],
        classes: AnyArray,
        codes: IntArray,
        metric: str = ACCURACY,
    ) -> None:
        self.grid, self.classes, self.n_rounds, self.metric = grid, classes, len(rounds), metric
        held_out = [np.bincount(codes[each], minlength=len(classes)) for each in rounds]
        self.support: IntArray = np.sum(held_out, axis=0)
        self.joined = [_Joined() for _ in grid]
        self.n_trials, self.n_steps = 0, len(grid) * len(rounds) + 1
        self.outcomes: dict[int, Outcome] = {}
        self.best: int | None = None
        """The setting; of equals the first of the grid."""

    def add(self, setting: int, number: int, trial: Trial, seconds: float) -> None:
        """Take in what a setting did in a round; the seconds since the last one are counted as its own."""
        joined = self.joined[setting]
        sums = trial.sums.among(np.searchsorted(self.classes, trial.classes), len(self.classes))
        joined.sums = sums if joined.sums is None else joined.sums + sums
        joined.seconds += seconds
        joined.decided[number], joined.temperings[number] = trial.decided, trial.tempering
        joined.converged &= trial.converged
        joined.hint = joined.hint or trial.hint
        if trial.note:
            joined.notes[number] = trial.note
        self.n_trials += 1
        if len(joined.decided) == self.n_rounds:
            self.outcomes[setting] = self._outcome(setting)
            joined.sums = None
            if self.best is None or (self._rank(setting) < self._rank(self.best)):
                self.best = setting

    def best_so_far(self) -> str:
        """Return the best value of the settings that are through, as a few words."""
        return "" if self.best is None else f"best so far {self.best_value()}"

    def best_value(self) -> str:
        """Return the metric of the best setting, by its name unless it is the accuracy."""
        value = self.chosen().metrics[self.metric]
        if self.metric == ACCURACY:
            return f"{value:.2%}"
        return f"{CRITERIA[self.metric].title} {CRITERIA[self.metric].shown(value)}"

    def chosen(self) -> Outcome:
        """Return the outcome of the best setting; raises ValueError where none is through all rounds."""
        if self.best is None:
            raise ValueError("No setting is through all rounds.")
        return self.outcomes[self.best]

    def through(self) -> list[Outcome]:
        """Return the outcomes of the settings that are through, in the order of the grid."""
        return [self.outcomes[setting] for setting in sorted(self.outcomes)]

    def _rank(self, setting: int) -> tuple[tuple[float, float, float], int]:
        return preference(self.outcomes[setting].metrics, self.metric), setting

    def _outcome(self, setting: int) -> Outcome:
        joined = self.joined[setting]
        assert joined.sums is not None  # it is through all rounds, and there is one at least
        return Outcome(
            {**self.grid[setting], **agree(list(joined.decided.values()))},
            joined.sums.metrics(self.support),
            joined.converged,
            tuple(joined.notes[number] for number in sorted(joined.notes)),
            joined.seconds,
            combine_temperatures([joined.temperings[number] for number in sorted(joined.temperings)]),
            joined.hint,
        )


def agree(decided: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median over the rounds of each number that val decided; whole numbers stay whole."""
    middle = {key: median([each[key] for each in decided]) for key in decided[0]}
    return {key: round(value) if isinstance(decided[0][key], int) else float(value) for key, value in middle.items()}
