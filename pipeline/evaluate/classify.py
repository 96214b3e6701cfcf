"""The classify command: join, sweep, test once, write the run."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from featurecache.base.errors import PipelineError
from featurecache.base.garbage import older_objects_apart
from featurecache.base.progress import Progress
from featurecache.base.text import count_is
from featurecache.classify.arrays.memmap import mapped
from featurecache.classify.heads.table import CLASS_WEIGHTS
from featurecache.evaluate.classify_plan import Attempts, ClassifyPlan, Tried, assign_cv_folds, rounds_of
from featurecache.evaluate.ensemble import add_ensemble
from featurecache.evaluate.failures import check_answers, check_chosen, why_failed
from featurecache.evaluate.few_shot import check_shots, few_shot
from featurecache.evaluate.join import Labelled, label_samples, look_up
from featurecache.evaluate.kept_heads import KeptHeads, identity_of
from featurecache.evaluate.leak_check import leak_warnings
from featurecache.evaluate.leak_effect import AuditAdvice, AuditCall, advise_audit_images
from featurecache.evaluate.results import head_meta, summarise, write_run
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.class_names import remark_on_several
from featurecache.extract.images.folders.layouts import LEAF
from featurecache.extract.images.manifest import Manifest
from featurecache.features.feature_arrays import FeatureArrays, default_budget, return_freed_memory
from featurecache.features.feature_set import Features
from featurecache.runs.documents import Results, Tempering, split_sizes
from featurecache.runs.folder import point_latest
from featurecache.runs.leftover_runs import sweep_runs
from featurecache.runs.placing import home_of
from featurecache.runs.work_folder import WorkFolder, unwritable, working

if TYPE_CHECKING:
    pass


# With fewer images a quarter second counts for more than the memory.
WORTH_SEARCHING = 1_000
# Writes the report of the finished run in a folder; returns False when the user interrupts.
Report = Callable[[Path], bool]
# Shows the results of a run that is complete but for its report.
Announcement = Callable[[Results], None]


def no_report(run: Path) -> bool:
    """A Report that writes none."""
    return True


def classify(
    manifest: Manifest,
    plan: ClassifyPlan,
    progress: Progress,
    *,
    report: Report = no_report,
    announce: Announcement = lambda _: None,
    advise: AuditAdvice = advise_audit_images,
) -> Results:
    """Train and compare heads on cached features, write the run folder, and return its results.json.

    An interrupt after the first head is finished, or a setting of it, writes a run of what is finished, marked as
    "interrupted"; heads that failed are in "failed" and among the warnings. The report comes last, after the results
    are announced, and is written also where that fails; where the report fails, the run is complete without it.
    Finished heads are kept next to the run until all are done, and the same call continues from them, even after a
    kill.

    Raises PipelineError, ClassifyError or CacheError, and then leaves no run behind; so does KeyboardInterrupt.
    """
    plan = plan.of(manifest)
    # Networks and features of what this process did before may be garbage by now; a search takes a quarter second.
    searched = "torch" in sys.modules and len(manifest.samples) >= WORTH_SEARCHING
    home, _ = home_of(plan.out), plan.grids  # an error in these is raised first, and heads are imported
    with contextlib.ExitStack() as held, older_objects_apart(searched=searched):
        results, work = _classify(manifest, plan, progress, home, held, advise)
        point_latest(plan.out)
        n_rows = sum(split_sizes(results["dataset"]).values())
        return_freed_memory(sum(4 * n_rows * each["dim"] for each in results["features"]))
        try:
            announce(results)
        finally:
            reported = report(plan.out)
            if reported and not results["interrupted"]:
                work.finish()
            sweep_runs(plan.out)
    return results | {"interrupted": results["interrupted"] or not reported}


def _classify(
    manifest: Manifest,
    plan: ClassifyPlan,
    progress: Progress,
    home: Path,
    held: contextlib.ExitStack,
    advise: AuditAdvice,
) -> tuple[Results, WorkFolder]:
    """Write the run folder without its report, which is made when features and heads are no longer in memory."""
    labelled, features = _gather(manifest, plan, home, progress)
    call = AuditCall(plan.requests[0], plan.cache_root, plan.seed, plan.min_per_class)
    warnings = [
        *(each.note for each in features if each.note),
        *leak_warnings(labelled, features[0].X, call, advise),
        *several_in_one(manifest),
        *unweighed(plan),
    ]
    for warning in warnings:
        if warning not in progress.lines:
            progress.say(warning)
    if plan.shots:
        check_shots(labelled, plan.shots, plan.repeats, seed=plan.seed)
    identity = identity_of(labelled, features, plan, assign_cv_folds(labelled, plan))
    with unwritable(plan.out):
        work = held.enter_context(working(home, identity))
    kept = KeptHeads(work.heads, n_test=len(labelled.rows("test")), n_classes=len(labelled.classes), grids=plan.grids)
    attempts = try_heads(features, labelled, plan, kept, progress)
    n_bytes = sum(each.X.nbytes for each in features)
    if plan.ensemble and not attempts.interrupted:
        add_ensemble(attempts, labelled, plan, progress)
    return_freed_memory(n_bytes)
    results = summarise(attempts.tried, features, labelled, plan, manifest) | {
        "warnings": [*warnings, *(failed["said"] for failed in attempts.failed)],
        "failed": attempts.failed,
        "interrupted": attempts.interrupted,
    }
    if plan.shots and not results["interrupted"]:
        results = try_few_labels(results, features, labelled, plan, progress)
    return_freed_memory(n_bytes)
    with unwritable(plan.out):
        results = write_run(work.begin(), results, attempts.tried, labelled, plan, progress)
        work.place(plan.out)
    return results, work


def _gather(manifest: Manifest, plan: ClassifyPlan, home: Path, progress: Progress) -> tuple[Labelled, list[Features]]:
    """Labels and features; home: where features go beyond the memory."""
    for note in manifest.notes:
        if note not in progress.lines:  # `run` said them before it extracted
            progress.say(note)
    with Memo(plan.cache_root, read_only=not plan.cache_root.exists()) as memo:
        labelled = label_samples(
            manifest,
            memo,
            seed=plan.seed,
            requests=plan.requests,
            cache_root=plan.cache_root,
            min_per_class=plan.min_per_class,
            on_progress=progress.digesting,
        )
        arrays = FeatureArrays(default_budget() if plan.memory is None else plan.memory, _nearest_existing(home))
        features = look_up(
            labelled, plan.requests, cache_root=plan.cache_root, memo=memo, arrays=arrays, say=progress.say
        )
    for note in (*labelled.notes, *_notes_on_files(features, arrays.budget)):
        progress.say(note)
    return labelled, features


def several_in_one(manifest: Manifest) -> tuple[str, ...]:
    """A sentence on labels that are several in one, but for those that are paths of folders; none for no such."""
    layout = manifest.options.layout or ""
    return () if layout.endswith(LEAF) else remark_on_several(sample.label for sample in manifest.samples)


def unweighed(plan: ClassifyPlan) -> list[str]:
    """Sentences on the heads that are to weigh classes and cannot."""
    from featurecache.classify.selection.settings import weighs_classes

    heads = [] if plan.class_weight == CLASS_WEIGHTS[0] else [head for head in plan.heads if not weighs_classes(head)]
    return [f"{head} has no class_weight: it is trained with every image weighing the same." for head in heads]


def _notes_on_files(features: Sequence[Features], budget: float) -> Iterator[str]:
    """A sentence for each set of features that is read from a file."""
    for each in features:
        if mapped(each.X) is not None:
            size, held = f"{each.X.nbytes / 1e6:,.1f} MB", f"{budget / 1e6:,.1f} MB"
            yield f"{each.name}: {size} of features are read from a file, for at most {held} are held in memory."


def try_few_labels(
    results: Results, features: Sequence[Features], labelled: Labelled, plan: ClassifyPlan, progress: Progress
) -> Results:
    """The results with the curves of few labels; marked as interrupted where the user interrupts."""
    few = partial(few_shot, shots=plan.shots, repeats=plan.repeats, seed=plan.seed, grids=plan.grids)
    heads = [head for head in results["heads"] if not head.get("members")]
    try:
        return {**results, **few(heads, features, labelled, metric=plan.metric, progress=progress)}
    except KeyboardInterrupt:
        progress.say("Stopped: all heads are finished and kept, without the curves of few labels.")
        return {**results, "interrupted": True}


def _nearest_existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists; on the disk where the run will be."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def try_heads(
    features: Sequence[Features], labelled: Labelled, plan: ClassifyPlan, kept: KeptHeads, progress: Progress
) -> Attempts:
    """Train every head on all features, or those finished when the user interrupts; a head that fails is left out.

    A head that is kept already is not trained; one that is trained is kept at once, and leaves memory.
    KeyboardInterrupt, or PipelineError with what failed first, where no head is left.
    """
    attempts = Attempts()
    found = {(each.name, name): kept.recall(each, name) for each in features for name in plan.heads}
    if n_there := sum(tried is not None for tried in found.values()):
        progress.say(f"{count_is(n_there, 'head')} there already from a run that was stopped.")
    try:
        for each in features:
            for name in plan.heads:
                return_freed_memory(each.X.nbytes)
                tried = found[each.name, name]
                if tried is not None:
                    attempts.tried.append(tried)
                else:
                    _attempt(attempts, name, each, labelled, plan, kept, progress)
    except KeyboardInterrupt:
        if not attempts.tried:
            raise
        attempts.interrupted = True
        n_heads, last = len(features) * len(plan.heads), attempts.tried[-1]
        n_whole = len(attempts.tried) - last.stopped
        half = f", and of {last.name} the best of what was tried" if last.stopped else ""
        progress.say(
            f"Stopped: {n_whole} of {n_heads} heads are finished and kept{half}; the run is marked as interrupted."
        )
    if not attempts.tried:
        raise PipelineError(f"No head is left. {attempts.failed[0]['said']}")
    return attempts


def _attempt(
    attempts: Attempts,
    name: str,
    features: Features,
    labelled: Labelled,
    plan: ClassifyPlan,
    kept: KeptHeads,
    progress: Progress,
) -> None:
    """Take in one head, or why it failed; KeyboardInterrupt once the best of a stopped sweep is taken in."""
    try:
        tried = try_head(name, features, labelled, plan, progress)
        with unwritable(plan.out):
            attempts.tried.append(kept.keep(tried, meta=head_meta(tried, labelled)))
    except Exception as error:  # noqa: BLE001  (heads of scikit-learn raise what they like)
        said = f"{name} on {features.name} is left out: {why_failed(error)}"
        attempts.failed.append({"features": features.name, "head": name, "said": said})
        progress.say(said)
        progress.lines.append(traceback.format_exc())  # for log.txt alone
    else:
        if attempts.tried[-1].stopped:
            raise KeyboardInterrupt


def try_head(name: str, features: Features, labelled: Labelled, plan: ClassifyPlan, progress: Progress) -> Tried:
    """Choose on val (or K folds), refit on train+val, predict test; with what a stopped sweep had found by then."""
    from featurecache.classify.evaluation.calibration import temper_head, tempering_effect
    from featurecache.classify.selection.sweep import SweepStopped, sweep

    chosen_on, test = labelled.place("train", "val"), labelled.place("test")
    X, y = features.X[chosen_on], labelled.y[chosen_on]
    rounds = rounds_of(labelled, plan)
    sweeping = partial(progress.sweeping, name)
    choose = partial(sweep, name, X, y, rounds=rounds, grid=plan.grids[name], metric=plan.metric, progress=sweeping)
    try:
        result, stopped = choose(seed=plan.seed, calibrate=plan.calibrate), False
    except SweepStopped as stop:
        result, stopped = stop.result, True
    for note in result.notes:
        progress.say(f"{name}: {note}")
    started = time.perf_counter()
    X_test = features.X[test]
    predicted, proba = result.head.predict_both(X_test)
    seconds = round(time.perf_counter() - started, 4)
    check_chosen(result.val)
    check_answers(predicted, proba, n=len(labelled.rows("test")), n_classes=len(labelled.classes))
    if result.tempering is None:
        return Tried(features, name, result, predicted, proba, None, seconds, stopped)
    tempered = temper_head(result.head, X_test, proba, result.tempering)
    effect = tempering_effect(labelled.y[labelled.rows("test")], proba, tempered, predicted, result.tempering)
    return Tried(features, name, result, predicted, tempered, cast(Tempering, effect), seconds, stopped)
