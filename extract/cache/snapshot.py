"""Snapshots of a cache: its shards at one time, and the shard and row of each image."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import CacheDamaged, CacheError, ShardGone
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import ServedRows
from featurecache.extract.cache.judged import Withdrawn, read_withdrawn, withdrawn_files
from featurecache.extract.cache.listing import settled_shard_paths
from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Attempts to list the shards while another process removes some; only compacting in a loop could exhaust them.
N_LISTINGS = 10


@dataclass(frozen=True)
class Snapshot:
    """The rows of a cache at one time. It is immutable: the cache replaces it as a whole.

    paths: the shards, in order. lengths, revisions: the number of rows of each, and the decode revision by which they
    were read. names: the M distinct digests with a row that counts, sorted.
    shard_of, row_of, n_copies: (M,) each: the shard and row that are read for a digest, and its number of rows.
    without: shards that were excluded. n_withdrawn: rows of older decode rules that do not count. withdrawn: the
    SHA-256 of their digests, in hex; empty if there are none. withdrawn_files: the names of the files that list them.
    """

    paths: tuple[Path, ...]
    lengths: tuple[int, ...]
    revisions: tuple[int, ...]
    names: NDArray[np.bytes_]
    shard_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    n_copies: NDArray[np.int64]
    without: frozenset[Path]
    n_withdrawn: int
    withdrawn: str
    withdrawn_files: tuple[str, ...]

    def find(self, digests: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the position of each digest (N, 32) among the M names, and whether it is one: (N,) and bool (N,)."""
        return _find(as_names(digests), self.names, self.heads)

    @cached_property
    def heads(self) -> NDArray[np.uint64]:
        """The first 8 bytes (M,) of the names as numbers, which sort as the names do."""
        return _heads(self.names)

    def served(self) -> list[ServedRows]:
        """Return the served rows of each shard, in shard order."""
        order = np.lexsort((self.row_of, self.shard_of))
        parts = np.split(order, np.searchsorted(self.shard_of[order], np.arange(1, len(self.paths))))
        found = []
        each = zip(self.paths, self.lengths, self.revisions, parts if self.paths else [], strict=True)
        for path, n, revision, places in each:
            digests = self.names[places].view(np.uint8).reshape(-1, 32)
            is_alone = len(places) == n and bool((self.n_copies[places] == 1).all())
            found.append(ServedRows(path, n, self.row_of[places], digests, is_alone, revision))
        return found

    def is_outdated(self) -> bool:
        """Whether a shard was removed since, as `compact` does."""
        return not all(os.path.lexists(path) for path in self.paths)

    def differs_from_disk(self, folder: Path) -> bool:
        """Whether the folder has other shards or withdrawn rows now. Raises CacheError if it cannot be read."""
        if list(self.paths) != _paths(folder, self.without):
            return True
        try:
            return bool(self.paths) and withdrawn_files(folder) != self.withdrawn_files
        except OSError as error:
            raise CacheError(
                f"The cache '{folder}' cannot be read: {error.strerror}. Correct its permissions."
            ) from error


def read_snapshot(folder: Path, spec: FeatureSpec, *, without: frozenset[Path] = frozenset()) -> Snapshot:
    """Read the digests of all shards in a cache folder of `spec`, except the shards in `without`.

    Lists the shards again if another process has removed one. Raises CacheDamaged, ShardGone, and CacheError for files
    that cannot be read.
    """
    for _ in range(N_LISTINGS):
        paths = _paths(folder, without)
        try:
            return _joined(folder, paths, [shards.read_rows(path, spec) for path in paths], without)
        except (CacheDamaged, ShardGone):
            if all(os.path.lexists(path) for path in paths):
                raise
    paths = _paths(folder, without)
    return _joined(folder, paths, [shards.read_rows(path, spec) for path in paths], without)


def _paths(folder: Path, without: frozenset[Path]) -> list[Path]:
    return [path for path in settled_shard_paths(folder) if path not in without]


