"""`featurecache promote`: a head of a run as a model with a name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import click

from featurecache.base.errors import UsageError
from featurecache.base.exits import DONE
from featurecache.cli.commands.models.text import version_text
from featurecache.cli.console import Console
from featurecache.cli.declare import Command, argument, option, takes
from featurecache.cli.printing import Printing


@dataclass(frozen=True)
class PromoteOptions:
    """Which head gets which name."""

    named: Sequence[str] = argument(
        "RUN NAME",
        "a run folder (or a model), and the name: letters, digits, - and _; with --rollback the name alone",
        nargs=-1,
        required=True,
    )
    head: str | None = option("--head", metavar="NAME", help="a head of the run (default: the best on val)")
    rollback: bool = option(
        "--rollback", is_flag=True, default=False, help="go back to the version before the current one; none is removed"
    )


@click.command(
    cls=Command,
    stopped="Stopped: the model is as it was, or has the new version whole; 'featurecache models' shows which.",
    examples=[
        "featurecache promote data/runs/latest digits",
        "featurecache promote data/runs/latest digits --head ridge",
        "featurecache promote digits --rollback",
        "featurecache predict digits new_photos/",
    ],
)
@takes(PromoteOptions, Printing)
def command(asked: PromoteOptions, printing: Printing) -> int:
    """Give a head of a run a name, by which other commands take it.

    The head, what predicting needs and its test numbers are copied to data/models/NAME, as the next version; the run
    may be deleted after that. Classes or a backbone that differ from the version before are named. Backbones are not
    copied, but for the weights of a fine-tuned network.
    """
    from featurecache.runs.models.promotion import promote_model, roll_back

    with Console(quiet=printing.quiet) as console:
        if asked.rollback:
            if len(asked.named) != 1 or asked.head is not None:
                raise UsageError("--rollback takes the name of a model and nothing else.")
            found = roll_back(asked.named[0])
        else:
            if len(asked.named) != 2:
                raise UsageError("promote takes a run and a name: featurecache promote data/runs/latest my-model")
            run, name = asked.named
            found = promote_model(run, name, head=asked.head, progress=console)
        if printing.json:
            print(json.dumps(found.to_dict(), indent=2))
            return DONE
        print(version_text(found))
        for note in found.notes:
            console.say(note)
    return DONE
