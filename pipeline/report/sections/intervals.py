"""All heads compared: the metric of the run with intervals, and over the swept setting.

A figure is a plotly one as plain values: {"data": [...], "layout": {...}}. Colours are CSS variables of page.css.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from featurecache.base.text import count, short
from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA, Criterion
from featurecache.report.wording import in_plot, listed, percent, settings, ticks, tried
from featurecache.runs.head_choice import interval_of, metric_of, value_of
from featurecache.runs.record import Record


class Figure(TypedDict):
    """A figure as plotly takes it: traces and layout."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]


INK, MUTED, ACCENT, SECOND = "var(--ink)", "var(--muted)", "var(--accent)", "var(--second)"
LINES = (ACCENT, SECOND, *(f"var(--class-{i})" for i in (2, 3, 4, 5, 6, 8, 9)))
# From this ratio of largest to smallest on, a swept number is drawn on a logarithmic axis.
LOG_RATIO = 20.0
MAX_TICKS = 6
ROW_HEIGHT, AXIS_HEIGHT = 30, 64


def interval_figure(record: Record) -> Figure:
    """The metric of every head on test with its 95 % interval, best on top; tied with the best in colour."""
    heads, names, by = record.heads, ticks(record.titles), CRITERIA[metric_of(record.results)]
    parts = [
        ("best, or tied with it", ACCENT, [i for i, head in enumerate(heads) if head["tied_with_best"]]),
        ("worse than the best", MUTED, [i for i, head in enumerate(heads) if not head["tied_with_best"]]),
    ]
    return {
        "data": [_intervals(title, colour, rows, record, names) for title, colour, rows in parts if rows],
        "layout": {
            "height": AXIS_HEIGHT + 40 + ROW_HEIGHT * len(heads),
            "xaxis": {"title": {"text": f"test {by.title}{', %' if by.unit else ', lower is better'}"}},
            "yaxis": {
                "type": "category",
                "categoryorder": "array",
                "categoryarray": names[::-1],
                "range": [-0.6, len(names) - 0.4],
                "showgrid": False,
            },
            "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
            "showlegend": True,
        },
    }


def _intervals(title: str, colour: str, rows: Sequence[int], record: Record, names: Sequence[str]) -> dict[str, Any]:
    by = CRITERIA[metric_of(record.results)]
    tests = [record.heads[i]["test"] for i in rows]
    values = [0.0 if math.isnan(value) else value for value in (value_of(test, by.name) for test in tests)]
    limits = [interval_of(test, by.name) or (value, value) for test, value in zip(tests, values, strict=True)]
    x, ends = [by.factor * value for value in values], [[by.factor * end for end in both] for both in limits]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": title,
        "x": x,
        "y": [names[i] for i in rows],
        "error_x": {
            "array": [high - at for (_, high), at in zip(ends, x, strict=True)],
            "arrayminus": [at - low for (low, _), at in zip(ends, x, strict=True)],
            "type": "data",
            "symmetric": False,
            "thickness": 2,
            "width": 0,
            "color": colour,
        },
        "marker": {"color": colour, "size": 10},
        "customdata": ends,
        "hovertemplate": f"%{{y}}: %{{x:.{by.digits}f}}{by.unit}, 95 % interval %{{customdata[0]:.{by.digits}f}} to "
        f"%{{customdata[1]:.{by.digits}f}}<extra></extra>",
    }


def verdict(record: Record) -> str:
    """What the comparison says, in two sentences."""
    heads, titles = record.heads, record.titles
    first = _verdict_on_the_best(record)
    if len(heads) == 1:
        return first
    tied = [title for title, head in zip(titles[1:], heads[1:], strict=True) if head["tied_with_best"]]
    if not tied:
        return f"{first} Every other head is significantly worse."
    n_worse = len(heads) - 1 - len(tied)
    rest = f", {count(n_worse, 'head is', 'heads are')} significantly worse" if n_worse else ""
    return f"{first} {listed(tied)} {'is' if len(tied) == 1 else 'are'} statistically tied with it{rest}."


def _verdict_on_the_best(record: Record) -> str:
    heads, title, metric = record.heads, record.titles[0], metric_of(record.results)
    by, test, n_test = CRITERIA[metric], record.heads[0]["test"], record.results["dataset"]["n_test"]
    equal = sum(head["test"].get(metric) == test.get(metric) for head in heads) - 1
    shown = percent if by.unit else by.shown
    limits = interval_of(test, metric)
    interval = "" if limits is None else f" (95\N{NO-BREAK SPACE}% interval {shown(limits[0])} to {shown(limits[1])})"
    images, value, alone = count(n_test, "test image"), value_of(test, metric), len(heads) == 1
    if metric == ACCURACY:
        others = "" if alone else f", as {count(equal, 'other head')} do" if equal else ", more than any other"
        return f"{title} gets {percent(value)} of {images} right{others}{interval}."
    others = "" if alone else f", as {count(equal, 'other head')}" if equal else ", better than any other"
    stated = "" if math.isnan(value) else f" of {shown(value)}"
    return f"{title} has a {by.title}{stated} on {images}{others}{interval}."


