"""One head closely: its confusion matrix, its reliability diagram and how it does on each class.

N test images, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.text import count
from featurecache.classify.evaluation.metrics import ECE_BINS, answers_interval
from featurecache.report.sections.intervals import ACCENT, AXIS_HEIGHT, INK, MUTED, SECOND, Figure
from featurecache.report.wording import percent, ticks
from featurecache.runs.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# A cell must hold a number of four digits: so many rows fit on a page. The rest of the classes become one row.
MAX_CLASSES_DRAWN = 30
MAX_PAIRS = 8
# More classes than these do not fit next to another column, nor on a telephone.
FEW = 12
CELL, LABEL_SPACE = 28, 130


def close_up(record: Record, number: int, units: NDArray[np.integer[Any]] | None = None) -> dict[str, Any]:
    """Figures and sentences on one head: {"confusion", "reliability", "classes"} -> {"figure", "caption"}, "pairs".

    units (N,): the unit of each test image, for the intervals.
    """
    answers = record.answers[number]
    counts = confusion(record.y, answers.predicted, len(record.classes))
    return {
        "confusion": confusion_figure(counts, record.classes),
        "pairs": confused_pairs(counts, record.classes),
        "reliability": reliability_figure(answers.confidence, answers.predicted == record.y, units),
        "classes": classes_figure(counts, record.classes),
    }


def confusion(y: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """How many images of class i (row) were called j (column): (C, C)."""
    return np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def confusion_figure(counts: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Counts (C, C) as a matrix, at most MAX_CLASSES_DRAWN classes by name; right answers and errors in two colours."""
    drawn, folded = _fold(counts)
    n_others = len(classes) - len(drawn)
    names = ticks([classes[i] for i in drawn]) + ([f"{n_others:,} others"] if n_others else [])
    share = folded / np.maximum(folded.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(folded), dtype=bool)
    others = np.zeros_like(right)
    if n_others:  # their right and wrong answers are one number, which is neither
        right[-1, -1], others[-1, -1] = False, True
    size = len(folded) * CELL + LABEL_SPACE
    largest = float(share[~right & ~others].max(initial=0.0)) or 1.0
    figure: Figure = {
        "data": [
            _cells(np.where(right, share, np.nan), folded, names, ACCENT, 1.0),
            _cells(np.where(right | others | (folded == 0), np.nan, share), folded, names, SECOND, largest),
            *([_cells(np.where(others, share, np.nan), folded, names, MUTED, 2.0)] if n_others else []),
        ],
        "layout": {
            "height": max(size, 260),
            "xaxis": {"type": "category", "title": {"text": "prediction"}, "showgrid": False},
            "yaxis": {"type": "category", "title": {"text": "label"}, "autorange": "reversed", "showgrid": False},
        },
    }
    caption = (
        "A row is a label, a column a prediction; blue cells are right, orange ones are errors, darker for more images."
    )
    if n_others:
        caption += (
            f" Of {len(classes):,} classes the {len(drawn)} with most errors have a row of their own; the other "
            f"{n_others:,} are one row and one column, and the grey cell counts their right and wrong predictions "
            "together."
        )
    return {"figure": figure, "caption": caption, "least_width": size if len(folded) > FEW else 0}


def _fold(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes that are drawn by name, in their order, and the counts with all others as a last row and column."""
    if len(counts) <= MAX_CLASSES_DRAWN:
        return np.arange(len(counts)), counts
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    drawn = np.sort(np.argsort(-errors, kind="stable")[:MAX_CLASSES_DRAWN])
    place = np.full(len(counts), len(drawn))
    place[drawn] = np.arange(len(drawn))
    folded = np.zeros((len(drawn) + 1, len(drawn) + 1), dtype=np.int64)
    np.add.at(folded, (place[:, None], place[None, :]), counts)
    return drawn, folded


def _cells(
    share: NDArray[np.float64], counts: NDArray[np.int64], names: list[str], colour: str, largest: float
) -> dict[str, Any]:
    empty = np.isnan(share)
    return {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": [
            [None if e else round(float(s), 4) for s, e in zip(*row, strict=True)]
            for row in zip(share, empty, strict=True)
        ],
        "text": [
            ["" if e else _brief(int(n)) for n, e in zip(*row, strict=True)] for row in zip(counts, empty, strict=True)
        ],
        "texttemplate": "%{text}",
        **({"textfont": {"size": 10}} if len(names) > FEW else {}),
        "hovertemplate": "label %{y}, called %{x}: %{text} (%{z:.1%} of the label)<extra></extra>",
        "hoverongaps": False,
        "colorscale": [[0, "var(--paper)"], [1, colour]],
        "zmin": 0,
        "zmax": largest,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }


def _brief(n: int) -> str:
    """A count that fits into a cell."""
    return f"{n}" if n < 10_000 else f"{n / 1000:.0f}k"


def confused_pairs(counts: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs (label, said) with most errors, at most MAX_PAIRS."""
    errors = counts - np.diag(np.diag(counts))
    order = np.argsort(-errors, axis=None, kind="stable")[:MAX_PAIRS]
    support = counts.sum(axis=1)
    return [
        {"label": classes[i], "said": classes[j], "n": int(errors[i, j]), "share": percent(errors[i, j] / support[i])}
        for i, j in zip(*np.unravel_index(order, errors.shape), strict=True)
        if errors[i, j]
    ]


def reliability_figure(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], units: NDArray[np.integer[Any]] | None = None
) -> dict[str, Any]:
    """How often the head is right (N,) among the images of about the same confidence (N,), in ECE_BINS bins.

    Intervals are by units (N,).
    """
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    n = np.bincount(bins, minlength=ECE_BINS)
    used = np.flatnonzero(n)
    mean = np.bincount(bins, weights=confidence, minlength=ECE_BINS)[used] / n[used]
    n_right = np.bincount(bins, weights=right, minlength=ECE_BINS)[used].astype(int)
    share = n_right / n[used]
    own = np.arange(len(right)) if units is None else units
    limits = [answers_interval(right[bins == each], own[bins == each]) for each in used]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": np.round(100 * mean, 2).tolist(),
        "y": np.round(100 * share, 2).tolist(),
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [round(100 * (high - s), 2) for (_, high), s in zip(limits, share, strict=True)],
            "arrayminus": [round(100 * (s - low), 2) for (low, _), s in zip(limits, share, strict=True)],
            "color": ACCENT,
            "thickness": 1.5,
            "width": 0,
        },
        "text": [f"{m:,}" for m in n[used]],
        "hovertemplate": "confidence %{x:.1f} %, accuracy %{y:.1f} % (%{text} images)<extra></extra>",
        "marker": {"color": ACCENT, "size": 9},
    }
    diagonal = {"type": "scatter", "mode": "lines", "x": [0, 100], "y": [0, 100], "hoverinfo": "skip",
                "line": {"color": MUTED, "width": 1, "dash": "dot"}}  # fmt: skip
    edges = (np.arange(ECE_BINS) + 0.5) * 100 / ECE_BINS
    bars = {"type": "bar", "x": np.round(edges, 2).tolist(), "y": n.tolist(), "yaxis": "y2", "width": 90 / ECE_BINS,
            "marker": {"color": MUTED}, "hovertemplate": "%{y:,} images<extra></extra>"}  # fmt: skip
    layout = {
        "height": 400,
        "xaxis": {"title": {"text": "confidence, %"}, "range": [-2, 102], "anchor": "y2", "dtick": 20},
        "yaxis": {"title": {"text": "accuracy, %"}, "range": [-4, 104], "domain": [0.3, 1], "dtick": 20},
        "yaxis2": {"title": {"text": "images"}, "domain": [0, 0.2], "nticks": 3},
    }
    return {"figure": {"data": [diagonal, points, bars], "layout": layout}, "caption": _trust(confidence, right, own)}


