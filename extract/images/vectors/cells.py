"""Values of a column or data set as the cells of a table."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.errors import ManifestError
from featurecache.base.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGEST_BYTES = 32


def as_cells(path: Path, name: str, values: NDArray[Any]) -> list[str | None]:
    """Return N values as texts, None for those that are missing; rows of 32 bytes are digests. Raises ManifestError."""
    if values.ndim == 2 and values.shape[1] == DIGEST_BYTES and values.dtype == "u1":
        return [row.tobytes().hex() for row in values]
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 0:
        values = values.reshape(1)
    if values.ndim != 1:
        raise ManifestError(
            f"'{printable(path)}' has in '{printable(name)}' {values.shape[1]} values for each row, and one is needed: "
            "where these are shares of each class, save their argmax."
        )
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "surrogateescape") for value in values.tolist()]
    return [as_cell(value) for value in values.tolist()]


def as_cell(value: Any) -> str | None:
    """Return a value as text; None for null and NaN, bytes as a digest or as UTF-8."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        return value.hex() if len(value) == DIGEST_BYTES else value.decode("utf-8", "surrogateescape")
    return str(value)