def _joined(
    folder: Path, paths: list[Path], parts: list[tuple[NDArray[np.uint8], int]], without: frozenset[Path]
) -> Snapshot:
    lengths, revisions = [len(digests) for digests, _ in parts], [revision for _, revision in parts]
    # Of several rows of a digest, every reader takes the first in shard order of those by the latest decode rules.
    order = sorted(range(len(parts)), key=lambda number: -revisions[number])
    none = np.empty(0, dtype=np.int64)
    digests = np.concatenate([parts[i][0] for i in order]) if parts else np.empty((0, 32), dtype=np.uint8)
    shard_of = np.concatenate([np.full(lengths[i], i) for i in order]) if parts else none
    row_of = np.concatenate([np.arange(lengths[i]) for i in order]) if parts else none
    files, withdrawn = read_withdrawn(folder) if parts else ((), [])
    names = as_names(digests)
    counts = which_count(names, np.array(revisions, dtype=np.int64)[shard_of], withdrawn)
    n_withdrawn, digest = len(names) - int(counts.sum()), digest_of_withdrawn(names[~counts])
    if n_withdrawn:
        names, shard_of, row_of = names[counts], shard_of[counts], row_of[counts]
    names, first, n_copies = distinct_names(names)
    rows = shard_of[first].astype(np.int64), row_of[first].astype(np.int64)
    numbers = tuple(lengths), tuple(revisions)
    return Snapshot(tuple(paths), *numbers, names, *rows, n_copies, without, n_withdrawn, digest, files)


def which_count(names: NDArray[np.bytes_], revisions: NDArray[np.int64], withdrawn: Withdrawn) -> NDArray[np.bool_]:
    """Return which rows count, of N with these digests and decode revisions (N,): those that no rules withdrew."""
    counts = np.ones(len(names), dtype=bool)
    for revision, digests in withdrawn:
        counts &= (revisions >= revision) | ~are_among(names, as_names(digests))
    return counts


def digest_of_withdrawn(names: NDArray[np.bytes_]) -> str:
    """Return the SHA-256 in hex of the distinct digests of rows that do not count; empty if there are none."""
    return hashlib.sha256(np.unique(names).tobytes()).hexdigest() if len(names) else ""


def are_among(wanted: NDArray[np.bytes_], known: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Return which of N names are among K others, in any order: bool (N,)."""
    return NameSet(known).has(wanted)


class NameSet:
    """Distinct digests as byte strings, sorted once for many questions."""

    def __init__(self, names: NDArray[np.bytes_]) -> None:
        self._names = distinct_names(names)[0]
        self._heads = _heads(self._names)

    def has(self, wanted: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Return which of N names are in the set: bool (N,)."""
        return _find(wanted, self._names, self._heads)[1]


def _find(
    wanted: NDArray[np.bytes_], names: NDArray[np.bytes_], heads: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the position of each of N names among M sorted ones, and whether it is one; heads: theirs (M,)."""
    if not len(names):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=bool)
    # The first 8 bytes decide, as numbers four times as fast as the names; names that share them are sought by all.
    sought = _heads(wanted)
    place = np.searchsorted(heads, sought).clip(max=len(names) - 1)
    found = names[place] == wanted
    unsure = np.flatnonzero(~found & (heads[place] == sought))
    if len(unsure):
        place[unsure] = np.searchsorted(names, wanted[unsure]).clip(max=len(names) - 1)
        found[unsure] = names[place[unsure]] == wanted[unsure]
    return place, found


def _heads(names: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    return names.view(">u8").reshape(-1, 4)[:, 0].astype(np.uint64)


def distinct_names(
    names: NDArray[np.bytes_],
) -> tuple[NDArray[np.bytes_], NDArray[np.int64], NDArray[np.int64]]:
    """Return the M distinct names of (N,), sorted, the first position of each, and how often it is there: (M,) each.

    They are sorted by their first 8 bytes, several times as fast as `np.unique`, which is left those that share them.
    """
    heads = _heads(names)
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