def _trust(confidence: NDArray[np.float32], right: NDArray[np.bool_], units: NDArray[np.integer[Any]]) -> str:
    mean, accuracy = float(confidence.mean()), float(right.mean())
    low, high = answers_interval(right, units)
    if low <= mean <= high:
        judgement = "well calibrated on average"
    else:
        judgement = f"{'over' if mean > accuracy else 'under'}-confident by {100 * abs(mean - accuracy):.1f} points"
    return (
        f"Mean confidence is {percent(mean)}, accuracy {percent(accuracy)}: {judgement}. "
        "Points on the diagonal are calibrated; points below it are over-confident. Below: images per bin."
    )


def tempered(head: Mapping[str, Any]) -> str:
    """What tempering on val did to a head of results.json, as a sentence; empty where it was not asked for."""
    effect = head.get("tempering")
    if not effect:
        return ""
    return (
        f" Tempered on val (temperature {effect['temperature']:.3f}): on test the calibration error went from "
        f"{effect['ece_before']:.3f} to {effect['ece_after']:.3f}, the log loss from {effect['log_loss_before']:.3f} "
        f"to {effect['log_loss_after']:.3f}."
    )


def classes_figure(counts: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Precision, recall and support of each class, hardest first; at most MAX_CLASSES_DRAWN of them."""
    right, support, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    recall, precision = right / np.maximum(support, 1), right / np.maximum(called, 1)
    tested = np.flatnonzero(support)
    drawn = tested[np.argsort(recall[tested], kind="stable")][:MAX_CLASSES_DRAWN]
    names = ticks([classes[i] for i in drawn])
    bars = [
        _class_bars("recall", names, 100 * recall[drawn], ACCENT, "of the images of %{y}, %{x:.1f} % are called so"),
        _class_bars("precision", names, 100 * precision[drawn], SECOND, "of the images called %{y}, %{x:.1f} % are"),
        _class_bars("support", names, support[drawn], MUTED, "%{y}: %{x:,} test images"),
    ]
    bars[2] |= {"xaxis": "x2", "showlegend": False}
    bars[1]["text"] = ["" if called[i] else "never predicted" for i in drawn]
    layout = {
        "height": AXIS_HEIGHT + 40 + 34 * len(drawn),
        "barmode": "group",
        "bargap": 0.3,
        "xaxis": {"title": {"text": "recall and precision, %"}, "domain": [0, 0.7], "range": [0, 101]},
        "xaxis2": {
            "title": {"text": "test images"},
            "domain": [0.76, 1],
            "anchor": "y",
            "rangemode": "tozero",
            "nticks": 3,
            "tickangle": 0,
        },
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "showlegend": True,
    }
    return {
        "figure": {"data": bars, "layout": layout},
        "caption": _classes_caption(len(drawn), len(tested), len(classes)),
    }


def _class_bars(title: str, names: list[str], values: NDArray[Any], colour: str, hover: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": title,
        "x": np.round(values, 2).tolist(),
        "y": names,
        "marker": {"color": colour},
        "textposition": "inside",
        "insidetextfont": {"color": INK},
        "hovertemplate": f"{hover}<extra></extra>",
    }


def _classes_caption(n_drawn: int, n_tested: int, n_classes: int) -> str:
    text = "Recall: of the images of a class, how many the head finds. Precision: of those it calls so, how many are."
    text += " The class with the lowest recall is at the top."
    if n_drawn < n_tested:
        text += f" Only the {n_drawn} hardest of {n_tested:,} classes are drawn."
    if n_tested < n_classes:
        text += f" {count(n_classes - n_tested, 'class has', 'classes have')} no test image and are not judged."
    return text
