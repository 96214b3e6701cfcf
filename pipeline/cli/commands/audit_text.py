"""An audit as text: the verdict first, then what was found, the first lines of each list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featurecache.base.text import table

if TYPE_CHECKING:
    from featurecache.evaluate.audit import Audit

MAX_ROWS = 8  # of each list on a terminal; all of them are in --json and --out
# Kind of finding and its title.
TITLES = {
    "duplicates": "images in more than one file",
    "near_duplicates": "pairs that show nearly the same",
    "groups_across_splits": "groups on more than one side of the split",
    "conflicting_labels": "images under more than one label",
    "doubtful_labels": "doubtful labels",
    "outliers": "outliers",
    "small_classes": "classes with fewer than 10 test images",
}


def audit_text(found: Audit) -> str:
    """The audit for people."""
    splits = ", ".join(f"{n:,} {split}" for split, n in found.n_of_split.items())
    head = f"{found.n_images:,} images ({splits}), features of {found.backbone}"
    verdict = found.leakage.verdict() or "No test image was found in train or val, and none under two labels."
    return "\n".join([head, "", verdict, *_sections(found)])


def _sections(found: Audit) -> Iterator[str]:
    from featurecache.evaluate.audit_document import lists_of

    for name, rows in lists_of(found.findings).items():
        yield _section(name, rows, found.n_near if name == "near_duplicates" else len(rows))


def _section(name: str, rows: Sequence[Mapping[str, Any]], n_found: int) -> str:
    if not rows:
        return f"\n{TITLES[name]}: none"
    shown = f", the first {MAX_ROWS}" if n_found > MAX_ROWS else ""
    cells = [[_words(value) for value in row.values()] for row in rows[:MAX_ROWS]]
    return f"\n{TITLES[name]}: {n_found:,}{shown}\n" + table(cells, [key.replace("_", " ") for key in rows[0]])


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, list):
        return str(value)
    more = f" and {len(value) - 2} more" if len(value) > 2 else ""
    return ", ".join(map(str, value[:2])) + more
