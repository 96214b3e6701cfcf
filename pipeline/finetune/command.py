"""`featurecache finetune`: options to a plan, the story, and a table beside the heads it began from."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from extract.decode import MAX_PIXELS
from extract.manifest import Manifest, printable, read_images
from pipeline.console import Console
from pipeline.errors import PipelineError, UsageError
from pipeline.exits import DONE, REFUSED
from pipeline.finetune.plan import ONE_WAY, FinetunePlan
from pipeline.finetune.recipe import Recipe
from pipeline.leftover_runs import sweep_runs
from pipeline.predict import recorded_cache
from pipeline.record_checks import read_results
from pipeline.rundir import (
    ERRORS_FILE,
    check_run_folder,
    check_writable,
    default_run_folder,
    point_latest,
    reserving,
)
from pipeline.tables import refused_line
from pipeline.workfolder import heal


def finetune(options: argparse.Namespace) -> int:
    """Train, write the run, print it beside the run it came from. Raises PipelineError or ExtractError.

    Images that are refused are counted and listed in errors.csv of the run.
    """
    out = options.out or default_run_folder(Path(options.images))
    heal(out)
    _check(options)
    check_writable(out)
    with (
        Console(quiet=options.quiet) as console,
        contextlib.nullcontext(out) if options.out else reserving(out) as place,
    ):
        plan = plan_of(options, place, console)
        manifest = read_images(options.images)
        place, results = tune_images(manifest, plan, console)
        console.say(f"run folder: {place}")
    print(json.dumps(results, indent=2) if options.json else _table(plan.start, place, results))
    if n := results["dataset"]["skipped"]:
        console.say(f"{refused_line(n, place / ERRORS_FILE)}.")
    return REFUSED if n or manifest.unreadable else DONE


def _check(options: argparse.Namespace) -> None:
    """Raises UsageError for options that contradict each other."""
    if options.out is not None:
        check_run_folder(options.out, may_be_tuned=options.resume)  # by this very command, before it was killed
        if options.out.resolve() == options.start.resolve():
            raise UsageError(f"'{printable(options.out)}' is the run to start from. Choose another folder with --out.")
    if options.batch_norm == "trained" and (options.parts > 1 or options.batch_size == 1):
        raise UsageError(
            "--batch-norm trained needs the statistics of whole steps: leave out --parts, and --batch-size 1."
        )
    if options.views is not None and options.augment in ONE_WAY:
        raise UsageError(
            f"--views says how many views are drawn, and --augment {options.augment} draws none: leave out one."
        )


def plan_of(options: argparse.Namespace, out: Path, console: Console) -> FinetunePlan:
    """What the options ask for."""
    from extract.engines.torch_engine import choose_device

    precision = options.precision
    if precision == "auto":
        precision = "bf16" if choose_device(options.device) == "cuda" else "fp32"
    recipe = Recipe(
        epochs=options.epochs,
        learning_rate=options.lr,
        batch_size=options.batch_size,
        parts=options.parts,
        smoothing=options.smoothing,
        patience=options.patience,
        class_weight=options.class_weight,
        batch_norm=options.batch_norm,
        precision=precision,
        seed=options.seed,
    )
    return FinetunePlan(
        images=options.images,
        start=options.start.resolve(),  # `latest` will lead to the run that this becomes
        cache_root=options.cache or _cache_of(options.start, console),
        out=out,
        recipe=recipe,
        head=options.head,
        backbone=options.backbone,
        unfreeze=options.unfreeze,
        augment=options.augment,
        views=options.views,
        size=options.size,
        dtype=options.dtype,
        disk=options.disk,
        memory=options.memory,
        device=options.device,
        engine=options.engine,
        max_pixels=options.max_pixels or MAX_PIXELS,
        resume=options.resume,
        out_is_given=options.out is not None,
    )


def _cache_of(run: Path, console: Console) -> Path:
    """Where the run had its features, or where features are kept here."""
    return recorded_cache(run, read_results(run).get("config", {}), console)


def tune_images(manifest: Manifest, plan: FinetunePlan, console: Console) -> tuple[Path, dict[str, Any]]:
    """Train and write the run; returns its folder and what its results.json says. Raises PipelineError, ExtractError.

    Killed at any instant it goes on from there: the state is forgotten when nothing is left to do but to move `latest`,
    which comes last because it may be what the run to start from is named by. Asked to resume what is whole already, it
    trains nothing.
    """
    from pipeline.finetune.beginning import begin, label
    from pipeline.finetune.outcome import finish, leak_warnings_of, whole_outcome, write_outcome
    from pipeline.finetune.story import make_ready, tune

    began = time.perf_counter()
    start = begin(plan)
    labelled, features = label(manifest, plan, start, console)
    ready = make_ready(labelled, features, plan, start)
    whole = whole_outcome(ready.checkpoint, plan) if plan.resume else None
    if whole:
        console.say(f"Trained to the end already: '{printable(whole)}'. Without --resume it is trained again.")
        plan = replace(plan, out=whole)
        results = read_results(whole)
    else:
        check_run_folder(plan.out)
        tuned = tune(ready, labelled, features, plan, start, console, began=began)
        warnings = leak_warnings_of(labelled, features, plan, start)
        for warning in warnings:
            console.say(warning)
        results = write_outcome(tuned, labelled, plan, manifest, warnings, console)
    finish(results, labelled, plan, console)
    ready.checkpoint.forget()
    sweep_runs(plan.out)
    point_latest(plan.out)
    return plan.out, results


def _table(start: Path, out: Path, results: dict[str, Any]) -> str:
    """What was tuned, by val, too; then the heads that it began from and itself on the same test images."""
    from pipeline.compare import compare
    from pipeline.compare_text import render
    from pipeline.tables import leaderboard_text

    try:
        return f"{leaderboard_text(results)}\n\n{render(compare([start, out]), 'text')}"
    except PipelineError:
        return leaderboard_text(results)