def sweep_figures(record: Record) -> list[dict[str, Any]]:
    """For every head that tried several settings {"title", "figure", "caption"}, all with the same vertical axis."""
    by = swept_by(record)
    grids = [_grid(head, by) for head in record.heads]
    swept = [each for each in zip(record.titles, record.heads, grids, strict=True) if len(each[2]) > 1]
    values = [by.factor * trial[f"val_{by.name}"] for *_, grid in swept for trial in grid]
    if not values:
        return []
    margin = 0.06 * (max(values) - min(values)) + 0.005 * by.factor
    span = [min(values) - margin, max(values) + margin]
    return [
        {"title": title, "figure": _sweep_figure(head, grid, span, by), "caption": _sweep_caption(head, grid)}
        for title, head, grid in swept
    ]


def swept_by(record: Record) -> Criterion:
    """The metric that the sweeps show: that of the run, or the accuracy where a run has no other on val."""
    by = CRITERIA[metric_of(record.results)]
    swept = [head for head in record.heads if head.get("grid")]
    return by if all(_grid(head, by) for head in swept) else CRITERIA[ACCURACY]


def _grid(head: Mapping[str, Any], by: Criterion) -> list[dict[str, Any]]:
    return [trial for trial in head.get("grid", []) if trial.get(f"val_{by.name}") is not None]


def _axis_name(grid: Sequence[Mapping[str, Any]]) -> str | None:
    """The setting with most different values: the one to draw along the axis."""
    values = {name: {str(t["params"].get(name)) for t in grid} for t in grid for name in tried(t["params"])}
    name = max(values, key=lambda each: len(values[each]), default=None)
    return name if name is not None and len(values[name]) > 1 else None


def _sweep_figure(
    head: Mapping[str, Any], grid: Sequence[Mapping[str, Any]], span: list[float], by: Criterion
) -> Figure:
    name = _axis_name(grid)
    lines: dict[str, list[tuple[Any, Mapping[str, Any]]]] = {}
    for number, trial in enumerate(grid):
        rest = {key: value for key, value in tried(trial["params"]).items() if key != name}
        key = settings(rest) if rest and name else ""
        lines.setdefault(key, []).append((trial["params"][name] if name else number + 1, trial))
    axis = _sweep_axis(name or "setting", [x for line in lines.values() for x, _ in line])
    traces = [_sweep_line(label, points, LINES[i % len(LINES)], by) for i, (label, points) in enumerate(lines.items())]
    best = next((t for t in grid if tried(t["params"]) == tried(head["params"])), None)
    if best is not None:
        place = best["params"][name] if name else grid.index(best) + 1
        traces.append(_chosen_mark(place if axis["type"] != "category" else short(place), best, by))
    return {
        "data": traces,
        "layout": {
            "height": 250,
            "xaxis": axis,
            "yaxis": {"title": {"text": f"val {by.title}{', %' if by.unit else ''}"}, "range": span},
            "showlegend": len(lines) > 1,
            "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        },
    }


def _sweep_axis(name: str, values: Sequence[Any]) -> dict[str, Any]:
    title = {"text": in_plot(name.replace("_", " "))}
    numbers = sorted({float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)})
    if not numbers or len(numbers) < len(set(map(str, values))):
        return {"title": title, "type": "category", "showgrid": False}
    logarithmic = numbers[0] > 0 and numbers[-1] / numbers[0] >= LOG_RATIO
    shown = numbers[:: math.ceil(len(numbers) / MAX_TICKS)]
    return {
        "title": title,
        "type": "log" if logarithmic else "linear",
        "tickvals": shown,
        "ticktext": [short(value) for value in shown],
        "tickangle": 0,
        "showgrid": False,
    }


def _sweep_line(
    label: str, points: Sequence[tuple[Any, Mapping[str, Any]]], colour: str, by: Criterion
) -> dict[str, Any]:
    numeric = all(isinstance(x, int | float) and not isinstance(x, bool) for x, _ in points)
    ordered = sorted(points, key=lambda point: point[0]) if numeric else list(points)
    return {
        "type": "scatter",
        "mode": "lines+markers" if numeric else "markers",
        "name": in_plot(label) or "tried",
        "x": [x if numeric else short(x) for x, _ in ordered],
        "y": [by.factor * trial[f"val_{by.name}"] for _, trial in ordered],
        "text": [in_plot(settings(trial["params"])) for _, trial in ordered],
        "hovertemplate": f"%{{text}}: %{{y:.{by.digits}f}}{by.unit}<extra></extra>",
        "line": {"color": colour, "width": 1.5},
        "marker": {"color": colour, "size": 6},
    }


def _chosen_mark(x: Any, trial: Mapping[str, Any], by: Criterion) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "chosen",
        "showlegend": False,
        "x": [x],
        "y": [by.factor * trial[f"val_{by.name}"]],
        "hovertemplate": f"chosen: %{{y:.{by.digits}f}}{by.unit}<extra></extra>",
        "marker": {"color": "rgba(0,0,0,0)", "size": 15, "line": {"color": INK, "width": 1.5}},
    }


def _sweep_caption(head: Mapping[str, Any], grid: Sequence[Mapping[str, Any]]) -> str:
    name = _axis_name(grid)
    text = f"Chosen of {len(grid)}: {settings(head['params'])}."
    numbers = (
        sorted({t["params"][name] for t in grid if isinstance(t["params"].get(name), int | float)}) if name else []
    )
    if name and len(numbers) > 2 and head["params"].get(name) in (numbers[0], numbers[-1]):
        text += f" It lies at the end of the values tried for {name}."
    unfinished = sum(trial.get("converged") is False for trial in grid)
    return text + (f" {count(unfinished, 'setting')} had not converged." if unfinished else "")
