"""Rows of a cache as a map-style data set of PyTorch.

A worker of a DataLoader, forked or spawned, opens the cache for itself when it reads its first row: no open file and no
lock crosses from one process to another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pair = tuple[Tensor, Any]


class Rows(Protocol):
    """Rows that are found by the digests of images."""

    def lookup(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the vectors of these digests: (N, 32) -> float32 (N, D)."""


class FeatureDataset(Dataset[Pair]):
    """Vectors, each with its label or its digest; see `ReadableRows.as_dataset`. It can be pickled.

    digests: uint8 (N, 32). y: labels (N,), or None. It is read in batches where the DataLoader asks for them.
    """

    def __init__(
        self,
        open_cache: Callable[[Path, FeatureSpec], Rows],
        root: Path,
        spec: FeatureSpec,
        digests: NDArray[np.uint8],
        y: NDArray[Any] | None,
    ) -> None:
        self._open, self._root, self.spec = open_cache, root.absolute(), spec
        self.digests, self.y = digests, y
        self._opened: tuple[int, Rows] | None = None

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, i: int) -> Pair:
        """Return a vector, a float32 tensor (D,), and its label or digest. Raises IndexError, CacheError."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"There is no row {i}: the data set has {len(self)}.")
        return self.__getitems__([i])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Pair]:
        """Return the items of these rows, which are read at once."""
        X = torch.from_numpy(self._cache().lookup(self.digests[list(rows)]))
        keys = [self.digests[i].tobytes().hex() for i in rows] if self.y is None else [self.y[i] for i in rows]
        return list(zip(X, keys, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}

    def _cache(self) -> Rows:
        """Return the cache, which each process opens for itself."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._open(self._root, self.spec)
        return self._opened[1]
