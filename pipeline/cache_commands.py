"""`featurecache cache ...`: what there is, whether it is whole, merging, exporting and pruning it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from extract.cache import merged_paths, shard_of_mark, shard_paths
from extract.compact import compact_cache, open_cache, plan_pruning, prune_cache
from extract.digests import Digested, digest_samples
from extract.errors import CacheError
from extract.inventory import CacheInfo, describe_caches, files_bytes, find_caches
from extract.leftovers import find_leftovers, sweep_leftovers
from extract.manifest import merge, printable, read_images
from extract.memo import Memo
from extract.progress import readable_bytes
from extract.request import FeatureRequest
from extract.verify import Damage, Verdict, repair_cache, verify_cache
from pipeline import tables
from pipeline.asked import requests_of
from pipeline.cache_text import info_json, info_lines, pruning_json, verdict_json, verdicts_text
from pipeline.console import Console
from pipeline.errors import PipelineError, UsageError
from pipeline.exits import DONE, FAILED, REFUSED


def info(options: argparse.Namespace) -> int:
    """What caches there are."""
    _check_root(options.cache)
    infos, leftovers = describe_caches(options.cache), find_leftovers(options.cache)
    n_bytes = sum(each.n_bytes for each in infos) + files_bytes(leftovers)
    if options.json:
        rows = [info_json(each) for each in infos]
        print(json.dumps({"caches": rows, "left_over_files": list(map(str, leftovers)), "bytes": n_bytes}, indent=2))
        return _found_damage(infos)
    if not infos:
        print(f"'{printable(options.cache)}' holds no features yet: 'featurecache extract IMAGES' makes some.")
    for each in infos:
        print("\n".join(info_lines(each)), end="\n\n")
    if infos:
        n_rows = sum(each.n_rows for each in infos)
        print(f"{len(infos)} caches, {n_rows:,} rows, {readable_bytes(n_bytes)} in '{printable(options.cache)}'")
    if leftovers:
        print(f"{len(leftovers)} temporary files are left over or being written; extract and compact remove old ones")
    return _found_damage(infos)


def _found_damage(infos: Sequence[CacheInfo]) -> int:
    """The exit code: rows of files that cannot be opened are not counted."""
    return REFUSED if any(each.damaged for each in infos) else DONE


def verify(options: argparse.Namespace) -> int:
    """Read every byte; with --repair set aside what is damaged. Damage that is left there is exit code 3."""
    _check_root(options.cache)
    with Console(quiet=options.quiet) as console:
        verdicts = []
        for folder in find_caches(options.cache):
            console.say(f"checking {printable(folder.name)}")
            try:
                verdicts.append(verify_cache(folder, on_progress=console.checking))
            except CacheError as error:
                closed = Damage(folder, str(error), None, is_closed=True)
                verdicts.append(Verdict(folder, None, 0, 0, 0, 0, (closed,), ()))
    moved: dict[Path, list[Path]] = {}
    failed: list[str] = []
    for verdict in verdicts if options.repair else ():
        if verdict.damaged:
            try:
                moved[verdict.folder] = repair_cache(verdict)
            except CacheError as error:
                failed.append(str(error))
    if options.json:
        print(json.dumps([verdict_json(each, moved.get(each.folder)) for each in verdicts], indent=2))
    else:
        print(verdicts_text(verdicts, moved, options.cache, repair=options.repair))
    for text in failed:
        print(f"featurecache: {text}", file=sys.stderr)
    if failed:
        return FAILED
    return REFUSED if not options.repair and any(verdict.damaged for verdict in verdicts) else DONE


def compact(options: argparse.Namespace) -> int:
    """Merge small shards, cache by cache; one that is damaged is left out, and is exit code 3."""
    _check_root(options.cache)
    swept = sweep_leftovers(options.cache)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for folder in find_caches(options.cache):
        before = _shards_bytes(folder)
        try:
            done = compact_cache(folder)
        except CacheError as error:
            failed.append(str(error))
            continue
        rows.append({
            "folder": printable(folder),
            "rows": done.n_rows,
            "duplicates": done.n_duplicates,
            "shards_before": done.n_shards,
            "shards": done.n_shards_after,
            "bytes_before": before,
            "bytes": _shards_bytes(folder),
            "bytes_kept_for_readers": files_bytes(map(shard_of_mark, merged_paths(folder))),
        })  # fmt: skip
    if options.json:
        print(json.dumps({"caches": rows, "swept": list(map(str, swept))}, indent=2))
    else:
        for row in rows:
            print(
                f"{row['folder']}: {row['rows']:,} rows, {row['shards_before']} shards -> {row['shards']}, "
                f"{row['duplicates']:,} second copies dropped, "
                f"{readable_bytes(row['bytes_before'])} -> {readable_bytes(row['bytes'])}{_kept_for_readers(row)}"
            )
        if swept:
            print(f"{len(swept)} left-over temporary files removed")
        if not rows and not failed:
            print(f"'{printable(options.cache)}' holds no features yet.")
    for text in failed:
        print(f"featurecache: {text}", file=sys.stderr)
    return DONE if not failed else REFUSED if rows else FAILED


def export(options: argparse.Namespace) -> int:
    """One ordinary file of features, labels, paths and splits."""
    from pipeline.export_features import build_table, check_out, write_table

    check_out(options.out)
    request = _single_request(options)
    with Console(quiet=options.quiet) as console:
        if options.out.exists():
            console.say(f"'{printable(options.out)}' is there already: this one replaces it when it is whole.")
        manifest = read_images(options.images)
        for note in manifest.notes:
            console.say(note)
        table = build_table(
            manifest,
            request,
            images=options.images,
            cache_root=options.cache,
            seed=options.seed,
            min_per_class=options.min_per_class,
            on_progress=console.digesting,
        )
        for note in table.notes:
            console.say(note)
        write_table(table, options.out)
    spec = table.resolved.spec
    if options.json:
        refused = [refusal.to_dict() for refusal in table.refusals]
        print(json.dumps({
            "out": printable(options.out), "rows": len(table.paths), "dim": spec.feature_dim, "dtype": spec.dtype,
            "classes": table.classes, "key": spec.key, "refused": refused,
        }, indent=2))  # fmt: skip
    else:
        print(
            f"{printable(options.out)}: {len(table.paths):,} rows of {spec.feature_dim} numbers ({spec.backbone}), "
            f"{len(table.classes)} classes"
        )
    if table.refusals:
        print(
            tables.refusals_text(table.refusals, "errors.csv of 'featurecache extract' (and with --json)"),
            file=sys.stderr,
        )
    return REFUSED if table.refusals or manifest.unreadable else DONE


def prune(options: argparse.Namespace) -> int:
    """Drop the rows that no given image set uses; without --yes only say what would go."""
    _check_root(options.cache)
    folders = _named(find_caches(options.cache), options.backbone)
    with Console(quiet=options.quiet) as console:
        digested = _digest_all(options, console)
    caches = [open_cache(folder) for folder in folders]
    plans = [plan_pruning(cache, digested.digests) for cache in caches]
    if options.yes:
        plans = [prune_cache(folder, digested.digests) for folder in folders]
    n_unused = sum(plan.n_unused for plan in plans)
    if options.json:
        rows = [pruning_json(plan, cache.spec.backbone) for plan, cache in zip(plans, caches, strict=True)]
        print(json.dumps({"done": options.yes, "images": len(digested.samples), "caches": rows}, indent=2))
        return DONE
    verb = "dropped" if options.yes else "would be dropped"
    for plan, cache in zip(plans, caches, strict=True):
        n_bytes = pruning_json(plan, cache.spec.backbone)["bytes_unused"]
        print(
            f"{printable(plan.folder)}: {plan.n_unused:,} rows {verb} (about {readable_bytes(n_bytes)}), "
            f"{plan.n_rows:,} stay"
        )
    if n_unused and not options.yes:
        print("Nothing was changed. The same command with --yes drops them; extracting them again costs their time.")
    elif not n_unused:
        print("Every row is used by these images.")
    return DONE


CACHE_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "info": info,
    "verify": verify,
    "compact": compact,
    "export": export,
    "prune": prune,
}


def _check_root(root: Path) -> None:
    if not root.is_dir():
        raise UsageError(
            f"There is no cache folder '{printable(root)}'. Name one with --cache, or make it with "
            "'featurecache extract IMAGES'."
        )


def _single_request(options: argparse.Namespace) -> FeatureRequest:
    found = requests_of(options)
    if len(found) != 1:
        raise UsageError(f"{len(found)} kinds of features are named, and a file holds one: name a single --backbone.")
    return found[0]


def _named(folders: Sequence[Path], backbones: Sequence[str] | None) -> list[Path]:
    if not backbones:
        return list(folders)
    wanted = {name for text in backbones for name in text.split(",") if name}
    # A folder's name is the backbone's, a hyphen and twelve digits of the key.
    missing = wanted - {folder.name[:-13] for folder in folders}
    if missing:
        there = ", ".join(sorted({printable(folder.name[:-13]) for folder in folders})) or "none"
        raise UsageError(
            f"No cache holds features of {', '.join(map(printable, sorted(missing)))}; there are: {there}."
        )
    return [folder for folder in folders if folder.name[:-13] in wanted]


def _digest_all(options: argparse.Namespace, console: Console) -> Digested:
    """All images of all sets.

    Raises PipelineError when one, or a folder of them, cannot be read: which row it uses would not be known.
    """
    manifest = merge(read_images(images) for images in options.images)
    for note in manifest.notes:
        console.say(note)
    if manifest.unreadable:
        raise PipelineError(
            f"{len(manifest.unreadable):,} folders cannot be read, so which rows their images use is not known; the "
            f"first is '{printable(manifest.unreadable[0])}'. Make them readable or move them away."
        )
    with Memo(options.cache, read_only=True) as memo:
        digested = digest_samples(manifest.samples, memo, on_progress=console.digesting)
    if digested.refusals:
        first = digested.refusals[0]
        raise PipelineError(
            f"{len(digested.refusals):,} images cannot be read, so which rows they use is not known; the first is "
            f"'{printable(first.name)}' ({first.reason}). Make them readable or leave them out of the manifest."
        )
    return digested


def _shards_bytes(folder: Path) -> int:
    return files_bytes(shard_paths(folder))


def _kept_for_readers(row: dict[str, Any]) -> str:
    kept = row["bytes_kept_for_readers"]
    return (
        f"; the {readable_bytes(kept)} before stay a day for who reads them, or until the next compact" if kept else ""
    )
