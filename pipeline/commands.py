"""What each command does: a few calls, some lines on stdout, an exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from extract.digests import Refusal
from extract.fill import ExtractReport, extract_features
from extract.inventory import remember_use
from extract.leftovers import sweep_leftovers
from extract.manifest import Manifest, printable, read_images
from pipeline import tables
from pipeline.asked import names_in, requests_of, settings_of
from pipeline.console import Console
from pipeline.errors import UsageError
from pipeline.exits import DONE, INTERRUPTED, REFUSED
from pipeline.listings import backbones, bench, doctor, heads
from pipeline.refusal_list import list_refusals
from pipeline.rundir import (
    ERRORS_FILE,
    REPORT_FILE,
    RESULTS_FILE,
    RUNS_ROOT,
    check_fillable,
    check_run_folder,
    check_writable,
    default_run_folder,
    reserving,
    write_csv,
    writing_file,
)
from pipeline.workfolder import heal


def extract(options: argparse.Namespace) -> int:
    """Stage one."""
    with Console(quiet=options.quiet) as console:
        manifest = read_images(options.images)
        report = _extract(options, manifest, console)
    print(tables.extract_json(report) if options.json else tables.extract_text(report))
    return max(_unread(manifest), _refused(report.refusals, options.cache / ERRORS_FILE, [options.images]))


def classify(options: argparse.Namespace) -> int:
    """Stage two."""
    with Console(quiet=options.quiet) as console:
        return _classify(options, read_images(options.images), console)


def run(options: argparse.Namespace) -> int:
    """Stage one, then stage two."""
    _check_classify(options)
    with Console(quiet=options.quiet) as console:
        manifest = read_images(options.images)
        report = _extract(options, manifest, console)
        console.say(tables.extract_text(report))
        refused = _refused(report.refusals, options.cache / ERRORS_FILE, [options.images])
        return _classify(options, manifest, console) or refused


def predict(options: argparse.Namespace) -> int:
    """The two joined again on any images."""
    from pipeline.predict import predict as predict_images

    if options.out is not None and options.out.suffix.lower() not in {".csv", ".json"}:
        raise UsageError(f"'{printable(options.out)}' is neither a .csv nor a .json file: name one of these.")
    writing = contextlib.nullcontext() if options.out is None else writing_file(options.out)
    with Console(quiet=options.quiet) as console, writing as out:
        predictions = predict_images(
            options.run,
            options.images,
            console,
            head=options.head,
            cache_root=options.cache,
            settings=settings_of(options),
            trust_head=options.trust_head,
        )
        n_right, n_labelled = predictions.accuracy()
        if n_labelled:
            share = f"{n_right:,} of {n_labelled:,} labelled images right, {n_right / n_labelled:.2%}"
            console.say(f"{predictions.head}: {share} (images that the head was trained on count too)")
        else:
            console.say(f"labelled by the head {predictions.head}; --head takes another of the run")
        if out is not None and options.out.suffix.lower() == ".json":
            out.write_text(tables.predictions_json(predictions) + "\n", encoding="utf-8")
        elif out is not None:
            write_csv(out, ("path", "label", "probability"), predictions.rows())
    if out is None:
        print(tables.predictions_json(predictions) if options.json else tables.predictions_text(predictions))
    place = _errors_place(options.out, predictions.cache_root)
    refused = _refused(predictions.refusals, place, options.images)
    return REFUSED if predictions.n_unread else refused


def _errors_place(out: Path | None, cache_root: Path) -> Path:
    """errors.csv beside `out`, unless that would replace `out` itself or the list of a run; then in the cache root."""
    if out is None or out.name.lower() == ERRORS_FILE or (out.parent / RESULTS_FILE).exists():
        return cache_root / ERRORS_FILE
    return out.parent / ERRORS_FILE


def finetune(options: argparse.Namespace) -> int:
    """Train the network itself on, from a run's head and cached maps."""
    from pipeline.finetune.command import finetune as tune

    return tune(options)


def report(options: argparse.Namespace) -> int:
    """One run as a page to look at."""
    from pipeline.report.page import write_report

    place = write_report(options.run, out=options.out, images=options.images, cache_root=options.cache)
    print(printable(place))
    if options.open:
        import webbrowser

        webbrowser.open(place.resolve().as_uri())
    return DONE


def audit(options: argparse.Namespace) -> int:
    """Copies, leaks between the splits, doubtful labels, outliers."""
    from pipeline.audit import AUDIT_FILE, write_audit
    from pipeline.audit import audit as look_through
    from pipeline.audit_text import audit_text

    requests = requests_of(options)
    if len(requests) > 1:
        raise UsageError(f"An audit looks at one set of features, not at {len(requests)}: name one --backbone.")
    if options.out is not None:
        check_fillable(options.out)
    with Console(quiet=options.quiet) as console:
        manifest = read_images(options.images)
        found = look_through(
            manifest,
            requests[0],
            console,
            images=options.images,
            cache_root=options.cache,
            seed=options.seed,
            min_per_class=options.min_per_class,
        )
    print(json.dumps(found.to_dict(), indent=2) if options.json else audit_text(found))
    if options.out is not None:
        write_audit(found, options.out)
        console.say(f"written to {printable(options.out)}")
    if found.refusals:
        listed_in = "--json (and in audit.json with --out)" if options.out is None else options.out / AUDIT_FILE
        print(tables.refusals_text(found.refusals, listed_in), file=sys.stderr)
    return REFUSED if found.leakage.matters(options.max_leaked) or found.refusals else _unread(manifest)


