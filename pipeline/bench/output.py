"""Seconds of calls, and what a bench prints and writes: its table, or its figures as JSON."""

from __future__ import annotations

import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

from featurecache.cli.declare import Command, option
from featurecache.cli.options import PATH


@dataclass(frozen=True)
class Output:
    """Where the figures go."""

    json: bool = option("--json", is_flag=True, default=False, help="print JSON on stdout instead of a table")
    out: Path | None = option("--out", metavar="FILE", type=PATH, help="write the figures there too, as JSON")

    def show(self, text: str, figures: Mapping[str, Any]) -> None:
        """Print the table or the figures, and write the figures where that is asked for."""
        as_json = json.dumps(figures, indent=2)
        print(as_json if self.json else text)
        if self.out is not None:
            self.out.write_text(as_json + "\n", encoding="utf-8")


class BenchCommand(Command):
    """A bench; `--json FILE`, as it was called, is taken for `--out FILE`, with a note."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of the command."""
        for place, (word, after) in enumerate(itertools.pairwise(args)):
            if word == "--json" and not after.startswith("-"):
                say("featurecache: --json FILE is called --out FILE now; the old name goes in the next version.")
                args = [*args[:place], "--out", *args[place + 1 :]]
                break
        return super().parse_args(ctx, args)


def say(text: str) -> None:
    """A line for people who wait."""
    print(text, file=sys.stderr, flush=True)


def timed(go: Callable[[], object]) -> float:
    """Return how many seconds a call takes; its warnings, that something did not converge, are not for the reader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        go()
        return time.perf_counter() - started


def alternating(one: Callable[[], object], other: Callable[[], object], *, rounds: int = 5) -> tuple[float, float]:
    """Return the medians of the seconds of two calls in turn; the first round, which also imports, is left out."""
    one()
    other()
    both = [(timed(one), timed(other)) for _ in range(rounds)]
    return median(first for first, _ in both), median(second for _, second in both)
