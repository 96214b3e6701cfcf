"""Choose a setting on val, refit on train and val together. Test is not seen here: no argument could carry it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from classify.arrays import AnyArray, FloatArray, IntArray
from classify.errors import BadLabels, BadSplit
from classify.heads import build_head, head_grid
from classify.metrics import score
from classify.splits import assign_folds
from classify.trials import Trial

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SweepResult:
    """A chosen and refitted head, and how it was chosen."""

    head: Any
    """Fitted on train and val together."""
    params: dict[str, Any]
    """The chosen setting, with what val decided besides (temperature, epochs); JSON-able."""
    grid: list[dict[str, Any]]
    """For each setting: params, val_accuracy, val_log_loss, converged, seconds (its share of the sweep)."""
    val: dict[str, float]
    """`metrics.score` of the chosen setting on val before the refit; with folds, on all rows, each held out once."""
    fit_seconds: float
    """Wall time of the whole sweep and the refit."""
    grid_size: int
    notes: list[str] = field(default_factory=list)
    """Sentences for the table: what did not converge."""


@dataclass(frozen=True)
class _Outcome:
    """A setting on all held-out rows: metrics, and what the folds agreed on."""

    params: dict[str, Any]
    metrics: dict[str, float]
    converged: bool
    notes: tuple[str, ...]
    seconds: float

    def row(self) -> dict[str, Any]:
        accuracy, loss = self.metrics["accuracy"], self.metrics["log_loss"]
        told = {"val_accuracy": accuracy, "val_log_loss": loss, "converged": self.converged, "seconds": self.seconds}
        return {"params": self.params, **told}


def sweep(
    name: str,
    X_train: FloatArray,
    y_train: AnyArray,
    X_val: FloatArray,
    y_val: AnyArray,
    *,
    seed: int = 0,
    folds: int | IntArray | None = None,
    progress: Progress | None = None,
) -> SweepResult:
    """Try every setting of a head on val, keep the most accurate, and refit it on train and val.

    X_train (N, D), y_train (N,), X_val (M, D), y_val (M,). Equal accuracies are decided by the log loss on val, equal
    log losses by the order of the grid, the simpler setting first. With `folds`, a number K or a fold 0..K-1 for each
    of the N + M rows, val is every fold in turn and train the others. `progress(done, total, text)` is called after
    each step.

    Raises UnknownHead, BadLabels for a single class, BadSplit where val is empty and no folds are asked for.
    """
    started = perf_counter()
    X, y = np.concatenate([X_train, X_val]), np.concatenate([y_train, y_val])
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise BadLabels(f"Train and val hold {len(classes)} class: a head needs at least two to tell apart.")
    grid, rounds = head_grid(name), _rounds(len(y_train), codes, folds, seed)
    report = _Steps(name, len(rounds) * len(grid) + 1, progress)
    trials = [list(_timed(_try(name, grid, X, y, held_out, seed), report)) for held_out in rounds]
    outcomes = [
        _outcome(setting, column, rounds, classes, codes)
        for setting, column in zip(grid, _columns(trials), strict=True)
    ]
    best = min(outcomes, key=lambda outcome: (-outcome.metrics["accuracy"], outcome.metrics["log_loss"]))
    head = build_head(name, seed=seed, **best.params).fit(X, y)
    report.step("refit")
    notes = [note for outcome in outcomes for note in outcome.notes]
    if not head.converged_:
        notes.append(f"The refit did not converge: {getattr(head, 'note_', '')}")
    rows = [outcome.row() for outcome in outcomes]
    return SweepResult(head, best.params, rows, best.metrics, perf_counter() - started, len(grid), notes)


class _Steps:
    """Counts what is done, for a progress bar."""

    def __init__(self, name: str, total: int, progress: Progress | None) -> None:
        self.name, self.total, self.progress, self.done = name, total, progress, 0

    def step(self, text: str) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, f"{self.name}: {text}")


def _rounds(n_train: int, codes: IntArray, folds: int | IntArray | None, seed: int) -> list[AnyArray]:
    """Return the held-out rows, bool (N + M,), of each round: val, or each fold."""
    if folds is None:
        if n_train in (0, len(codes)):
            raise BadSplit("Train or val is empty: give both, or choose by cross-validation with folds.")
        return [np.arange(len(codes)) >= n_train]
    number = (
        assign_folds(np.arange(len(codes)), codes, folds, seed=seed) if isinstance(folds, int) else np.asarray(folds)
    )
    if number.shape != codes.shape:
        raise BadSplit(f"{len(number)} folds were given for {len(codes)} rows of train and val: give one for each.")
    return [number == fold for fold in np.unique(number)]


def _try(
    name: str, grid: list[dict[str, Any]], X: FloatArray, y: AnyArray, held_out: AnyArray, seed: int
) -> Iterator[Trial]:
    heads = [build_head(name, seed=seed, **setting) for setting in grid]
    trials: Iterator[Trial] = type(heads[0]).try_grid(heads, X[~held_out], y[~held_out], X[held_out], y[held_out])
    return trials


def _timed(trials: Iterator[Trial], report: _Steps) -> Iterator[tuple[Trial, float]]:
    """Yield each trial with the seconds it took; what the settings share is counted with the first."""
    started = perf_counter()
    for trial in trials:
        yield trial, perf_counter() - started
        report.step("swept a setting")
        started = perf_counter()


def _columns(trials: Sequence[Sequence[tuple[Trial, float]]]) -> list[tuple[tuple[Trial, float], ...]]:
    """Turn rounds of settings into settings of rounds."""
    return list(zip(*trials, strict=True))


def _outcome(
    setting: dict[str, Any],
    trials: Sequence[tuple[Trial, float]],
    rounds: Sequence[AnyArray],
    classes: AnyArray,
    codes: IntArray,
) -> _Outcome:
    """Join what one setting did in every round into one set of predictions for all held-out rows, and score them."""
    proba, predicted = np.zeros((len(codes), len(classes))), np.zeros(len(codes), dtype=int)
    for (trial, _), held_out in zip(trials, rounds, strict=True):
        column = np.searchsorted(classes, trial.classes)
        proba[np.ix_(held_out, column)] = trial.proba
        predicted[held_out] = np.searchsorted(classes, trial.predicted)
    looked_at = np.logical_or.reduce(list(rounds))
    metrics = score(codes[looked_at], proba[looked_at], predicted[looked_at])
    return _Outcome(
        {**setting, **_agree([trial.decided for trial, _ in trials])},
        metrics,
        all(trial.converged for trial, _ in trials),
        tuple(trial.note for trial, _ in trials if trial.note),
        sum(seconds for _, seconds in trials),
    )


def _agree(decided: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median over the rounds of each number that val decided; whole numbers stay whole."""
    middle = {key: median([each[key] for each in decided]) for key in decided[0]}
    return {key: round(value) if isinstance(decided[0][key], int) else float(value) for key, value in middle.items()}
