"""Arrays in unnamed temporary files, which the system deletes with the process, however it ends."""

import errno
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.base.errors import HeadFailed

# Arrays of at least so many bytes are kept in a file where the features are in one.
WORTH_A_FILE = 1 << 20


def file_array(folder: Path | None, shape: tuple[int, ...], dtype: Any) -> "np.memmap[Any, Any]":
    """Return an array in a file of its own in a folder, None being that for temporary files.

    The file has no name; `filename` says its folder only. The space is reserved at once: raises OSError where there is
    not enough, rather than later in the middle of the work.
    """
    folder = folder or Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file.fileno(), folder, np.dtype(dtype).itemsize * math.prod(shape))
        found = np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    found.filename = str(folder / "unnamed")
    return found


def _reserve(file: int, folder: Path, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, n_bytes)
    elif shutil.disk_usage(folder).free < n_bytes:  # macOS, Windows
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def array_stored_like(X: Any, shape: tuple[int, ...], dtype: Any) -> "np.ndarray[Any, Any]":
    """Return an empty array that goes with X (N, D): in memory, or in a file where X is in one and the array is large.

    The file is in the folder of X, or in that for temporary files where X has none or it is not writable. Raises
    HeadFailed where there is not enough space.
    """
    file, n_bytes = mapped(X), np.dtype(dtype).itemsize * math.prod(shape)
    if file is None or n_bytes < WORTH_A_FILE:
        return np.empty(shape, dtype=dtype)
    own = Path(file.filename).parent if file.filename else None
    folder = own if own and os.access(own, os.W_OK) else None
    try:
        return file_array(folder, shape, dtype)
    except OSError as error:
        where = f"'{folder}'" if folder else "the folder for temporary files"
        raise HeadFailed(
            f"a temporary file of {n_bytes / 1e9:.2f} GB cannot be written to {where}: {error.strerror}. "
            "Free space there, or keep the features in memory."
        ) from error


@contextmanager
def random_access(X: Any) -> Iterator[None]:
    """Switch off the system's read-ahead of X (N, D) inside, where X is in a file and rows are read at random.

    The 128 KB that Linux reads around a row displace pages that are needed.
    """
    file = mapped(X)
    advise = getattr(None if file is None else file.base, "madvise", None)  # no such thing on Windows
    if advise is None:
        yield
        return
    advise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        advise(mmap.MADV_NORMAL)


def mapped(X: Any) -> "np.memmap[Any, Any] | None":
    """Return the memory map that X is, or is a view of; None where it is in memory, a copy of one included."""
    while X is not None and not isinstance(getattr(X, "base", None), mmap.mmap):
        X = getattr(X, "base", None)
    return X if isinstance(X, np.memmap) else None
