"""The learning curve: test accuracy over the number of labels, and the estimate for twice as many.

Drawn where results.json has "shots" and "doubling", which `classify --shots` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from featurecache.report.sections.intervals import LINES, Figure
from featurecache.report.wording import ticks
from featurecache.runs.head_choice import head_titles
from featurecache.runs.record import Record
from featurecache.runs.result_notes import few_shot_note

# Points of heads with the same labels are this far apart, so that their intervals do not hide one another.
STEP = 1.025
CAPTION = (
    "Test accuracy when only so many labels are used, a line for each head; the bars are 95 % intervals over several "
    "draws, the last full point has all labels. Where a line still rises at its end, more labels would help."
)
DOUBLED = (
    " The dotted end is the accuracy expected with twice the labels, with its interval: an estimate, not a measurement."
)

Row = Mapping[str, Any]


def learning_caption(record: Record) -> str:
    """What the figure shows."""
    note = few_shot_note(record.results)
    return CAPTION + (f" {note}" if note else "") + (DOUBLED if record.results.get("doubling") else "")


def learning_figure(record: Record) -> Figure | None:
    """A line with its intervals for each head of results.json; None where the run has no learning curve."""
    rows = record.results.get("shots") or []
    if not rows:
        return None
    keys = list(dict.fromkeys((row["features"], row["head"]) for row in rows))
    names = ticks(head_titles(keys))
    doubled = {(row["features"], row["head"]): row for row in record.results.get("doubling") or []}
    traces: list[dict[str, Any]] = []
    for i, (name, key) in enumerate(zip(names, keys, strict=True)):
        colour, shift = LINES[i % len(LINES)], STEP ** (i - (len(keys) - 1) / 2)
        own = sorted(
            (row for row in rows if (row["features"], row["head"]) == key), key=lambda row: int(row["n_train"])
        )
        traces.append(_line(name, own, colour, shift))
        if key in doubled:
            traces.append(_dotted(name, doubled[key], colour, shift))
    numbers = sorted({int(row["n_train"]) for row in rows} | {int(row["n_doubled"]) for row in doubled.values()})
    axis = {"type": "log", "tickvals": numbers, "ticktext": [f"{n:,}" for n in numbers], "showgrid": False}
    return {
        "data": traces,
        "layout": {
            "height": 400,
            "xaxis": {"title": {"text": "labels used"}, **axis},
            "yaxis": {"title": {"text": "test accuracy, %"}},
            "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
            "showlegend": len(keys) > 1,
        },
    }


def _line(name: str, rows: Sequence[Row], colour: str, shift: float) -> dict[str, Any]:
    mean = [100 * row["mean"] for row in rows]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [shift * row["n_train"] for row in rows],
        "y": mean,
        "error_y": _bars(mean, rows, colour),
        "text": [f"{row['n_train']:,} labels, {row['shots']:,} a class" for row in rows],
        "hovertemplate": f"{name}, %{{text}}: %{{y:.2f}} %<extra></extra>",
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 7},
    }


def _dotted(name: str, row: Row, colour: str, shift: float) -> dict[str, Any]:
    mean = [100 * row["now"], 100 * row["expected"]]
    now = {"low": row["now"], "high": row["now"]}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "showlegend": False,
        "x": [shift * row["n_now"], shift * row["n_doubled"]],
        "y": mean,
        "error_y": _bars(mean, [now, row], colour),
        "hovertemplate": f"{name}, expected: %{{y:.2f}} %<extra></extra>",
        "line": {"color": colour, "width": 1.5, "dash": "dot"},
        "marker": {"color": colour, "size": [0, 9], "symbol": "circle-open", "opacity": 1},
    }


def _bars(mean: Sequence[float], rows: Sequence[Row], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [100 * row["high"] - at for row, at in zip(rows, mean, strict=True)],
        "arrayminus": [at - 100 * row["low"] for row, at in zip(rows, mean, strict=True)],
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }
