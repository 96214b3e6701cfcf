"""Arrays in files without a name: gone when the arrays are, however the program ends."""

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

# Bytes from which an array beside features in a file is in one as well.
WORTH_A_FILE = 1 << 20


def file_array(folder: Path | None, shape: tuple[int, ...], dtype: Any) -> "np.memmap[Any, Any]":
    """Return an array in a file of its own in a folder, None being that for temporary files.

    Its `filename` has a name that it never had, in that folder. Raises OSError where there is no room for it, as far as
    the system tells: now rather than in the middle of the work.
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


def empty_beside(X: Any, shape: tuple[int, ...], dtype: Any) -> "np.ndarray[Any, Any]":
    """Return an array beside the features X (N, D): in memory, or in a file where X is in one and this is large.

    The file is in the folder of X, or in that for temporary files where X has none, or one that is closed to us. Raises
    HeadFailed where there is no room.
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
            f"it needs a file of {n_bytes / 1e9:.2f} GB, as the features are in one, and {where} does not take it: "
            f"{error.strerror}. Make room there, or let the features be in memory."
        ) from error


@contextmanager
def read_here_and_there(X: Any) -> Iterator[None]:
    """Let the system read single rows of X (N, D), where it is in a file, and not what lies around them as well.

    What is read around a row, 128 KB on Linux, pushes out of memory what is needed.
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
