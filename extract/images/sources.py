"""Where the bytes of a sample come from: the only module that opens one, by its `Sample.path`.

A large file is not read into memory for decoding. What is decoded is checked against its digest.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import BinaryIO, NamedTuple

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.memo import FileState
from featurecache.extract.cache.spec import image_digest

# Files up to this size are read at once; of larger ones the decoder reads what it needs.
WHOLE_BYTES = 16 << 20
BLOCK_BYTES = 1 << 20
# O_BINARY is of Windows, where files are read as text without it.
READING = os.O_RDONLY | getattr(os, "O_BINARY", 0)
# Why a file is not there whose path has a NUL, or half of a character.
NO_PATH = "no file can have such a name"


class HashedFile(NamedTuple):
    """An image file that is open for decoding.

    content: its bytes, or the open file if it is large. digest: its SHA-256. state: its state if it did not change
    while it was read. read_ns: when that began.
    """

    content: bytes | BinaryIO
    digest: bytes
    state: FileState | None
    read_ns: int

    def is_as_hashed(self) -> bool:
        """Return whether what was decoded is what was hashed: a large file may be edited in between.

        It is read again where its state could not show an edit.
        """
        if isinstance(self.content, bytes):
            return True
        if self.state is None or _state_of_open(self.content) != self.state:
            return False
        if self.state.is_settled(self.read_ns):
            return True
        self.content.seek(0)
        return _streamed_digest(self.content) == self.digest


def open_sample(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a sample; what is returned can be read and sought in, and has to be closed. Raises OSError."""
    return open(path, "rb")  # noqa: PTH123 (hot loop)


def read_sample(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a sample. Raises OSError."""
    with open_sample(path) as file:
        return file.read()


def can_be_path(path: str | os.PathLike[str]) -> bool:
    """Return whether a file may have this path; where it cannot, Python raises ValueError and no OSError."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def find_state(path: str | bytes | os.PathLike[str]) -> tuple[int, int, int] | None:
    """Return the state of a sample, as a FileState, without opening it; None for what is no regular file.

    Raises OSError.
    """
    status = os.stat(path)  # noqa: PTH116 (hot loop)
    if stat.S_IFMT(status.st_mode) != stat.S_IFREG:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def hash_sample(path: str | os.PathLike[str]) -> tuple[bytes, FileState | None]:
    """Return the SHA-256 of a sample, and its state if it did not change while it was read. Raises OSError."""
    with open_sample(path) as file:
        before = _state_of_open(file)
        digest = hashlib.file_digest(file, "sha256").digest()
        return digest, before if before == _state_of_open(file) else None


def read_hashed(path: str | os.PathLike[str]) -> HashedFile | None:
    """Return a sample with its bytes and digest; None for a large file, which `open_hashed` opens. Raises OSError."""
    read_ns = time.time_ns()
    file = os.open(path, READING)
    try:
        before = FileState.of(os.fstat(file))
        if before.size > WHOLE_BYTES:
            return None
        data = os.read(file, before.size + 1)
        if len(data) != before.size:  # it is of another size by now, or came in pieces
            data = b"".join([data, *iter(lambda: os.read(file, BLOCK_BYTES), b"")])
        state = before if before == FileState.of(os.fstat(file)) else None
    finally:
        os.close(file)
    return HashedFile(data, image_digest(data), state, read_ns)


@contextmanager
def open_hashed(path: str | os.PathLike[str]) -> Iterator[HashedFile]:
    """Yield a sample with its digest; it is read once. Raises OSError."""
    read_ns = time.time_ns()
    with open_sample(path) as file:
        before = _state_of_open(file)
        data = file.read() if before.size <= WHOLE_BYTES else None
        digest = _streamed_digest(file) if data is None else image_digest(data)
        state = before if before == _state_of_open(file) else None
        yield HashedFile(file if data is None else data, digest, state, read_ns)


@contextmanager
def open_checked(path: str | os.PathLike[str], digest: bytes, *, changed: str) -> Iterator[bytes | BinaryIO]:
    """Yield the bytes of a sample, or the open file if it is large.

    Raises OSError, and ImageRefused with the text `changed` if its SHA-256 is not `digest`.
    """
    with open_hashed(path) as file:
        if file.digest != digest:
            raise ImageRefused(changed)
        yield file.content
        if not file.is_as_hashed():
            raise ImageRefused(changed)


def _state_of_open(file: BinaryIO) -> FileState:
    return FileState.of(os.fstat(file.fileno()))


def _streamed_digest(file: BinaryIO) -> bytes:
    hashed = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        hashed.update(block)
    file.seek(0)
    return hashed.digest()
