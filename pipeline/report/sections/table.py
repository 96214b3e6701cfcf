"""The table of heads, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA
from featurecache.report.wording import settings
from featurecache.runs.head_choice import interval_of, metric_of
from featurecache.runs.record import Record

# Key in "test" of results.json, title, factor, digits; a column is shown where any head has the number.
_COLUMNS = {name: (name, each.column, each.factor, each.digits) for name, each in CRITERIA.items()}
COLUMNS = (
    *(_COLUMNS[name] for name, each in CRITERIA.items() if not each.lower_is_better),
    ("top5_accuracy", "top-5 %", 100, 2),
    ("auc", "AUC", 1, 4),
    *(_COLUMNS[name] for name, each in CRITERIA.items() if each.lower_is_better),
    ("ece", "ECE", 1, 3),
    ("brier", "Brier", 1, 3),
)
FOOT = (
    "Shaded: best, or tied with it. p: chance of a difference this large between equally good heads, corrected for the "
    "number of pairs of heads. Log loss, ECE (the gap between confidence and accuracy) and Brier: smaller is better."
)

Head = Mapping[str, Any]


def scoreboard(record: Record) -> dict[str, Any]:
    """{"columns", "rows": [{"cells", "tied"}], "foot"}: text, ready to be shown."""
    metric = metric_of(record.results)
    by, column = CRITERIA[metric], "%" if metric == ACCURACY else CRITERIA[metric].column
    columns: list[tuple[str, Callable[[Head], str]]] = [
        (f"val {column}", lambda head: _number(head["val"].get(metric), by.factor, by.digits)),
        (f"test {column}", lambda head: _number(head["test"].get(metric), by.factor, by.digits)),
        ("95 % interval", lambda head: "–".join(map(by.number, interval_of(head["test"], metric) or ()))),
        ("p", lambda head: "" if head is record.heads[0] else _p_value(head.get("p_vs_best"))),
    ]
    for key, title, factor, digits in COLUMNS:
        if key != metric and any(head["test"].get(key) is not None for head in record.heads):
            columns.append((title, _metric(key, factor, digits)))
    columns += [
        ("fit s", lambda head: _number(head.get("fit_seconds"), 1, 1)),
        ("predict s", lambda head: _number(head.get("predict_seconds"), 1, 2)),
    ]
    rows = [
        {
            "cells": [str(rank), title, settings(head["params"]), *(cell(head) for _, cell in columns)],
            "tied": bool(head["tied_with_best"]),
        }
        for rank, (title, head) in enumerate(zip(record.titles, record.heads, strict=True), start=1)
    ]
    return {"columns": ["", "head", "chosen on val", *(title for title, _ in columns)], "rows": rows, "foot": FOOT}


def _metric(key: str, factor: float, digits: int) -> Callable[[Head], str]:
    return lambda head: _number(head["test"].get(key), factor, digits)


def _number(value: float | None, factor: float, digits: int) -> str:
    return "" if value is None else f"{factor * value:.{digits}f}"


def _p_value(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
