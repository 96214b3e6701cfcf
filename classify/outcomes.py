"""What the settings of a sweep did, joined over the rounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from classify.arrays import AnyArray, BoolArray, FloatArray, IntArray
from classify.metrics import score
from classify.trials import Trial


@dataclass(frozen=True)
class Outcome:
    """A setting on all held-out rows: metrics, and what the rounds agreed on."""

    params: dict[str, Any]
    metrics: dict[str, float]
    converged: bool
    notes: tuple[str, ...]
    seconds: float

    def rank(self) -> tuple[float, float]:
        """Return what a sweep minimises: the most accurate first, then the lowest log loss."""
        return -self.metrics["accuracy"], self.metrics["log_loss"]

    def row(self) -> dict[str, Any]:
        """Return the line of this setting in results.json."""
        accuracy, loss = self.metrics["accuracy"], self.metrics["log_loss"]
        told = {"val_accuracy": accuracy, "val_log_loss": loss, "converged": self.converged, "seconds": self.seconds}
        return {"params": self.params, **told}


@dataclass(frozen=True)
class Best:
    """The best setting so far, its place in the grid, and what it said about all held-out rows (M, C)."""

    outcome: Outcome
    setting: int
    proba: FloatArray


class Tally:
    """Collects trials; a setting that is through all rounds is scored; only the best one's predictions are kept.

    It can be read wherever it was interrupted.
    """

    def __init__(
        self, grid: Sequence[dict[str, Any]], rounds: Sequence[BoolArray], classes: AnyArray, codes: IntArray
    ) -> None:
        self.grid, self.rounds, self.classes, self.codes = grid, rounds, classes, codes
        self.looked_at = np.logical_or.reduce(list(rounds))
        self.trials: list[dict[int, Trial]] = [{} for _ in grid]
        self.seconds = [0.0] * len(grid)
        self.n_trials, self.n_steps = 0, len(grid) * len(rounds) + 1
        self.outcomes: dict[int, Outcome] = {}
        self.best: Best | None = None
        """Of equals the first of the grid."""

    def add(self, setting: int, number: int, trial: Trial, seconds: float) -> None:
        """Take in what a setting did in a round; the seconds since the last one are counted as its own."""
        self.trials[setting][number] = trial
        self.seconds[setting] += seconds
        self.n_trials += 1
        if len(self.trials[setting]) == len(self.rounds):
            ordered = [self.trials[setting].pop(each) for each in range(len(self.rounds))]
            outcome, proba = self._join(setting, ordered)
            self.outcomes[setting] = outcome
            if self.best is None or (outcome.rank(), setting) < (self.best.outcome.rank(), self.best.setting):
                self.best = Best(outcome, setting, proba)

    def best_so_far(self) -> str:
        """Return the best accuracy of the settings that are through, as a few words."""
        return "" if self.best is None else f"best so far {self.best.outcome.metrics['accuracy']:.2%}"

    def chosen(self) -> Best:
        """Return the best setting; raises ValueError where none is through all rounds."""
        if self.best is None:
            raise ValueError("No setting is through all rounds.")
        return self.best

    def through(self) -> list[Outcome]:
        """Return the outcomes of the settings that are through, in the order of the grid."""
        return [self.outcomes[setting] for setting in sorted(self.outcomes)]

    def _join(self, setting: int, trials: Sequence[Trial]) -> tuple[Outcome, FloatArray]:
        """Return the outcome of a setting, and what it said about all held-out rows (M, C), in their order."""
        proba = np.zeros((len(self.codes), len(self.classes)), dtype=trials[0].proba.dtype)
        predicted = np.zeros(len(self.codes), dtype=int)
        for trial, held_out in zip(trials, self.rounds, strict=True):
            column = np.searchsorted(self.classes, trial.classes)
            proba[np.ix_(held_out, column)] = trial.proba
            predicted[held_out] = np.searchsorted(self.classes, trial.predicted)
        seen = self.looked_at
        outcome = Outcome(
            {**self.grid[setting], **agree([trial.decided for trial in trials])},
            score(self.codes[seen], proba[seen], predicted[seen]),
            all(trial.converged for trial in trials),
            tuple(trial.note for trial in trials if trial.note),
            self.seconds[setting],
        )
        return outcome, proba[seen]


def agree(decided: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median over the rounds of each number that val decided; whole numbers stay whole."""
    middle = {key: median([each[key] for each in decided]) for key in decided[0]}
    return {key: round(value) if isinstance(decided[0][key], int) else float(value) for key, value in middle.items()}
