"""`featurecache heads`: what --heads can name."""

from __future__ import annotations

import json

import click

from featurecache.base.exits import DONE
from featurecache.base.text import table
from featurecache.cli.declare import Command, takes
from featurecache.cli.printing import JsonOption


@click.command(cls=Command, examples=["featurecache heads"])
@takes(JsonOption)
def command(printing: JsonOption) -> int:
    """List the heads, with the number of settings that each tries.

    A scikit-learn classifier is a head too, by its dotted path, such as sklearn.ensemble.ExtraTreesClassifier.
    """
    from featurecache.classify.heads.table import list_heads

    infos = list_heads()
    if printing.json:
        print(
            json.dumps(
                [{"name": info.name, "summary": info.summary, "settings": len(info.grid)} for info in infos], indent=2
            )
        )
        return DONE
    cells = [(info.name, info.summary, len(info.grid)) for info in infos]
    print(table(cells, ("head", "what it is", "settings tried"), right=(2,)))
    print("\nand any scikit-learn classifier by its dotted path, such as sklearn.ensemble.ExtraTreesClassifier")
    return DONE
