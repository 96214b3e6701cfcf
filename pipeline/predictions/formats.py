"""The formats of predictions: by the suffix of a file, or by name on a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from featurecache.base.errors import UsageError
from featurecache.base.text import printable
from featurecache.predictions.text_files import write_csv_text, write_json_lines, write_json_text, write_table
from featurecache.predictions.writing import Writing

# On a stream; a file has all but the table, and Parquet.
TABLE, JSON = "table", "json"
TEXTS: Mapping[str, Callable[[TextIO, Writing], None]] = {
    TABLE: write_table,
    "csv": write_csv_text,
    "jsonl": write_json_lines,
    JSON: write_json_text,
}
PARQUET = ".parquet"
SUFFIXES = (".csv", ".jsonl", ".json", PARQUET)
# Lines of CSV end so, and cells have none.
CSV_LINE_END = "\r\n"


def check_suffix(path: Path) -> None:
    """Raise UsageError where the suffix of a file names no format of predictions."""
    if path.suffix.lower() not in SUFFIXES:
        named = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise UsageError(f"'{printable(path)}' has a suffix that is no format of predictions: name a file {named}.")


def write_file(path: Path, writing: Writing, *, named: Path | None = None) -> None:
    """Write predictions in the format of the suffix of a file.

    named: the file by the name that has the suffix, where `path` is another, such as that of what a link leads to.
    """
    suffix = (named or path).suffix.lower()
    if suffix == PARQUET:
        from featurecache.predictions.parquet_file import write_parquet

        write_parquet(path, writing)
        return
    with path.open("w", encoding="utf-8", newline=CSV_LINE_END if suffix == ".csv" else "\n") as file:
        TEXTS[suffix.removeprefix(".")](file, writing)
