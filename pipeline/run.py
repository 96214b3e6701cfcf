"""Stage two as one story: labels, splits, features from the cache, heads, test once, the run folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classify.files import mapped
from extract.manifest import Manifest
from extract.memo import Memo
from extract.request import FeatureRequest
from pipeline.console import Console
from pipeline.errors import PipelineError
from pipeline.few_shot import check_shots, few_shot
from pipeline.join import Features, Labelled, audit_command, label_samples, look_up
from pipeline.leaks import leak_warnings
from pipeline.memory import Shelf, default_budget, return_freed_memory
from pipeline.report.page import write_report
from pipeline.results import summarise, write_run
from pipeline.rundir import point_latest, writing_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from classify.sweep import SweepResult


@dataclass(frozen=True)
class ClassifyPlan:
    """What `classify` was asked to do."""

    images: str
    requests: tuple[FeatureRequest, ...]
    heads: tuple[str, ...]
    cache_root: Path
    out: Path
    seed: int = 0
    folds: int | None = None
    memory: float | None = None
    """Bytes of features held in memory; what is beyond goes to a file. None: half of what there is."""
    shots: tuple[int, ...] = ()
    repeats: int = 5
    calibrate: bool = False
    """Temper every head's probabilities by what it said about val."""
    min_per_class: int = 1
    """Classes with fewer images are left out; copies and members of a group count once."""


@dataclass(frozen=True)
class Tried:
    """One head on one backbone, chosen, refitted and tested."""

    features: Features
    name: str
    result: SweepResult
    predicted: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    """(N, C), tempered where that was asked for."""
    tempering: dict[str, float] | None
    """What tempering did to them on test: see `classify.calibration.tempering_effect`."""
    predict_seconds: float
    stopped: bool = False
    """Whether the user stopped its sweep, and this is the best of a part of its settings."""

    @property
    def folder_name(self) -> str:
        """Where the head is saved below heads/, and its name in comparisons."""
        return f"{self.features.name}--{self.name}"


@dataclass
class Attempts:
    """What became of the heads."""

    tried: list[Tried] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    """features, head and what was said about it, for each that could not be trained."""
    interrupted: bool = False


def classify(manifest: Manifest, plan: ClassifyPlan, console: Console) -> dict[str, Any]:
    """Train and compare heads on cached features and write the run folder; returns what results.json says.

    Interrupted after the first head is finished, or a setting of it, it writes what there is, and says so in
    "interrupted"; heads that failed are in "failed" and among the warnings. The report comes last: whatever hinders it,
    the run is there.

    Raises PipelineError, ClassifyError or CacheError, and then leaves no folder behind; so does KeyboardInterrupt.
    """
    results = _classify(manifest, plan, console)
    point_latest(plan.out)
    reported = report_on(plan.out, plan.images, plan.cache_root, console)
    return results | {"interrupted": results["interrupted"] or not reported}


def _classify(manifest: Manifest, plan: ClassifyPlan, console: Console) -> dict[str, Any]:
    """Write the run folder, but for its report: when that is made, features and heads are gone."""
    with Memo(plan.cache_root, read_only=not plan.cache_root.exists()) as memo:
        labelled = label_samples(
            manifest,
            memo,
            seed=plan.seed,
            requests=plan.requests,
            cache_root=plan.cache_root,
            min_per_class=plan.min_per_class,
            on_progress=console.digesting,
        )
        shelf = Shelf(default_budget() if plan.memory is None else plan.memory, _writable_above(plan.out))
        features = look_up(
            labelled, plan.requests, images=plan.images, cache_root=plan.cache_root, memo=memo, shelf=shelf
        )
    for note in (*manifest.notes, *labelled.notes, *_those_in_files(features, shelf.budget)):
        console.say(note)
    rare = {"min_per_class": plan.min_per_class}
    audit = audit_command(plan.images, plan.requests[0], plan.cache_root, plan.seed, **rare)
    warnings = leak_warnings(labelled, features[0].X, audit=audit, seed=plan.seed)
    for warning in warnings:
        console.say(warning)
    if plan.shots:
        check_shots(labelled, plan.shots, plan.repeats, seed=plan.seed)
    with writing_run(plan.out) as folder:
        attempts = try_heads(features, labelled, plan, console)
        return_freed_memory()
        results = summarise(attempts.tried, features, labelled, plan, manifest) | {
            "warnings": [*warnings, *(failed["said"] for failed in attempts.failed)],
            "failed": attempts.failed,
            "interrupted": attempts.interrupted,
        }
        if plan.shots and not results["interrupted"]:
            results |= try_few_labels(results, features, labelled, plan, console)
        return_freed_memory()
        write_run(folder, results, attempts.tried, labelled, plan, console)
    return results


def _those_in_files(features: Sequence[Features], budget: float) -> Iterator[str]:
    """Say which features are read from a file."""
    for each in features:
        if mapped(each.X) is not None:
            size, held = f"{each.X.nbytes / 1e6:,.1f} MB", f"{budget / 1e6:,.1f} MB"
            yield f"{each.name}: {size} of features are read from a file, for at most {held} are held in memory."


