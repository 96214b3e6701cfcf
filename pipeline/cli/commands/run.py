"""`featurecache run`: extract, then classify."""

from __future__ import annotations

import click

from featurecache.cli.commands.classify import HEADS_KEPT, classify_with
from featurecache.cli.commands.classify import check as check_heads
from featurecache.cli.commands.extract import FEATURES_KEPT, extract_with
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, Invocation, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.label_check import check_labels, would_stop
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


@click.command(
    cls=Command,
    takes_file=True,
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
        manifest = images.read()
        stop = would_stop(manifest, split, cache, folds=heads.folds)
        return show_reading(manifest, as_json=printing.json, command="run", stop=stop)
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
