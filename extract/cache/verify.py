"""Verification and repair of a cache: every shard is read completely and compared with its seals.

`repair_cache` moves damaged files away, so that the next `extract` computes exactly their rows again. A missing or
outdated index is not damage: a run may have been killed before it wrote one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable, ShardGone
from featurecache.base.text import count_is
from featurecache.extract.cache import shards
from featurecache.extract.cache.checksums import SEAL_BYTES, content_digest, seal_rows
from featurecache.extract.cache.index import INDEX_FILE, IndexState, index_agrees
from featurecache.extract.cache.judged import damaged_files, read_withdrawn
from featurecache.extract.cache.listing import shard_paths
from featurecache.extract.cache.names import as_names, distinct_names
from featurecache.extract.cache.opening import damaged, open_shard
from featurecache.extract.cache.ranges import RANGES_FILE, damaged_ranges
from featurecache.extract.cache.row_index import ROW_INDEX_FILE, RowIndex, UnfitIndex
from featurecache.extract.cache.snapshot import Snapshot, digest_of_withdrawn, read_snapshot, which_count
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import SPEC_FILE, FeatureCache, read_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASIDE_FOLDER = "damaged"
# Vectors are read and checked block by block.
CHECKED_BYTES = 16 << 20
# Unsealed shards that a note names.
MOST_NAMED = 3

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Damage:
    """One damaged, missing or unreadable file. n_rows: rows to extract again, None if unknown.

    is_closed: whether it could not be read, so that it may be intact.
    """

    path: Path
    reason: str
    n_rows: int | None = 0
    is_closed: bool = False


@dataclass(frozen=True)
class Verification:
    """The result for one cache folder, which is intact if `damaged` is empty. `spec` is None if it is unknown."""

    folder: Path
    spec: FeatureSpec | None
    n_rows: int
    n_duplicates: int
    n_shards: int
    n_bytes: int
    damaged: tuple[Damage, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CheckedRows:
    """The rows of an intact shard: digests (n, 32), the revision of their decode rules, and whether it has seals."""

    digests: NDArray[np.uint8]
    revision: int
    is_sealed: bool


def verify_cache(folder: Path, *, on_progress: OnProgress | None = None) -> Verification:
    """Verify all files in a cache folder. `on_progress(done, total)` counts bytes.

    Damage is returned, never raised. Raises CacheError if the folder cannot be read.
    """
    spec, found = _find_spec(folder)
    whole, broken, n_bytes = _check_shards(folder, spec, on_progress)
    stored, counts = _rows_of(folder, list(whole.values()))
    names = distinct_names(stored[counts])[0]
    present = shard_paths(folder)
    index = IndexState(folder, present, digest_of_withdrawn(stored[~counts]))
    found += [
        Damage(path, _reason(error), _n_lost(path, spec, names, index), is_closed=not isinstance(error, CacheDamaged))
        for path, error in sorted(broken.items())
    ]
    found += [Damage(folder / "shards" / name, "it is gone", n) for name, n in sorted(index.gone.items())]
    found += _damaged_lists(folder)
    if index.closed:
        found.append(Damage(index.path, index.closed, is_closed=True))
    elif index.is_broken:
        found.append(Damage(index.path, "it does not match the shards"))
    if spec is not None and not found:
        found += _damaged_indices(folder, spec, features_are_current=index.is_current)
    notes = [] if index.is_current or not present else [f"{INDEX_FILE} is not up to date; extract and compact renew it"]
    found += [Damage(path, reason) for path, reason in damaged_ranges(folder, spec)]
    if spec is not None and spec.ranges and present and not os.path.lexists(folder / RANGES_FILE):
        notes.append(f"{RANGES_FILE} is gone; the next extract takes those of a run, or measures them again")
    n_unsealed = sum(not each.is_sealed for each in whole.values())
    if n_unsealed:
        notes.append(_unsealed_note(sorted(name for name, each in whole.items() if not each.is_sealed)))
    n_twice = int(counts.sum()) - len(names)
    return Verification(folder, spec, len(names), n_twice, len(present), n_bytes, tuple(found), tuple(notes))


def _damaged_indices(folder: Path, spec: FeatureSpec, *, features_are_current: bool) -> list[Damage]:
    """Return which of features.h5, if it is of the present shards, and the row index do not agree with them."""
    try:
        snapshot = read_snapshot(folder, spec, from_shards=True)
    except CacheError:  # another process has changed the shards meanwhile
        return []
    found = []
    if features_are_current and not _agrees(folder / INDEX_FILE, spec, snapshot):
        found.append(Damage(folder / INDEX_FILE, "it does not match the shards"))
    try:
        rows = RowIndex(folder / ROW_INDEX_FILE)
        is_current = snapshot.state is not None and rows.is_of(spec, snapshot.state)
        if is_current and not (rows.facts == snapshot.facts and rows.table().is_same(snapshot.rows.table())):
            found.append(Damage(folder / ROW_INDEX_FILE, "it does not match the shards"))
    except UnfitIndex as error:
        found.append(Damage(folder / ROW_INDEX_FILE, str(error)))
    except OSError:  # there is none, or nobody can use it
        pass
    return found


def _agrees(path: Path, spec: FeatureSpec, snapshot: Snapshot) -> bool:
    """Whether features.h5 refers to every served row of the shards once and to nothing else."""
    try:
        return index_agrees(path, spec, snapshot.served())
    except (CacheError, OSError, RuntimeError, ValueError, KeyError, TypeError):  # h5py, on an invalid mapping
        return False


def _unsealed_note(names: list[str]) -> str:
    listed = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
    older = count_is(len(names), "shard")
    return (
        f"{older} older than seals, so only checksums were compared ({listed}); 'featurecache cache compact' seals them"
    )


def check_shard(path: Path, spec: FeatureSpec) -> CheckedRows:
    """Compare all rows, paths and attributes of a shard of `spec` with its checksums. Raises CacheDamaged."""
    with open_shard(path) as file:
        shards.check_spec(path, file, spec)
        digests, names = file["digests"][:], file["paths"][:]
        shards.names_of(path, names)
        revision = shards.record_of(path, file).get("decode_revision", shards.FIRST_REVISION)
        features, sealed = file["features"], shards.seals_of(file, len(digests))
        is_sealed = shards.is_sealed(file)
        seals = np.empty((len(digests), SEAL_BYTES), dtype=np.uint8)
        block = max(1, CHECKED_BYTES // (spec.feature_dim * features.dtype.itemsize))
        for start in range(0, len(digests), block):
            part = slice(start, start + block)
            vectors = features[part]
            if not np.isfinite(vectors).all():
                raise damaged(path, "it holds NaN or infinite values")
            seals[part] = seal_rows(spec, digests[part], vectors)
        if is_sealed and (seals != sealed).any():
            raise damaged(path, "its vectors do not match their seals")
        if is_sealed and shards.read_attributes(file["seals"]).get("sha256") != content_digest(seals, names):
            raise damaged(path, "its paths do not match their seals")
    return CheckedRows(digests, revision, is_sealed)


def repair_cache(verdict: Verification) -> list[Path]:
    """Move damaged files to the folder `damaged` of the cache and rebuild the index; return their new paths.

    Nothing is deleted. Raises CacheError if the spec of the folder is unknown, or if a file could not be read, since it
    may be intact.
    """
    closed = [each for each in verdict.damaged if each.is_closed]
    if closed:
        raise CacheError(
            f"{closed[0].reason} Correct the permissions first, or the fault of the disk; nothing was moved."
        )
    if verdict.spec is None:
        raise CacheError(
            f"It is unknown which features '{verdict.folder}' holds: no spec in it has the key in its name. "
            "Give the folder its old name back, or move it away and run extract again."
        )
    moved = [_set_aside(verdict.folder, each.path) for each in verdict.damaged if os.path.lexists(each.path)]
    cache = FeatureCache(verdict.folder.parent, verdict.spec)
    cache.write_index()
    return moved


def _set_aside(folder: Path, path: Path) -> Path:
    aside = folder / ASIDE_FOLDER / path.name
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{path.name}.{number}")
    try:
        aside.parent.mkdir(exist_ok=True)
        path.rename(aside)
    except OSError as error:
        raise CacheUnwritable(
            f"'{path}' cannot be set aside: {error.strerror}. Correct the permissions and run the same command again."
        ) from error
    return aside


def _find_spec(folder: Path) -> tuple[FeatureSpec | None, list[Damage]]:
    """Return the spec whose key is in the folder's name, from spec.json or else from a shard, and the damage found."""
    path = folder / SPEC_FILE
    try:
        found, reason = read_spec(folder), "it is gone"
    except CacheDamaged:
        found, reason = None, "it is no feature spec"
    if found is not None:
        if found.folder_name == folder.name:
            return found, []
        reason = f"it is that of '{found.folder_name}'"
    present = shard_paths(folder)
    if found is None and reason == "it is gone" and not present:
        return None, []  # the run was killed before it wrote anything
    for shard in present:
        try:
            spec = shards.spec_of(shard)
        except CacheError:
            continue
        if spec.folder_name == folder.name:
            return spec, [Damage(path, reason)]
    return None, [Damage(path, f"{reason}, and no shard has the key in the folder's name", None)]


