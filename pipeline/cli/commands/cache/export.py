"""`featurecache cache export`: features as one ordinary file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurecache.base.errors import UsageError
from featurecache.base.text import count, printable
from featurecache.cli.advice import naming_commands
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, argument, takes
from featurecache.cli.options import PATH, CacheOption, FeatureOptions, Images, SplitOptions
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import account_for, errors_place

if TYPE_CHECKING:
    from featurecache.evaluate.cache_export import FeatureTable
    from featurecache.extract.job.request import FeatureRequest


@dataclass(frozen=True)
class ExportOptions:
    """Where the file goes."""

    out: Path = argument("OUT", "a .h5, .npz or .parquet file", type=PATH)


@click.command(cls=Command, examples=["featurecache cache export photos/ photos.h5"])
@takes(Images, ExportOptions, FeatureOptions, SplitOptions, CacheOption, Printing)
def command(
    images: Images,
    asked: ExportOptions,
    features: FeatureOptions,
    split: SplitOptions,
    cache: CacheOption,
    printing: Printing,
) -> int:
    """Write features, labels, paths and splits as one ordinary file.

    Row i is image i in manifest order, with its group and digest. Labels are places in 'classes', in .parquet their
    names.
    """
    from featurecache.evaluate.cache_export import build_table, check_out, write_table

    check_out(asked.out)
    request = _single_request(features)
    with Console(quiet=printing.quiet) as console, naming_commands(images.images, images.options()):
        if asked.out.exists():
            console.say(f"'{printable(asked.out)}' is there already: this one replaces it when it is whole.")
        manifest = images.read(cache.cache)
        for note in manifest.notes:
            console.say(note)
        table = build_table(
            manifest,
            request,
            cache_root=cache.cache,
            seed=split.seed,
            min_per_class=split.min_per_class,
            on_progress=console.digesting,
        )
        for note in table.notes:
            console.say(note)
        write_table(table, asked.out)
    print(as_json(table, asked.out) if printing.json else as_text(table, asked.out))
    return account_for(table.files, errors_place(asked.out, cache.cache), [images.images], console)


def as_json(table: FeatureTable, out: Path) -> str:
    """Return what was written, as JSON."""
    spec, refused = table.resolved.spec, [refusal.to_dict() for refusal in table.files.refusals]
    return json.dumps({
        "out": printable(out), "rows": len(table.paths), "dim": spec.feature_dim, "dtype": spec.dtype,
        "classes": table.classes, "key": spec.key, "refused": refused,
        "files": table.files.to_dict(),
    }, indent=2)  # fmt: skip


def as_text(table: FeatureTable, out: Path) -> str:
    """Return what was written, in a line."""
    spec = table.resolved.spec
    return (
        f"{printable(out)}: {count(len(table.paths), 'row')} of {spec.feature_dim} numbers ({spec.backbone}), "
        f"{len(table.classes)} classes"
    )


def _single_request(features: FeatureOptions) -> FeatureRequest:
    found = features.requests()
    if len(found) != 1:
        raise UsageError(f"{len(found)} kinds of features are named, and a file holds one: name a single --backbone.")
    return found[0]
