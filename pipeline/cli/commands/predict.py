"""`featurecache predict`: labels of images, by a head of a run."""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from featurecache.base.errors import UsageError
from featurecache.base.progress import Silent
from featurecache.base.text import printable
from featurecache.cli.console import Console
from featurecache.cli.declare import POSITIVE, PROBABILITY, Command, argument, option, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.head_options import HeadOptions
from featurecache.cli.options import PATH, READING, EngineOptions, ReadingOptions, RunCacheOption, dry_run_option
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import account_for, errors_place
from featurecache.cli.text import outcome_lines
from featurecache.extract.backbones.libraries.own_network import permit
from featurecache.extract.images.arguments.standard_input import STANDARD_INPUT, StandardInput, read_standard_input
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.images.read_options import ReadOptions
from featurecache.predictions.columns import Listing
from featurecache.predictions.formats import JSON, TABLE, TEXTS, check_suffix, write_file
from featurecache.predictions.on_the_way import LabelledOnTheWay
from featurecache.predictions.writing import ToLabel, begin_writing
from featurecache.runs.folder import RESULTS_FILE, writing_file
from featurecache.runs.reading import is_exported_file

if TYPE_CHECKING:
    from featurecache.predictions.labelled import Labelled
    from featurecache.predictor import Predictor

# Options of extraction that mean nothing for an exported file.
OF_NETWORKS = ("engine", "device", "batch_size", "retry_refused", "refresh")


@dataclass(frozen=True)
class PredictOptions:
    """On what, and where the answers go."""

    run: Path = argument(
        "RUN", "a run folder, such as data/runs/latest, the name of a model, or a file of export", type=PATH
    )
    images: Sequence[str] = argument(
        "IMAGES...",
        "image files, folders, manifests, patterns such as 'new/**/*.jpg', or - for standard input: paths, one a line, "
        "or the bytes of an image; or files of vectors",
        nargs=-1,
        required=True,
    )
    null: bool = option(
        "--null", "-0", is_flag=True, default=False, group=READING,
        help="paths on standard input have NUL behind each, as 'find -print0' writes them, and no line breaks",
    )  # fmt: skip
    dry_run: bool = dry_run_option()
    out: Path | None = option(
        "--out",
        metavar="FILE",
        type=PATH,
        help="write a .csv, .jsonl (an object a line), .json or .parquet file, instead of a table",
    )
    format: str | None = option(
        "--format", type=click.Choice(list(TEXTS)), metavar="NAME",
        help=f"what is written on stdout without --out: {', '.join(TEXTS)} (default: table)",
    )  # fmt: skip
    top: int | None = option(
        "--top", metavar="K", type=POSITIVE,
        help="write the K best labels with their probabilities, in place of the probability of every class",
    )  # fmt: skip
    min_probability: float | None = option(
        "--min-probability", metavar="P", type=PROBABILITY,
        help="leave the label of an image empty where its probability is below P; such images are counted",
    )  # fmt: skip


@click.command(
    cls=Command,
    takes_file=True,
    stopped="Stopped: nothing was labelled. Features extracted so far are kept: the same command continues from there.",
    examples=[
        "featurecache predict data/runs/latest new_photos/",
        "featurecache predict data/runs/latest 'new/**/*.jpg' --top 3 --out labels.csv",
        "find new -name '*.jpg' -print0 | featurecache predict data/runs/latest - -0 --format jsonl",
        "featurecache predict model.onnx new_photos/",
        "cat one.jpg | featurecache predict data/runs/latest - --json",
        "featurecache predict my-model new_photos/",
    ],
)
@takes(PredictOptions, HeadOptions, ReadingOptions, EngineOptions, RunCacheOption, Printing)
def command(
    asked: PredictOptions,
    head: HeadOptions,
    reading: ReadingOptions,
    engine: EngineOptions,
    cache: RunCacheOption,
    printing: Printing,
) -> int:
    """Predict labels of images with a trained head.

    Every image below a folder gets a label, in any layout; an argument that is no image is named and left out. Where
    folders or a table have labels that the head knows, its accuracy on them is shown.
    Features of these images are added to the cache; the network is loaded only for images that the cache lacks.
    """
    form = _format(asked, printing)
    if asked.dry_run:
        return _show_reading(asked, reading, printing)
    permit(head.backbone)
    settings = engine.settings()
    writing = contextlib.nullcontext() if asked.out is None else writing_file(asked.out)
    with Console(quiet=printing.quiet) as console, writing as out, contextlib.ExitStack() as stack:
        predictor = _load(asked.run, head, engine, cache, console)
        root = None if is_exported_file(asked.run) else predictor.cache_root
        label = functools.partial(predictor.label, settings=settings, progress=console)
        is_strict = settings.on_error == "fail"
        options = reading.options().over(predictor.reading)
        sets = stack.enter_context(_reading(asked, options, predictor.classes, cache_root=root, strict=is_strict))
        labelled: Sequence[ToLabel] = [
            label(each) if root else _on_the_way(predictor.name, each, label, console) for each in sets
        ]
        if root is not None and sets[0].vectors is None:
            _remember(root, predictor.spec.folder_name, asked.images)
        listing = Listing(predictor.classes, asked.top, asked.min_probability)
        is_shown = out is None and sys.stdout.isatty()  # a bar would run through what is printed
        predictions = begin_writing(labelled, listing, Silent() if is_shown else console, noun=sets[0].noun)
        if out is None:
            TEXTS[form](sys.stdout, predictions)
        else:
            write_file(out, predictions, named=asked.out)
        outcome, is_of_run = predictions.outcome, root is not None
        for line in outcome_lines(predictions.head, outcome, asked.min_probability, is_of_run=is_of_run):
            console.say(line)
    return account_for(predictions.files, errors_place(asked.out, root or Path()), asked.images, console)


