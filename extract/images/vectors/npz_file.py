"""Arrays of a .npz file: those of `numpy.savez` are mapped into memory, packed ones are unpacked; none is unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ManifestError
from featurecache.base.text import printable
from featurecache.extract.images.vectors.cells import as_cells
from featurecache.extract.images.vectors.choosing import MATRIX, OTHER, TEXT
from featurecache.extract.images.vectors.origin import SPECS
from featurecache.extract.images.vectors.rows import (
    NUMBER_KINDS,
    Rows,
    as_float32,
    check_shape,
    held_array,
    rows_at_once,
    unread_objects,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = ".npy"
LOCAL_HEADER = 30  # bytes of the fixed part of a header in a zip file
MOST_PACKED = 1100  # deflate makes at most 1,032 bytes of one
READ_BYTES = 1 << 20


@dataclass(frozen=True)
class _Member:
    """An array in the archive: how it is stored, and the bytes of its header."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    is_fortran: bool
    kind: np.dtype[Any]
    n_header: int


class NpzFile:
    """The arrays of a .npz file. Raises ManifestError where it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, _Member] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if info.filename.endswith(SUFFIX):
                        self._members[info.filename.removesuffix(SUFFIX)] = self._member(archive, info)
        except _UNREADABLE as error:
            raise self._damaged(error) from error
        if not self._members:
            raise ManifestError(f"'{printable(path)}' has no arrays. Save them with numpy.savez.")

    @property
    def kinds(self) -> dict[str, str]:
        """What each array holds, by its name."""
        return {name: _kind_of(each) for name, each in self._members.items()}

    def attributes(self) -> dict[str, Any]:
        """Return the single texts, and the names of the classes where they are there: None if they are no list."""
        found: dict[str, Any] = {}
        for name in ("spec", SPECS, "weights"):
            each = self._members.get(name)
            if each is not None and each.kind.kind in "US" and math.prod(each.shape) == 1:
                found[name] = str(self._read(each, name).reshape(()))
        classes = self._members.get("classes")
        if classes is not None:
            is_list = len(classes.shape) == 1 and not classes.kind.hasobject
            found["classes"] = self.cells("classes") if is_list else None
        return found

    def cells(self, name: str) -> list[str | None]:
        """Return the values of an array (N,) as texts. Raises ManifestError."""
        return as_cells(self.path, name, self._read(self._members[name], name))

    def rows(self, names: Sequence[str]) -> Rows:
        """Return the array of vectors. Raises ManifestError."""
        (name,) = names
        member = self._members[name]
        check_shape(self.path, name, member.shape, member.kind)
        if member.info.compress_type == zipfile.ZIP_STORED:
            return self._mapped(member)
        if member.is_fortran:
            return as_float32(self._read(member, name))
        return self._unpacked(member)

    def _member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
        with archive.open(info) as file:
            shape, is_fortran, kind = _read_header(file)
            member = _Member(info, shape, is_fortran, kind, file.tell())
        if kind.kind in "US" and kind.itemsize == 0 and 0 not in shape:
            raise ValueError(f"its array '{info.filename}' has texts without any length")
        n_bytes = member.n_header + kind.itemsize * math.prod(shape)
        if not kind.hasobject and (n_bytes != info.file_size or n_bytes > MOST_PACKED * (info.compress_size + 1)):
            raise ValueError(f"its array '{info.filename}' has another size than it says")
        return member

    def _read(self, member: _Member, name: str) -> NDArray[Any]:
        if member.kind.hasobject:
            raise unread_objects(self.path, name, f"texts instead: np.asarray({printable(name)}).astype(str)")
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(member.info) as file:
                found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
                file.read()  # to the end, where the checksum is compared
                return found
        except _UNREADABLE as error:
            raise self._damaged(error) from error

    def _mapped(self, member: _Member) -> Rows:
        """Return an array that is stored as it is, once its checksum is compared."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(member.info) as packed:
                while packed.read(READ_BYTES):
                    pass
            with self.path.open("rb") as file:
                file.seek(member.info.header_offset)
                local = file.read(LOCAL_HEADER)
            n_before = sum(int.from_bytes(local[at : at + 2], "little") for at in (26, 28))
            offset = member.info.header_offset + LOCAL_HEADER + n_before + member.n_header
            whole = {"offset": offset, "shape": member.shape, "order": "F" if member.is_fortran else "C"}
            found: Rows = np.memmap(self.path, member.kind, "r", **whole)  # type: ignore[call-overload]
            return found
        except _UNREADABLE as error:
            raise self._damaged(error) from error

    def _unpacked(self, member: _Member) -> Rows:
        n, dim = member.shape
        out, step = held_array((n, dim), self.path), rows_at_once(dim)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(member.info) as file:
                file.read(member.n_header)
                for start in range(0, n, step):
                    n_rows = min(step, n - start)
                    data = file.read(n_rows * dim * member.kind.itemsize)
                    out[start : start + n_rows] = as_float32(np.frombuffer(data, member.kind).reshape(n_rows, dim))
                file.read()
        except _UNREADABLE as error:
            raise self._damaged(error) from error
        return out

    def _damaged(self, error: Exception) -> ManifestError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return ManifestError(
            f"'{printable(self.path)}' cannot be read as .npz: {printable(reason.rstrip('. '))}. Save it again with "
            "numpy.savez."
        )


# What zipfile and numpy raise for a file that is not what it says.
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and type of an array. Raises ValueError."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"an array has the format {version[0]}.{version[1]}")


def _kind_of(member: _Member) -> str:
    if len(member.shape) == 2 and member.kind.kind in NUMBER_KINDS:
        return MATRIX
    return TEXT if member.kind.kind in "US" else OTHER
