"""Snapshots of a cache: its shards at one time, and the shard and row of each image."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import CacheDamaged, ShardGone
from featurecache.extract.cache import opening, shards
from featurecache.extract.cache.index import ServedRows
from featurecache.extract.cache.judged import Withdrawn, read_withdrawn, withdrawn_files
from featurecache.extract.cache.listing import settled_shard_paths
from featurecache.extract.cache.names import NameTable, Places, are_among, as_names, distinct_names
from featurecache.extract.cache.row_index import (
    ROW_INDEX_FILE,
    FolderState,
    RowFacts,
    RowIndex,
    UnfitIndex,
    open_row_index,
    write_row_index,
)
from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Attempts to list the shards while another process removes some; only compacting in a loop could exhaust them.
N_LISTINGS = 10
# Smaller caches are read in less than 50 ms: they have no row index.
LEAST_INDEXED_ROWS, LEAST_INDEXED_SHARDS = 50_000, 32
# Where a file has changed within the last minute, the cache is being filled, and whoever does that writes its index.
BUSY_NS = 60_000_000_000
# Digests of settled shards that this process has read, by spec and file: a command opens a small cache several times.
MOST_KEPT_SHARDS, MOST_KEPT_ROWS = 128, 10_000
_READ_BEFORE: dict[tuple[str, str, tuple[int, ...]], tuple[NDArray[np.uint8], int]] = {}


@dataclass(frozen=True)
class Snapshot:
    """The rows of a cache at one time. It is immutable: the cache replaces it as a whole.

    paths: the shards, in order. rows: the M distinct digests with a row that counts, and the shard and row that are
    read for each: a table in memory, or the row index. state: of the files, by which a change is noticed; None if one
    was gone or closed. without: shards that were excluded.
    """

    paths: tuple[Path, ...]
    rows: NameTable | RowIndex
    facts: RowFacts
    state: FolderState | None
    without: frozenset[Path]

    def find(self, digests: NDArray[np.uint8]) -> Places:
        """Return the shard and row of each digest (N, 32). Raises UnfitIndex."""
        return self.rows.find(as_names(digests))

    def revisions_of(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the decode revision of the row of each digest (N, 32): (N,), 0 where it has none."""
        places = self.find(digests)
        return np.where(places.found, np.array([*self.facts.revisions, 0], dtype=np.int64)[places.shard], 0)

    def has_rows_of(self, other: Snapshot) -> bool:
        """Whether another snapshot has the same shards and rows."""
        try:
            mine, others = self.rows.table(), other.rows.table()
        except UnfitIndex:
            return False
        return (self.paths, self.facts) == (other.paths, other.facts) and mine.is_same(others)

    @property
    def is_from_shards(self) -> bool:
        """Whether all digests were read from the shards themselves."""
        return isinstance(self.rows, NameTable)

    def served(self) -> list[ServedRows]:
        """Return the served rows of each shard, in shard order. Raises UnfitIndex."""
        table = self.rows.table()
        order = np.lexsort((table.row_of, table.shard_of))
        parts = np.split(order, np.searchsorted(table.shard_of[order], np.arange(1, len(self.paths))))
        facts = zip(self.facts.lengths, self.facts.revisions, self.facts.alone, strict=True)
        found = []
        for path, (n, revision, is_alone), places in zip(self.paths, facts, parts if self.paths else [], strict=True):
            digests = table.names[places].view(np.uint8).reshape(-1, 32)
            found.append(ServedRows(path, n, table.row_of[places], digests, is_alone, revision))
        return found

    def is_outdated(self) -> bool:
        """Whether a shard was removed since, as `compact` does."""
        return not all(os.path.lexists(path) for path in self.paths)

    def is_still(self, folder: Path, without: frozenset[Path]) -> bool:
        """Whether nothing has changed since in a folder, whose files have not changed for a while."""
        if self.state is None or self.without != without or self.state.changed_ns > time.time_ns() - opening.SETTLED_NS:
            return False
        return _state_of(folder, _paths(folder, without)) == self.state

    def differs_from_disk(self, folder: Path) -> bool:
        """Whether the folder has other shards or withdrawn rows now. Raises CacheError if it cannot be read."""
        paths = _paths(folder, self.without)
        return list(self.paths) != paths or self.state is None or _state_of(folder, paths) != self.state

    def keep_index(self, folder: Path, spec: FeatureSpec) -> None:
        """Write the row index of a large cache that has none of its present shards, unless it is being filled now."""
        if not self.without and self.state is not None and self.state.changed_ns < time.time_ns() - BUSY_NS:
            self.bring_index_up_to_date(folder, spec)

    def bring_index_up_to_date(self, folder: Path, spec: FeatureSpec) -> None:
        """Write the row index of the folder if there is none of the present shards; remove that of a small cache."""
        if not self._is_worth_an_index():
            with contextlib.suppress(OSError):
                (folder / ROW_INDEX_FILE).unlink(missing_ok=True)
        elif self.is_from_shards and (self.state is None or open_row_index(folder, spec, self.state) is None):
            self.write_index(folder, spec)

    def write_index(self, folder: Path, spec: FeatureSpec) -> None:
        """Write the row index. Where that is not possible, opening the cache takes longer, nothing else."""
        if self._is_worth_an_index() and self.state is not None and isinstance(self.rows, NameTable):
            with contextlib.suppress(OSError):
                write_row_index(folder, spec, self.state, self.facts, self.rows)

    def _is_worth_an_index(self) -> bool:
        return len(self.rows) >= LEAST_INDEXED_ROWS or len(self.paths) >= LEAST_INDEXED_SHARDS