def _load(run: Path, head: HeadOptions, engine: EngineOptions, cache: RunCacheOption, console: Console) -> Predictor:
    """Load a head. Raises UsageError for options that mean nothing for an exported file."""
    from featurecache.predictor import Predictor

    if is_exported_file(run):
        usual = EngineOptions()
        given = {f"--{name.replace('_', '-')}": getattr(engine, name) != getattr(usual, name) for name in OF_NETWORKS}
        given |= {"--head": head.head, "--weights": head.weights, "--backbone": head.backbone, "--cache": cache.cache,
                  "--trust-head": head.trust_head}  # fmt: skip
        if named := next((name for name, value in given.items() if value), None):
            raise UsageError(f"{named} is about a run, and '{printable(run)}' is one head as a file: leave it out.")
    return Predictor.load(
        run,
        head=head.head,
        weights=head.weights,
        cache_root=cache.cache,
        trust_head=head.trust_head,
        progress=console,
    )


def _on_the_way(
    head: str, images: Manifest, label: Callable[[Manifest], Labelled], console: Console
) -> LabelledOnTheWay:
    """Return images that an exported file decodes and labels block by block."""
    for note in images.notes:
        console.say(note)
    return LabelledOnTheWay(head, images, label)


def _remember(cache_root: Path, folder: str, images: Sequence[str]) -> None:
    """Record in a cache which images used it."""
    from featurecache.extract.cache.inventory import remember_use

    for path in images:
        if path != STANDARD_INPUT:
            remember_use(cache_root, [folder], path)


def _format(asked: PredictOptions, printing: Printing) -> str:
    """Return the format on stdout. Raises UsageError for options that contradict each other, and unknown suffixes."""
    if asked.out is not None:
        check_suffix(asked.out)
        if asked.format is not None:
            raise UsageError("--format is about stdout, and --out has its format by its suffix: leave one of them out.")
        _check_apart(asked.out, asked.images)
    if printing.json and asked.format not in (None, JSON):
        raise UsageError(f"--json and --format {asked.format} name two formats: leave one of them out.")
    if asked.null and STANDARD_INPUT not in asked.images:
        raise UsageError("--null is about paths on standard input: name it with -, or leave --null out.")
    return JSON if printing.json else asked.format or TABLE


def _check_apart(out: Path, images: Sequence[str]) -> None:
    """Raise UsageError where the file to write is one to read, such as a table of labels."""
    for each in images:
        with contextlib.suppress(OSError, ValueError):
            if out.samefile(each):
                raise UsageError(
                    f"'{printable(out)}' is what is to be labelled, and --out would replace it. Choose another file "
                    "with --out."
                )


@contextlib.contextmanager
def _reading(
    asked: PredictOptions,
    options: ReadOptions,
    classes: Collection[str],
    *,
    cache_root: Path | None = None,
    strict: bool = False,
) -> Iterator[list[Manifest]]:
    """Yield the images of all arguments, or every file of vectors; an image from stdin is in a file in the meantime."""
    from featurecache.extract.images.arguments.any_layout import read_data_sets

    is_listed = STANDARD_INPUT in asked.images
    with tempfile.TemporaryDirectory() if is_listed else contextlib.nullcontext("") as folder:
        given = StandardInput([])
        if is_listed:
            given = read_standard_input(_standard_input(), Path(folder), null=asked.null)
        sets = read_data_sets(
            given.in_place_of(asked.images),
            options,
            classes=classes,
            strict=strict,
            cache_root=cache_root,
            listed=given.paths,
        )
        yield [given.named(each) for each in sets]


def _standard_input() -> BinaryIO:
    """Return standard input; on a terminal, a line says what is read there. Raises UsageError where it is closed."""
    if sys.stdin is None:
        raise UsageError("There is no standard input: it is closed. Name the images instead of -.")
    if sys.stdin.isatty():
        print("Paths of images are read here, one a line; Ctrl-D ends them.", file=sys.stderr)
    return sys.stdin.buffer


def _show_reading(asked: PredictOptions, reading: ReadingOptions, printing: Printing) -> int:
    """Print how the images are read; the network and the head are not loaded."""
    from featurecache.runs.models.places import find_run
    from featurecache.runs.record_checks import need, read_config, read_results

    usual, classes = ReadOptions(), list[str]()
    if not is_exported_file(asked.run):
        run = find_run(asked.run, say=None if printing.quiet else functools.partial(click.echo, err=True))
        results, config = read_results(run), read_config(run)
        need(run / RESULTS_FILE, results, ["dataset.classes"])
        usual, classes = ReadOptions.from_dict(config.get("reading", {})), results["dataset"]["classes"]
    with _reading(asked, reading.options().over(usual), classes) as sets:
        if len(sets) > 1:
            raise UsageError("--dry-run shows how one file of vectors is read: name one.")
        return show_reading(sets[0], as_json=printing.json, needs_labels=False)
