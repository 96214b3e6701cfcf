"""Rewriting shards: merging small ones, sealing old ones, dropping second copies and rows that nobody uses.

    read the rows that are served -> publish them in new shards -> an index without the old ones -> mark the old ones

At every instant each row that is kept is in a complete shard, so a kill costs nothing: rows are then in two
shards and count once, and the next `compact` ends it.

Old shards stay where they are for a generation, under a mark that takes them out of every list: who opened features.h5
before, with any HDF5 tool, goes on reading them by their names. The next `compact` removes them, or any extract a day
later. What `prune` drops is removed at once, for room is why one prunes.

Several may do this at once, and extract at once, without a lock. A row is only ever removed by who has published it
again: a shard of which one row is in another too is rewritten, never dropped because the other copy is there, since
somebody else may just be removing that one. New names sort behind all that were seen, so the copy that is served stays
the one that was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable, ShardGone
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import ServedRows
from featurecache.extract.cache.listing import mark_of_shard, merged_paths, shard_of_mark
from featurecache.extract.cache.opening import damaged
from featurecache.extract.cache.snapshot import N_LISTINGS, as_names
from featurecache.extract.cache.store import FeatureCache, read_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A larger shard reads no faster, is held in memory while it is written, and is what one damaged byte costs.
SHARD_BYTES = 128 << 20


@dataclass(frozen=True)
class Rewriting:
    """What would be done to one cache: rows to keep of which shards, group by group; each group becomes one shard."""

    folder: Path
    n_rows: int
    n_unused: int
    n_duplicates: int
    n_shards: int
    n_bytes: int
    groups: tuple[tuple[ServedRows, ...], ...] = field(repr=False)

    @property
    def n_shards_after(self) -> int:
        """How many shards there will be."""
        gone = sum(len(group) for group in self.groups)
        return self.n_shards - gone + sum(any(len(part.rows) for part in group) for group in self.groups)


def open_cache(folder: Path) -> FeatureCache:
    """The cache in a folder, by its spec.json. Raises CacheError where there is none, or the folder was renamed."""
    spec = read_spec(folder)
    if spec is None or spec.folder_name != folder.name:
        found = "has no spec.json" if spec is None else f"holds the features of {spec.folder_name}"
        raise CacheError(f"The cache '{folder}' {found}. Run 'featurecache cache verify', which says what to do.")
    return FeatureCache(folder.parent, spec)


def plan_compaction(cache: FeatureCache, *, shard_bytes: int = SHARD_BYTES) -> Rewriting:
    """Merge what is less than half of `shard_bytes` up to that size, drop second copies, seal what has no seals."""
    found = cache.served()
    unsealed = {part.path for part in found if not shards.has_seals(part.path)}
    chosen = [
        part
        for part in found
        if part.path in unsealed or not part.is_alone or part.path.stat().st_size < shard_bytes // 2
    ]
    return _plan(cache, found, chosen, shard_bytes, unsealed=unsealed)


def plan_pruning(cache: FeatureCache, used: NDArray[np.uint8], *, shard_bytes: int = SHARD_BYTES) -> Rewriting:
    """Drop the rows of all images but those with the digests `used` (N, 32); shards of used rows are left alone."""
    found = cache.served()
    names = np.unique(as_names(used))
    kept = []
    for part in found:
        keep = np.isin(as_names(part.digests), names)
        kept.append(ServedRows(part.path, part.n, part.rows[keep], part.digests[keep], part.is_alone))
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
    for part in chosen:
        size = part.path.stat().st_size * len(part.rows) / max(1, part.n)
        if not groups or filled + size > shard_bytes:
            groups.append([])
            filled = 0.0
        groups[-1].append(part)
        filled += size
    worth = tuple(tuple(group) for group in groups if len(group) > 1 or not _gains_nothing(group[0], unsealed))
    n_stored = sum(part.n for part in found)
    n_bytes = sum(part.path.stat().st_size for part in found)
    return Rewriting(cache.folder, len(cache) - n_unused, n_unused, n_stored - len(cache), len(found), n_bytes, worth)


def _gains_nothing(part: ServedRows, unsealed: Collection[Path]) -> bool:
    """Whether a shard that is merged with no other would come out as it is."""
    return part.path not in unsealed and part.is_alone and len(part.rows) == part.n


def rewrite(cache: FeatureCache, plan: Rewriting, *, at_once: bool = False) -> list[Path]:
    """Carry out a plan and return the new shards. Raises CacheDamaged (a shard fails its seals), CacheUnwritable.

    at_once: remove the old shards, instead of marking them for the next time.
    After an error every row is still served, and the same command may be given again.
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
    if at_once:
        _remove(old)
    else:
        _mark(old)
    cache.refresh()
    cache.write_index()
    return new


def compact_cache(folder: Path, *, shard_bytes: int = SHARD_BYTES) -> Rewriting:
    """Compact the cache in a folder and return what was done. Raises CacheError."""
    remove_merged(folder)
    return _carry_out(folder, lambda cache: plan_compaction(cache, shard_bytes=shard_bytes))


def prune_cache(folder: Path, used: NDArray[np.uint8]) -> Rewriting:
    """Drop the rows of all images but those with the digests `used` (N, 32), and return what was done."""
    remove_merged(folder)
    return _carry_out(folder, lambda cache: plan_pruning(cache, used), at_once=True)


def remove_merged(folder: Path) -> list[Path]:
    """Remove the shards of the generation before, and return them. Raises CacheError, CacheUnwritable."""
    marks = merged_paths(folder)
    _remove([shard_of_mark(mark) for mark in marks])  # before their marks, or a kill would bring them back
    _remove(marks)
    return [shard_of_mark(mark) for mark in marks]


def _carry_out(folder: Path, make_plan: Callable[[FeatureCache], Rewriting], *, at_once: bool = False) -> Rewriting:
    """Plan and rewrite; start again when somebody else rewrites the same shards."""
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
    if not np.isfinite(vectors).all():  # a seal would vouch for them
        raise damaged(parts[0].path, "it, or one that is merged with it, holds rows that are not numbers")
    rows = shards.ShardRows(vectors, np.concatenate([part.digests for part in parts]), names)
    return shards.write_shard(parts[0].path.parent, rows, cache.spec, _record(parts), after=after)


def _record(parts: Sequence[ServedRows]) -> dict[str, Any]:
    """What was written down with the shards, as one: texts side by side where they differ, the rows' share of time."""
    records = [shards.read_record(part.path) for part in parts]
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = list(dict.fromkeys(record[name] for record in records if name in record))
        merged[name] = ", ".join(values) if name in {"engine", "device", "weights"} else max(values, key=str)
    seconds = [float(r.get("seconds", 0.0)) * len(p.rows) / max(1, p.n) for r, p in zip(records, parts, strict=True)]
    merged["seconds"] = round(sum(seconds), 3)
    return {name: value for name, value in merged.items() if name not in {"format", "spec", "n"}}


def _mark(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            mark_of_shard(path).touch()
        except OSError as error:
            raise CacheUnwritable(
                f"The shard '{path}' was merged into another and cannot be marked: {error.strerror}. "
                "No row is lost; correct the permissions and run the same command again."
            ) from error


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheUnwritable(
                f"The shard '{path}' was merged into another and cannot be removed: {error.strerror}. "
                "No row is lost; correct the permissions and run the same command again."
            ) from error
