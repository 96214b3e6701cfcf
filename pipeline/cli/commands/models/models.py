"""`featurecache models`: the models that have a name."""

from __future__ import annotations

import json

import click

from featurecache.base.exits import DONE
from featurecache.cli.commands.models.text import models_text
from featurecache.cli.declare import Command, takes
from featurecache.cli.printing import JsonOption


@click.command(cls=Command, examples=["featurecache models", "featurecache models --json"])
@takes(JsonOption)
def command(printing: JsonOption) -> int:
    """List the models in data/models, with every version.

    A name can be given to predict in place of a run folder. An older version is taken by its folder, such as
    data/models/digits/v1.
    """
    from featurecache.runs.models.versions import list_models

    found = list_models()
    if printing.json:
        print(json.dumps([each.to_dict() for each in found], indent=2))
    elif found:
        print(models_text(found))
    else:
        print("There is no model yet. 'featurecache promote RUN NAME' makes one.")
    return DONE
