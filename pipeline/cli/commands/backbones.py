"""`featurecache backbones`: what --backbone can name."""

from __future__ import annotations

import json

import click

from featurecache.base.exits import DONE
from featurecache.base.text import table
from featurecache.cli.declare import Command, takes
from featurecache.cli.printing import JsonOption


@click.command(cls=Command, examples=["featurecache backbones"])
@takes(JsonOption)
def command(printing: JsonOption) -> int:
    """List the backbones and their weights.

    The last column says whether the default weights are on this machine; others are downloaded when first used.
    """
    from featurecache.extract.backbones.listing import list_backbones

    infos = list_backbones()
    if printing.json:
        print(json.dumps([vars(info) for info in infos], indent=2))
        return DONE
    rows = [(info.name, info.source, ", ".join(info.weights), "yes" if info.at_hand else "") for info in infos]
    print(table(rows, ("backbone", "source", "weights, default first", "on this machine")))
    return DONE
