"""Vectors: N rows of D numbers by the digest of each, looked up as those of a cache are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import CacheError
from featurecache.extract.cache.names import NameTable, as_names, distinct_names
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.images.vectors.rows import Rows, as_float32, rows_at_once

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vectors of a data set, which needs no backbone and no cache.

    name: of the features, `vectors/digits`. spec: what is known of them. origin: where they come from, in words.
    rows: N of D numbers, in the order of the samples. digests: of each row (N, 32); equal ones have equal rows.
    """

    name: str
    spec: FeatureSpec
    origin: str
    rows: Rows
    digests: NDArray[np.uint8]

    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the digests (N, 32) have no row: bool (N,)."""
        return ~self._table.find(as_names(digests)).found

    def stored_order(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the positions 0..N-1 of these digests (N, 32), sorted by the order of their rows in the file."""
        order: NDArray[np.int64] = np.argsort(self._table.find(as_names(digests)).row, kind="stable")
        return order

    def lookup(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the vectors of these digests: (N, 32) -> float32 (N, D). Raises CacheError where one has no row."""
        _, at, found = self._table.find(as_names(digests))
        if not found.all():
            raise CacheError(
                f"{int((~found).sum()):,} of {len(digests):,} rows are not among the vectors of {self.origin}. Name "
                "the file that has them."
            )
        out = np.empty((len(digests), self.spec.feature_dim), dtype=np.float32)
        order = np.argsort(at, kind="stable")
        places, step, start = at[order], rows_at_once(self.spec.feature_dim), 0
        while start < len(order):
            first = int(places[start])
            stop = int(np.searchsorted(places, first + step))
            block = as_float32(self.rows[first : int(places[stop - 1]) + 1])
            out[order[start:stop]] = block[places[start:stop] - first]
            start = stop
        return out

    @cached_property
    def _table(self) -> NameTable:
        names, first, _ = distinct_names(as_names(self.digests))
        return NameTable(names, np.zeros_like(first), first)