def try_few_labels(
    results: dict[str, Any], features: Sequence[Features], labelled: Labelled, plan: ClassifyPlan, console: Console
) -> dict[str, Any]:
    """What results.json gains by --shots; only that the run was interrupted, when the user does."""
    few = partial(few_shot, shots=plan.shots, repeats=plan.repeats, seed=plan.seed, console=console)
    try:
        return dict(few(results["heads"], features, labelled))
    except KeyboardInterrupt:
        console.say("Stopped: all heads are finished and kept, without the curves of few labels.")
        return {"interrupted": True}


def report_on(run: Path, images: str, cache_root: Path, console: Console) -> bool:
    """Write report.html into the finished run, or say why not; False when the user interrupts."""
    try:
        return_freed_memory()
        write_report(run, images=images, cache_root=cache_root)
    except (PipelineError, OSError) as error:
        console.say(f"No report: {error}")
    except KeyboardInterrupt:
        console.say(f"Stopped: the run is whole but for its report; 'featurecache report {run}' writes it.")
        return False
    return True


def _writable_above(out: Path) -> Path:
    """The nearest folder above the run folder that is there already; on the disk where the run will be."""
    return next(parent for parent in out.absolute().parents if parent.is_dir())


def try_heads(features: Sequence[Features], labelled: Labelled, plan: ClassifyPlan, console: Console) -> Attempts:
    """Every head on all features, or those finished when the user interrupts; one that fails costs only itself.

    KeyboardInterrupt, or PipelineError with what failed first, where no head is left.
    """
    attempts = Attempts()
    try:
        for each in features:
            for name in plan.heads:
                return_freed_memory()
                _attempt(attempts, name, each, labelled, plan, console)
    except KeyboardInterrupt:
        if not attempts.tried:
            raise
        attempts.interrupted = True
        n_heads, last = len(features) * len(plan.heads), attempts.tried[-1]
        n_whole = len(attempts.tried) - last.stopped
        half = f", and of {last.name} the best of what was tried" if last.stopped else ""
        console.say(
            f"Stopped: {n_whole} of {n_heads} heads are finished and kept{half}; the run is marked as interrupted."
        )
    if not attempts.tried:
        raise PipelineError(f"No head is left. {attempts.failed[0]['said']}")
    return attempts


def _attempt(
    attempts: Attempts, name: str, features: Features, labelled: Labelled, plan: ClassifyPlan, console: Console
) -> None:
    """Take in one head, or why it failed; KeyboardInterrupt once the best of a stopped sweep is taken in."""
    from numpy.linalg import LinAlgError

    from classify.errors import BadLabels, BadSplit, ClassifyError

    try:
        attempts.tried.append(try_head(name, features, labelled, plan, console))
    except (BadLabels, BadSplit):  # of the rows: every head would say the same
        raise
    except (ClassifyError, LinAlgError) as error:
        why = error if isinstance(error, ClassifyError) else f"its equations cannot be solved ({error})."
        said = f"{name} on {features.name} is left out: {why}"
        attempts.failed.append({"features": features.name, "head": name, "said": said})
        console.say(said)
    else:
        if attempts.tried[-1].stopped:
            raise KeyboardInterrupt


def try_head(name: str, features: Features, labelled: Labelled, plan: ClassifyPlan, console: Console) -> Tried:
    """Choose on val (or K folds), refit on train+val, predict test; with what a stopped sweep had found by then."""
    from classify.calibration import temper_head, tempering_effect
    from classify.rounds import fold_rounds, val_round
    from classify.sweep import SweepStopped, sweep

    chosen_on, test = labelled.place("train", "val"), labelled.place("test")
    X, y = features.X[chosen_on], labelled.y[chosen_on]
    folds = assign_cv_folds(labelled, plan)
    rounds = val_round(len(labelled.rows("train")), len(y)) if folds is None else fold_rounds(folds)
    progress = partial(console.sweeping, name)
    choose = partial(sweep, name, X, y, rounds=rounds, seed=plan.seed, calibrate=plan.calibrate, progress=progress)
    try:
        result, stopped = choose(), False
    except SweepStopped as stop:
        result, stopped = stop.result, True
    for note in result.notes:
        console.say(f"{name}: {note}")
    started = time.perf_counter()
    X_test = features.X[test]
    predicted, proba = result.head.predict_both(X_test)
    seconds = round(time.perf_counter() - started, 4)
    if result.tempering is None:
        return Tried(features, name, result, predicted, proba, None, seconds, stopped)
    tempered = temper_head(result.head, X_test, proba, result.tempering)
    effect = tempering_effect(labelled.y[labelled.rows("test")], proba, tempered, predicted, result.tempering)
    return Tried(features, name, result, predicted, tempered, effect, seconds, stopped)


def assign_cv_folds(labelled: Labelled, plan: ClassifyPlan) -> NDArray[np.integer[Any]] | None:
    """The fold of each row of train, then val, with copies and groups in one fold; None without --folds."""
    from classify.splits import assign_folds

    if plan.folds is None:
        return None
    rows = [*labelled.rows("train"), *labelled.rows("val")]
    return assign_folds(labelled.units[rows], labelled.y[rows], plan.folds, seed=plan.seed)
