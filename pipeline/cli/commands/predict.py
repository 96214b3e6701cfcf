"""`featurecache predict`: labels of images, by a head of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from featurecache.base.errors import UsageError
from featurecache.base.text import printable
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, argument, option, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.options import PATH, EngineOptions, ReadingOptions, RunCacheOption, dry_run_option
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import account_for, errors_place
from featurecache.cli.text import accuracy_lines, predictions_json, predictions_text
from featurecache.extract.backbones.libraries.own_network import permit
from featurecache.runs.folder import RESULTS_FILE, write_csv, writing_file


@dataclass(frozen=True)
class PredictOptions:
    """Which head, on what, and where its answers go."""

    run: Path = argument("RUN", "a run folder, such as data/runs/latest", type=PATH)
    images: Sequence[str] = argument(
        "IMAGES...", "image files, folders or manifests; or one file of vectors", nargs=-1, required=True
    )
    dry_run: bool = dry_run_option()
    head: str | None = option("--head", metavar="NAME", help="a head of the run (default: the best on val)")
    weights: str | None = option(
        "--weights", metavar="FILE",
        help="the weights that the run was made with, where their file has moved; checked by their digest "
        "(default: found by the run, or next to it)",
    )  # fmt: skip
    backbone: Sequence[str] = option(
        "--backbone", metavar="MODULE:FUNCTION", multiple=True,
        help="a function of yours that the run has its network from, so that it may be imported here; repeatable",
    )  # fmt: skip
    out: Path | None = option(
        "--out",
        metavar="FILE",
        type=PATH,
        help="write a .csv or .json file, with the probability of every class, instead of a table",
    )
    trust_head: bool = option(
        "--trust-head", is_flag=True, default=False,
        help="use a scikit-learn head even if its arrays could crash Python or read its memory; only for heads that "
        "you made yourself",
    )  # fmt: skip


@click.command(
    cls=Command,
    stopped="Stopped: nothing was labelled. Features extracted so far are kept: the same command continues from there.",
    examples=[
        "featurecache predict data/runs/latest new_photos/",
        "featurecache predict data/runs/latest one.jpg --json",
    ],
)
@takes(PredictOptions, ReadingOptions, EngineOptions, RunCacheOption, Printing)
def command(
    asked: PredictOptions, reading: ReadingOptions, engine: EngineOptions, cache: RunCacheOption, printing: Printing
) -> int:
    """Predict labels of images with a trained head.

    Every image below a folder gets a label, in any layout; an argument that is no image is named and left out. Where
    folders or a table have labels that the head knows, its accuracy on them is shown.
    Features of these images are added to the cache; the network is loaded only for images that the cache lacks.
    """
    if asked.dry_run:
        return _show_reading(asked, reading, printing)
    from featurecache.extract.cache.inventory import remember_use
    from featurecache.extract.images.any_layout import read_any_layout
    from featurecache.predictor import Predictor

    permit(asked.backbone)
    kind = "" if asked.out is None else asked.out.suffix.lower()
    if asked.out is not None and kind not in {".csv", ".json"}:
        raise UsageError(f"'{printable(asked.out)}' is neither a .csv nor a .json file: name one of these.")
    writing = contextlib.nullcontext() if asked.out is None else writing_file(asked.out)
    with Console(quiet=printing.quiet) as console, writing as out:
        predictor = Predictor.load(
            asked.run,
            head=asked.head,
            weights=asked.weights,
            cache_root=cache.cache,
            trust_head=asked.trust_head,
            progress=console,
        )
        settings = engine.settings()
        manifest = read_any_layout(
            asked.images,
            reading.options().over(predictor.reading),
            classes=predictor.classes,
            strict=settings.on_error == "fail",
            cache_root=predictor.cache_root,
        )
        predictions = predictor.predict(manifest, settings=settings, progress=console)
        for path in asked.images if manifest.vectors is None else ():
            remember_use(predictor.cache_root, [predictor.spec.folder_name], path)
        for line in accuracy_lines(predictions):
            console.say(line)
        if out is not None and kind == ".json":
            out.write_text(predictions_json(predictions) + "\n", encoding="utf-8")
        elif out is not None:
            write_csv(out, *predictions.table())
    if out is None:
        print(predictions_json(predictions) if printing.json else predictions_text(predictions))
    return account_for(predictions.files, errors_place(asked.out, predictor.cache_root), asked.images, console)


def _show_reading(asked: PredictOptions, reading: ReadingOptions, printing: Printing) -> int:
    """Print how the images are read; the network and the head are not loaded."""
    from featurecache.extract.images.any_layout import read_any_layout
    from featurecache.extract.images.read_options import ReadOptions
    from featurecache.runs.record_checks import need, read_config, read_results

    results, config = read_results(asked.run), read_config(asked.run)
    need(asked.run / RESULTS_FILE, results, ["dataset.classes"])
    options = reading.options().over(ReadOptions.from_dict(config.get("reading", {})))
    manifest = read_any_layout(asked.images, options, classes=results["dataset"]["classes"])
    return show_reading(manifest, as_json=printing.json, needs_labels=False)
