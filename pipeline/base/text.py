"""Names, sizes and times as people read them."""

from __future__ import annotations

import os
from collections.abc import Sequence

# From here on a round number is shorter as 1e4.
LARGE = 1e4
# A column is wider than its header by at least this.
PADDING = 2


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
    """A time as people write it: 50 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def count(n: int, one: str, many: str | None = None) -> str:
    """Return '1 image', '2,000 images'; many: the plural, where it is not `one` with an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def count_is(n: int, noun: str, rest: str = "") -> str:
    """Return '1 image is', '2 images are'; rest: words behind the noun, as in '1 image without a label is'."""
    return count(n, *(f"{' '.join([each, rest]).strip()} {verb}" for each, verb in ((noun, "is"), (f"{noun}s", "are"))))


def short(value: object) -> str:
    """Return a number with four digits (0.00001 as '1e-5'), anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    if value == int(value) and abs(value) < LARGE:
        return str(int(value))
    mantissa, _, exponent = (f"{value:.3e}" if abs(value) >= LARGE else f"{value:.4g}").partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if exponent else mantissa


def table(
    rows: Sequence[Sequence[object]], headers: Sequence[str], *, right: Sequence[int] = (), markdown: bool = False
) -> str:
    """Return a table as plain text or markdown; the columns in `right` are aligned to the right."""
    lines = [headers, *rows]
    if rows and not markdown and all(len(line) == len(headers) and all(map(_is_plain, line)) for line in lines):
        return _plain_table([[*map(str, line)] for line in lines], right)
    from tabulate import tabulate

    alignment = ["right" if i in right else "left" for i in range(len(headers))]
    form = "pipe" if markdown else "simple"
    return tabulate(rows, headers, tablefmt=form, disable_numparse=True, colalign=alignment if rows else None)


def _is_plain(cell: object) -> bool:
    """Whether a cell is text in one line, as wide as it has characters."""
    return isinstance(cell, str) and cell.isascii() and cell.isprintable() and cell == cell.strip()


def _plain_table(lines: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """Return the table that tabulate makes of a header and rows; its import takes longer than a short command may."""
    header, *rows = lines
    widths = [
        max(len(name) + PADDING, *map(len, column))
        for name, column in zip(header, zip(*rows, strict=True), strict=True)
    ]
    padded = [
        [cell.rjust(n) if i in right else cell.ljust(n) for i, (cell, n) in enumerate(zip(line, widths, strict=True))]
        for line in (header, ["-" * n for n in widths], *rows)
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
