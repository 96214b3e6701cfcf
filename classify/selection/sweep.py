"""Choose a setting on val, refit on train and val together. Test is not seen here: no argument could carry it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from featurecache.base.errors import BadLabels
from featurecache.classify.arrays.array_types import AnyArray, BoolArray, FloatArray
from featurecache.classify.arrays.as_numpy import plain
from featurecache.classify.evaluation.criteria import ACCURACY
from featurecache.classify.heads.shared.trials import Trial
from featurecache.classify.heads.table import build_head, head_grid
from featurecache.classify.selection.fallen import climbed_parameter, has_fallen, untried_note
from featurecache.classify.selection.holdouts import check_rounds
from featurecache.classify.selection.settings import is_last
from featurecache.classify.selection.tally import Outcome, Tally

Progress = Callable[[int, int, str], None]
# A parameter with fewer values in its grid than this is a choice between few, not a scale that has edges.
SCALE = 3


@dataclass(frozen=True)
class SweepResult:
    """A chosen and refitted head, and how it was chosen."""

    head: Any
    """Fitted on train and val together."""
    params: dict[str, Any]
    """The chosen setting, with what val decided besides (temperature, epochs); JSON-able."""
    grid: list[dict[str, Any]]
    """For each setting tried, all of the grid but strengths far above the best, see `fallen`: params, val_accuracy,
    val_log_loss, that of the metric it is chosen by, converged, seconds (its share of the sweep)."""
    val: dict[str, float]
    """`metrics.score` of the chosen setting on val before the refit; with folds, on all rows, each held out once."""
    fit_seconds: float
    """Wall time of the whole sweep and the refit."""
    grid_size: int
    tempering: float | None = None
    """The T for `calibration.temper_head` that suits the held-out probabilities of the chosen setting, 1 for a head
    with a temperature of its own; None if not asked for."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the table: what did not converge, what was best at the edge of its grid."""


class SweepStopped(KeyboardInterrupt):
    """Ctrl-C in a sweep some of whose settings were through: `result` is the best of those, refitted, and says so.

    A KeyboardInterrupt to all who do not ask for it by name.
    """

    def __init__(self, result: SweepResult) -> None:
        super().__init__("a sweep was stopped")
        self.result = result


def sweep(
    name: str,
    X: FloatArray,
    y: AnyArray,
    *,
    rounds: Sequence[BoolArray],
    grid: Sequence[dict[str, Any]] | None = None,
    metric: str = ACCURACY,
    seed: int = 0,
    sample_weight: FloatArray | None = None,
    calibrate: bool = False,
    progress: Progress | None = None,
) -> SweepResult:
    """Try every setting of a head on the held-out rows, keep the best by a metric, and refit it on all rows.

    X (N, D), y (N,), sample_weight (N,): train and val together. rounds: bool masks (N,) of the rows held out, from
    `val_round` or `fold_rounds`. grid: the settings to try (`settings.build_grid`), those of the table unless given.
    metric: one of `criteria.METRICS`; equals are decided by the log loss, then by the accuracy, then by the order of
    the grid, the simpler setting first.
    calibrate: find how to temper the probabilities of the chosen setting, too. `progress(done, total, text)` is called
    after each setting of each round and after the refit; the text says the best so far.

    Raises UnknownHead, BadLabels for a single class, BadSplit for rounds that leave nothing to train on or look at. A
    KeyboardInterrupt becomes SweepStopped once a setting is through all rounds; a second one, in the refit, does not.
    """
    started = perf_counter()
    y, sample_weight = plain(y), plain(sample_weight)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise BadLabels(f"Train and val hold {len(classes)} class: a head needs at least two to tell apart.")
    check_rounds(rounds, codes)
    grid = head_grid(name) if grid is None else grid
    tally = Tally(grid, rounds, classes, codes, metric)
    heads = [build_head(name, seed=seed, **setting) for setting in grid]
    kind = type(heads[0])
    how = {"metric": metric} if getattr(kind, "stops_early", False) else {}
    climbed = climbed_parameter(kind, grid, len(rounds))
    stopped = _try_all(kind.try_grid(heads, X, y, rounds, sample_weight, **how), tally, progress, climbed)
    best = tally.chosen()
    tempering = best.tempering if calibrate else None
    weighted = {} if sample_weight is None else {"sample_weight": sample_weight}
    head = build_head(name, seed=seed, **best.params).fit(X, y, **weighted)
    if progress is not None:
        progress(tally.n_steps, tally.n_steps, f"{tally.best_value()}, refitted")
    notes = _notes(name, best, tally, head, stopped, climbed)
    rows, seconds = [outcome.row(metric) for outcome in tally.through()], perf_counter() - started
    result = SweepResult(head, best.params, rows, best.metrics, seconds, len(grid), tempering, notes)
    if stopped:
        raise SweepStopped(result)
    return result


def _try_all(
    trials: Iterable[tuple[int, int, Trial]], tally: Tally, progress: Progress | None, climbed: str | None
) -> bool:
    """Take in all trials, or those until the user interrupts, and say whether that was so.

    climbed: the parameter whose stronger values are not tried once val has fallen. KeyboardInterrupt where no setting
    is through by then.
    """
    started = perf_counter()
    strengths = [] if climbed is None else [setting[climbed] for setting in tally.grid]
    try:
        for setting, number, trial in trials:
            tally.add(setting, number, trial, perf_counter() - started)
            if progress is not None:
                progress(tally.n_trials, tally.n_steps, tally.best_so_far())
            if strengths and has_fallen(strengths, tally.outcomes, tally.metric):
                break
            started = perf_counter()
    except KeyboardInterrupt:
        if tally.best is None:
            raise
        if progress is not None:
            progress(tally.n_trials, tally.n_steps, f"{tally.best_so_far()}, stopped to refit it")
        return True
    return False


def _notes(name: str, best: Outcome, tally: Tally, head: Any, stopped: bool, climbed: str | None) -> list[str]:
    notes = [note for outcome in tally.through() for note in outcome.notes] + edge_notes(name, best.params, tally.grid)
    if best.hint:
        notes.append(best.hint)
    if stopped:
        notes.append(f"Stopped after {len(tally.outcomes)} of {len(tally.grid)} settings: the best of those is kept.")
    elif climbed is not None and len(tally.outcomes) < len(tally.grid):
        notes.append(untried_note(climbed, [each[climbed] for each in tally.grid], tally.outcomes, tally.metric))
    if not head.converged_:
        notes.append(f"The refit did not converge: {getattr(head, 'note_', '')}")
    return notes


def edge_notes(name: str, params: dict[str, Any], grid: Sequence[dict[str, Any]]) -> list[str]:
    """Return a sentence for each number of the chosen setting that is the smallest or largest tried of its scale.

    None where the head called `name` allows nothing beyond it.
    """
    notes = []
    for key, value in params.items():
        tried = sorted({setting[key] for setting in grid if type(setting.get(key)) in (int, float)})
        if len(tried) < SCALE or value not in (tried[0], tried[-1]):
            continue
        end = "smallest" if value == tried[0] else "largest"
        if not is_last(name, key, value, upwards=end == "largest"):
            notes.append(f"The best {key}, {value:g}, is the {end} of its grid: a better one may lie beyond.")
    return notes
