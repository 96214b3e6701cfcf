"""Arrays of a program as a Manifest, for `train_heads` and the like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.base.errors import ManifestError
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.images.tables.columns import Column
from featurecache.extract.images.vectors.cells import as_cells
from featurecache.extract.images.vectors.read_vectors import VectorTable, build_manifest
from featurecache.extract.images.vectors.rows import check_shape, digest_rows

NO_LABELS = "Give read_arrays a label for each row."


def read_arrays(
    X: Any,
    labels: Sequence[Any] | None = None,
    *,
    splits: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    paths: Sequence[Any] | None = None,
    name: str = "arrays",
) -> Manifest:
    """Return vectors X (N, D) and what is known of each row as samples, as `read_images` returns a file of vectors.

    labels, splits (train, val, test), groups, paths: N values each, None for a row without one. name: of the data set.
    A memory map is read in blocks. Raises ManifestError for lengths that differ, and for numbers that are not finite.
    """
    rows, place = np.asanyarray(X), Path(name)
    check_shape(place, "X", rows.shape, rows.dtype)
    given = {"label": labels, "split": splits, "group": groups, "path": paths}
    cells = {each: _column(place, each, values, len(rows)) for each, values in given.items() if values is not None}
    table = VectorTable(rows, digest_rows(place, rows), cells, no_labels=NO_LABELS)
    return build_manifest(place, table)


def _column(place: Path, name: str, values: Sequence[Any], n: int) -> Column:
    found = as_cells(place, name, np.asarray(values, dtype=object))
    if len(found) != n:
        raise ManifestError(f"There are {n:,} rows in X and {len(found):,} {name}s. Give each row one of each.")
    return found
