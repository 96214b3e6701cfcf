"""A file of vectors by its suffix, and which files and folders are vectors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from featurecache.base.errors import ManifestError
from featurecache.base.text import printable
from featurecache.extract.images.first_bytes import read_formats
from featurecache.extract.images.folders.skipped import is_own, skipped
from featurecache.extract.images.formats import NO_IMAGE_SUFFIXES, Format, format_of
from featurecache.extract.images.left_out import suffix_of
from featurecache.extract.images.read_options import HDF5_SUFFIXES, MANIFEST, VECTOR_SUFFIXES, VECTORS, ReadOptions
from featurecache.extract.images.tables.columns import plain_name
from featurecache.extract.images.vectors.choosing import find_vectors
from featurecache.extract.images.vectors.hdf5_file import Hdf5File
from featurecache.extract.images.vectors.npz_file import NpzFile
from featurecache.extract.images.vectors.parquet_file import ParquetVectors
from featurecache.extract.images.vectors.rows import Rows
from featurecache.extract.images.vectors.text_file import TextVectors

# Of tables, whose columns say whether they are of vectors.
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
# Files and folders in a folder that are looked at before it is taken for one of images.
MOST_SEEN = 1000


class Source(Protocol):
    """An open file: its columns or data sets by name."""

    path: Path

    @property
    def kinds(self) -> dict[str, str]:
        """What each holds, see `choosing`."""

    def attributes(self) -> dict[str, Any]:
        """Return what featurecache writes into an exported file besides the columns."""

    def cells(self, name: str) -> list[str | None]:
        """Return a column as texts. Raises ManifestError."""

    def rows(self, names: Sequence[str]) -> Rows:
        """Return the vectors in these columns. Raises ManifestError."""


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a file of vectors. Raises ManifestError."""
    if not os.path.isfile(path):  # noqa: PTH113 (a pipe would be waited for)
        raise ManifestError(f"'{printable(path)}' is not an ordinary file. Name a file of vectors that is one.")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return NpzFile(path)
    if suffix in HDF5_SUFFIXES:
        return Hdf5File(path)
    return ParquetVectors(path) if suffix == ".parquet" else TextVectors(path, options)


def holds_vectors(path: str | os.PathLike[str], options: ReadOptions) -> bool:
    """Return whether a file or folder is read as vectors: as the user says, else by its suffix or its columns."""
    place = Path(path)
    suffix = place.suffix.lower()
    if options.as_ == MANIFEST:
        return False
    if os.path.isdir(place):  # noqa: PTH112 (names that are too long)
        return options.as_ == VECTORS or holds_pooled(place)
    if suffix not in TABLE_SUFFIXES or not os.path.isfile(place):  # noqa: PTH113
        return suffix in VECTOR_SUFFIXES
    if options.as_ == VECTORS or (options.features_column is not None and not options.is_usual):
        return True
    with suppress(ManifestError):  # reading it as a manifest says what is wrong
        kinds = open_source(place, options).kinds
        vectors = find_vectors(place, kinds, ReadOptions())
        # With paths, numbers may be what is known of images.
        has_paths = plain_name(options.path_column or "path") in map(plain_name, kinds)
        return len(vectors) == 1 or (len(vectors) > 1 and not has_paths)
    return False


def holds_pooled(root: Path) -> bool:
    """Return whether a folder has HDF5 files and no image, as far as its first files and folders show."""
    found, others = False, list[str]()
    for entry in islice(_entries(root), MOST_SEEN):
        suffix = suffix_of(entry.name)
        if format_of(suffix) is not None:
            return False
        found = found or suffix in HDF5_SUFFIXES
        if suffix not in HDF5_SUFFIXES and suffix not in NO_IMAGE_SUFFIXES and entry.is_file():
            others.append(entry.path)
    return found and not any(isinstance(seen, Format) for seen in read_formats(others))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the files below a folder, those of the first folders first; none of systems and of caches and runs."""
    waiting, seen = [os.fspath(folder)], set[tuple[int, int]]()
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as listed:
            entries = [entry for entry in listed if not skipped(entry.name)]
            if is_own({entry.name for entry in entries}):
                continue
            for entry in entries:
                if not entry.is_dir():
                    yield entry
                elif (place := identity(entry.path)) not in seen:
                    seen.add(place)
                    waiting.append(entry.path)


def identity(folder: str) -> tuple[int, int]:
    """Return what a folder has in common with all links to it. Raises OSError."""
    state = os.stat(folder)  # noqa: PTH116 (closed folders)
    return state.st_dev, state.st_ino
