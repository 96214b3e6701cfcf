"""Names of classes: their order, and those that differ only in how they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from featurecache.base.text import printable

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
# Groups of names that a remark shows.
SHOWN = 3


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of classes in their order: by value where all are numbers, else by characters."""
    found = sorted(names)
    if all(_NUMBER.fullmatch(name) for name in found):
        found.sort(key=float)
    return found


def remark_on_alike(names: Iterable[str | None]) -> tuple[str, ...]:
    """Return a sentence on classes whose names are equal but for case, spaces or Unicode form; none for no such."""
    written: dict[str, list[str]] = {}
    for name in sorted({name for name in names if name is not None}):
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        written.setdefault(plain, []).append(name)
    alike = [same for same in written.values() if len(same) > 1]
    if not alike:
        return ()
    shown = "; ".join(" and ".join(f"'{_exactly(name)}'" for name in same) for same in alike[:SHOWN])
    more = "; ..." if len(alike) > SHOWN else ""
    return (
        "Classes whose names differ only in case, spaces or Unicode form are classes of their own: "
        f"{shown}{more}. Give them one name if they are one class.",
    )


def _exactly(name: str) -> str:
    """Return a name as it is shown, with an escape for every accent that is a character of its own."""
    if unicodedata.is_normalized("NFC", name):
        return printable(name)
    return "".join(f"\\u{ord(c):04x}" if unicodedata.combining(c) else printable(c) for c in name)
