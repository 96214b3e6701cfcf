"""Image files opened for decoding, checked against their digest; a large one is not read into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.spec import image_digest

# Files up to this size are read at once; of larger ones the decoder reads what it needs.
WHOLE_BYTES = 16 << 20
BLOCK_BYTES = 1 << 20


@contextmanager
def open_checked(path: str | os.PathLike[str], digest: bytes, *, changed: str) -> Iterator[bytes | BinaryIO]:
    """Yield the bytes of an image file, or the open file if it is large.

    Raises OSError, and ImageRefused with the text `changed` if its SHA-256 is not `digest`.
    """
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size <= WHOLE_BYTES:
            data = file.read()
            found = image_digest(data)
        else:
            data, found = None, _streamed_digest(file)
        if found != digest:
            raise ImageRefused(changed)
        yield file if data is None else data


def _streamed_digest(file: BinaryIO) -> bytes:
    hashed = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        hashed.update(block)
    file.seek(0)
    return hashed.digest()
