"""`featurecache select`: backbones compared on a subsample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import click

from featurecache.base.exits import REFUSED
from featurecache.cli.commands.select_text import selection_text
from featurecache.cli.console import Console
from featurecache.cli.declare import POSITIVE, Command, option, takes
from featurecache.cli.dry_run import show_reading
from featurecache.cli.options import CacheOption, EngineOptions, Images, SplitOptions, names_in
from featurecache.cli.printing import Printing
from featurecache.cli.refusals import account_for
from featurecache.runs.folder import ERRORS_FILE


@dataclass(frozen=True)
class SelectOptions:
    """Which backbones, on how many images."""

    backbone: Sequence[str] = option(
        "--backbone", metavar="NAME", multiple=True, required=True,
        help="a candidate, or a+b for the features of both side by side; repeatable. 'pixels' is the baseline",
    )  # fmt: skip
    sample: int = option(
        "--sample", metavar="N", type=POSITIVE, default=1000, show_default=True, help="number of images to measure on"
    )
    size: int | None = option(
        "--size", metavar="S", type=POSITIVE, help="side of the input in pixels (default: what the weights expect)"
    )


@click.command(
    cls=Command,
    takes_file=True,
    stopped="Stopped. Features extracted so far are kept: the same command continues from there.",
    examples=["featurecache select photos/ --backbone resnet50 --backbone vit_b_16 --backbone pixels"],
    old={"--backbones": "--backbone"},
)
@takes(Images, SelectOptions, EngineOptions, SplitOptions, CacheOption, Printing)
def command(
    images: Images,
    asked: SelectOptions,
    engine: EngineOptions,
    split: SplitOptions,
    cache: CacheOption,
    printing: Printing,
) -> int:
    """Compare backbones on a subsample and recommend one.

    Features of the subsample are extracted with every backbone and kept; measures of how well they suit the labels rank
    the backbones.
    """
    if images.dry_run:
        return show_reading(images.read(), as_json=printing.json)
    from featurecache.evaluate.backbone_choice import select_backbones
    from featurecache.extract.backbones.libraries.own_network import permit

    with Console(quiet=printing.quiet) as console:
        manifest = images.read(cache.cache)
        for note in manifest.notes:
            console.say(note)
        backbones = names_in("--backbone", asked.backbone)
        permit(part for name in backbones for part in name.split("+"))
        selection = select_backbones(
            manifest,
            backbones,
            cache_root=cache.cache,
            n_sample=asked.sample,
            min_per_class=split.min_per_class,
            seed=split.seed,
            size=asked.size,
            settings=engine.settings(),
            progress=console,
        )
    print(json.dumps(selection.to_dict(), indent=2) if printing.json else selection_text(selection))
    code = account_for(selection.files, cache.cache / ERRORS_FILE, [images.images], console)
    return REFUSED if selection.n_left_out else code
