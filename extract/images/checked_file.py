"""Image files opened for decoding, checked against their digest; a large one is not read into memory."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.memo import FileState
from featurecache.extract.cache.spec import image_digest

# Files up to this size are read at once; of larger ones the decoder reads what it needs.
WHOLE_BYTES = 16 << 20
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class HashedFile:
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
        if self.state is None or FileState.of(os.fstat(self.content.fileno())) != self.state:
            return False
        if self.state.is_settled(self.read_ns):
            return True
        self.content.seek(0)
        return _streamed_digest(self.content) == self.digest


@contextmanager
def open_hashed(path: str | os.PathLike[str]) -> Iterator[HashedFile]:
    """Yield an image file with its digest; it is read once. Raises OSError."""
    read_ns = time.time_ns()
    with Path(path).open("rb") as file:
        before = os.fstat(file.fileno())
        data = file.read() if before.st_size <= WHOLE_BYTES else None
        digest = _streamed_digest(file) if data is None else image_digest(data)
        is_same = FileState.of(before) == FileState.of(os.fstat(file.fileno()))
        yield HashedFile(file if data is None else data, digest, FileState.of(before) if is_same else None, read_ns)


@contextmanager
def open_checked(path: str | os.PathLike[str], digest: bytes, *, changed: str) -> Iterator[bytes | BinaryIO]:
    """Yield the bytes of an image file, or the open file if it is large.

    Raises OSError, and ImageRefused with the text `changed` if its SHA-256 is not `digest`.
    """
    with open_hashed(path) as file:
        if file.digest != digest:
            raise ImageRefused(changed)
        yield file.content
        if not file.is_as_hashed():
            raise ImageRefused(changed)


def _streamed_digest(file: BinaryIO) -> bytes:
    hashed = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        hashed.update(block)
    file.seek(0)
    return hashed.digest()
