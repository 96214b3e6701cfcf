"""`featurecache run`: extract, then classify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurecache.base.errors import ClassifyError
from featurecache.cli.commands.classify import HEADS_KEPT, classify_with
from featurecache.cli.commands.classify import check as check_heads
from featurecache.cli.commands.extract import FEATURES_KEPT, extract_with
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, Invocation, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.options import (
    CacheOption,
    EngineOptions,
    FeatureOptions,
    HeadOptions,
    Images,
    SplitOptions,
)
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import list_missed
from featurecache.cli.text import extract_text
from featurecache.runs.folder import ERRORS_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featurecache.extract.images.manifest import Manifest, Sample

# Classes of fewer images may have too few different ones to be on all sides of a split.
SMALL_CLASS, N_SIDES = 50, 3


@click.command(
    cls=Command,
    stopped=FEATURES_KEPT,
    examples=["featurecache run photos/", "featurecache run photos/ --backbone vgg16 --heads mlp"],
)
@takes(Images, FeatureOptions, EngineOptions, HeadOptions, SplitOptions, CacheOption, Printing)
def command(
    images: Images,
    features: FeatureOptions,
    engine: EngineOptions,
    heads: HeadOptions,
    split: SplitOptions,
    cache: CacheOption,
    printing: Printing,
) -> int:
    """Extract features, then train and compare heads: both stages.

    The same as `featurecache extract` and then `featurecache classify` with these options.
    """
    if images.dry_run:
        return show_reading(images.read(), as_json=printing.json)
    from featurecache.runs.file_counts import count_files

    check_heads(heads)
    with Console(quiet=printing.quiet) as console:
        manifest = images.read(cache.cache)
        for note in manifest.notes:
            console.say(note)
        check_labels(manifest, split, cache, console, folds=heads.folds)
        report = extract_with(manifest, features, engine, cache, console)
        console.say(extract_text(report))
        files = count_files(manifest, report.samples, report.refusals)
        missed = list_missed(files, cache.cache / ERRORS_FILE, [images.images])
        click.get_current_context().ensure_object(Invocation).stopped = HEADS_KEPT
        code = classify_with(
            manifest, features=features, heads=heads, split=split, cache=cache, printing=printing, console=console
        )
        return code or missed


def check_labels(
    manifest: Manifest, split: SplitOptions, cache: CacheOption, console: Console, *, folds: int | None
) -> None:
    """Raise what `classify` would raise for labels that cannot be split, before an hour of extraction, not after it.

    As far as that is known before any image is decoded. Copies count as one in classes of fewer than 50 images, whose
    files are read if they may be copies by their sizes; those of larger classes only where the labels cannot be split
    otherwise, and then all files are read.
    """
    from featurecache.classify.selection.holdouts import val_round
    from featurecache.evaluate.join import label_samples
    from featurecache.extract.cache.memo import Memo
    from featurecache.extract.images.digests import Digested, stand_in_digests

    def check(digested: Digested | None) -> None:
        labelled = label_samples(
            manifest,
            memo,
            seed=split.seed,
            min_per_class=split.min_per_class,
            digested=digested,
            on_progress=console.digesting,
        )
        if folds is None:
            val_round(len(labelled.rows("train")), len(labelled.rows("train", "val")))

    with Memo(cache.cache) as memo:
        try:
            read = possible_copies(manifest.samples, n_distinct=max(N_SIDES, split.min_per_class))
            check(stand_in_digests(manifest.samples, memo, read=read, on_progress=console.digesting))
        except ClassifyError:
            check(None)


def possible_copies(samples: Sequence[Sample], *, n_distinct: int) -> set[int]:
    """The positions of the samples in small classes that may have fewer than `n_distinct` different images.

    Files of different sizes are no copies. With groups, which copies can join, all samples of small classes are taken.
    """
    classes: dict[tuple[str | None, str | None], list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.label is not None:
            classes.setdefault((sample.label, sample.split), []).append(i)
    found = set[int]()
    for own in classes.values():
        if len(own) < SMALL_CLASS:
            has_groups = any(samples[i].group for i in own)
            if has_groups or len({_size_of(samples[i].path) for i in own}) < n_distinct:
                found.update(own)
    return found


def _size_of(path: str) -> int:
    """The bytes of a file; -1 where it cannot be looked at."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return -1
