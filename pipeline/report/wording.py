"""Names and numbers as they are shown, on the page and inside plots."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from featurecache.base.text import short
from featurecache.classify.heads.table import list_heads

# Found by the fit rather than tried.
FITTED_SETTINGS = frozenset({"temperature"}).union(*(info.fitted for info in list_heads()))
# Longer names push a plot's axis out of its frame on a narrow screen; the page shows them whole elsewhere.
TICK_LENGTH = 18
ELLIPSIS = "…"
# Shared by all names, shorter beginnings and ends tell more than a mark that they are left out.
LEAST_SHARED = 4


def percent(share: float, digits: int = 1) -> str:
    """0.9625 as '96.2 %', on one line; never '100.0 %' for less than all."""
    shown = f"{100 * share:.{digits}f}"
    if share < 1 and float(shown) == 100:
        shown = f"{100 - 10**-digits:.{digits}f}"
    return f"{shown}\N{NO-BREAK SPACE}%"


def listed(names: Sequence[str], *, at_most: int = 4) -> str:
    """'a', 'a and b', 'a, b, c, d and 5 more'."""
    shown = list(names[:at_most])
    if len(names) > at_most:
        return f"{', '.join(shown)} and {len(names) - at_most:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def tried(params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a head that a sweep tries."""
    return {name: value for name, value in params.items() if name not in FITTED_SETTINGS}


def settings(params: Mapping[str, Any]) -> str:
    """{'C': 0.1} as 'C = 0.1'; what was found by the fit is left out."""
    return ", ".join(f"{name} = {short(value)}" for name, value in tried(params).items()) or "defaults"


def in_plot(text: str) -> str:
    """A name for plotly, which takes some markup in text: escaped, so that '<b>' is shown literally."""
    return html.escape(text, quote=False)


def ticks(names: Sequence[str]) -> list[str]:
    """Names for an axis: shortened where all are alike or in the middle, escaped, and different where the names are."""
    if max(map(len, names), default=0) > TICK_LENGTH:
        names = _without_shared(names)
    shown: list[str] = []
    taken: set[str] = set()
    for name in names:
        label, number = _shortened(name), 2
        while label in taken:
            label, number = f"{_shortened(name)} ({number})", number + 1
        taken.add(label)
        shown.append(in_plot(label))
    return shown


def _without_shared(names: Sequence[str]) -> list[str]:
    """'cat on a mat', 'dog on a mat' as 'cat…', 'dog…'."""
    start = _n_shared(names)
    end = _n_shared([name[start:][::-1] for name in names])
    before, after = (n if n >= LEAST_SHARED else 0 for n in (start, end))
    return [
        (ELLIPSIS if before else "") + name[before : len(name) - after] + (ELLIPSIS if after else "") for name in names
    ]


def _n_shared(names: Sequence[str]) -> int:
    """With how many of the same characters all begin."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False)))


def _shortened(name: str) -> str:
    if len(name) <= TICK_LENGTH:
        return name
    keep = (TICK_LENGTH - 1) // 2
    return f"{name[:keep]}{ELLIPSIS}{name[-keep:]}"
