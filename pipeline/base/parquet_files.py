"""Parquet files that somebody else may have written: their columns and sizes, checked before a row is unpacked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def table_fault(file: Any, columns: Collection[str], n_bytes: int) -> str:
    """Return why an open `pyarrow.parquet.ParquetFile` of `n_bytes` is no table of single values; else an empty text.

    columns: those that are read, in small letters. Packed, a few bytes can stand for any number of equal rows; where
    every row names another image there are no more rows than bytes.
    """
    import pyarrow

    for column in file.schema_arrow:
        if column.name.strip().lower() in columns and pyarrow.types.is_nested(column.type):
            return f"has lists or objects in its column {column.name[:40]!r}"
    n_rows: int = file.metadata.num_rows
    return f"names {n_rows:,} rows in {n_bytes:,} bytes" if n_rows > n_bytes else ""
