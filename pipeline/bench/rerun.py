"""Seconds of heads on features that are in the cache: of a `classify` that was run before, and of many classes.

    until the table   from the start of the process to the table on stdout: what a user waits for
    whole             to its end, with the run folder and the report, whose map is kept from the first run
    linear_svm        20 values of C and the refit with one of them, on random features with the spectrum of real ones

Every `classify` is a process of its own; the first, which reads files and lays the map out, is not counted. Of
linear_svm the objective is how far it is above the dual one at most, over all C: no solution is below that.
scikit-learn is LinearSVC(dual="auto") with its defaults at one C, on some classes against the rest, which it solves one
after the other: `for all` is what all classes and all C would take it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import click

from featurecache.base.defaults import DEFAULT_BACKBONE
from featurecache.base.errors import PipelineError
from featurecache.base.exits import DONE, REFUSED
from featurecache.base.text import printable, table
from featurecache.bench.head_comparisons.features import Data, make_features
from featurecache.bench.head_comparisons.solvers import MARGINS, fit_together, margin_bound, margin_objective
from featurecache.bench.output import BenchCommand, Output, say, timed
from featurecache.cli.declare import POSITIVE, option, takes
from featurecache.cli.options import PATH, CacheOption

# The head that is solved in one go: a classify of it is what the rest costs.
QUICK = "ridge"
# The rows and classes of a data set of 200 species, and half of the classes: the seconds are to be linear in them.
N_ROWS, N_CLASSES = 2_481, 200
N_TEST = 500
# scikit-learn's C, near the best, and how many classes it is given: all 200 may take it minutes at one C.
THEIR_C, THEIR_CLASSES = MARGINS[10], 20


@dataclass(frozen=True)
class Timing:
    """Seconds of some runs of one thing, their median wanted to be at most `wanted`; note: on the result."""

    what: str
    seconds: list[float]
    wanted: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """Seconds of the median run."""
        return median(self.seconds)


@dataclass(frozen=True)
class Rerun:
    """Which images with which features, all of which are in the cache."""

    images: Path
    backbone: str
    cache: Path

    def classify(self, heads: str, out: Path) -> tuple[float, float]:
        """Return the seconds until the table of a process with these heads is there, and until its end.

        Raises PipelineError with its last line where it fails.
        """
        words = ["classify", str(self.images), "--backbone", self.backbone, "--cache", str(self.cache)]
        command = [sys.executable, "-m", "featurecache", *words, "--heads", heads, "--out", str(out), "--quiet"]
        with tempfile.TemporaryFile("w+") as errors:
            began = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
                assert process.stdout is not None
                process.stdout.readline()
                until_table = time.perf_counter() - began
                process.stdout.read()
            whole = time.perf_counter() - began
            errors.seek(0)
            lines = errors.read().strip().splitlines() or [f"it ended with {process.returncode}"]
        if process.returncode not in (DONE, REFUSED):
            raise PipelineError(f"A classify failed: {printable(lines[-1])}")
        return until_table, whole

    def timings(self, rounds: int, scratch: Path, say: Callable[[str], None] = lambda _: None) -> list[Timing]:
        """Return what a classify of a quick head takes, and one of all heads."""
        say("the first run")
        self.classify(QUICK, scratch / "first")
        both = []
        for number in range(1, rounds + 1):
            say(f"{QUICK}, run {number} of {rounds}")
            both.append(self.classify(QUICK, scratch / f"quick {number}"))
        say("all heads")
        _, whole = self.classify("all", scratch / "all")
        until_table, wholes = ([round(each, 3) for each in seconds] for seconds in zip(*both, strict=True))
        return [
            Timing(f"classify --heads {QUICK}, until the table", until_table, 2.5),
            Timing("the same, whole", wholes, 3.0),
            Timing("classify --heads all, whole", [round(whole, 3)], 35.0),
        ]


def svm_timings(
    n_rows: int, n_classes: int, wanted: float | None = None, say: Callable[[str], None] = lambda _: None
) -> list[Timing]:
    """Return what the strengths of linear_svm take with so many classes and with half as many, and scikit-learn's."""
    from sklearn.svm import LinearSVC

    found = []
    for number, most in ((n_classes // 2, None), (n_classes, wanted)):
        data = make_features(n_rows, n_classes=number, n_test=N_TEST)
        say(f"linear_svm, {number} classes")
        found.append(_svm_timing(data, most))
    some = range(min(THEIR_CLASSES, n_classes))
    say(f"scikit-learn, {len(some)} classes")
    fit = LinearSVC(C=THEIR_C, dual="auto").fit
    seconds = sum(timed(partial(fit, data.scaled, data.y == code)) for code in some)
    note = f"for all {len(MARGINS) * n_classes / len(some) * seconds:,.0f}"
    what = f"LinearSVC, C = {THEIR_C:.3g}, {len(some)} classes of {data.size()}"
    return [*found, Timing(what, [round(seconds, 3)], None, note)]


def _svm_timing(data: Data, wanted: float | None) -> Timing:
    from featurecache.classify.heads.linear_svm import LinearSVMHead

    heads = [LinearSVMHead(C=C) for C in MARGINS]
    seconds = timed(lambda: fit_together(heads, data.X, data.y))
    best = max(heads, key=lambda head: float(head.score(data.X_test, data.y_test)))
    again = LinearSVMHead(C=best.C)
    seconds += timed(lambda: again.fit(data.X, data.y))
    above = max(
        margin_objective(data, head.C, *data.on_scaled(head)) / margin_bound(data, head.C, *data.on_scaled(head)) - 1.0
        for head in heads
    )
    note = f"objective {above:+.1e} at most, accuracy {again.score(data.X_test, data.y_test):.3f}"
    return Timing(f"linear_svm, {len(MARGINS)} C and the refit, {data.size()}", [round(seconds, 3)], wanted, note)


def text_of(timings: Sequence[Timing]) -> str:
    """The table: a row for each."""
    rows = [
        (
            each.what,
            f"{each.median:.2f}",
            f"{min(each.seconds):.2f}-{max(each.seconds):.2f}" if len(each.seconds) > 1 else "",
            "" if each.wanted is None else f"{each.wanted:g}",
            each.note,
        )
        for each in timings
    ]
    return table(rows, ("", "s", "from-to", "wanted", ""), right=(1, 2, 3))


@dataclass(frozen=True)
class RerunBench:
    """Which images and features, how often, and how many classes."""

    images: Path = option(
        "--images", metavar="DIR", type=PATH, default=Path("data/mnist5k"), show_default=True,
        help="labelled images whose features are in the cache",
    )  # fmt: skip
    backbone: str = option(
        "--backbone", metavar="NAME", default=DEFAULT_BACKBONE, show_default=True, help="the network"
    )
    rounds: int = option("--rounds", metavar="N", type=POSITIVE, default=5, show_default=True, help="quick runs")
    classes: int = option(
        "--classes", metavar="N", type=POSITIVE, default=N_CLASSES, show_default=True, help="classes for linear_svm"
    )


@click.command(cls=BenchCommand, examples=["featurecache bench rerun --images data/mnist5k"])
@takes(RerunBench, CacheOption, Output)
def command(asked: RerunBench, cache: CacheOption, output: Output) -> int:
    """Measure heads on features that are in the cache.

    A classify that was run before, and linear_svm with many classes.
    """
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder:
        timings = Rerun(asked.images, asked.backbone, cache.cache).timings(asked.rounds, Path(folder), say)
    timings += svm_timings(N_ROWS, asked.classes, 40.0 if asked.classes == N_CLASSES else None, say)
    output.show(text_of(timings), {"timings": [asdict(each) | {"median": each.median} for each in timings]})
    return DONE
