"""`featurecache cache compact`: merging shards."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from featurecache.base.errors import CacheError
from featurecache.base.exits import DONE, FAILED, REFUSED
from featurecache.base.text import printable, readable_bytes
from featurecache.cli.commands.cache.text import (
    check_root,
)
from featurecache.cli.declare import Command, takes
from featurecache.cli.options import CacheOption
from featurecache.cli.printing import JsonOption


@click.command(cls=Command, examples=["featurecache cache compact"])
@takes(CacheOption, JsonOption)
def command(cache: CacheOption, printing: JsonOption) -> int:
    """Merge small shards, drop duplicate rows and left-over files.

    A cache that is damaged is left out, which is exit code 3.
    """
    from featurecache.extract.cache.compact import compact_cache
    from featurecache.extract.cache.inventory import files_bytes, find_caches
    from featurecache.extract.cache.listing import merged_paths, shard_of_mark, sweep_leftovers

    check_root(cache.cache)
    swept = sweep_leftovers(cache.cache)
    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    for folder in find_caches(cache.cache):
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
    if printing.json:
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
            print(f"'{printable(cache.cache)}' holds no features yet.")
    for text in failed:
        print(f"featurecache: {text}", file=sys.stderr)
    return DONE if not failed else REFUSED if rows else FAILED


def _shards_bytes(folder: Path) -> int:
    from featurecache.extract.cache.inventory import files_bytes
    from featurecache.extract.cache.listing import shard_paths

    return files_bytes(shard_paths(folder))


def _kept_for_readers(row: dict[str, Any]) -> str:
    kept = row["bytes_kept_for_readers"]
    return (
        f"; the {readable_bytes(kept)} before stay a day for who reads them, or until the next compact" if kept else ""
    )
