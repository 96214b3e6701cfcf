"""`featurecache extract`: features of all images into the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from featurecache.cli.console import Console
from featurecache.cli.declare import Command, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.options import CacheOption, EngineOptions, FeatureOptions, Images
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import account_for
from featurecache.cli.text import extract_json, extract_text
from featurecache.runs.command_lines import parts_of_all
from featurecache.runs.folder import ERRORS_FILE

if TYPE_CHECKING:
    from featurecache.extract.images.manifest import Manifest
    from featurecache.extract.job.summary import ExtractReport

FEATURES_KEPT = "Stopped. Features extracted so far are kept: the same command continues from there."


@click.command(
    cls=Command,
    takes_file=True,
    stopped=FEATURES_KEPT,
    examples=[
        "featurecache extract photos/",
        "featurecache extract photos/ --backbone resnet50 --layer default --layer stages",
    ],
)
@takes(Images, FeatureOptions, EngineOptions, CacheOption, Printing)
def command(
    images: Images, features: FeatureOptions, engine: EngineOptions, cache: CacheOption, printing: Printing
) -> int:
    """Extract features of all images into the cache.

    Every image is read and passed through the network once; what the cache has is not computed again. A flat folder,
    without labels, will do.
    """
    if images.dry_run:
        return show_reading(images.read(), as_json=printing.json)
    from featurecache.runs.file_counts import count_files

    with Console(quiet=printing.quiet) as console:
        manifest = images.read(cache.cache)
        for note in manifest.notes:
            console.say(note)
        report = extract_with(manifest, features, engine, cache, console)
        files = count_files(manifest, report.samples, report.refusals)
        print(extract_json(report, files) if printing.json else extract_text(report))
        return account_for(files, cache.cache / ERRORS_FILE, [images.images], console)


def extract_with(
    manifest: Manifest, features: FeatureOptions, engine: EngineOptions, cache: CacheOption, console: Console
) -> ExtractReport:
    """Extract what the cache lacks, as the options say."""
    from featurecache.extract.cache.inventory import remember_use
    from featurecache.extract.cache.listing import sweep_leftovers
    from featurecache.extract.job.extract import extract_features

    sweep_leftovers(cache.cache)
    requests = parts_of_all(features.requests())
    report = extract_features(manifest, requests, cache.cache, settings=engine.settings(), progress=console)
    remember_use(cache.cache, [filled.cache.folder.name for filled in report.filled], manifest.source)
    return report
