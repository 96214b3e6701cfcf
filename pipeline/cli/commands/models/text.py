"""Versions of models as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from featurecache.base.text import count, printable, short, table
from featurecache.classify.evaluation.criteria import ACCURACY

if TYPE_CHECKING:
    from featurecache.runs.models.versions import ModelVersion

COLUMNS = ("model", "version", "current", "head", "features", "classes", "test", "promoted (UTC)", "from")


def version_text(found: ModelVersion) -> str:
    """Return one line on a version: its head, classes and test number."""
    number = f", {_test(found)}" if found.value is not None else ""
    on_test = f" on {count(found.n_test, 'test image')}" if number and found.n_test else ""
    what = f"{found.head} on {printable(found.features)}, {count(found.classes, 'class', 'classes')}"
    return f"{found.name} v{found.version}: {what}{number}{on_test}"


def models_text(found: Sequence[ModelVersion]) -> str:
    """Return the table of all versions, and below it why any of them cannot be read."""
    rows = [
        (
            each.name,
            f"v{each.version}",
            "current" if each.is_current else "",
            each.head,
            printable(each.features),
            str(each.classes or ""),
            _test(each),
            each.promoted.replace("T", " ").removesuffix("Z"),
            printable(each.source),
        )
        for each in found
    ]
    notes = dict.fromkeys(note for each in found for note in each.notes)
    return "\n\n".join([table(rows, COLUMNS, right=(5,)), *notes])


def _test(found: ModelVersion) -> str:
    if found.value is None:
        return ""
    value = f"{100 * found.value:.2f} %" if found.metric == ACCURACY else short(found.value)
    return f"{found.metric} {value}"
