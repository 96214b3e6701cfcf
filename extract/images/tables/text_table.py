"""CSV, TSV and TXT tables: their encoding, delimiter and quotes are found by the header, or refused by name.

UTF-8 is read, with or without a byte order mark, UTF-16 and UTF-32 with one. Bytes that are not UTF-8 are a file name
where a file has it; in a label they would be a class of another name, so the table is refused.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from featurecache.base.errors import ManifestError
from featurecache.base.text import printable
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.columns import Columns, choose_columns, find_columns

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What else is found under the name of a text table, by its first bytes.
NOT_TEXT = (
    (b"PK\x03\x04", "an Excel or zip file"),
    (b"\xd0\xcf\x11\xe0", "an Excel file"),
    (b"\x1f\x8b", "compressed"),
    (b"PAR1", "a Parquet file: give it the suffix .parquet"),
    (b"SQLite format 3", "a database"),
    (b"\x89HDF", "an HDF5 file"),
)
DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|", ".txt": "\t,;|"}
QUOTES = "\"'"
SEPARATOR_LINE = re.compile(r"sep=([,;|:^~\t])[\r\n]*", re.IGNORECASE)  # Excel's own first line
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # bytes that could not be decoded
LONGEST_CELL = 1 << 20
# Rows in which the names of files are sought where no column is called path.
N_TRIED = 20


@dataclass(frozen=True)
class TextForm:
    """How a text table is written. is_spaced: whether there is a space between a delimiter and a quote."""

    encoding: str
    delimiter: str
    quote: str = '"'
    is_spaced: bool = False


def read_text(path: Path, options: ReadOptions) -> Columns:
    """Return the columns of a CSV, TSV or TXT file. Raises ManifestError."""
    with _reading(path):
        form = _find_form(path, options)
        with _opened(path, form) as file:
            rows = _rows(file, form)
            header = next((cells for _, cells in rows), [])
            if any(map(NOT_UTF8.search, header)):
                raise _not_utf8(path, "its header")
            columns = choose_columns(path, header, options, rows=_first_cells(rows))
            columns.cells = _read_cells(path, rows, columns)
        return columns


def read_header(path: Path, options: ReadOptions) -> tuple[list[str], list[str]]:
    """Return the header of a text table, and the cells of its first row, if it has one. Raises ManifestError."""
    with _reading(path):
        form = _find_form(path, options)
        with _opened(path, form) as file:
            rows = _rows(file, form)
            header, first = (next(rows, (0, list[str]()))[1] for _ in range(2))
        return header, first


def read_rows(path: Path, options: ReadOptions) -> list[list[str]]:
    """Return the cells of every row of a text table but its header. Raises ManifestError."""
    with _reading(path):
        form = _find_form(path, options)
        with _opened(path, form) as file:
            rows = _rows(file, form)
            n_columns = len(next(rows, (0, list[str]()))[1])
            found = []
            for number, (line, cells) in enumerate(rows, start=1):
                _check_length(path, number, line, cells, n_columns)
                found.append(cells)
        return found


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what is raised for a file that is no table into ManifestError."""
    try:
        yield
    except (OSError, csv.Error, UnicodeError) as error:
        reason = printable(" ".join(str(error).split()).rstrip(". "))
        raise ManifestError(
            f"The manifest '{printable(path)}' cannot be read: {reason}. Save it as a table in UTF-8."
        ) from error


def _find_form(path: Path, options: ReadOptions) -> TextForm:
    """Return the first form in which the header has a column of paths, or else the one in which it has most columns."""
    with path.open("rb") as file:
        head = file.read(64)
    for first, kind in NOT_TEXT:
        if head.startswith(first):
            raise ManifestError(
                f"The manifest '{printable(path)}' is no text: it is {kind}. "
                "Save it as CSV UTF-8, or name another table."
            )
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), _without_mark(head))
    forms = [TextForm(encoding, delimiter, quote) for quote in QUOTES for delimiter in _delimiters(path, encoding)]
    for form in forms:
        found = _try(path, form, options)
        if found is not None:
            return found
    return max(forms, key=lambda form: _n_columns(path, form))


def _n_columns(path: Path, form: TextForm) -> int:
    """Return the number of columns in the header; 0 where it cannot be read so."""
    with _opened(path, form) as file:
        try:
            return len(next(_rows(file, form), (0, []))[1])
        except csv.Error:
            return 0


