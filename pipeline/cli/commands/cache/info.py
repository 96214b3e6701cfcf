"""`featurecache cache info`: which caches there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from featurecache.base.exits import DONE, REFUSED
from featurecache.base.text import count, printable, readable_bytes
from featurecache.cli.commands.cache.text import (
    check_root,
    info_json,
    info_lines,
)
from featurecache.cli.declare import Command, takes
from featurecache.cli.options import CacheOption
from featurecache.cli.printing import JsonOption

if TYPE_CHECKING:
    from featurecache.extract.cache.inventory import CacheInfo


@click.command(cls=Command, examples=["featurecache cache info"])
@takes(CacheOption, JsonOption)
def command(cache: CacheOption, printing: JsonOption) -> int:
    """Show what the cache holds, how large it is, and when it was used.

    Ends with exit code 3 where a file is damaged.
    """
    from featurecache.extract.cache.inventory import describe_caches, files_bytes
    from featurecache.extract.cache.listing import find_leftovers

    check_root(cache.cache)
    infos, leftovers = describe_caches(cache.cache), find_leftovers(cache.cache)
    n_bytes = sum(each.n_bytes for each in infos) + files_bytes(leftovers)
    if printing.json:
        rows = [info_json(each) for each in infos]
        print(json.dumps({"caches": rows, "left_over_files": list(map(str, leftovers)), "bytes": n_bytes}, indent=2))
        return _found_damage(infos)
    if not infos:
        print(f"'{printable(cache.cache)}' holds no features yet: 'featurecache extract IMAGES' makes some.")
    for each in infos:
        print("\n".join(info_lines(each)), end="\n\n")
    if infos:
        n_rows = sum(each.n_rows for each in infos)
        size = f"{count(len(infos), 'cache')}, {count(n_rows, 'row')}, {readable_bytes(n_bytes)}"
        print(f"{size} in '{printable(cache.cache)}'")
    if leftovers:
        print(f"{len(leftovers)} temporary files are left over or being written; extract and compact remove old ones")
    return _found_damage(infos)


def _found_damage(infos: Sequence[CacheInfo]) -> int:
    """The exit code: rows of files that cannot be opened are not counted."""
    return REFUSED if any(each.damaged for each in infos) else DONE
