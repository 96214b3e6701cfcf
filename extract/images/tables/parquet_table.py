"""Parquet tables, of which only the columns that are used are read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from featurecache.base.errors import ManifestError
from featurecache.base.parquet_files import table_fault
from featurecache.base.text import printable
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.columns import Columns, choose_columns

DIGEST_BYTES = 32


def read_parquet(path: Path, options: ReadOptions) -> Columns:
    """Return the columns of a Parquet file. Raises ManifestError."""
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            columns = choose_columns(path, parquet.schema_arrow.names, options)
            names = {each: columns.header[place] for each, place in columns.places.items()}
            if fault := table_fault(parquet, {name.strip().lower() for name in names.values()}, path.stat().st_size):
                raise ManifestError(f"The manifest '{printable(path)}' {fault}. Write one text a row, a row an image.")
            table = parquet.read(columns=list(names.values()))
            values = {each: table[name].to_pylist() for each, name in names.items()}
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = printable(" ".join(str(error).split()).rstrip(". "))
        raise ManifestError(
            f"The manifest '{printable(path)}' cannot be read as Parquet: {reason}. Write it again, or as .csv."
        ) from error
    if any(isinstance(value, bytes) and b"\0" in value for value in values["path"]):
        raise ManifestError(
            f"The manifest '{printable(path)}' has bytes that are no file names in its column "
            f"'{printable(names['path'])}', perhaps images. Write each image to a file, and its name into the table."
        )
    columns.cells = {each: [_text(value) for value in column] for each, column in values.items()}
    return columns


def _text(value: Any) -> str | None:
    """Return a cell as text: None for null and NaN, bytes as a digest or a file name."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        return value.hex() if len(value) == DIGEST_BYTES else value.decode("utf-8", "surrogateescape")
    return str(value)
