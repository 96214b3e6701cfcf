"""Choose a setting on val, refit on train and val together. Test is not seen here: no argument could carry it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from classify.arrays import AnyArray, BoolArray, FloatArray
from classify.calibration import fit_tempering
from classify.errors import BadLabels
from classify.heads import build_head, head_grid
from classify.outcomes import Outcome, Tally
from classify.plain import plain
from classify.rounds import check_rounds

Progress = Callable[[int, int, str], None]
# A parameter with fewer values in its grid than this is a choice between few, not a scale that has edges.
SCALE = 3
# Beyond these values a parameter means nothing, so a grid that ends there is not too short.
NATURAL_ENDS = {"k": (1,), "shrinkage": (0.0, 1.0), "shrink": (0.0,), "dropout": (0.0,)}


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
    tempering: float | None = None
    """The T for `calibration.temper` that suits the chosen setting's held-out probabilities; None if not asked for."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the table: what did not converge, what was best at the edge of its grid."""


def sweep(
    name: str,
    X: FloatArray,
    y: AnyArray,
    *,
    rounds: Sequence[BoolArray],
    seed: int = 0,
    sample_weight: FloatArray | None = None,
    calibrate: bool = False,
    progress: Progress | None = None,
) -> SweepResult:
    """Try every setting of a head on the held-out rows, keep the most accurate, and refit it on all rows.

    X (N, D), y (N,), sample_weight (N,): train and val together. rounds: bool masks (N,) of the rows held out, from
    `val_round` or `fold_rounds`. Equal accuracies are decided by the log loss, equal log losses by the order of the
    grid, the simpler setting first. calibrate: find how to temper the probabilities of the chosen setting, too.
    `progress(done, total, text)` is called after each setting of each round and after the refit; the text says the best
    so far.

    Raises UnknownHead, BadLabels for a single class, BadSplit for rounds that leave nothing to train on or look at.
    """
    started = perf_counter()
    y, sample_weight = plain(y), plain(sample_weight)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise BadLabels(f"Train and val hold {len(classes)} class: a head needs at least two to tell apart.")
    check_rounds(rounds, codes)
    grid = head_grid(name)
    tally = Tally(grid, rounds, classes, codes)
    outcomes = _try_all(name, grid, X, y, tally, seed, sample_weight, progress)
    best = min(outcomes, key=Outcome.rank)
    tempering = fit_tempering(tally.best_proba, codes[tally.looked_at]) if calibrate else None
    weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
    head = build_head(name, seed=seed, **best.params).fit(X, y, **weighted)
    if progress is not None:
        n_steps = len(grid) * len(rounds) + 1
        progress(n_steps, n_steps, f"{best.metrics['accuracy']:.2%}, refitted")
    notes = [*(note for outcome in outcomes for note in outcome.notes), *edge_notes(best.params, grid)]
    if not head.converged_:
        notes.append(f"The refit did not converge: {getattr(head, 'note_', '')}")
    rows = [outcome.row() for outcome in outcomes]
    seconds = perf_counter() - started
    return SweepResult(head, best.params, rows, best.metrics, seconds, len(grid), tempering, notes)


def _try_all(
    name: str,
    grid: list[dict[str, Any]],
    X: FloatArray,
    y: AnyArray,
    tally: Tally,
    seed: int,
    sample_weight: FloatArray | None,
    progress: Progress | None,
) -> list[Outcome]:
    heads = [build_head(name, seed=seed, **setting) for setting in grid]
    n_steps, started = len(grid) * len(tally.rounds) + 1, perf_counter()
    trials = type(heads[0]).try_grid(heads, X, y, tally.rounds, sample_weight)
    for done, (setting, number, trial) in enumerate(trials, start=1):
        tally.add(setting, number, trial, perf_counter() - started)
        if progress is not None:
            progress(done, n_steps, tally.best_so_far())
        started = perf_counter()
    return tally.finish()


def edge_notes(params: dict[str, Any], grid: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence for each number of the chosen setting that is the smallest or largest tried of its scale."""
    notes = []
    for key, value in params.items():
        tried = sorted({setting[key] for setting in grid if isinstance(setting.get(key), int | float)})
        if len(tried) >= SCALE and value in (tried[0], tried[-1]) and value not in NATURAL_ENDS.get(key, ()):
            end = "smallest" if value == tried[0] else "largest"
            notes.append(f"The best {key}, {value:g}, is the {end} of its grid: a better one may lie beyond.")
    return notes
