"""Features in memory while they fit a budget, in a temporary file on disk beyond it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.files import file_array
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from extract.cache import FeatureCache

# Heads take some memory besides the features, and so does everything else that runs.
DEFAULT_SHARE = 0.5
# Rows looked up at a time: 8192 x 1280 is 42 MB; fewer where they are longer, for maps are.
BLOCK, BLOCK_NUMBERS = 8192, 8192 * 1280


def default_budget() -> float:
    """Return the bytes that features may take unless told otherwise: half of the memory that this process may have."""
    limits = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    for told in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            limits.append(float(told.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return DEFAULT_SHARE * min(limits)


def return_freed_memory() -> None:
    """Return to the system what was freed: glibc keeps arrays of up to 32 MB for later, or more if told so.

    They add up: after twelve networks of 1024 it kept 150 MB. Freed first is what only cycles refer to, as with
    the features of a run that is over, and what pyarrow keeps for later. Other C libraries have no such call.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, KeyError):  # not imported, or not whole
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class Shelf:
    """Hands out arrays for features: from memory until its budget in bytes is spent, then from files in a folder.

    What heads hold besides, networks, tables of neighbours, kernel columns, then goes to files there as well
    (`classify.files`).
    """

    def __init__(self, budget: float, folder: Path) -> None:
        self.budget, self.left, self.folder = budget, budget, folder

    def load(self, cache: FeatureCache, digests: NDArray[np.uint8], *, dtype: str = "float32") -> NDArray[Any]:
        """Return the vectors (N, D) of digests (N, 32). Raises CacheError, PipelineError where the disk is full."""
        X = self._empty((len(digests), cache.spec.feature_dim), np.dtype(dtype))
        order, n_rows = cache.stored_order(digests), max(1, min(BLOCK, BLOCK_NUMBERS // cache.spec.feature_dim))
        for start in range(0, len(digests), n_rows):
            rows = order[start : start + n_rows]
            X[rows] = cache.lookup(digests[rows])
        return X

    def _empty(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        n_bytes = dtype.itemsize * shape[0] * shape[1]
        if n_bytes <= self.left:
            self.left -= n_bytes
            return np.empty(shape, dtype=dtype)
        try:
            return file_array(self.folder, shape, dtype)
        except OSError as error:
            raise PipelineError(
                f"Features of {n_bytes / 1e9:.2f} GB are beyond the memory budget and cannot be put into a file in "
                f"'{self.folder}': {error.strerror}. Make room there, or raise the budget with --memory."
            ) from error
