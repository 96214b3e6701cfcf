"""`featurecache finetune`: a network fine-tuned from a run, compared with the heads of that run."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from featurecache.base.defaults import DEFAULT_CACHE
from featurecache.base.errors import PipelineError, UsageError
from featurecache.base.text import printable
from featurecache.cli.advice import audit_advice, naming_commands
from featurecache.cli.config_file import resolved_options
from featurecache.cli.console import Console
from featurecache.cli.declare import POSITIVE, RATE, SEED, SHARE, Bytes, Command, option, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.options import PATH, Images, RunCacheOption
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import account_for_run
from featurecache.extract.cache.spec import DTYPES
from featurecache.extract.engines.protocol import DEVICES, ENGINES
from featurecache.extract.images.augmentation import VIEW_KINDS
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.finetune.finetune import finetune_images
from featurecache.finetune.plan import CACHED_VIEWS, MAP_DTYPE, NO_VIEWS, ONE_WAY, FinetunePlan
from featurecache.finetune.recipe import BATCH_NORMS, CLASS_WEIGHTS, TRAINING_PRECISIONS, Recipe
from featurecache.runs.documents import Results
from featurecache.runs.folder import (
    ERRORS_FILE,
    RUNS_ROOT,
    check_run_folder,
    check_writable,
    default_run_folder,
    reserving,
)
from featurecache.runs.models.places import find_run
from featurecache.runs.record_checks import read_results
from featurecache.runs.work_folder import heal

SOURCE, MAPS, TRAINING = "Start", "Feature maps", "Training"


@dataclass(frozen=True)
class SourceOptions:
    """What a fine-tune starts from, and how far down it goes."""

    start: Path = option(
        "--from", metavar="RUN", type=PATH, required=True, group=SOURCE, help="a run on these images, or a model"
    )
    head: str | None = option(
        "--head", metavar="NAME", group=SOURCE,
        help="the head of the run that becomes the last layers, or 'random' (default: the best on val of those "
        "that can)",
    )  # fmt: skip
    backbone: str | None = option(
        "--backbone", metavar="NAME", group=SOURCE, help="which of the run's backbones, where it has several"
    )
    size: int | None = option(
        "--size", metavar="S", type=POSITIVE, group=SOURCE, help="side of the input in pixels (default: the run's)"
    )
    unfreeze: str | None = option(
        "--unfreeze", metavar="N|PART|all", group=SOURCE,
        help="layers to train: the last N stages, a stage or block and all above it, or all (default: three eighths of "
        "the stages)",
    )  # fmt: skip


@dataclass(frozen=True)
class MapOptions:
    """Which feature maps are kept, and where."""

    augment: str = option(
        "--augment", type=click.Choice((NO_VIEWS, *VIEW_KINDS)), default="light", show_default=True, group=MAPS,
        help="views of each image. flip: horizontal flip; light: shift, scale, brightness, contrast; strong: larger, "
        "with flip and random erasing",
    )  # fmt: skip
    views: int | None = option(
        "--views", metavar="K", type=POSITIVE, group=MAPS,
        help=f"augmented views kept for each image, besides the image itself (default: {CACHED_VIEWS})",
    )  # fmt: skip
    disk: float | None = option(
        "--disk", metavar="GB", type=Bytes(), group=MAPS,
        help="most that feature maps may take in the cache; beyond it they are computed in every epoch (default: "
        "half of what is free)",
    )  # fmt: skip
    memory: float | None = option(
        "--memory", metavar="GB", type=Bytes(), group=MAPS,
        help="keep feature maps larger than this in a file (default: half of the machine's memory)",
    )  # fmt: skip
    dtype: str | None = option(
        "--dtype", type=click.Choice(DTYPES), group=MAPS, help=f"data type of the maps (default: {MAP_DTYPE})"
    )


@dataclass(frozen=True)
class TrainingOptions:
    """How the network is trained."""

    epochs: int = option(
        "--epochs", metavar="N", type=POSITIVE, default=10, show_default=True, group=TRAINING,
        help="passes over the training images",
    )  # fmt: skip
    lr: float = option(
        "--lr", metavar="RATE", type=RATE, default=1e-3, show_default=True, group=TRAINING,
        help="learning rate of the last layers, lower further down",
    )  # fmt: skip
    batch_size: int = option(
        "--batch-size", metavar="N", type=POSITIVE, default=32, show_default=True, group=TRAINING,
        help="images per step",
    )  # fmt: skip
    accumulate: int = option(
        "--accumulate", metavar="N", type=POSITIVE, default=1, show_default=True, group=TRAINING,
        help="passes that a step is divided into, accumulating gradients, to save memory",
    )  # fmt: skip
    patience: int = option(
        "--patience", metavar="N", type=POSITIVE, default=5, show_default=True, group=TRAINING,
        help="stop after so many epochs without a better result on val",
    )  # fmt: skip
    label_smoothing: float = option(
        "--label-smoothing", metavar="SHARE", type=SHARE, default=0.1, show_default=True, group=TRAINING,
        help="share of a label that is spread over all classes",
    )  # fmt: skip
    class_weight: str = option(
        "--class-weight", type=click.Choice(CLASS_WEIGHTS), default=CLASS_WEIGHTS[0], show_default=True, group=TRAINING,
        help="balanced: every class has the same weight, however rare",
    )  # fmt: skip
    batch_norm: str = option(
        "--batch-norm", type=click.Choice(BATCH_NORMS), default=BATCH_NORMS[0], show_default=True, group=TRAINING,
        help="whether batch normalisation keeps its statistics or learns them from each step",
    )  # fmt: skip
    precision: str = option(
        "--precision", type=click.Choice(("auto", *TRAINING_PRECISIONS)), default="auto", group=TRAINING,
        help="floating-point precision of training (default: bf16 on cuda, else fp32)",
    )  # fmt: skip
    seed: int = option(
        "--seed", metavar="N", type=SEED, default=0, show_default=True, group=TRAINING,
        help="seed of views, order and a random head",
    )  # fmt: skip


@dataclass(frozen=True)
class PlaceOptions:
    """On what it runs, and where the run goes."""

    device: str = option(
        "--device",
        type=click.Choice(DEVICES),
        default=DEVICES[0],
        help="where the network runs (default: a GPU if there is one)",
    )
    engine: str = option(
        "--engine",
        type=click.Choice(ENGINES),
        default=ENGINES[0],
        help="what runs the frozen part of the network (default: the faster one)",
    )
    max_pixels: int = option(
        "--max-pixels", metavar="N", type=POSITIVE, default=MAX_PIXELS, show_default=True, help="refuse larger images"
    )
    out: Path | None = option(
        "--out", metavar="DIR", type=PATH, help="the run folder (default: data/runs/<data set>-<time>)"
    )
    resume: bool = option(
        "--resume", is_flag=True, default=False,
        help="continue a run of the same command that was stopped; where nothing was saved it starts from the "
        "beginning, and what "
        "is finished is not trained again",
    )  # fmt: skip


@click.command(
    cls=Command,
    takes_file=True,
    stopped="Stopped. Finished maps are kept, and at most half a minute of a training is lost: --resume continues.",
    examples=[
        "featurecache finetune photos/ --from data/runs/latest",
        "featurecache finetune photos/ --from data/runs/latest --unfreeze all --size 96",
    ],
    old={"--smoothing": "--label-smoothing", "--parts": "--accumulate"},
)
@takes(Images, SourceOptions, MapOptions, TrainingOptions, PlaceOptions, RunCacheOption, Printing)
def command(
    images: Images,
    source: SourceOptions,
    maps: MapOptions,
    training: TrainingOptions,
    place: PlaceOptions,
    cache: RunCacheOption,
    printing: Printing,
) -> int:
    """Fine-tune the network, starting from a head of a run.

    The frozen part of the network runs once per image and view, and its feature maps are kept; epochs run only the
    layers above.
    Images that are refused are counted and listed in errors.csv of the run.
    """
    if images.dry_run:
        return show_reading(images.read(), as_json=printing.json)
    say = None if printing.quiet else partial(click.echo, err=True)
    source = replace(source, start=find_run(source.start, say=say))
    out = place.out or default_run_folder(Path(images.images))
    heal(out)
    _check(source, maps, training, place)
    check_writable(out)
    reserved = contextlib.nullcontext(out) if place.out else reserving(out)
    with Console(quiet=printing.quiet) as console, reserved as folder, naming_commands(images.images, images.options()):
        plan = replace(
            plan_of(source, maps, training, place),
            out=folder,
            cache_root=cache.cache or _cache_of(source.start, console),
        )
        manifest = images.read(plan.cache_root)
        folder, results = finetune_images(manifest, plan, console, advise=audit_advice(manifest))
        console.say(f"run folder: {folder}")
    print(json.dumps(results, indent=2) if printing.json else _table(plan.source, folder, results))
    return account_for_run(results["dataset"], folder / ERRORS_FILE, console)


def _cache_of(run: Path, console: Console) -> Path:
    from featurecache.predictor import recorded_cache

    results = read_results(run)
    return recorded_cache(run, results.get("config", {}), console, features=results.get("features", []))


def _check(source: SourceOptions, maps: MapOptions, training: TrainingOptions, place: PlaceOptions) -> None:
    """Raises UsageError for options that contradict each other."""
    if place.out is not None:
        check_run_folder(place.out, may_be_tuned=place.resume)  # by this very command, before it was killed
        if place.out.resolve() == source.start.resolve():
            raise UsageError(f"'{printable(place.out)}' is the run to start from. Choose another folder with --out.")
    if training.batch_norm == "trained" and (training.accumulate > 1 or training.batch_size == 1):
        raise UsageError(
            "--batch-norm trained needs the statistics of whole steps: leave out --accumulate, and --batch-size 1."
        )
    if maps.views is not None and maps.augment in ONE_WAY:
        raise UsageError(f"--views is the number of views, and --augment {maps.augment} draws none: leave out one.")


def plan_of(source: SourceOptions, maps: MapOptions, training: TrainingOptions, place: PlaceOptions) -> FinetunePlan:
    """Return what the options ask for, but for the places of the run and the cache."""
    from featurecache.extract.engines.torch_engine import choose_device

    precision = training.precision
    if precision == "auto":
        precision = "bf16" if choose_device(place.device) == "cuda" else "fp32"
    recipe = Recipe(
        epochs=training.epochs,
        learning_rate=training.lr,
        batch_size=training.batch_size,
        parts=training.accumulate,
        smoothing=training.label_smoothing,
        patience=training.patience,
        class_weight=training.class_weight,
        batch_norm=training.batch_norm,
        precision=precision,
        seed=training.seed,
    )
    return FinetunePlan(
        source=source.start.resolve(),  # `latest` will lead to the run that this becomes
        cache_root=DEFAULT_CACHE,
        out=RUNS_ROOT,
        recipe=recipe,
        head=source.head,
        backbone=source.backbone,
        unfreeze=source.unfreeze,
        augment=maps.augment,
        views=maps.views,
        size=source.size,
        dtype=maps.dtype,
        disk=maps.disk,
        memory=maps.memory,
        device=place.device,
        engine=place.engine,
        max_pixels=place.max_pixels,
        resume=place.resume,
        out_is_given=place.out is not None,
        options=resolved_options(click.get_current_context()),
    )


def _table(start: Path, out: Path, results: Results) -> str:
    """What was tuned, by val, too; then the heads that it began from and itself on the same test images."""
    from featurecache.cli.commands.compare_text import render
    from featurecache.cli.text import leaderboard_text
    from featurecache.evaluate.compare import compare_runs

    try:
        return f"{leaderboard_text(results)}\n\n{render(compare_runs([start, out]), 'text')}"
    except PipelineError:
        return leaderboard_text(results)