def _without_mark(head: bytes) -> str:
    """Return the encoding of a file without a byte order mark: in UTF-16 every other byte of a name is zero."""
    if len(head) > 3 and head[0] and head[2] and head[1] == head[3] == 0:
        return "utf-16-le"
    return "utf-16-be" if len(head) > 3 and head[1] and head[3] and head[0] == head[2] == 0 else "utf-8"


def _delimiters(path: Path, encoding: str) -> str:
    """Return the delimiters to try: that of Excel's `sep=;` line alone, or the usual ones."""
    with _opened(path, TextForm(encoding, ",")) as file:
        declared = SEPARATOR_LINE.fullmatch(file.readline(16))
    return declared[1] if declared else DELIMITERS.get(path.suffix.lower(), DELIMITERS[".csv"])


def _try(path: Path, form: TextForm, options: ReadOptions) -> TextForm | None:
    """Return the form where the header has a column of paths in it, with single quotes where cells are in them."""
    with _opened(path, form) as file:
        rows = _rows(file, form)
        try:
            _, header = next(rows, (0, []))
        except csv.Error:
            return None
        places = find_columns(header, options).get("path")
        if places is None:
            return None
        try:
            _, first = next(rows, (0, []))
        except csv.Error:  # reading all of it says which row is wrong
            return form
    cell = first[places[0]].strip() if len(first) > places[0] else ""
    is_quoted = form.quote == '"' and len(cell) > 1 and cell[0] == cell[-1] == "'"
    quote = "'" if is_quoted else form.quote
    is_spaced = any(cell.startswith(" ") and cell.lstrip().startswith(quote) for cell in (*header, *first))
    return TextForm(form.encoding, form.delimiter, quote, is_spaced)


def _opened(path: Path, form: TextForm) -> IO[str]:
    errors = "surrogateescape" if form.encoding.startswith("utf-8") else "strict"
    return path.open(newline="", encoding=form.encoding, errors=errors)


def _rows(file: IO[str], form: TextForm) -> Iterator[tuple[int, list[str]]]:
    """Yield the line at which each row ends, and its cells; rows without any text are passed over."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    reader = csv.reader(
        file, delimiter=form.delimiter, quotechar=form.quote, strict=True, skipinitialspace=form.is_spaced
    )
    for cells in reader:
        if reader.line_num == 1 and SEPARATOR_LINE.fullmatch(form.delimiter.join(cells)):
            continue
        if any(map(str.strip, cells)):
            yield reader.line_num, cells


def _first_cells(rows: Iterator[tuple[int, list[str]]]) -> Iterator[list[str]]:
    """Yield the cells of the first rows, as far as these can be read."""
    with suppress(csv.Error, UnicodeError):
        for _, cells in islice(rows, N_TRIED):
            yield cells


def _read_cells(path: Path, rows: Iterator[tuple[int, list[str]]], columns: Columns) -> dict[str, list[str | None]]:
    """Return the cells of each field. Raises ManifestError for a row that is longer than the header, or not UTF-8."""
    n_columns, cells_of = len(columns.header), {name: list[str | None]() for name in columns.places}
    filled = [(name, place, cells_of[name].append) for name, place in columns.places.items()]
    for number, (line, cells) in enumerate(rows, start=1):
        _check_length(path, number, line, cells, n_columns)
        _add(path, number, cells, filled)
    return cells_of


def _check_length(path: Path, number: int, line: int, cells: list[str], n_columns: int) -> None:
    if len(cells) > n_columns and any(map(str.strip, cells[n_columns:])):
        raise ManifestError(
            f"Row {number} of '{printable(path)}' (line {line}) has {len(cells)} cells and the header {n_columns}: "
            "put labels and paths with a comma into quotes."
        )


def _add(
    path: Path, number: int, cells: list[str], filled: list[tuple[str, int, Callable[[str | None], None]]]
) -> None:
    for name, place, append in filled:
        cell = cells[place] if place < len(cells) else None
        if cell and name != "path" and not cell.isascii() and NOT_UTF8.search(cell):
            raise _not_utf8(path, f"the {name} in row {number}, '{printable(cell[:40])}',")
        append(cell)


def _not_utf8(path: Path, where: str) -> ManifestError:
    name = printable(path.name)
    return ManifestError(
        f"The manifest '{printable(path)}' is not UTF-8: {where} has bytes of another encoding. Save it as 'CSV UTF-8' "
        f"in Excel, or convert it: iconv -f WINDOWS-1252 -t UTF-8 '{name}' > 'utf8-{name}', with the encoding that it "
        "was saved in."
    )
