"""Cells of labels, groups and splits: what stands for a missing value, and numbers that became floats on the way."""

from __future__ import annotations

import re
from collections import Counter

from featurecache.base.text import count, printable
from featurecache.extract.images.tables.columns import Column

# The texts that pandas.read_csv reads as missing values, so that a table says here what it says there.
MISSING = frozenset({
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
WHOLE = re.compile(r"[+-]?\d+(\.0+)?")


def without_missing(cells: Column, name: str, notes: list[str]) -> Column:
    """Return stripped cells (N,), None where one is empty or stands for a missing value; a note says how many do."""
    stripped = [cell.strip() or None if cell else None for cell in cells]
    missing = Counter(cell for cell in stripped if cell in MISSING)
    if not missing:
        return stripped
    n = sum(missing.values())
    shown = ", ".join(f"'{cell}'" for cell in sorted(missing))
    to_keep = " Where that is a class, spell it otherwise." if name == "label" else ""
    notes.append(f"{count(n, 'row')} with {shown} as {name}: read as a missing value, as pandas reads it.{to_keep}")
    return [None if cell in MISSING else cell for cell in stripped]


def clean_labels(cells: Column, notes: list[str]) -> Column:
    """Return the labels (N,), None for none; 1.0 is 1 where all are whole numbers."""
    labels = without_missing(cells, "label", notes)
    distinct = {label for label in labels if label is not None}
    floats = {label: str(int(label.partition(".")[0])) for label in distinct if "." in label and WHOLE.fullmatch(label)}
    if not floats or not all(map(WHOLE.fullmatch, distinct)):
        return labels
    one = min(floats)
    notes.append(f"All labels are whole numbers: '{printable(one)}' is read as '{floats[one]}'.")
    return [None if label is None else floats.get(label, label) for label in labels]
