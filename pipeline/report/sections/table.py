"""The table of heads, best first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from featurecache.report.wording import settings
from featurecache.runs.record import Record

# Key in "test" of results.json, title, factor, digits; a column stands where any head has the number.
METRICS = (
    ("balanced_accuracy", "balanced %", 100, 2),
    ("macro_f1", "macro F1 %", 100, 2),
    ("top5_accuracy", "top-5 %", 100, 2),
    ("auc", "AUC", 1, 4),
    ("log_loss", "log loss", 1, 3),
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
    columns: list[tuple[str, Callable[[Head], str]]] = [
        ("val %", lambda head: _number(head["val"].get("accuracy"), 100, 2)),
        ("test %", lambda head: _number(head["test"]["accuracy"], 100, 2)),
        ("95 % interval", lambda head: "–".join(_number(x, 100, 2) for x in head["test"]["accuracy_ci"])),
        ("p", lambda head: "" if head is record.heads[0] else _p_value(head.get("p_vs_best"))),
    ]
    for key, title, factor, digits in METRICS:
        if any(head["test"].get(key) is not None for head in record.heads):
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
