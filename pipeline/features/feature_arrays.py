"""Arrays of features, in memory within a budget, in a temporary file beyond it; and what they are called."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.cgroups import group_folders
from featurecache.base.errors import PipelineError
from featurecache.classify.arrays.memmap import file_array
from featurecache.extract.backbones.names import name_in_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.job.request import FeatureRequest
    from featurecache.features.feature_set import Source

# Heads take some memory besides the features, and so does everything else that runs.
DEFAULT_SHARE = 0.5
ASSUMED_MEMORY = 8e9  # where the system does not report it
# Rows looked up at a time: 8192 x 1280 is 42 MB; fewer where they are longer, for maps are.
BLOCK, BLOCK_NUMBERS = 8192, 8192 * 1280
# Arrays of fewer bytes are not worth a look at all objects of the process.
WORTH_COLLECTING = 32 << 20


def default_budget() -> float:
    """Return the bytes that features may take by default: half of the memory that this process may have."""
    return DEFAULT_SHARE * min([_physical_memory(), *_group_limits()])


def _physical_memory() -> float:
    """Bytes of the machine; ASSUMED_MEMORY where the system does not report them."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return _memory_of_windows() or ASSUMED_MEMORY


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("physical", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 6),
    )


def _memory_of_windows() -> float:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    try:
        found = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return 0.0
    return float(status.physical) if found else 0.0


def _group_limits() -> Iterator[float]:
    """Bytes that the groups of this process may have, as containers, Slurm and systemd set them."""
    for folder in group_folders("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            try:
                yield float((folder / name).read_text())
            except (OSError, ValueError):  # no such file, or "max"
                continue


def return_freed_memory(n_bytes: int = 0) -> None:
    """Return to the system what was freed: glibc keeps arrays of up to 32 MB for later, or more by setting.

    They add up: after twelve networks of 1024 it kept 150 MB. n_bytes: of arrays that may be in reference cycles, as
    the features of a run that is over are; from 32 MB on they are collected, which takes a second where torch is
    imported. What pyarrow keeps for later is freed too. Other C libraries have no such call.
    """
    if n_bytes >= WORTH_COLLECTING:
        gc.collect()
    with contextlib.suppress(AttributeError, KeyError):  # not imported, or not whole
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class FeatureArrays:
    """Hands out arrays for features: from memory until its budget in bytes is spent, then from files in a folder.

    What heads hold besides, networks, tables of neighbours, kernel columns, then goes to files there as well
    (`classify.arrays.memmap`).
    """

    def __init__(self, budget: float, folder: Path) -> None:
        self.budget, self.left, self.folder = budget, budget, folder

    def load(self, source: Source, digests: NDArray[np.uint8], *, dtype: str = "float32") -> NDArray[Any]:
        """Return the vectors (N, D) of digests (N, 32). Raises CacheError, PipelineError where the disk is full."""
        X = self._empty((len(digests), source.spec.feature_dim), np.dtype(dtype))
        order, n_rows = source.stored_order(digests), max(1, min(BLOCK, BLOCK_NUMBERS // source.spec.feature_dim))
        for start in range(0, len(digests), n_rows):
            rows = order[start : start + n_rows]
            X[rows] = source.lookup(digests[rows])
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


def feature_names(requests: Sequence[FeatureRequest]) -> dict[FeatureRequest, str]:
    """Return a name for the features of each request, fit for a folder: backbone, and layer where it has several."""
    whole_name = {each: name_in_spec(each.backbone) for each in requests}
    if len(set(whole_name.values())) < len({each.backbone for each in requests}):
        whole_name = {each: each.backbone for each in requests}  # folders of one name
    n_of = Counter(whole_name.values())
    return {each: f"{name}@{each.layer or 'default'}" if n_of[name] > 1 else name for each, name in whole_name.items()}
