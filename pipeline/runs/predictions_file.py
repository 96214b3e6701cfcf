"""predictions.parquet of a run, written and opened.

A run may be somebody else's: what the file is made of is checked before a row of it is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from featurecache.base.parquet_files import table_fault
from featurecache.base.plain_files import check_plain_file
from featurecache.extract.cache.spec import HEX_DIGEST
from featurecache.runs.folder import PREDICTIONS_FILE

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    import pyarrow.parquet
    from numpy.typing import NDArray

# Rows that are in memory at a time.
BATCH_ROWS = 8192
COLUMNS = ("path", "digest", "label", "head", "predicted", "probabilities")


@dataclass(frozen=True)
class HeadPredictions:
    """The predictions of one head for N test images: a class each, and probabilities (N, C)."""

    backbone: str
    features: str
    head: str
    predicted: Sequence[str]
    proba: NDArray[np.floating[Any]]


def write_predictions(
    folder: Path,
    *,
    names: Sequence[str],
    digests: Sequence[str],
    labels: Sequence[str],
    heads: Iterable[HeadPredictions],
) -> None:
    """Write predictions.parquet into a run folder: N test images for every head, names, digests, labels (N,).

    A row group a head, one after the other, so that no more than one is in memory.
    """
    import pyarrow
    import pyarrow.parquet

    images = {"path": text_array(names), "digest": text_array(digests), "label": text_array(labels)}
    text = pyarrow.string()
    schema = pyarrow.schema([(name, text) for name in (*images, "backbone", "features", "head", "predicted")])
    schema = schema.append(pyarrow.field("probabilities", pyarrow.list_(pyarrow.float32())))
    with pyarrow.parquet.ParquetWriter(folder / PREDICTIONS_FILE, schema) as writer:
        for each in heads:
            columns = {
                **images,
                "backbone": text_array([each.backbone] * len(names)),
                "features": text_array([each.features] * len(names)),
                "head": text_array([each.head] * len(names)),
                "predicted": text_array(each.predicted),
                "probabilities": _lists(each.proba),
            }
            table = pyarrow.Table.from_arrays(list(columns.values()), schema=schema)
            writer.write_table(table, row_group_size=len(names))


def text_array(values: Sequence[str]) -> pyarrow.Array:
    """Return strings (N,) as an array of Arrow's, from buffers: `pyarrow.array` imports pandas, which takes 0.4 s."""
    import numpy as np
    import pyarrow

    encoded = [str(value).encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{PREDICTIONS_FILE} takes at most 2 GB of names, and these have {ends[-1] / 1e9:.1f} GB.")
    buffers = [None, pyarrow.py_buffer(ends.astype(np.int32)), pyarrow.py_buffer(b"".join(encoded))]
    return pyarrow.Array.from_buffers(pyarrow.string(), len(encoded), buffers)


def listed_numbers(lists: pyarrow.ListArray) -> NDArray[Any]:
    """Return the numbers of all lists, one after the other, without pandas. Raises ValueError where one is missing."""
    import numpy as np

    first, end = (lists.offsets[i].as_py() for i in (0, -1))
    numbers = lists.values.slice(first, end - first)
    if lists.null_count or numbers.null_count:
        raise ValueError("it has numbers without a value")
    return np.from_dlpack(numbers)


def _lists(rows: NDArray[np.floating[Any]]) -> pyarrow.ListArray:
    """Rows (N, C) as N lists of float32, without a Python object for every number."""
    import numpy as np
    import pyarrow

    ends = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.shape[1])
    numbers = [None, pyarrow.py_buffer(rows.astype(np.float32).ravel())]
    values = pyarrow.Array.from_buffers(pyarrow.float32(), rows.size, numbers)
    return pyarrow.Array.from_buffers(
        pyarrow.list_(pyarrow.float32()), len(rows), [None, pyarrow.py_buffer(ends)], children=[values]
    )


@contextlib.contextmanager
def open_predictions(folder: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """predictions.parquet of a run folder, open and checked. Raises OSError, ValueError."""
    import pyarrow.parquet

    path = folder / PREDICTIONS_FILE
    check_plain_file(path, folder)
    with pyarrow.parquet.ParquetFile(path) as file:
        check_predictions(file, path.stat().st_size)
        yield file


def check_predictions(file: pyarrow.parquet.ParquetFile, n_bytes: int) -> None:
    """Raise ValueError unless an open predictions.parquet of `n_bytes` has our columns, and no more rows than fit.

    A few bytes can stand for any number of equal rows; ours have the digest of an image each.
    """
    import pyarrow

    missing = next((name for name in COLUMNS if name not in file.schema_arrow.names), None)
    if missing is not None:
        raise ValueError(f"it has no column '{missing}'")
    for field in file.schema_arrow:
        is_list = pyarrow.types.is_list(field.type) and pyarrow.types.is_floating(field.type.value_type)
        is_ours = is_list if field.name == "probabilities" else pyarrow.types.is_string(field.type)
        if field.name in (*COLUMNS, "features", "backbone") and not is_ours:
            raise ValueError(f"its column '{field.name}' is of type {field.type}")
    if fault := table_fault(file, (), n_bytes):
        raise ValueError(f"it {fault}")


def check_texts(table: pyarrow.Table) -> None:
    """Raise ValueError where a text of the table is not there, or a digest is none.

    Without pyarrow.compute, here and where the texts are read: to import it takes a tenth of a second.
    """
    for name in table.column_names:
        if table[name].null_count:
            raise ValueError(f"its column '{name}' has rows without a value")
    if not all(map(HEX_DIGEST.fullmatch, table["digest"].to_pylist())):
        raise ValueError("its column 'digest' holds what is no SHA-256")


class Answer(NamedTuple):
    """What a head predicted of a test image: the name of a class, and the probability of each (C,)."""

    label: str
    proba: NDArray[np.floating[Any]]


def read_answers(folder: Path, *, head: str, features: str, digests: Collection[str]) -> dict[str, Answer]:
    """Return the predictions of one head for those test images that have these digests, by digest.

    Raises OSError, ValueError.
    """
    found: dict[str, Answer] = {}
    with open_predictions(folder) as file:
        kind = "features" if "features" in file.schema_arrow.names else "backbone"
        for batch in file.iter_batches(BATCH_ROWS, columns=[kind, *COLUMNS]):
            names = zip(*(batch.column(name).to_pylist() for name in (kind, "head", "digest")), strict=True)
            predicted, lists = batch.column("predicted"), batch.column("probabilities")
            for i, (on, name, digest) in enumerate(names):
                if (on, name) == (features, head) and digest in digests:
                    found[digest] = Answer(predicted[i].as_py(), listed_numbers(lists.slice(i, 1)))
    return found