def select(options: argparse.Namespace) -> int:
    """Which backbone to pay for."""
    from pipeline.select import select as compare_backbones
    from pipeline.selection_text import selection_text

    with Console(quiet=options.quiet) as console:
        manifest = read_images(options.images)
        for note in manifest.notes:
            console.say(note)
        selection = compare_backbones(
            manifest,
            names_in("--backbones", options.backbones),
            console,
            images=options.images,
            cache_root=options.cache,
            n_sample=options.sample,
            min_per_class=options.min_per_class,
            seed=options.seed,
            size=options.size,
            settings=settings_of(options),
        )
    print(json.dumps(selection.to_dict(), indent=2) if options.json else selection_text(selection))
    if selection.refusals:
        print(tables.refusals_text(selection.refusals, "--json"), file=sys.stderr)
    return REFUSED if selection.n_left_out or selection.refusals else _unread(manifest)


def compare(options: argparse.Namespace) -> int:
    """Several runs in one table."""
    from pipeline.compare import compare as compare_runs
    from pipeline.compare_text import render

    print(render(compare_runs(options.runs), options.format))
    return DONE


def cache(options: argparse.Namespace) -> int:
    """The upkeep of caches."""
    from pipeline.cache_commands import CACHE_COMMANDS

    return CACHE_COMMANDS[options.cache_command](options)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "extract": extract,
    "classify": classify,
    "run": run,
    "predict": predict,
    "finetune": finetune,
    "bench": bench,
    "compare": compare,
    "report": report,
    "audit": audit,
    "select": select,
    "backbones": backbones,
    "heads": heads,
    "cache": cache,
    "doctor": doctor,
}


def _extract(options: argparse.Namespace, manifest: Manifest, console: Console) -> ExtractReport:
    for note in manifest.notes:
        console.say(note)
    sweep_leftovers(options.cache)
    report = extract_features(
        manifest, requests_of(options), options.cache, settings=settings_of(options), progress=console
    )
    remember_use(options.cache, [filled.cache.folder.name for filled in report.filled], options.images)
    return report


def _refused(refusals: Sequence[Refusal], place: Path, images: Sequence[str]) -> int:
    """Name the images that are not in the result, here and in errors.csv, and return the exit code that they make."""
    listed_in = list_refusals(place, refusals, images)
    if not refusals:
        return DONE
    print(tables.refusals_text(refusals, listed_in), file=sys.stderr)
    return REFUSED


def _unread(manifest: Manifest) -> int:
    """The exit code where there are folders whose images could not be seen: they are among the notes."""
    return REFUSED if manifest.unreadable else DONE


def _check_classify(options: argparse.Namespace) -> tuple[str, ...]:
    from classify.heads import parse_heads

    place = options.out or RUNS_ROOT / "run"
    heal(place)
    if options.out is not None:
        check_run_folder(options.out)
    check_writable(place)
    return tuple(parse_heads(",".join(options.heads or ["all"])))


def _told(results: dict[str, Any]) -> str:
    """The leaderboard, and below it what else was found out."""
    from pipeline.few_shot import few_shot_text

    parts = [tables.leaderboard_text(results), tables.tempering_text(results), few_shot_text(results)]
    parts += ["\n".join(results["transfer"]), "\n".join(results["warnings"])]
    return "\n\n".join(part for part in parts if part)


def _classify(options: argparse.Namespace, manifest: Manifest, console: Console) -> int:
    from pipeline import run as story

    heads = _check_classify(options)
    if options.out is not None and (options.out / RESULTS_FILE).exists():
        console.say(f"'{printable(options.out)}' holds a run: this one replaces it, heads and all, when it is done.")
    place = contextlib.nullcontext(options.out) if options.out else reserving(default_run_folder(Path(options.images)))
    with place as out:
        plan = story.ClassifyPlan(
            options.images,
            requests_of(options),
            heads,
            options.cache,
            out,
            seed=options.seed,
            folds=options.folds,
            memory=options.memory,
            shots=options.shots,
            repeats=options.repeats,
            calibrate=options.calibrate,
            min_per_class=options.min_per_class,
        )
        results = story.classify(manifest, plan, console)
    used = [f"{features['backbone']}-{features['key'][:12]}" for features in results["features"]]
    remember_use(options.cache, used, options.images)
    print(json.dumps(results, indent=2) if options.json else _told(results))
    report = f", with {REPORT_FILE} to look at" if (out / REPORT_FILE).exists() else ""
    console.say(f"run folder: {out}{report}")
    if results["interrupted"]:
        return INTERRUPTED
    if n := results["dataset"]["skipped"]:
        console.say(f"{tables.refused_line(n, out / ERRORS_FILE)}.")
    return REFUSED if n or results["failed"] else _unread(manifest)
