"""How fast the grids of heads are here, beside scikit-learn fitting the same settings one by one.

Each line is one head on the same rows in the same run, first ours, then scikit-learn's with its defaults, which gets
them scaled as ours scales them:

    logistic      45 values of C, 1e-6 to 1e5, against LogisticRegression
    linear_svm    20 values of C, 1e-7 to 1e2, against LinearSVC(dual="auto")
    ridge         45 strengths with leave-one-out, against RidgeClassifier with 5 folds
    knn           20 values of k, against one query of NearestNeighbors by brute force
    mlp           12 networks of 1024, against MLPClassifier, as many epochs
    the others    a sweep of their grid on one split, to see what folds cost

objective and accuracy are ours minus scikit-learn's: the largest difference over the settings (the mean for mlp), the
accuracy on rows that neither has seen. Below zero our objective is lower. The defaults often end before the minimum:
with --exact the objective, and a second accuracy, are those beside fits in float64 that come to it. For logistic those
are scikit-learn's at a tolerance of 1e-8; they begin where ours ended, and their slope tells that they arrived. For
linear_svm they are our own, and the objective is that above the dual one, which no solution is below. 5 folds is what a
sweep by 5 folds costs beside one on a split, that of the first fold, both with their refit; at most 4 is wanted.
wanted is the ratio that we hold ourselves to, on these rows and an idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipeline.bench_features import Data, prepare
from pipeline.bench_lines import LINES, Line
from pipeline.tables import table

N_ROWS, N_FULL = 10_000, 60_000
IMAGES = Path("data/fashion-mnist")
HEADERS = ("head", "settings", "s", "scikit-learn s", "ratio", "wanted", "objective", "accuracy", "converged",
           "5 folds", "")  # fmt: skip


def lines_text(data: Data, lines: Sequence[Line], note: str = "", *, exact: bool = False) -> str:
    """The table, below what it was measured on and what stands beside what."""
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
    beside = "defaults (objective and converged: the minimum)" if exact else "defaults"
    title = f"{data.name}, {data.size()}; ours minus scikit-learn's {beside}"
    return "\n\n".join(part for part in (title, note, table(rows, HEADERS, right=range(1, 10))) if part)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print, from the command line."""
    options = _parse(argv)
    n_rows = N_FULL if options.full else N_ROWS
    data, note = prepare(options.images, options.cache, n_rows)
    if note:
        print(note, file=sys.stderr, flush=True)
    lines = []
    for name in options.heads:
        print(f"{name} ...", file=sys.stderr, flush=True)
        lines.append(LINES[name](data, options.sparse, options.exact))
    print(lines_text(data, lines, note, exact=options.exact))
    if options.json:
        told = [asdict(line) | {"ratio": line.ratio} for line in lines]
        found = {"features": data.name, "size": data.size(), "note": note, "exact": options.exact, "lines": told}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="featurecache bench heads",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--full", action="store_true", help=f"{N_FULL:,} rows instead of {N_ROWS:,}")
    parser.add_argument("--heads", metavar="A,B", default=",".join(LINES), help=f"of {', '.join(LINES)} (default: all)")
    parser.add_argument("--images", metavar="DIR", type=Path, default=IMAGES,
                        help="default: %(default)s; where its features are not in the cache, random ones")  # fmt: skip
    parser.add_argument("--cache", metavar="DIR", type=Path, default=Path("data/cache"),
                        help="where its features are (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--sparse", metavar="N", type=int, default=1, help="let scikit-learn fit every Nth setting, its time scaled up"
    )
    parser.add_argument("--exact", action="store_true", help="compare with the minimum as well, in float64: slow")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers as well")
    options = parser.parse_args(argv)
    options.heads = [name for name in options.heads.split(",") if name]
    if unknown := [name for name in options.heads if name not in LINES]:
        parser.error(f"'{unknown[0]}' has no line here: {', '.join(LINES)} have")
    if options.images != IMAGES and not options.images.is_dir():
        parser.error(f"there is no folder '{options.images}': check the path")
    if options.sparse < 1:
        parser.error(f"--sparse {options.sparse} leaves nothing to compare with: give 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
