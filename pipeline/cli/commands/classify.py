"""`featurecache classify`: heads on cached features, trained and compared."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurecache.base.exits import INTERRUPTED, REFUSED
from featurecache.base.text import printable
from featurecache.cli.advice import audit_advice, naming_commands
from featurecache.cli.config_file import resolved_options
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.label_check import would_stop
from featurecache.cli.options import CacheOption, FeatureOptions, HeadOptions, Images, SplitOptions
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import account_for_run
from featurecache.cli.text import few_shot_text, leaderboard_text, tempering_text
from featurecache.runs.documents import cache_folders
from featurecache.runs.folder import (
    ERRORS_FILE,
    REPORT_FILE,
    RESULTS_FILE,
    RUNS_ROOT,
    check_run_folder,
    check_writable,
    default_run_folder,
    reserving,
)
from featurecache.runs.work_folder import heal

if TYPE_CHECKING:
    from featurecache.evaluate.classify_plan import ClassifyPlan
    from featurecache.extract.images.manifest import Manifest
    from featurecache.runs.documents import Results


HEADS_KEPT = "Stopped: no run was written. Heads that are finished are kept; the same command continues from there."


@click.command(
    cls=Command,
    takes_file=True,
    stopped=HEADS_KEPT,
    examples=[
        "featurecache classify photos/",
        "featurecache classify photos/ --heads logistic,mlp --folds 5",
        "featurecache classify photos/ --shots 1,2,4,8,16",
        "featurecache classify photos/ --metric balanced_accuracy --class-weight balanced",
        "featurecache classify photos/ --heads logistic,knn --param logistic.C=0.1,1,10 --param knn.metric=cosine",
    ],
)
@takes(Images, FeatureOptions, HeadOptions, SplitOptions, CacheOption, Printing)
def command(
    images: Images,
    features: FeatureOptions,
    heads: HeadOptions,
    split: SplitOptions,
    cache: CacheOption,
    printing: Printing,
) -> int:
    """Train and compare heads on cached features.

    Settings of a head are chosen on val, the head is refitted on train and val, and test is looked at once. The run
    folder has the table, the heads, the predictions and a report.
    """
    if images.dry_run:
        manifest = images.read(may_be_vectors=True)
        stop = would_stop(manifest, split, cache, folds=heads.folds)
        return show_reading(manifest, as_json=printing.json, command="classify", stop=stop)
    with Console(quiet=printing.quiet) as console:
        return classify_with(
            images.read(cache.cache, may_be_vectors=True),
            features=features,
            heads=heads,
            split=split,
            cache=cache,
            printing=printing,
            console=console,
        )


def check(heads: HeadOptions) -> None:
    """Raise UsageError or PipelineError where heads, their settings or the run folder cannot be used."""
    place = heads.out or RUNS_ROOT / "run"
    heal(place)
    if heads.out is not None:
        check_run_folder(heads.out)
    heads.names()
    heads.params()
    check_writable(place)


def classify_with(
    manifest: Manifest,
    *,
    features: FeatureOptions,
    heads: HeadOptions,
    split: SplitOptions,
    cache: CacheOption,
    printing: Printing,
    console: Console,
) -> int:
    """Train heads, write the run and print its table; returns the exit code."""
    from featurecache.evaluate import classify as evaluation
    from featurecache.extract.cache.inventory import remember_use
    from featurecache.report.page import report_on

    def announce(results: Results) -> None:
        if manifest.vectors is None:
            remember_use(cache.cache, cache_folders(results["features"]), manifest.source)
        if not printing.json:
            print(results_text(results), flush=True)  # the report may take a while

    check(heads)
    if heads.out is not None and (heads.out / RESULTS_FILE).exists():
        console.say(f"'{printable(heads.out)}' holds a run: this one replaces it, heads and all, when it is done.")
    place = contextlib.nullcontext(heads.out) if heads.out else reserving(default_run_folder(Path(manifest.source)))
    with place as out, naming_commands(manifest.source, manifest.options):
        plan = _plan(out, manifest, features=features, heads=heads, split=split, cache=cache)
        results = evaluation.classify(
            manifest,
            plan,
            console,
            report=lambda run: report_on(run, manifest.source, cache.cache, console),
            announce=announce,
            advise=audit_advice(manifest),
        )
    if printing.json:
        print(json.dumps(results, indent=2))
    report = f", with {REPORT_FILE} to look at" if (out / REPORT_FILE).exists() else ""
    console.say(f"run folder: {out}{report}")
    if results["interrupted"]:
        return INTERRUPTED
    code = account_for_run(results["dataset"], out / ERRORS_FILE, console)
    return REFUSED if results["failed"] else code


def _plan(
    out: Path,
    manifest: Manifest,
    *,
    features: FeatureOptions,
    heads: HeadOptions,
    split: SplitOptions,
    cache: CacheOption,
) -> ClassifyPlan:
    from featurecache.evaluate.classify_plan import ClassifyPlan

    return ClassifyPlan(
        features.requests_for(manifest),
        heads.names(),
        cache.cache,
        out,
        seed=split.seed,
        folds=heads.folds,
        memory=heads.memory,
        shots=heads.shots,
        repeats=heads.repeats,
        calibrate=heads.calibrate,
        min_per_class=split.min_per_class,
        params=heads.params(),
        metric=heads.metric,
        class_weight=heads.class_weight,
        ensemble=heads.ensemble,
        options=resolved_options(click.get_current_context()),
    )


def results_text(results: Results) -> str:
    """Return the table of heads, and below it what else was found out."""
    parts = [leaderboard_text(results), tempering_text(results), few_shot_text(results)]
    parts += ["\n".join(results["transfer"]), "\n".join(results["warnings"])]
    return "\n\n".join(part for part in parts if part)
