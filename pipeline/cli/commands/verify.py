"""`featurecache verify`: whether images of a run get the labels that the run has of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurecache.base.exits import DONE, FAILED
from featurecache.base.text import count, printable
from featurecache.cli.console import Console
from featurecache.cli.declare import POSITIVE, SEED, Command, argument, option, takes
from featurecache.cli.head_options import HeadOptions
from featurecache.cli.options import PATH, EngineOptions, RunCacheOption
from featurecache.cli.printing import Printing
from featurecache.extract.backbones.libraries.own_network import permit

if TYPE_CHECKING:
    from featurecache.predictor.replay import Largest, Replay

# So many images of a kind are named; all of them are in --json.
MAX_SHOWN = 5


@dataclass(frozen=True)
class VerifyOptions:
    """Which run, and how many of its images."""

    run: Path = argument("RUN", "a run folder, such as data/runs/latest, or the name of a model", type=PATH)
    replay: int = option(
        "--replay", metavar="N", type=POSITIVE, default=100, show_default=True,
        help="how many images of the run are drawn and labelled again",
    )  # fmt: skip
    seed: int = option("--seed", metavar="N", type=SEED, default=0, show_default=True, help="of the draw")
    images: str | None = option(
        "--images", metavar="IMAGES", help="where the images are now (default: where the run saw them)"
    )


@click.command(
    cls=Command,
    stopped="Stopped: nothing was compared.",
    examples=["featurecache verify data/runs/latest --replay 200", "featurecache verify data/runs/latest --json"],
)
@takes(VerifyOptions, HeadOptions, EngineOptions, RunCacheOption, Printing)
def command(
    asked: VerifyOptions, head: HeadOptions, engine: EngineOptions, cache: RunCacheOption, printing: Printing
) -> int:
    """Check that new images are seen exactly as those of a run were.

    Images of the run are drawn and go the whole way of new ones: decode, transform, network, head, without the cache.
    The features have to be those in the cache within 1e-4 relative, the labels those of the cached features and of the
    run's predictions; else the exit code is 1.
    """
    from featurecache.predictor import Predictor
    from featurecache.predictor.replay import replay_run
    from featurecache.runs.models.places import find_run

    permit(head.backbone)
    with Console(quiet=printing.quiet) as console:
        run = find_run(asked.run, say=console.say)
        predictor = Predictor.load(
            run,
            head=head.head,
            weights=head.weights,
            cache_root=cache.cache,
            trust_head=head.trust_head,
            settings=engine.settings(),
            progress=console,
        )
        replay = replay_run(
            run,
            predictor,
            n=asked.replay,
            seed=asked.seed,
            head=head.head,
            images=asked.images,
            progress=console,
        )
    print(json.dumps(replay.to_dict(), indent=2) if printing.json else replay_text(replay))
    return DONE if replay.agrees else FAILED


def replay_text(replay: Replay) -> str:
    """Return a line for each comparison, and whether all agree."""
    n = replay.n_compared
    lines = [f"{replay.head}: {count(n, 'image')} of the run labelled again, of {replay.n_drawn:,} that were drawn"]
    lines += [f"  features of {name}: largest relative difference {_of(x)}" for name, x in replay.features.items()]
    lines.append(f"  labels: {_labels(n, replay.other_labels)} of the cached features")
    lines.append(f"  probabilities: largest difference {_of(replay.probabilities)}")
    if replay.n_tested:
        other = _labels(replay.n_tested, replay.other_tested)
        lines.append(f"  predictions of the run: {other} of its test images, largest difference {_of(replay.tested)}")
    reasons: dict[str, int] = {}
    for reason in replay.left_out.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    lines += [f"  {count(n, 'image')} not compared: {printable(reason)}" for reason, n in reasons.items()]
    return "\n".join([*lines, "They agree." if replay.agrees else "They do not agree."])


def _of(largest: Largest) -> str:
    return f"{largest.value:.1e} ({printable(largest.image)})" if largest.value else "0"


def _labels(n: int, others: list[str]) -> str:
    """Return how many labels are equal, and the first images of which they are not."""
    named = ", ".join(map(printable, others[:MAX_SHOWN]))
    more = f" and {len(others) - MAX_SHOWN:,} more" if len(others) > MAX_SHOWN else ""
    return f"{n - len(others):,} of {n:,} equal to those{f' (not {named}{more})' if others else ''}"
