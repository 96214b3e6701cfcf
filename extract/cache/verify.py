"""Whether a cache is whole: every byte of every shard is read and compared with what its seals say.

What is damaged is named; `repair_cache` sets it aside, so that the next `extract` redoes exactly those rows. An index
that is not there or older than the shards is no damage, for a run may have been killed before it wrote one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable, ShardGone
from featurecache.base.plain_files import UnfitFile, parse_json
from featurecache.base.text import count_is
from featurecache.extract.cache import shards
from featurecache.extract.cache.checksums import SEAL_BYTES, content_digest, seal_rows
from featurecache.extract.cache.index import index_agrees, is_index_of
from featurecache.extract.cache.listing import shard_paths
from featurecache.extract.cache.opening import damaged, open_index, open_shard
from featurecache.extract.cache.snapshot import as_names
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import INDEX_FILE, SPEC_FILE, FeatureCache, read_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASIDE_FOLDER = "damaged"
# Read, checked and forgotten, block by block.
BLOCK_BYTES = 16 << 20
# Of the shards that are older than seals, so many are named.
MOST_NAMED = 3

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Damage:
    """One file that is not what it should be, or is gone. `n_rows`: what extract must redo, None where unknown.

    `is_closed`: it may not be read, and might be whole.
    """

    path: Path
    reason: str
    n_rows: int | None = 0
    is_closed: bool = False


@dataclass(frozen=True)
class Verification:
    """What was found in one cache folder; it is whole when `damaged` is empty. `spec` is None where none is known."""

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
    """Rows that were checked: digests (n, 32), and whether the file held a seal for each."""

    digests: NDArray[np.uint8]
    is_sealed: bool


def verify_cache(folder: Path, *, on_progress: OnProgress | None = None) -> Verification:
    """Read everything in a cache folder. `on_progress(done, total)` counts bytes.

    Damage is returned, never raised. Raises CacheError when the folder cannot be read at all.
    """
    spec, found = _find_spec(folder)
    whole, broken, n_bytes = _check_shards(folder, spec, on_progress)
    names = _distinct(whole)
    present = shard_paths(folder)
    index = _IndexState(folder, present)
    found += [
        Damage(path, _reason(error), _n_lost(path, spec, names, index), is_closed=not isinstance(error, CacheDamaged))
        for path, error in sorted(broken.items())
    ]
    found += [Damage(folder / "shards" / name, "it is gone", n) for name, n in sorted(index.gone.items())]
    if index.closed:
        found.append(Damage(index.path, index.closed, is_closed=True))
    elif index.is_broken or (index.is_current and not found and spec is not None and not _agrees(index.path, spec)):
        found.append(Damage(index.path, "it does not show what the shards hold"))
    notes = [] if index.is_current or not present else [f"{INDEX_FILE} is not up to date; extract and compact renew it"]
    n_unsealed = sum(not each.is_sealed for each in whole.values())
    if n_unsealed:
        notes.append(_unsealed_note(sorted(name for name, each in whole.items() if not each.is_sealed)))
    n_stored = sum(len(each.digests) for each in whole.values())
    return Verification(
        folder, spec, len(names), n_stored - len(names), len(present), n_bytes, tuple(found), tuple(notes)
    )


def _agrees(path: Path, spec: FeatureSpec) -> bool:
    """Whether plain h5py finds in an index the rows of the shards, each once and each with its own vector."""
    try:
        return index_agrees(path, spec, FeatureCache(path.parent.parent, spec).served())
    except (CacheError, OSError, RuntimeError, ValueError, KeyError, TypeError):  # h5py has many for a map that is none
        return False


def _unsealed_note(names: list[str]) -> str:
    listed = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
    older = count_is(len(names), "shard")
    return (
        f"{older} older than seals, so only checksums were compared ({listed}); 'featurecache cache compact' seals them"
    )


def check_shard(path: Path, spec: FeatureSpec) -> CheckedRows:
    """Compare every byte that means something in a shard of `spec`. Raises CacheDamaged."""
    digests = shards.read_digests(path, spec)
    shards.read_names(path)
    shards.read_record(path)
    with open_shard(path) as file:
        features, names, sealed = file["features"], file["paths"][:], shards.seals_of(file, len(digests))
        is_sealed = shards.is_sealed(file)
        seals = np.empty((len(digests), SEAL_BYTES), dtype=np.uint8)
        block = max(1, BLOCK_BYTES // (spec.feature_dim * features.dtype.itemsize))
        for start in range(0, len(digests), block):
            part = slice(start, start + block)
            vectors = features[part]
            if not np.isfinite(vectors).all():
                raise damaged(path, "it holds rows that are not numbers")
            seals[part] = seal_rows(spec, digests[part], vectors)
        if is_sealed and (seals != sealed).any():
            raise damaged(path, "its vectors are not those that were sealed")
        if is_sealed and shards.read_attributes(file["seals"]).get("sha256") != content_digest(seals, names):
            raise damaged(path, "its paths are not those that were sealed")
    return CheckedRows(digests, is_sealed)


def repair_cache(verdict: Verification) -> list[Path]:
    """Set what is damaged aside, in the folder `damaged` of the cache, and renew the index; returns where it went.

    Nothing is deleted. Raises CacheError where it is not known whose features the folder should hold, or where a file
    may not be read: it might be whole, and is somebody's.
    """
    closed = [each for each in verdict.damaged if each.is_closed]
    if closed:
        raise CacheError(
            f"{closed[0].reason} Correct the permissions first, or what else it is; nothing of its cache was set aside."
        )
    if verdict.spec is None:
        raise CacheError(
            f"It is unknown whose features '{verdict.folder}' holds: no spec in it has the key in its name. "
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
    """The spec whose key is in the folder's name, from spec.json or else from a shard, and what is wrong with it."""
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
        return None, []  # killed before there was anything
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
    """The whole shards by name, the broken ones with what was raised, and the bytes read.

    Shards that come meanwhile are read too; those that went were merged into others and do not count.
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


def _distinct(whole: dict[str, CheckedRows]) -> NDArray[np.bytes_]:
    """The names of all images that have a row, each once, sorted."""
    empty = np.empty((0, 32), dtype=np.uint8)
    return np.unique(as_names(np.concatenate([empty, *(part.digests for part in whole.values())])))


def _n_lost(path: Path, spec: FeatureSpec | None, names: NDArray[np.bytes_], index: _IndexState) -> int | None:
    """How many images have their vector in this damaged shard only; by the index where it does not say itself."""
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


def _counts(path: Path, text: object) -> dict[str, int]:
    """How many rows an index says that it shows of each shard. Raises CacheDamaged for what no index says."""
    try:
        counts = parse_json(str(text))
    except UnfitFile as error:
        raise damaged(path, str(error)) from error
    if not isinstance(counts, dict) or not all(type(n) is int and n >= 0 for n in counts.values()):
        raise damaged(path, "what it shows cannot be read")
    return {name: n for name, n in counts.items() if Path(name).name == name}


class _IndexState:
    """What features.h5 shows, and whether that can be so.

    `shown`: how many rows it shows of each shard. `gone`: those that are not there. It is current when it was made from
    the shards that are present, broken when it is no index, and closed, with the message, when it cannot be read.
    """

    def __init__(self, folder: Path, present: list[Path]) -> None:
        self.path = folder / INDEX_FILE
        self.shown: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.is_current = self.is_broken = False
        self.closed = ""
        if not os.path.lexists(self.path):
            return
        try:
            with open_index(self.path) as file:
                attributes = shards.read_attributes(file)
            self.is_current = is_index_of(attributes, present)
            self.shown = _counts(self.path, attributes.get("shards", "{}"))
        except CacheDamaged:
            self.is_broken = True
        except CacheError as error:
            self.closed = str(error)
        names = {path.name for path in present}
        self.gone = {name: n for name, n in self.shown.items() if name not in names}