def _check_shards(
    folder: Path, spec: FeatureSpec | None, on_progress: OnProgress | None
) -> tuple[dict[str, CheckedRows], dict[Path, CacheError], int]:
    """Return the intact shards by name, the damaged ones with their errors, and the number of bytes read.

    Shards that are added during the check are read too; those that are removed were merged and do not count.
    """
    whole: dict[str, CheckedRows] = {}
    broken: dict[Path, CacheError] = {}
    done = 0
    while spec and (waiting := [p for p in shard_paths(folder) if p.name not in whole and p not in broken]):
        sizes = [_size(path) for path in waiting]
        total = done + sum(sizes)
        for path, size in zip(waiting, sizes, strict=True):
            try:
                whole[path.name] = check_shard(path, spec)
            except CacheError as error:
                if not isinstance(error, ShardGone):
                    broken[path] = error
            done += size
            if on_progress is not None:
                on_progress(done, total)
    here = {path.name for path in shard_paths(folder)}
    return {n: r for n, r in whole.items() if n in here}, {p: r for p, r in broken.items() if p.name in here}, done


def _reason(error: CacheError) -> str:
    return error.reason if isinstance(error, CacheDamaged) else str(error)


def _rows_of(folder: Path, parts: Sequence[CheckedRows]) -> tuple[NDArray[np.bytes_], NDArray[np.bool_]]:
    """Return the digests of all rows as byte strings (N,), and which rows count: bool (N,). Raises CacheError."""
    names = as_names(np.concatenate([np.empty((0, 32), dtype=np.uint8), *(part.digests for part in parts)]))
    n_each = np.array([len(part.digests) for part in parts], dtype=np.int64)
    revisions = np.repeat(np.array([part.revision for part in parts], dtype=np.int64), n_each)
    return names, which_count(names, revisions, read_withdrawn(folder)[1])


def _damaged_lists(folder: Path) -> list[Damage]:
    """Return the damaged lists of judged rows; of those in them, images are judged again. Raises CacheError."""
    try:
        return [Damage(path, "it does not match its checksum") for path in damaged_files(folder)]
    except OSError as error:
        raise CacheError(f"The cache '{folder}' cannot be read: {error.strerror}. Correct its permissions.") from error


def _n_lost(path: Path, spec: FeatureSpec | None, names: NDArray[np.bytes_], index: IndexState) -> int | None:
    """Return how many images have a row in this damaged shard only; by the index if its digests cannot be read."""
    try:
        digests = shards.read_digests(path, spec) if spec is not None else None
    except CacheError:
        digests = None
    if digests is None:
        return index.shown.get(path.name)
    return len(np.setdiff1d(as_names(digests), names))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
