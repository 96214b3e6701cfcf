"""`featurecache report`: a run as a page to look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from featurecache.base.exits import DONE
from featurecache.base.text import printable
from featurecache.cli.declare import Command, argument, option, takes
from featurecache.cli.options import PATH, RunCacheOption


@dataclass(frozen=True)
class ReportOptions:
    """Of which run, and where."""

    run: Path = argument("RUN", "a run folder, such as data/runs/latest, or the name of a model", type=PATH)
    out: Path | None = option(
        "--out", metavar="FILE", type=PATH, help="where to write it (default: report.html in the run)"
    )
    images: str | None = option(
        "--images", metavar="IMAGES", help="where the images are now (default: where the run saw them)"
    )
    open: bool = option("--open", is_flag=True, default=False, help="show it in the browser")


@click.command(
    cls=Command,
    stopped="Stopped: no page was written.",
    examples=["featurecache report data/runs/latest --open", "featurecache report my-model --out my-model.html"],
)
@takes(ReportOptions, RunCacheOption)
def command(asked: ReportOptions, cache: RunCacheOption) -> int:
    """Write the report of a run, one HTML file that works offline."""
    from featurecache.report.page import write_report
    from featurecache.runs.models.places import find_run

    run = find_run(asked.run, say=partial(click.echo, err=True))
    place = write_report(run, out=asked.out, images=asked.images, cache_root=cache.cache)
    print(printable(place))
    if asked.open:
        import webbrowser

        webbrowser.open(place.resolve().as_uri())
    return DONE
