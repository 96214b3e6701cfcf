"""Seconds of the grids of heads, against scikit-learn fitting the same settings one by one.

Each line is one head on the same rows in the same run, first ours, then scikit-learn's with its defaults, which gets
them scaled as ours scales them:

    logistic      45 values of C, 1e-6 to 1e5, against LogisticRegression
    linear_svm    20 values of C, 1e-7 to 1e2, against LinearSVC(dual="auto")
    ridge         45 strengths by 5 folds, against RidgeClassifier by 5 folds
    knn           20 values of k, against one query of NearestNeighbors by brute force
    mlp           12 networks of 1024, against MLPClassifier, as many epochs
    the others    a sweep of their grid on one split, to see what folds cost

objective and accuracy are ours minus scikit-learn's: the largest difference over the settings (the mean for mlp), the
accuracy on rows that neither has seen. Below zero our objective is lower. The defaults often end before the minimum:
with --exact the objective, and a second accuracy, are compared with fits in float64 that reach it. For logistic those
are scikit-learn's at a tolerance of 1e-8; they begin where ours ended, and their slope shows that they converged. For
linear_svm they are our own, and the objective is that above the dual one, which no solution is below. 5 folds is what a
sweep by 5 folds costs as a multiple of one on a split, that of the first fold, with their refit; at most 4 is the aim.
wanted is the ratio to reach, on these rows and an idle machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from featurecache.base.errors import UsageError
from featurecache.base.exits import DONE
from featurecache.base.text import table
from featurecache.bench.head_comparisons.features import Data, prepare
from featurecache.bench.head_comparisons.lines import LINES, Line
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.cli.declare import POSITIVE, option, takes
from featurecache.cli.options import PATH, CacheOption, names_in

N_ROWS, N_FULL = 10_000, 60_000
IMAGES = Path("data/fashion-mnist")
HEADERS = ("head", "settings", "s", "scikit-learn s", "ratio", "wanted", "objective", "accuracy", "converged",
           "5 folds", "")  # fmt: skip


def lines_text(data: Data, lines: Sequence[Line], note: str = "", *, exact: bool = False) -> str:
    """Return the table, below a title with the features and what is compared."""
    rows = [
        (
            line.head,
            line.settings,
            f"{line.seconds:.1f}",
            _number(line.their_seconds, ".1f"),
            _number(line.ratio, ".1f"),
            _number(line.wanted, ".2g"),
            _number(line.objective, "+.1e"),
            _percent(line.accuracy),
            _percent(line.converged),
            f"{line.folds_ratio:.1f}",
            line.note,
        )
        for line in lines
    ]
    reference = "defaults (objective and converged: the minimum)" if exact else "defaults"
    title = f"{data.name}, {data.size()}; ours minus scikit-learn's {reference}"
    return "\n\n".join(part for part in (title, note, table(rows, HEADERS, right=range(1, 10))) if part)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.2f}"


@dataclass(frozen=True)
class HeadsBench:
    """Which heads, on which features, compared with what."""

    full: bool = option("--full", is_flag=True, default=False, help=f"{N_FULL:,} rows instead of {N_ROWS:,}")
    heads: Sequence[str] = option(
        "--heads", metavar="A,B", multiple=True, help=f"of {', '.join(LINES)} (default: all); repeatable"
    )
    images: Path = option(
        "--images", metavar="DIR", type=PATH, default=IMAGES, show_default=True,
        help="where its features are not in the cache, random ones are taken",
    )  # fmt: skip
    sparse: int = option(
        "--sparse", metavar="N", type=POSITIVE, default=1, show_default=True,
        help="let scikit-learn fit every Nth setting, its time scaled up",
    )  # fmt: skip
    exact: bool = option(
        "--exact", is_flag=True, default=False, help="compare with the minimum as well, in float64: slow"
    )

    def names(self) -> list[str]:
        """Return the lines that are asked for. Raises UsageError for one that there is not, or images that are not."""
        names = names_in("--heads", self.heads or [",".join(LINES)])
        if unknown := [name for name in names if name not in LINES]:
            raise UsageError(f"'{unknown[0]}' has no line here: {', '.join(LINES)} have.")
        if self.images != IMAGES and not self.images.is_dir():
            raise UsageError(f"There is no folder '{self.images}': check the path.")
        return names


@click.command(cls=BenchCommand, examples=["featurecache bench heads --heads ridge,knn --sparse 5"])
@takes(HeadsBench, CacheOption, Output)
def command(asked: HeadsBench, cache: CacheOption, output: Output) -> int:
    """Measure sweeps of heads against scikit-learn."""
    names = asked.names()
    data, note = prepare(asked.images, cache.cache, N_FULL if asked.full else N_ROWS)
    if note:
        say(note)
    lines = []
    for name in names:
        say(f"{name} ...")
        lines.append(LINES[name](data, asked.sparse, asked.exact))
    rows = [asdict(line) | {"ratio": line.ratio} for line in lines]
    figures = {"features": data.name, "size": data.size(), "note": note, "exact": asked.exact, "lines": rows}
    output.show(lines_text(data, lines, note, exact=asked.exact), figures)
    return DONE
