"""Whether a cache is whole: every byte of every shard is read and compared with what its seals say.

What is damaged is named; `repair_cache` sets it aside, so that the next `extract` redoes exactly those rows. An index
that is not there or older than the shards is no damage, for a run may have been killed before it wrote one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract import shards
from extract.cache import (
    INDEX_FILE,
    SPEC_FILE,
    FeatureCache,
    as_names,
    index_is_intact,
    is_index_of,
    read_spec,
    shard_paths,
)
from extract.errors import CacheDamaged, CacheError, CacheUnwritable
from extract.seals import SEAL_BYTES, content_digest, seal_rows
from extract.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASIDE_FOLDER = "damaged"
# Read, checked and forgotten, block by block.
BLOCK_BYTES = 16 << 20

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
class Verdict:
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
class Rows:
    """Rows that were checked: digests (n, 32), their seals (n, 16), and whether the file itself held these seals."""

    digests: NDArray[np.uint8]
    seals: NDArray[np.uint8]
    is_sealed: bool = True


def verify_cache(folder: Path, *, on_progress: OnProgress | None = None) -> Verdict:
    """Read everything in a cache folder. `on_progress(done, total)` counts bytes.

    Damage is returned, never raised. Raises CacheError when the folder cannot be read at all.
    """
    spec, damaged = _true_spec(folder)
    whole, broken, n_bytes = _check_shards(folder, spec, on_progress)
    rows = _first_of_each(whole)
    present = shard_paths(folder)
    index = _Index(folder, present)
    damaged += [
        Damage(path, _reason(error), _n_lost(path, spec, rows, index), is_closed=not isinstance(error, CacheDamaged))
        for path, error in sorted(broken.items())
    ]
    damaged += [Damage(folder / "shards" / name, "it is gone", n) for name, n in sorted(index.gone.items())]
    if index.is_broken or (index.is_current and not damaged and spec is not None and not index.agrees(rows, spec)):
        damaged.append(Damage(index.path, "it does not show what the shards hold"))
    notes = [] if index.is_current or not present else [f"{INDEX_FILE} is not up to date; extract and compact renew it"]
    n_unsealed = sum(not each.is_sealed for each in whole.values())
    if n_unsealed:
        notes.append(f"{n_unsealed} shards are older than seals, so only their checksums were compared")
    n_stored = sum(len(each.digests) for each in whole.values())
    n_rows = len(rows.digests)
    return Verdict(folder, spec, n_rows, n_stored - n_rows, len(present), n_bytes, tuple(damaged), tuple(notes))


def check_shard(path: Path, spec: FeatureSpec) -> Rows:
    """Compare every byte that means something in a shard of `spec`. Raises CacheDamaged."""
    digests = shards.read_digests(path, spec)
    with shards.open_shard(path) as file:
        features, names, sealed = file["features"], file["paths"][:], shards.seals_of(file, len(digests))
        if features.dtype != np.dtype(spec.dtype) or names.shape != (len(digests),):
            raise shards.damaged(path, "its parts do not belong together")
        b"\n".join(names.tolist()).decode("utf-8")
        is_sealed = bool(sealed.shape[1])
        seals = np.empty((len(digests), SEAL_BYTES), dtype=np.uint8)
        block = max(1, BLOCK_BYTES // (spec.feature_dim * features.dtype.itemsize))
        for start in range(0, len(digests), block):
            part = slice(start, start + block)
            vectors = features[part]
            if not np.isfinite(vectors).all():
                raise shards.damaged(path, "it holds rows that are not numbers")
            seals[part] = seal_rows(spec, digests[part], vectors)
        if is_sealed and (seals != sealed).any():
            raise shards.damaged(path, "its vectors are not those that were sealed")
        if is_sealed and shards.read_attributes(file["seals"])["sha256"] != content_digest(seals, names):
            raise shards.damaged(path, "its paths are not those that were sealed")
    return Rows(digests, seals, is_sealed)


def repair_cache(verdict: Verdict) -> list[Path]:
    """Set what is damaged aside, in the folder `damaged` of the cache, and renew the index; returns where it went.

    Nothing is deleted. Raises CacheError where it is not known whose features the folder should hold, or where a file
    may not be read: it might be whole, and is somebody's.
    """
    closed = [each for each in verdict.damaged if each.is_closed]
    if closed:
        raise CacheError(f"{closed[0].reason} Correct the permissions first; nothing of its cache was set aside.")
    if verdict.spec is None:
        raise CacheError(
            f"Whose features '{verdict.folder}' holds cannot be told: no spec in it has the key in its name. "
            "Give the folder its old name back, or move it away and run extract again."
        )
    moved = [_set_aside(verdict.folder, each.path) for each in verdict.damaged if each.path.exists()]
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


def _true_spec(folder: Path) -> tuple[FeatureSpec | None, list[Damage]]:
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
            spec = FeatureSpec.from_dict(json.loads(shards.read_record(shard)["spec"]))
        except (CacheError, ValueError, KeyError, TypeError):
            continue
        if spec.folder_name == folder.name:
            return spec, [Damage(path, reason)]
    return None, [Damage(path, f"{reason}, and no shard has the key in the folder's name", None)]


def _check_shards(
    folder: Path, spec: FeatureSpec | None, on_progress: OnProgress | None
) -> tuple[dict[str, Rows], dict[Path, CacheError], int]:
    """The whole shards by name, the broken ones with what was raised, and the bytes read.

    Shards that come meanwhile are read too; those that went were merged into others and do not count.
    """
    whole: dict[str, Rows] = {}
    broken: dict[Path, CacheError] = {}
    done = 0
    while spec and (waiting := [p for p in shard_paths(folder) if p.name not in whole and p not in broken]):
        sizes = [_size(path) for path in waiting]
        total = done + sum(sizes)
        for path, size in zip(waiting, sizes, strict=True):
            try:
                whole[path.name] = check_shard(path, spec)
            except CacheError as error:
                if not isinstance(error, CacheDamaged) or path.exists():
                    broken[path] = error
            done += size
            if on_progress is not None:
                on_progress(done, total)
    here = {path.name for path in shard_paths(folder)}
    return {n: r for n, r in whole.items() if n in here}, {p: r for p, r in broken.items() if p.name in here}, done


def _reason(error: CacheError) -> str:
    return error.reason if isinstance(error, CacheDamaged) else str(error)


def _first_of_each(whole: dict[str, Rows]) -> Rows:
    """All rows in shard order, of each image the copy that is served, sorted by digest."""
    parts = [whole[name] for name in sorted(whole)]
    if not parts:
        return Rows(np.empty((0, 32), dtype=np.uint8), np.empty((0, SEAL_BYTES), dtype=np.uint8))
    digests = np.concatenate([part.digests for part in parts])
    seals = np.concatenate([part.seals for part in parts])
    _, first = np.unique(as_names(digests), return_index=True)
    return Rows(digests[first], seals[first])


def _n_lost(path: Path, spec: FeatureSpec | None, rows: Rows, index: _Index) -> int | None:
    """How many images have their vector in this damaged shard only; by the index where it does not say itself."""
    try:
        digests = shards.read_digests(path, spec) if spec is not None else None
    except CacheError:
        digests = None
    if digests is None:
        return index.shown.get(path.name)
    return len(np.setdiff1d(as_names(digests), as_names(rows.digests)))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Index:
    """What features.h5 shows, and whether that can be so.

    `shown`: how many rows it shows of each shard. `gone`: those that are not there. It is current when it was made from
    the shards that are present, broken when it cannot be read.
    """

    def __init__(self, folder: Path, present: list[Path]) -> None:
        self.path = folder / INDEX_FILE
        self.shown: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.is_current = self.is_broken = False
        if not self.path.exists():
            return
        try:
            with shards.open_shard(self.path) as file:
                attributes = shards.read_attributes(file)
                self.is_current = is_index_of(attributes, present)
                self.shown = dict(json.loads(attributes.get("shards", "{}")))
        except CacheError:
            self.is_broken = True
        names = {path.name for path in present}
        self.gone = {name: n for name, n in self.shown.items() if name not in names}

    def agrees(self, rows: Rows, spec: FeatureSpec) -> bool:
        """Whether plain h5py finds here the rows of the shards, each once and each with its own vector."""
        names = as_names(rows.digests)
        try:
            if not index_is_intact(self.path):
                return False
            with shards.open_shard(self.path) as file:
                digests = file["digests"][:]
                order = np.argsort(as_names(digests), kind="stable")
                if not np.array_equal(as_names(digests)[order], names):
                    return False
                place = np.empty(len(order), dtype=np.int64)
                place[order] = np.arange(len(order))
                block = max(1, BLOCK_BYTES // (spec.feature_dim * np.dtype(spec.dtype).itemsize))
                for start in range(0, len(digests), block):
                    part = slice(start, start + block)
                    seals = seal_rows(spec, digests[part], file["features"][part])
                    if (seals != rows.seals[place[part]]).any():
                        return False
        except (CacheError, OSError):
            return False
        return True
