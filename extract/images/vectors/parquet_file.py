"""Columns of a Parquet file: lists of numbers, or one number in each of many columns, unpacked some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ManifestError
from featurecache.base.parquet_files import table_fault
from featurecache.base.text import printable
from featurecache.extract.images.vectors.cells import as_cell
from featurecache.extract.images.vectors.choosing import MATRIX, NUMBER, OTHER, check_names
from featurecache.extract.images.vectors.origin import SPECS
from featurecache.extract.images.vectors.rows import MOST_DIM, Rows, as_float32, held_array, rows_at_once

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet


class ParquetVectors:
    """The columns of a Parquet file. Raises ManifestError where it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self._schema: pyarrow.Schema = file.schema_arrow
            self._n_rows: int = file.metadata.num_rows

    @property
    def kinds(self) -> dict[str, str]:
        """What each column holds, by its name."""
        return {each.name: _kind_of(each.type) for each in self._schema}

    def attributes(self) -> dict[str, Any]:
        """Return what featurecache writes beside the columns; labels are names already."""
        stored = self._schema.metadata or {}
        return {name: stored[name.encode()].decode("utf-8", "replace") for name in ("spec", SPECS, "weights")
                if name.encode() in stored}  # fmt: skip

    def cells(self, name: str) -> list[str | None]:
        """Return the values of a column as texts. Raises ManifestError."""
        check_names(self.path, [name], self._schema.names)
        with self._opened() as file:
            if fault := table_fault(file, {name.strip().lower()}, self.path.stat().st_size):
                raise ManifestError(f"'{printable(self.path)}' {fault}. Write one value a row, a row a sample.")
            return [as_cell(value) for value in file.read(columns=[name])[name].to_pylist()]

    def rows(self, names: Sequence[str]) -> Rows:
        """Return the vectors in these columns. Raises ManifestError."""
        check_names(self.path, names, self._schema.names)
        with self._opened() as file:
            n_bytes = self.path.stat().st_size
            if not 0 < self._n_rows <= n_bytes:
                raise ManifestError(
                    f"'{printable(self.path)}' names {self._n_rows:,} rows in {n_bytes:,} bytes. Write a row a sample."
                )
            dim = len(names) if self.kinds[names[0]] == NUMBER else self._length(file, names[0])
            out = held_array((self._n_rows, dim), self.path)
            start = 0
            for batch in file.iter_batches(rows_at_once(dim), columns=list(names)):
                block = self._side_by_side(batch, names) if self.kinds[names[0]] == NUMBER else None
                out[start : start + len(batch)] = self._lists(batch, start, dim) if block is None else block
                start += len(batch)
            return out

    def _length(self, file: pyarrow.parquet.ParquetFile, name: str) -> int:
        """Return the length of the first list, and refuse a column that is no vectors or has too long ones."""
        if self.kinds[name] != MATRIX:
            raise ManifestError(
                f"'{printable(self.path)}' has in '{printable(name)}' {self._schema.field(name).type} and no lists of "
                "numbers. Name the column of the vectors with --features-column."
            )
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            for place in range(group.num_columns):
                column = group.column(place)
                if column.path_in_schema.split(".")[0] == name and column.num_values > MOST_DIM * group.num_rows:
                    raise ManifestError(f"'{printable(self.path)}' has vectors of more than {MOST_DIM:,} numbers.")
        first = next(file.iter_batches(1, columns=[name]))
        found = first.column(0)[0].as_py()
        if not found:
            raise ManifestError(
                f"'{printable(self.path)}' has no numbers in '{printable(name)}' of row 1. Give it some."
            )
        return len(found)

    def _lists(self, batch: pyarrow.RecordBatch, start: int, dim: int) -> Any:
        import pyarrow.compute

        column = batch.column(0)
        lengths = pyarrow.compute.fill_null(pyarrow.compute.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        other = np.flatnonzero(lengths != dim)
        if len(other):
            raise ManifestError(
                f"'{printable(self.path)}' has {lengths[other[0]]:,} numbers in row {start + int(other[0]) + 1:,} and "
                f"{dim:,} in row 1. Give each row as many."
            )
        return as_float32(_numbers(column.flatten()).reshape(len(batch), dim))

    def _side_by_side(self, batch: pyarrow.RecordBatch, names: Sequence[str]) -> Any:
        return np.stack([as_float32(_numbers(batch.column(name))) for name in names], axis=1)

    @contextmanager
    def _opened(self) -> Iterator[pyarrow.parquet.ParquetFile]:
        import pyarrow
        import pyarrow.parquet

        try:
            with self.path.open("rb") as file:
                yield pyarrow.parquet.ParquetFile(file)
        except ManifestError:
            raise
        except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
            reason = printable(" ".join(str(error).split()).rstrip(". "))
            raise ManifestError(
                f"'{printable(self.path)}' cannot be read as Parquet: {reason}. Write it again, or as .npz."
            ) from error


def _numbers(column: pyarrow.Array) -> Any:
    """Return numbers with NaN for null."""
    return column.to_numpy(zero_copy_only=False)


def _kind_of(kind: pyarrow.DataType) -> str:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return MATRIX if _is_number(kind.value_type) else OTHER
    return NUMBER if _is_number(kind) else OTHER


def _is_number(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))
