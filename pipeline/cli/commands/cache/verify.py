"""`featurecache cache verify`: whether caches are whole."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from featurecache.base.errors import CacheError
from featurecache.base.exits import DONE, FAILED, REFUSED
from featurecache.base.text import printable
from featurecache.cli.commands.cache.text import (
    check_root,
    verdict_json,
    verdicts_text,
)
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, option, takes
from featurecache.cli.options import CacheOption
from featurecache.cli.printing import Printing


@dataclass(frozen=True)
class VerifyOptions:
    """What becomes of damage."""

    repair: bool = option(
        "--repair",
        is_flag=True,
        default=False,
        help="set damaged files aside, so that extract computes only their rows again",
    )


@click.command(cls=Command, examples=["featurecache cache verify", "featurecache cache verify --repair"])
@takes(VerifyOptions, CacheOption, Printing)
def command(asked: VerifyOptions, cache: CacheOption, printing: Printing) -> int:
    """Read every byte of the caches and name what is damaged.

    Ends with exit code 3 where damage is left there.
    """
    from featurecache.extract.cache.inventory import find_caches
    from featurecache.extract.cache.verify import Damage, Verification, repair_cache, verify_cache

    check_root(cache.cache)
    with Console(quiet=printing.quiet) as console:
        verdicts = []
        for folder in find_caches(cache.cache):
            console.say(f"checking {printable(folder.name)}")
            try:
                verdicts.append(verify_cache(folder, on_progress=console.checking))
            except CacheError as error:
                closed = Damage(folder, str(error), None, is_closed=True)
                verdicts.append(Verification(folder, None, 0, 0, 0, 0, (closed,), ()))
    moved: dict[Path, list[Path]] = {}
    failed: list[str] = []
    for verdict in verdicts if asked.repair else ():
        if verdict.damaged:
            try:
                moved[verdict.folder] = repair_cache(verdict)
            except CacheError as error:
                failed.append(str(error))
    if printing.json:
        print(json.dumps([verdict_json(each, moved.get(each.folder)) for each in verdicts], indent=2))
    else:
        print(verdicts_text(verdicts, moved, cache.cache, repair=asked.repair))
    for text in failed:
        print(f"featurecache: {text}", file=sys.stderr)
    if failed:
        return FAILED
    return REFUSED if not asked.repair and any(verdict.damaged for verdict in verdicts) else DONE
