"""Digests as byte strings: sorted, made distinct, and found among others.

Their first 8 bytes decide, as numbers four times as fast as the whole; only digests that share them are compared as a
whole.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Places(NamedTuple):
    """The shard and the row (N,) of each of N digests, 0 where it has none, and whether it has one: bool (N,)."""

    shard: NDArray[np.int64]
    row: NDArray[np.int64]
    found: NDArray[np.bool_]


class NameTable:
    """M distinct digests, sorted, each with the number of its shard and its row there: (M,) each."""

    def __init__(self, names: NDArray[np.bytes_], shard_of: NDArray[np.int64], row_of: NDArray[np.int64]) -> None:
        self.names, self.shard_of, self.row_of = names, shard_of, row_of

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def heads(self) -> NDArray[np.uint64]:
        """The first 8 bytes (M,) of the names as numbers, which sort as the names do."""
        return heads_of(self.names)

    def find(self, wanted: NDArray[np.bytes_]) -> Places:
        """Return the shard and row of N digests."""
        place, found = find_names(wanted, self.names, self.heads)
        if not len(self):
            return Places(place, place, found)
        return Places(np.where(found, self.shard_of[place], 0), np.where(found, self.row_of[place], 0), found)

    def table(self) -> NameTable:
        """Return this table."""
        return self

    def is_same(self, other: NameTable) -> bool:
        """Whether another table has the same digests at the same places."""
        mine, others = (self.names, self.shard_of, self.row_of), (other.names, other.shard_of, other.row_of)
        return all(np.array_equal(a, b) for a, b in zip(mine, others, strict=True))


class NameSet:
    """Distinct digests as byte strings, sorted once for many questions."""

    def __init__(self, names: NDArray[np.bytes_]) -> None:
        self._names = distinct_names(names)[0]
        self._heads = heads_of(self._names)

    def has(self, wanted: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Return which of N names are in the set: bool (N,)."""
        return find_names(wanted, self._names, self._heads)[1]


def are_among(wanted: NDArray[np.bytes_], known: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Return which of N names are among K others, in any order: bool (N,)."""
    return NameSet(known).has(wanted)


def find_names(
    wanted: NDArray[np.bytes_], names: NDArray[np.bytes_], heads: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the position of each of N names among M sorted ones, and whether it is one; heads: theirs (M,)."""
    if not len(names):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    sought = heads_of(wanted)
    place = np.searchsorted(heads, sought).clip(max=len(names) - 1)
    found = names[place] == wanted
    unsure = np.flatnonzero(~found & (heads[place] == sought))
    if len(unsure):
        place[unsure] = np.searchsorted(names, wanted[unsure]).clip(max=len(names) - 1)
        found[unsure] = names[place[unsure]] == wanted[unsure]
    return place, found


def heads_of(names: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the first 8 bytes (N,) of names as numbers, which sort as the names do."""
    return names.view(">u8").reshape(-1, 4)[:, 0].astype(np.uint64)


def distinct_names(
    names: NDArray[np.bytes_],
) -> tuple[NDArray[np.bytes_], NDArray[np.int64], NDArray[np.int64]]:
    """Return the M distinct names of (N,), sorted, the first position of each, and how often it is there: (M,) each."""
    heads = heads_of(names)
    order = np.argsort(heads, kind="stable")
    heads, names = heads[order], names[order]
    is_new = np.ones(len(names), dtype=bool)
    is_new[1:] = heads[1:] != heads[:-1]
    if ((names[1:] != names[:-1]) & ~is_new[1:]).any():
        found, first, n_copies = np.unique(names, return_index=True, return_counts=True)
        return found, order[first], n_copies
    starts = np.flatnonzero(is_new)
    return names[starts], order[starts], np.diff(starts, append=len(names))


def as_names(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Return digests (N, 32) as (N,) byte strings, which numpy can sort and search."""
    return np.ascontiguousarray(digests).reshape(-1, 32).view("S32").reshape(-1)
