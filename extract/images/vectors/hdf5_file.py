"""Data sets of an HDF5 file, read a few rows at a time.

A file may be a stranger's: a data set that lies in other files (a link, external storage, a virtual one), that would
expand from nothing, or that needs a filter of code on this machine is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ManifestError
from featurecache.base.text import printable
from featurecache.extract.images.vectors.cells import as_cells
from featurecache.extract.images.vectors.choosing import MATRIX, OTHER, TEXT
from featurecache.extract.images.vectors.origin import SPECS
from featurecache.extract.images.vectors.rows import NUMBER_KINDS, Rows, check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

# deflate, shuffle, Fletcher-32, szip, n-bit, scale-offset; LZF, which h5py brings.
FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})
# What the filters above make of a byte at most.
MOST_PACKED = 1100
CLASSES = "classes"
ATTRIBUTES = ("spec", SPECS, "weights", CLASSES)
LOCKINGS = (False, None)  # as another part of this process may have the file open


class Hdf5File:
    """The data sets at the top of an HDF5 file. Raises ManifestError where it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sets: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        with opened(path) as file:
            for name in file:
                if found := _data_set(file, name):
                    self._sets[name] = (found.shape, found.dtype)

    @property
    def kinds(self) -> dict[str, str]:
        """What each data set holds, by its name."""
        return {name: _kind_of(shape, kind) for name, (shape, kind) in self._sets.items()}

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of a data set."""
        return self._sets[name][0]

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that featurecache writes and that are there; classes are None if they are no list."""
        with opened(self.path) as file:
            found: dict[str, Any] = {name: file.attrs[name] for name in ATTRIBUTES if name in file.attrs}
        if isinstance(classes := found.get(CLASSES), np.ndarray):
            found[CLASSES] = as_cells(self.path, CLASSES, classes) if classes.ndim == 1 else None
        if CLASSES in self._sets and CLASSES not in found:
            found[CLASSES] = self.cells(CLASSES) if len(self.shape_of(CLASSES)) == 1 else None
        return found

    def cells(self, name: str) -> list[str | None]:
        """Return the values of a data set (N,) as texts. Raises ManifestError."""
        import h5py

        with opened(self.path) as file:
            own = file[name]
            self._check_storage(own, name)
            is_text = h5py.check_string_dtype(own.dtype) is not None
            if own.dtype.kind == "O" and not is_text:
                raise ManifestError(f"'{printable(self.path)}' has in '{printable(name)}' neither numbers nor texts.")
            values = own.asstr("utf-8", "surrogateescape")[()] if is_text else own[()]
        return as_cells(self.path, name, np.asarray(values))

    def rows(self, names: Sequence[str]) -> Rows:
        """Return the data set of vectors. Raises ManifestError."""
        (name,) = names
        shape, kind = self._sets[name]
        check_shape(self.path, name, shape, kind)
        return self.stored_rows(name)

    def stored_rows(self, name: str) -> StoredRows:
        """Return a data set of any shape, once it is known to lie in this file."""
        with opened(self.path) as file:
            self._check_storage(file[name], name)
        return StoredRows(self.path, name, self._sets[name][0])

    def _check_storage(self, own: Any, name: str) -> None:
        plan = own.id.get_create_plist()
        where = f"'{printable(self.path)}' has a data set '{printable(name)}'"
        if own.is_virtual or own.external:
            raise ManifestError(
                f"{where} that lies in other files, which are not followed. Write its numbers into one file; those of "
                "a cache by 'featurecache cache export'."
            )
        filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
        if filters - FILTERS:
            raise ManifestError(
                f"{where} packed by a filter that is not part of HDF5 ({min(filters - FILTERS)}). Save it with gzip or "
                "unpacked."
            )
        n_bytes, stored = math.prod(own.shape) * own.dtype.itemsize, own.id.get_storage_size()
        if n_bytes > stored * (MOST_PACKED if filters else 1):
            raise ManifestError(
                f"{where} of the shape {own.shape}, of which only {stored:,} bytes are in the file. Write all of it."
            )


class StoredRows:
    """A data set as rows: a file is open only while some are read."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...]) -> None:
        self.path, self.name, self.shape = path, name, shape

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        with opened(self.path) as file:
            found: NDArray[Any] = file[self.name][rows]
            return found


def _kind_of(shape: tuple[int, ...], kind: np.dtype[Any]) -> str:
    import h5py

    if len(shape) == 2 and kind.kind in NUMBER_KINDS:
        return MATRIX
    return TEXT if kind.kind == "S" or h5py.check_string_dtype(kind) is not None else OTHER


def _data_set(file: Any, name: str) -> Any:
    """Return a data set that is no link to elsewhere; None for a group or a link."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return None
    found = file[name]
    return found if isinstance(found, h5py.Dataset) and found.shape is not None else None


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading. Raises ManifestError for it, and for what goes wrong inside the block."""
    import h5py

    try:
        with _open(h5py, path) as file:
            yield file
    except ManifestError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join((str(error).splitlines() or [type(error).__name__])[0].split()).rstrip(". ")
        raise ManifestError(
            f"'{printable(path)}' cannot be read as HDF5: {printable(reason)}. Write it again, or as .npz."
        ) from error


def _open(h5py: Any, path: Path) -> Any:
    for locking in LOCKINGS:
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "flag values don't match" not in str(error):
                raise
    return h5py.File(path, "r")
