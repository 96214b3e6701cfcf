"""Compaction and pruning: merging small shards, sealing old ones, dropping duplicate and unused rows.

    read the served rows -> publish them in new shards -> write an index without the old shards -> mark the old shards

At every moment each remaining row is in a complete shard, so nothing is lost if the process is killed: rows are then in
two shards, which count once, and the next `compact` removes the duplicates.

Merged shards are not removed at once but marked, which excludes them from every list: a program that has opened
features.h5 before, with any HDF5 tool, can still read them. The next `compact` removes them, or any extract a day
later. `prune` removes shards at once, because its purpose is to free space.

HDF5 opens every shard to read features.h5, and a process can open a limited number of files. So the number of shards is
kept small: every extraction merges them at its end if there are more than 128.

Several processes may compact and extract at the same time, without a lock. A process removes only rows that it has
published in a new shard: a shard with a duplicate row is rewritten, never dropped because of the other copy, since
another process may be removing that one. Names of new shards sort after all existing ones, so the served copy of a row
does not change.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from featurecache.base import files
from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable, ShardGone
from featurecache.base.text import printable, readable_bytes
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import ServedRows
from featurecache.extract.cache.listing import mark_of_shard, merged_paths, shard_of_mark
from featurecache.extract.cache.names import as_names
from featurecache.extract.cache.opening import damaged
from featurecache.extract.cache.snapshot import N_LISTINGS
from featurecache.extract.cache.store import FeatureCache, read_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Larger shards are not faster to read, need three times their size of memory while they are written, and lose more rows
# by a damaged byte; so they grow only where the cache would have more than 128 of them.
COMPACTED_BYTES, MOST_COMPACTED_BYTES = 128 << 20, 1 << 30
N_COMPACTED = 64
# The most shards that `merge_if_many` leaves as they are. HDF5 opens all of them to read the index, many systems let a
# program open 256 files, and it has others open.
MOST_SHARDS = 128


@dataclass(frozen=True)
class Rewriting:
    """The plan of a rewrite of one cache: groups of shards with the rows to keep; each group becomes one shard."""

    folder: Path
    n_rows: int
    n_unused: int
    n_duplicates: int
    n_shards: int
    n_bytes: int
    groups: tuple[tuple[ServedRows, ...], ...] = field(repr=False)

    @property
    def n_shards_after(self) -> int:
        """The number of shards after the rewrite."""
        gone = sum(len(group) for group in self.groups)
        return self.n_shards - gone + sum(any(len(part.rows) for part in group) for group in self.groups)


def open_cache(folder: Path) -> FeatureCache:
    """Open the cache in a folder by its spec.json, and read all shards: what no row index says counts too.

    Raises CacheError if there is none, or the folder was renamed.
    """
    spec = read_spec(folder)
    if spec is None or spec.folder_name != folder.name:
        found = "has no spec.json" if spec is None else f"holds the features of {spec.folder_name}"
        raise CacheError(f"The cache '{folder}' {found}. Run 'featurecache cache verify', which says what to do.")
    return FeatureCache(folder.parent, spec, from_shards=True)


def plan_compaction(cache: FeatureCache, *, shard_bytes: int | None = None) -> Rewriting:
    """Plan to merge shards of less than half of `shard_bytes` up to that size, drop duplicate rows, and add seals.

    By default the size follows from the cache: at most 128 shards remain, up to a cache of 64 GiB.
    """
    found = cache.served()
    if shard_bytes is None:
        n_bytes = sum(part.path.stat().st_size for part in found)
        shard_bytes = min(max(COMPACTED_BYTES, n_bytes // N_COMPACTED), MOST_COMPACTED_BYTES)
    unsealed = {part.path for part in found if not shards.has_seals(part.path)}
    chosen = [
        part
        for part in found
        if part.path in unsealed or not part.is_alone or part.path.stat().st_size < shard_bytes // 2
    ]
    return _plan(cache, found, chosen, shard_bytes, unsealed=unsealed)


def plan_pruning(cache: FeatureCache, used: NDArray[np.uint8], *, shard_bytes: int = COMPACTED_BYTES) -> Rewriting:
    """Plan to drop all rows but those of the digests `used` (N, 32); shards with used rows only are not rewritten."""
    found = cache.served()
    names = np.unique(as_names(used))
    kept = []
    for part in found:
        keep = np.isin(as_names(part.digests), names)
        kept.append(ServedRows(part.path, part.n, part.rows[keep], part.digests[keep], part.is_alone, part.revision))
    n_unused = sum(len(part.rows) for part in found) - sum(len(part.rows) for part in kept)
    chosen = [new for old, new in zip(found, kept, strict=True) if len(new.rows) < len(old.rows) or not old.is_alone]
    return _plan(cache, kept, chosen if n_unused else [], shard_bytes, n_unused=n_unused)


def _plan(
    cache: FeatureCache,
    found: Sequence[ServedRows],
    chosen: Sequence[ServedRows],
    shard_bytes: int,
    *,
    n_unused: int = 0,
    unsealed: Collection[Path] = (),
) -> Rewriting:
    groups: list[list[ServedRows]] = []
    filled = 0.0
    # A shard records one revision of the decode rules: rows of different ones are never merged.
    for part in sorted(chosen, key=lambda part: part.revision):
        size = part.path.stat().st_size * len(part.rows) / max(1, part.n)
        if not groups or filled + size > shard_bytes or groups[-1][0].revision != part.revision:
            groups.append([])
            filled = 0.0
        groups[-1].append(part)
        filled += size
    worth = tuple(tuple(group) for group in groups if len(group) > 1 or not _gains_nothing(group[0], unsealed))
    n_twice = sum(part.n for part in found) - len(cache) - cache.n_withdrawn
    n_bytes = sum(part.path.stat().st_size for part in found)
    return Rewriting(cache.folder, len(cache) - n_unused, n_unused, n_twice, len(found), n_bytes, worth)


def _gains_nothing(part: ServedRows, unsealed: Collection[Path]) -> bool:
    """Whether rewriting this shard alone would not change it."""
    return part.path not in unsealed and part.is_alone and len(part.rows) == part.n


def rewrite(cache: FeatureCache, plan: Rewriting, *, at_once: bool = False) -> list[Path]:
    """Carry out a plan and return the new shards. Raises CacheDamaged (a seal does not match), CacheUnwritable.

    at_once: remove the old shards, instead of marking them.
    After an error every row is still served, and the same command can be run again.
    """
    if not plan.groups:
        cache.write_index()
        return []
    old = [part.path for group in plan.groups for part in group]
    last = cache.served()[-1].path.name
    new: list[Path] = []
    for group in plan.groups:
        if any(len(part.rows) for part in group):
            new.append(_merge(cache, group, after=last))
            last = new[-1].name
    cache.refresh(without=old)
    cache.write_index()
    _mark(old)
    if at_once:
        _remove_marked(list(map(mark_of_shard, old)))
    cache.refresh()
    cache.write_index()
    return new


def compact_cache(folder: Path, *, shard_bytes: int | None = None) -> Rewriting:
    """Compact the cache in a folder and return the plan that was carried out. Raises CacheError."""
    remove_merged(folder)
    return _carry_out(folder, lambda cache: plan_compaction(cache, shard_bytes=shard_bytes))


def merge_if_many(cache: FeatureCache, say: Callable[[str], None]) -> None:
    """Bring the index of a cache up to date; merge its shards before, if there are more than `MOST_SHARDS`.

    The old shards are marked and removed a day later. If they cannot be merged, `say` gets the reason and nothing is
    lost. Raises CacheUnwritable if the index cannot be written.
    """
    try:
        if cache.n_shards > MOST_SHARDS:
            _merge_many(cache, say)
    except (CacheError, OSError, MemoryError) as error:
        if not cache.is_outdated():  # else another process has merged them
            reason = str(error) or "there is too little memory"
            say(f"The shards of '{printable(cache.folder)}' were not merged; no row is lost. {printable(reason)}")
        cache.refresh()
    try:
        cache.write_index()
    except CacheUnwritable as error:
        if files.REPLACES_OPEN_FILES or not isinstance(error.__cause__, PermissionError):
            raise
        text = printable(str(error))
        say(f"{text} It may be open in another program; the next extract renews it, and no row is lost.")


def _merge_many(cache: FeatureCache, say: Callable[[str], None]) -> None:
    cache.refresh(from_shards=True)
    plan = plan_compaction(cache)
    # A tenth fewer at least: the large shards of a large cache are not rewritten for every small one.
    if plan.n_shards_after > 0.9 * plan.n_shards:
        return
    needed = sum(part.path.stat().st_size for group in plan.groups for part in group)
    free = shutil.disk_usage(cache.folder).free
    if needed > free:
        say(
            f"'{printable(cache.folder)}' has {plan.n_shards:,} shards, and merging them needs "
            f"{readable_bytes(needed)} of disk: {readable_bytes(needed - free)} too little. Free some space and run "
            "'featurecache cache compact'."
        )
        return
    say(f"merging {plan.n_shards:,} shards of '{printable(cache.folder.name)}' into {plan.n_shards_after:,}")
    rewrite(cache, plan)


def prune_cache(folder: Path, used: NDArray[np.uint8]) -> Rewriting:
    """Drop all rows but those of the digests `used` (N, 32), and return the plan that was carried out."""
    remove_merged(folder)
    return _carry_out(folder, lambda cache: plan_pruning(cache, used), at_once=True)


def remove_merged(folder: Path) -> list[Path]:
    """Remove the shards that were marked as merged, and return them; one that cannot be removed keeps its mark.

    On Windows a file cannot be removed while a program has it open. Raises CacheError if the folder cannot be read.
    """
    return _remove_marked(merged_paths(folder))


def _remove_marked(marks: Sequence[Path]) -> list[Path]:
    removed = []
    for mark in marks:
        with contextlib.suppress(OSError):
            shard_of_mark(mark).unlink(missing_ok=True)  # before its mark: without it the shard would count again
            mark.unlink(missing_ok=True)
            removed.append(shard_of_mark(mark))
    return removed


def _carry_out(folder: Path, make_plan: Callable[[FeatureCache], Rewriting], *, at_once: bool = False) -> Rewriting:
    """Plan and rewrite; again if another process has rewritten the same shards."""
    for attempt in range(1, N_LISTINGS + 1):
        cache = open_cache(folder)
        before = [part.path for part in cache.served()]
        try:
            plan = make_plan(cache)
            rewrite(cache, plan, at_once=at_once)
            return plan
        except (CacheDamaged, ShardGone, FileNotFoundError):
            if attempt == N_LISTINGS or all(path.exists() for path in before):
                raise
    raise AssertionError("the loop above returns or raises")


def _merge(cache: FeatureCache, group: Sequence[ServedRows], *, after: str) -> Path:
    parts = [part for part in group if len(part.rows)]
    vectors = np.empty((sum(len(part.rows) for part in parts), cache.spec.feature_dim), dtype=np.float32)
    names: list[str] = []
    at = 0
    for part in parts:
        places = np.arange(at, at + len(part.rows))
        shards.read_features(part.path, part.rows, vectors, places, spec=cache.spec, digests=part.digests)
        own = shards.read_names(part.path)
        names += [own[row] for row in part.rows]
        at += len(places)
    if not np.isfinite(vectors).all():  # with a seal they would count as valid
        raise damaged(parts[0].path, "it, or one that is merged with it, holds NaN or infinite values")
    rows = shards.ShardRows(vectors, np.concatenate([part.digests for part in parts]), names)
    return shards.write_shard(parts[0].path.parent, rows, cache.spec, _record(parts), after=after)


def _record(parts: Sequence[ServedRows]) -> shards.ShardRecord:
    """Return the merged record of shards: different texts joined by commas, seconds in proportion to the rows kept."""
    records: list[dict[str, Any]] = [{**shards.read_record(part.path)} for part in parts]
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = list(dict.fromkeys(record[name] for record in records if name in record))
        merged[name] = ", ".join(values) if name in {"engine", "device", "weights"} else max(values, key=str)
    seconds = [float(r.get("seconds", 0.0)) * len(p.rows) / max(1, p.n) for r, p in zip(records, parts, strict=True)]
    merged["seconds"] = round(sum(seconds), 3)
    kept = {name: value for name, value in merged.items() if name not in {"format", "spec", "n"}}
    return cast("shards.ShardRecord", kept)


def _mark(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            mark_of_shard(path).touch()
        except OSError as error:
            raise CacheUnwritable(
                f"The shard '{path}' was merged into another and cannot be marked: {error.strerror}. "
                "No row is lost; correct the permissions and run the same command again."
            ) from error
