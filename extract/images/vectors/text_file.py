"""Columns of a CSV, TSV or TXT table: lists of numbers in one cell, or one number in each of many columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.base.errors import ManifestError
from featurecache.base.text import printable
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.text_table import read_header, read_rows
from featurecache.extract.images.vectors.choosing import MATRIX, NUMBER, OTHER, check_names
from featurecache.extract.images.vectors.rows import Rows, as_float32

# Between the numbers of a list in one cell, which may be in brackets.
BETWEEN = re.compile(r"[,;\s]+")
BRACKETS = "[](){}"
CUT = "..."


class TextVectors:
    """The columns of a text table. Raises ManifestError where it is none."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.path, self._options = path, options
        self._header, first = read_header(path, options)
        cells = [*first, *[""] * len(self._header)]
        self.kinds = {name: _kind_of(cell) for name, cell in zip(self._header, cells, strict=False)}
        self._table: list[list[str]] | None = None

    def attributes(self) -> dict[str, Any]:
        """Return none: labels are names already."""
        return {}

    def cells(self, name: str) -> list[str | None]:
        """Return the cells of a column."""
        check_names(self.path, [name], self._header)
        place = self._header.index(name)
        return [row[place] if place < len(row) else None for row in self._rows()]

    def rows(self, names: Sequence[str]) -> Rows:
        """Return the vectors in these columns. Raises ManifestError."""
        check_names(self.path, names, self._header)
        place_of = {name: place for place, name in enumerate(self._header)}
        places = [place_of[name] for name in names]
        is_list = len(names) == 1 and self.kinds[names[0]] != NUMBER
        found: list[Any] = []
        for number, row in enumerate(self._rows(), start=1):
            cells = [row[place] if place < len(row) else "" for place in places]
            own = _listed(cells[0]) if is_list else cells
            if found and len(own) != len(found[0]):
                raise ManifestError(
                    f"'{printable(self.path)}' has {len(own):,} numbers in row {number:,} and {len(found[0]):,} in row "
                    "1. Give each row as many."
                )
            found.append(self._numbers(own, number))
        if not found:
            raise ManifestError(f"'{printable(self.path)}' has no rows. Give it one for each sample.")
        return np.stack(found)

    def _numbers(self, cells: Sequence[str], number: int) -> Any:
        try:
            return as_float32([float(cell) if cell.strip() else np.nan for cell in cells])
        except ValueError:
            wrong = next(cell for cell in cells if not _is_number(cell))
            cut = " The program that wrote the table cut its lists; write all numbers." if CUT in wrong else ""
            raise ManifestError(
                f"'{printable(self.path)}' has '{printable(wrong[:40])}' among the numbers of row {number:,}.{cut} "
                "Correct it, or name the columns of the vectors with --features-column."
            ) from None

    def _rows(self) -> list[list[str]]:
        if self._table is None:
            self._table = read_rows(self.path, self._options)
        return self._table


def _listed(cell: str) -> list[str]:
    return [each for each in BETWEEN.split(cell.strip().strip(BRACKETS)) if each]


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _kind_of(cell: str) -> str:
    """Return what a column holds, by its first cell; a missing number is one of a row that is refused by name."""
    if _is_number(cell.strip()):
        return NUMBER
    listed = _listed(cell)
    return MATRIX if len(listed) > 1 and all(_is_number(each) or CUT in each for each in listed) else OTHER
