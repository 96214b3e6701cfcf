"""Predictions as Parquet, a row group for each block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.predictions.writing import Writing

if TYPE_CHECKING:
    import pyarrow
    from numpy.typing import NDArray


def write_parquet(path: Path, writing: Writing) -> None:
    """Write the columns of a CSV table; an empty label is missing."""
    import pyarrow
    import pyarrow.parquet

    names, are_texts = writing.listing.names(), writing.listing.are_texts()
    kinds = [pyarrow.string() if is_text else pyarrow.float64() for is_text in are_texts]
    schema = pyarrow.schema(list(zip(names, kinds, strict=True)))
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for block in writing.blocks:
            arrays = [
                _numbers(values) if isinstance(values, np.ndarray) else _texts(values)
                for values in writing.listing.values(block)
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def _numbers(values: NDArray[np.float64]) -> pyarrow.Array:
    import pyarrow

    buffers = [None, pyarrow.py_buffer(np.ascontiguousarray(values))]
    return pyarrow.Array.from_buffers(pyarrow.float64(), len(values), buffers)


def _texts(values: Sequence[str | None]) -> pyarrow.Array:
    """Texts as an array of Arrow's, from buffers: `pyarrow.array` imports pandas, which takes 0.4 s."""
    import pyarrow

    encoded = [(value or "").encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    known = np.packbits(np.array([value is not None for value in values], dtype=np.bool_), bitorder="little")
    buffers = [pyarrow.py_buffer(known), pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(encoded))]
    n_missing = sum(value is None for value in values)
    return pyarrow.Array.from_buffers(pyarrow.string(), len(encoded), buffers, null_count=n_missing)
