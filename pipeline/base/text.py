"""Names, sizes and times as people read them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any


def printable(text: str | os.PathLike[str]) -> str:
    r"""A path or class name that is safe on a terminal and in a file.

    Control characters, line separators and bytes that are not UTF-8 come out as backslash escapes.
    """
    characters = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    if characters.isprintable():
        return characters
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in characters)


def readable_bytes(n: float) -> str:
    """A size as people write it: 12 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def readable_seconds(seconds: float) -> str:
    """A time as people say it: 50 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def there_are(n: int, noun: str, rest: str = "") -> str:
    """Return "1 image is", "2 images are"; `rest` stands behind the noun: "1 image without a label is"."""
    words = f"{n:,} {noun}{'' if n == 1 else 's'}"
    return f"{words} {rest}{' ' if rest else ''}{'is' if n == 1 else 'are'}"


def units_text(dataset: Mapping[str, Any]) -> str:
    """Return "40 groups" where the test images are fewer units than images, "990 distinct images" for copies; or "".

    dataset: that of results.json; it says nothing in runs of versions that did not count units.
    """
    n = dataset.get("n_test_units", dataset["n_test"])
    if n == dataset["n_test"]:
        return ""
    one, many = ("group", "groups") if dataset["test_units"] == "group" else ("distinct image", "distinct images")
    return f"{n:,} {one if n == 1 else many}"


def test_text(dataset: Mapping[str, Any]) -> str:
    """Return the name of the paired test of the heads of a run."""
    units = units_text(dataset)
    return f"sign-flip test over {units}" if units else "McNemar's exact test"


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], *, right: Sequence[int] = ()) -> str:
    """A plain table; the columns in `right` are aligned to the right."""
    from tabulate import tabulate

    alignment = ["right" if i in right else "left" for i in range(len(headers))]
    return tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=alignment if rows else None)
