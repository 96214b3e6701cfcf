"""`featurecache cache prune`: dropping rows that no image uses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurecache.base.errors import PipelineError, UsageError
from featurecache.base.exits import DONE
from featurecache.base.text import count, printable, readable_bytes
from featurecache.cli.commands.cache.text import (
    check_root,
    pruning_json,
)
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, argument, option, takes
from featurecache.cli.options import CacheOption, ReadingOptions
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import show_files
from featurecache.extract.cache.spec import backbone_slug, slug
from featurecache.extract.images.arguments.any_layout import read_any_layout
from featurecache.extract.images.left_out import MISSING_FILE, LeftOut, suffix_of
from featurecache.extract.images.manifest import Manifest, Sample, merge
from featurecache.extract.images.read_options import ReadOptions

if TYPE_CHECKING:
    from featurecache.extract.images.digests import Digested


@dataclass(frozen=True)
class PruneOptions:
    """What is still wanted, and whether the rest goes."""

    images: Sequence[str] = argument("IMAGES...", "every image set that is still wanted", nargs=-1, required=True)
    backbone: Sequence[str] = option(
        "--backbone", metavar="NAME", multiple=True, help="prune only this backbone's caches"
    )
    yes: bool = option("--yes", is_flag=True, default=False, help="do it; without, only say what would be dropped")


@click.command(cls=Command, examples=["featurecache cache prune photos/", "featurecache cache prune photos/ --yes"])
@takes(PruneOptions, ReadingOptions, CacheOption, Printing)
def command(asked: PruneOptions, reading: ReadingOptions, place: CacheOption, printing: Printing) -> int:
    """Drop the rows that none of these images uses.

    Without --yes nothing is changed: what would be dropped is shown.
    """
    from featurecache.extract.cache.compact import open_cache, plan_pruning, prune_cache
    from featurecache.extract.cache.inventory import find_caches
    from featurecache.extract.images.digests import forget_others
    from featurecache.runs.file_counts import count_files

    check_root(place.cache)
    folders = _named(find_caches(place.cache), asked.backbone)
    with Console(quiet=printing.quiet) as console:
        manifest, digested = _digest_all(asked.images, reading.options(), place.cache, console)
        files = count_files(manifest, digested.samples, needs_labels=False)
        show_files(files.to_dict(), console)
    caches = [open_cache(folder) for folder in folders]
    plans = [plan_pruning(cache, digested.digests) for cache in caches]
    if asked.yes:
        plans = [prune_cache(folder, digested.digests) for folder in folders]
        if not asked.backbone:
            forget_others(digested.samples, place.cache)
    n_unused = sum(plan.n_unused for plan in plans)
    if printing.json:
        rows = [pruning_json(plan, cache.spec.backbone) for plan, cache in zip(plans, caches, strict=True)]
        values = {"done": asked.yes, "images": len(digested.samples), "caches": rows, "files": files.to_dict()}
        print(json.dumps(values, indent=2))
        return DONE
    verb = "dropped" if asked.yes else "would be dropped"
    for plan, cache in zip(plans, caches, strict=True):
        n_bytes = pruning_json(plan, cache.spec.backbone)["bytes_unused"]
        print(
            f"{printable(plan.folder)}: {count(plan.n_unused, 'row')} {verb} (about {readable_bytes(n_bytes)}), "
            f"{plan.n_rows:,} stay"
        )
    if n_unused and not asked.yes:
        print("Nothing was changed. The same command with --yes drops them; extracting them again costs their time.")
    elif not n_unused:
        print("Every row is used by these images.")
    return DONE


def _named(folders: Sequence[Path], backbones: Sequence[str] | None) -> list[Path]:
    if not backbones:
        return list(folders)
    wanted = {slug(name): name for text in backbones for name in text.split(",") if name}
    found = {backbone_slug(folder.name) for folder in folders}
    missing = [name for short, name in wanted.items() if short not in found]
    if missing:
        there = ", ".join(sorted(map(printable, found))) or "none"
        raise UsageError(
            f"No cache holds features of {', '.join(map(printable, sorted(missing)))}; there are: {there}."
        )
    return [folder for folder in folders if backbone_slug(folder.name) in wanted]


def _with_missed(manifest: Manifest) -> Manifest:
    """Return a data set with the files that are left out and that somebody would miss among its samples."""
    counts, samples, missed = Counter(manifest.left_out.counts), list(manifest.samples), []
    for each in manifest.left_out.missed:
        path = manifest.root / each.name
        if path.is_file():
            samples.append(Sample(str(path), each.name))
            counts[each.code, suffix_of(each.name)] -= 1
        else:
            missed.append(each)
    return replace(manifest, samples=tuple(samples), left_out=LeftOut(+counts, tuple(missed)))


def _digest_all(
    images: Sequence[str], options: ReadOptions, cache_root: Path, console: Console
) -> tuple[Manifest, Digested]:
    """All images of all sets, in any layout, and also those that only another installation can decode.

    Raises PipelineError when one, or a folder of them, cannot be read: which row it uses would not be known.
    """
    from featurecache.extract.cache.memo import Memo
    from featurecache.extract.images.digests import digest_samples

    manifests = [read_any_layout([each], options) for each in images]
    closed = [each.root / name for each in manifests for name in each.unreadable]
    if closed:
        raise PipelineError(
            f"{count(len(closed), 'folder')} cannot be read, so which rows their images use is not known; the first is "
            f"'{printable(closed[0])}'. Make them readable or move them away."
        )
    manifest = merge(map(_with_missed, manifests))
    if missing := manifest.left_out.names(MISSING_FILE):
        raise PipelineError(
            f"{count(len(missing), 'file')} of a table cannot be found, so which rows they use is not known; the first "
            f"is '{printable(missing[0])}'. Put them in place, or take them out of the table."
        )
    with Memo(cache_root, read_only=True) as memo:
        digested = digest_samples(manifest.samples, memo, on_progress=console.digesting)
    if digested.refusals:
        first = digested.refusals[0]
        raise PipelineError(
            f"{count(len(digested.refusals), 'image')} cannot be read, so which rows they use is not known; "
            f"the first is '{printable(first.name)}' ({first.reason}). "
            "Make them readable or leave them out of the manifest."
        )
    return manifest, digested