def read_snapshot(
    folder: Path, spec: FeatureSpec, *, without: frozenset[Path] = frozenset(), from_shards: bool = False
) -> Snapshot:
    """Return the rows of a cache folder of `spec`, except those of the shards in `without`.

    They are those of the row index if it is up to date, else the digests in all shards; with `from_shards` always
    these. Lists the shards again if another process has removed one. Raises CacheDamaged, ShardGone, and CacheError for
    files that cannot be read.
    """
    for attempt in range(1, N_LISTINGS + 2):
        paths = _paths(folder, without)
        state = _state_of(folder, paths)
        index = None if from_shards or state is None or not paths else open_row_index(folder, spec, state)
        if index is not None:
            return Snapshot(tuple(paths), index, index.facts, state, without)
        try:
            read = shards.read_rows if from_shards else _read_rows_once
            table, facts = _joined(folder, [read(path, spec) for path in paths])
            return Snapshot(tuple(paths), table, facts, state, without)
        except (CacheDamaged, ShardGone):
            if attempt > N_LISTINGS or all(os.path.lexists(path) for path in paths):
                raise
    raise AssertionError("the loop above returns or raises")


def _read_rows_once(path: Path, spec: FeatureSpec) -> tuple[NDArray[np.uint8], int]:
    """Return what `shards.read_rows` does; of a small shard that has not changed since this process read it, from then.

    Raises as `shards.read_rows` does.
    """
    try:
        state = opening.settled_state(path)
    except OSError:
        state = None
    if state is None:
        return shards.read_rows(path, spec)
    key = str(path.absolute()), spec.key, state
    if (before := _READ_BEFORE.get(key)) is not None:
        return before
    rows = shards.read_rows(path, spec)
    if len(rows[0]) <= MOST_KEPT_ROWS:
        if len(_READ_BEFORE) >= MOST_KEPT_SHARDS:
            _READ_BEFORE.clear()
        _READ_BEFORE[key] = rows
    return rows


def _paths(folder: Path, without: frozenset[Path]) -> list[Path]:
    return [path for path in settled_shard_paths(folder) if path not in without]


def _state_of(folder: Path, paths: list[Path]) -> FolderState | None:
    """Return the state of these shards and of the lists of withdrawn rows; None if one is gone or closed.

    It is read before the files themselves, so that a change while they are read is noticed afterwards.
    """
    try:
        return FolderState.of(paths, [folder / name for name in withdrawn_files(folder)] if paths else [])
    except OSError:
        return None


def _joined(folder: Path, parts: list[tuple[NDArray[np.uint8], int]]) -> tuple[NameTable, RowFacts]:
    """Return the rows that count of shards with these digests (n, 32) and revisions."""
    lengths, revisions = [len(digests) for digests, _ in parts], [revision for _, revision in parts]
    # Of several rows of a digest, every reader takes the first in shard order of those by the latest decode rules.
    order = sorted(range(len(parts)), key=lambda number: -revisions[number])
    none = np.empty(0, dtype=np.int64)
    digests = np.concatenate([parts[i][0] for i in order]) if parts else np.empty((0, 32), dtype=np.uint8)
    shard_of = np.concatenate([np.full(lengths[i], i) for i in order]) if parts else none
    row_of = np.concatenate([np.arange(lengths[i]) for i in order]) if parts else none
    withdrawn = read_withdrawn(folder)[1] if parts else []
    names = as_names(digests)
    counts = which_count(names, np.array(revisions, dtype=np.int64)[shard_of], withdrawn)
    n_withdrawn, digest = len(names) - int(counts.sum()), digest_of_withdrawn(names[~counts])
    if n_withdrawn:
        names, shard_of, row_of = names[counts], shard_of[counts], row_of[counts]
    names, first, n_copies = distinct_names(names)
    table = NameTable(names, shard_of[first].astype(np.int64), row_of[first].astype(np.int64))
    n_served = np.bincount(table.shard_of, minlength=len(parts))
    has_copies = np.bincount(table.shard_of[n_copies > 1], minlength=len(parts)) > 0
    alone = tuple(((n_served == lengths) & ~has_copies).tolist()) if parts else ()
    return table, RowFacts(tuple(lengths), tuple(revisions), alone, n_withdrawn, digest)


def which_count(names: NDArray[np.bytes_], revisions: NDArray[np.int64], withdrawn: Withdrawn) -> NDArray[np.bool_]:
    """Return which rows count, of N with these digests and decode revisions (N,): those that no rules withdrew."""
    counts = np.ones(len(names), dtype=bool)
    for revision, digests in withdrawn:
        counts &= (revisions >= revision) | ~are_among(names, as_names(digests))
    return counts


def digest_of_withdrawn(names: NDArray[np.bytes_]) -> str:
    """Return the SHA-256 in hex of the distinct digests of rows that do not count; empty if there are none."""
    return hashlib.sha256(np.unique(names).tobytes()).hexdigest() if len(names) else ""
