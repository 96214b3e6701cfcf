"""Numbers of any file as rows of float32, a few at a time, and the digest of each row.

The digest of a row is the SHA-256 of its numbers as little-endian float32: rows of equal numbers share it, whatever
their file. It takes the place of the digest of an image: splits are made by it, and copies are found.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featurecache.base.errors import ManifestError
from featurecache.base.text import count, printable

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

# Numbers that are read at a time: 42 MB.
BLOCK_NUMBERS = 8192 * 1280
# Rows that have to be unpacked are held in memory up to this size, and in a temporary file beyond.
HELD_BYTES = 1 << 30
# The longest vector.
MOST_DIM = 1 << 24
NUMBER_KINDS = frozenset("fiub")


class Rows(Protocol):
    """N rows of D numbers, of any type, that can be read in part: an array, a memory map, a data set of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows, one after the other."""


def held_array(shape: tuple[int, int], path: str | PathLike[str]) -> NDArray[np.float32]:
    """Return an empty float32 array (N, D), in memory or in an unnamed temporary file. Raises ManifestError."""
    n_bytes = 4 * shape[0] * shape[1]
    if n_bytes <= HELD_BYTES:
        return np.empty(shape, dtype=np.float32)
    try:
        with tempfile.TemporaryFile() as file:
            file.truncate(n_bytes)
            return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)
    except OSError as error:
        raise ManifestError(
            f"'{printable(path)}' has {n_bytes / 1e9:.2f} GB of numbers, which cannot be unpacked into a temporary "
            f"file: {error.strerror}. Free some space, or name another folder with TMPDIR."
        ) from error


def rows_at_once(dim: int) -> int:
    """Return how many rows of D numbers are read at a time."""
    return max(1, BLOCK_NUMBERS // max(1, dim))


def blocks_of(rows: Rows) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the first row of each block, and the block as float32 (n, D)."""
    n, dim = rows.shape
    step = rows_at_once(dim)
    for start in range(0, n, step):
        yield start, as_float32(rows[start : start + step])


def as_float32(numbers: Any) -> NDArray[np.float32]:
    """Return numbers of any type as float32, in rows; those that are too large are infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(numbers, dtype=np.float32)


def check_shape(path: str | PathLike[str], name: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> None:
    """Raise ManifestError unless a data set is one of N vectors of D numbers."""
    where = f"'{printable(path)}' has in '{printable(name)}'"
    if kind.hasobject:
        raise unread_objects(path, name, "an array of numbers instead: np.stack(features).astype('float32')")
    if kind.kind not in NUMBER_KINDS:
        raise ManifestError(f"{where} no numbers but {kind}. Save the vectors as an array of float32.")
    if len(shape) != 2:
        raise ManifestError(
            f"{where} numbers of the shape {shape}, and vectors are rows (N, D). Reshape them, or name another data "
            "set with --features-column."
        )
    if not 1 <= shape[1] <= MOST_DIM:
        raise ManifestError(f"{where} vectors of {shape[1]:,} numbers. Give each 1 to {MOST_DIM:,}.")
    if not shape[0]:
        raise ManifestError(f"{where} no rows. Give it one for each sample.")


def unread_objects(path: str | PathLike[str], name: str, instead: str) -> ManifestError:
    """Return the error for an array of Python objects; instead: what to save, and how."""
    return ManifestError(
        f"'{printable(path)}' has in '{printable(name)}' Python objects (pickle), which are never read: a file of a "
        f"stranger could run code with them. Save {instead}."
    )


def digest_rows(path: str | PathLike[str], rows: Rows) -> NDArray[np.uint8]:
    """Return the digest (N, 32) of each row. Raises ManifestError for numbers that are NaN or infinite."""
    digests = np.empty((rows.shape[0], 32), dtype=np.uint8)
    strange: list[int] = []
    n_strange = 0
    for start, block in blocks_of(rows):
        fine = np.isfinite(block).all(axis=1)
        if not fine.all():
            n_strange += int((~fine).sum())
            strange = strange or [start + int(np.flatnonzero(~fine)[0])]
        little = (block + np.float32(0)).astype("<f4", copy=False)  # -0 is equal to 0
        hashed = b"".join(hashlib.sha256(row).digest() for row in little)
        digests[start : start + len(block)] = np.frombuffer(hashed, dtype=np.uint8).reshape(-1, 32)
    if strange:
        raise ManifestError(
            f"'{printable(path)}' has {count(n_strange, 'row')} of {rows.shape[0]:,} with numbers that are NaN, "
            f"infinite or too large for float32, the first is row {strange[0] + 1:,} (index {strange[0]}). Correct or "
            "leave out these rows."
        )
    return digests
