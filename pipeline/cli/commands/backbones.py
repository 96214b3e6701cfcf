"""`featurecache backbones`: what --backbone can name."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from featurecache.base.exits import DONE
from featurecache.base.text import printable, table
from featurecache.cli.declare import Command, argument, option, takes
from featurecache.cli.printing import JsonOption

if TYPE_CHECKING:
    from featurecache.extract.backbones.listing import BackboneInfo


@dataclass(frozen=True)
class ListingOptions:
    """Which backbones are listed."""

    words: Sequence[str] = argument(
        "[WORD...]", "only names with these words in them, those of timm and Keras too", nargs=-1
    )
    here: bool = option("--here", is_flag=True, default=False, help="only those whose weights are on this machine")


@click.command(
    cls=Command,
    examples=["featurecache backbones", "featurecache backbones dinov2", "featurecache backbones timm/ --here"],
)
@takes(ListingOptions, JsonOption)
def command(asked: ListingOptions, printing: JsonOption) -> int:
    """List the backbones and their weights.

    The last column says whether the default weights are on this machine; others are downloaded when first used. The
    networks of timm and Keras, which are many, are listed by a word; weights of timm are part of a name: timm/NAME.TAG.
    """
    from featurecache.extract.backbones.listing import list_backbones, list_library_backbones

    infos = list_backbones()
    if asked.words or asked.here:
        infos += list_library_backbones()
    words = [word.lower() for word in asked.words]
    infos = [each for each in infos if all(word in _searched(each) for word in words)]
    infos = [each for each in infos if each.at_hand or not asked.here]
    if printing.json:
        print(json.dumps([vars(info) for info in infos], indent=2))
        return DONE
    if not infos:
        print(_none_found(asked))
        return DONE
    rows = [
        (printable(info.name), info.source, ", ".join(info.weights), printable(info.license), "yes" * info.at_hand)
        for info in infos
    ]
    print(table(rows, ("backbone", "source", "weights, default first", "licence", "on this machine")))
    if not (asked.words or asked.here):
        print("\nMore, of timm and Keras, are listed by a word: `featurecache backbones vgg16`, with their extras.")
    return DONE


def _none_found(asked: ListingOptions) -> str:
    """Return a sentence on an empty list, and one on the extras that list more where they are not installed."""
    from featurecache.extract.backbones.names import KERAS, TIMM

    words = " and ".join(f"'{printable(word)}'" for word in asked.words)
    named = f" with {words} in its name" if words else ""
    here = " has its weights on this machine" if asked.here else ""
    found = f"No backbone{named}{here}." if here else f"There is no backbone{named}."
    extras = [name for name in (TIMM, KERAS) if importlib.util.find_spec(name) is None]
    if not extras:
        return found
    return f"{found} More are listed after `pip install 'featurecache[{','.join(extras)}]'`."


def _searched(info: BackboneInfo) -> str:
    return " ".join([info.name, *(f"{info.name}.{each}" for each in info.weights)]).lower()
