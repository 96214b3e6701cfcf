"""A comparison of runs as text, CSV, markdown or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from featurecache.base.text import table
from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA, METRICS, Criterion
from featurecache.runs.comparison_document import Compared, RankedRow
from featurecache.runs.head_choice import value_of
from featurecache.runs.result_notes import paired_test_name

FORMATS = ("text", "csv", "markdown", "json")
NAMES = ("data set", "run", "features", "head", "rank")
COSTS = ("ECE", "extract s", "fit s", "predict 1,000 s", "head MB", "features MB")
FIRST_NUMBER = 4
FOOT = (
    "rank: 1 + the heads that are better beyond chance on the same test images ({test} of all pairs, Holm, 5 %); * "
    "tied with the best.\n"
    "predict 1,000 s: images to labels, backbone included, at the pace of the extraction."
)
CSV_COLUMNS = ("test_set", "data_set", "run", "backbone", "features", "head", "params", "rank", "tied_with_best",
               "p_vs_best", "accuracy", "ci_low", "ci_high", "balanced_accuracy", "macro_f1", "log_loss", "ece",
               "brier", "extract_seconds", "fit_seconds", "predict_1000_seconds", "head_bytes",
               "features_bytes")  # fmt: skip


def render(compared: Compared, how: str) -> str:
    """What `featurecache compare` prints, in one of `FORMATS`."""
    if how == "json":
        return json.dumps(compared, indent=2, allow_nan=False)
    if how == "csv":
        return _csv(compared["heads"])
    by = CRITERIA[compared["metric"]]
    column = "%" if by.name == ACCURACY else by.column
    others = [CRITERIA[name].column for name in METRICS if name != by.name]
    headers = (*NAMES, f"test {column}", "95 % interval", *others, *COSTS)
    parts = [_table(_cells(compared["heads"], by), headers, how, FIRST_NUMBER), _foot(compared)]
    if compared["over_splits"]:
        n = max(row["n_splits"] for row in compared["over_splits"])
        parts += [
            f"over {n} splits of the same images (corrected resampled t-test, Holm, 5 %)",
            _splits(compared, how, by),
        ]
    if compared["mean_ranks"]:
        n = compared["mean_ranks"][0]["n_data_sets"]
        rows = [[row["features"], row["head"], f"{row['mean_rank']:.2f}"] for row in compared["mean_ranks"]]
        parts += [
            f"mean rank by {by.title} over {n} data sets",
            _table(rows, ("features", "head", "mean rank"), how, 2),
        ]
    notes = compared["notes"] if how == "text" else map(_escaped, compared["notes"])
    return "\n\n".join([*parts, *notes])


def _foot(compared: Compared) -> str:
    by = CRITERIA[compared["metric"]]
    tests = list(dict.fromkeys(paired_test_name(each, by.name) for each in compared["test_sets"]))
    more = "" if by.name == ACCURACY else f"\nby {by.title}{', lower is better' if by.lower_is_better else ''}"
    return FOOT.format(test=" or ".join(tests)) + more


def _cells(rows: Sequence[RankedRow], by: Criterion) -> list[list[str]]:
    return [
        [
            row["data_set"], row["run"], row["features"], row["head"],
            f"{row['rank']}{' *' if row['tied_with_best'] else '  '}",
            by.number(value_of(row, by.name)), _interval(row["ci"][by.name], by),
            *(CRITERIA[name].number(value_of(row, name)) for name in METRICS if name != by.name), f"{row['ece']:.3f}",
            f"{row['extract_seconds']:.1f}", f"{row['fit_seconds']:.1f}", f"{row['predict_1000_seconds']:.2f}",
            f"{row['head_bytes'] / 1e6:.2f}", f"{row['features_bytes'] / 1e6:.1f}",
        ]
        for row in rows
    ]  # fmt: skip


def _splits(compared: Compared, how: str, by: Criterion) -> str:
    rows = [
        [row["data_set"], row["features"], row["head"] + (" *" if row["tied_with_best"] else ""),
         by.number(row["mean"]), _interval(row["mean_ci"], by)]
        for row in compared["over_splits"]
    ]  # fmt: skip
    return _table(
        rows,
        ("data set", "features", "head", f"mean test {'%' if by.name == ACCURACY else by.column}", "95 % interval"),
        how,
        3,
    )


def _interval(ends: Sequence[float] | None, by: Criterion) -> str:
    return "" if ends is None else "-".join(map(by.number, ends))


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], how: str, first_number: int) -> str:
    right = range(first_number, len(headers))
    if how == "text":
        return table(rows, headers, right=right)
    return table([[_escaped(cell) for cell in row] for row in rows], headers, right=right, markdown=True)


def _escaped(cell: str) -> str:
    """A cell or note as markdown text: no name can end the cell, begin a tag or heading, or be set in another type."""
    for sign in "\\`*_[]|#":
        cell = cell.replace(sign, "\\" + sign)
    return cell.strip().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _csv(rows: Sequence[RankedRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        low, high = row["accuracy_ci"]
        flat: dict[str, object] = {**row, "ci_low": low, "ci_high": high}
        flat["params"] = " ".join(f"{key}={value}" for key, value in row["params"].items())
        writer.writerow([flat[column] for column in CSV_COLUMNS])
    return text.getvalue().rstrip("\n")
