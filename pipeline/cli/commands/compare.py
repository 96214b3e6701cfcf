"""`featurecache compare`: several runs in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from featurecache.base.exits import DONE
from featurecache.classify.evaluation.criteria import METRICS
from featurecache.cli.commands.compare_text import FORMATS, render
from featurecache.cli.declare import Command, argument, option, takes
from featurecache.cli.options import PATH
from featurecache.cli.printing import JsonOption


@dataclass(frozen=True)
class CompareOptions:
    """Which runs, and how they are shown."""

    runs: Sequence[Path] = argument(
        "RUN...", "run folders, such as data/runs/latest", type=PATH, nargs=-1, required=True
    )
    format: str = option(
        "--format", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="format of the table"
    )
    metric: str | None = option(
        "--metric",
        type=click.Choice(METRICS),
        help="what heads are ranked, tested and tied by (default: that of the runs)",
    )


@click.command(cls=Command, examples=["featurecache compare data/runs/a data/runs/b --format markdown"])
@takes(CompareOptions, JsonOption)
def command(asked: CompareOptions, printing: JsonOption) -> int:
    """Compare several runs in one table: ranks, ties, costs.

    Heads that were tested on the same images are paired; on other images they are only listed.
    """
    from featurecache.evaluate.compare import compare_runs
    from featurecache.runs.models.places import find_run

    runs = [find_run(run, say=partial(click.echo, err=True)) for run in asked.runs]
    print(render(compare_runs(runs, metric=asked.metric), "json" if printing.json else asked.format))
    return DONE
