"""The inventory of a cache root: every cache folder, its rows and its use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import CacheError
from featurecache.extract.cache.index import SHARDS_FOLDER
from featurecache.extract.cache.judged import read_withdrawn
from featurecache.extract.cache.listing import shard_paths
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.names import as_names, distinct_names
from featurecache.extract.cache.ranges import damaged_ranges
from featurecache.extract.cache.shards import read_record, read_rows
from featurecache.extract.cache.snapshot import which_count
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.cache.store import SPEC_FILE, read_spec

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class CacheInfo:
    """One cache folder. Times are UTC in ISO 8601, empty if unknown; `n_rows` counts an image once.

    images: the data sets that used it, the latest first. damaged: errors of the files that could not be opened, and of
    activation ranges; only `verify_cache` checks the content of the others.
    """

    folder: Path
    spec: FeatureSpec | None
    weights: str
    n_rows: int
    n_duplicates: int
    n_shards: int
    n_bytes: int
    written: str
    used: str
    images: tuple[str, ...]
    damaged: tuple[str, ...]


def find_caches(cache_root: Path) -> list[Path]:
    """Return the cache folders below a root, by name. Raises CacheError if the root cannot be read."""
    try:
        folders = sorted(path for path in cache_root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise CacheError(
            f"The cache folder '{cache_root}' cannot be read: {error.strerror}. Correct its permissions, or name "
            "another with --cache."
        ) from error
    return [path for path in folders if _may_be_cache(path)]


def _may_be_cache(folder: Path) -> bool:
    try:
        return (folder / SPEC_FILE).exists() or (folder / SHARDS_FOLDER).exists()
    except OSError:  # no permission: reading it raises an error with the reason
        return True


def describe_caches(cache_root: Path) -> list[CacheInfo]:
    """Return a description of every cache below a root. Damage is in the description, never raised."""
    with Memo(cache_root, read_only=True) as memo:
        uses = memo.uses()
    return [_describe(folder, uses) for folder in find_caches(cache_root)]


def remember_use(cache_root: Path, folders: list[str], images: str) -> None:
    """Record in the memo that these images used these caches now; nothing is recorded if it cannot be written."""
    with Memo(cache_root, read_only=True) as memo:
        memo.remember_use(folders, os.fsencode(os.path.abspath(images)), int(datetime.now(UTC).timestamp()))  # noqa: PTH100


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return files_bytes(folder.rglob("*"))


def files_bytes(paths: Iterable[Path]) -> int:
    """Return the total size of the paths that are files; paths that do not exist count as 0."""
    sizes = []
    for path in paths:
        try:
            sizes.append(path.lstat().st_size if path.is_file() else 0)
        except OSError:  # removed by another process in the meantime
            continue
    return sum(sizes)


def _describe(folder: Path, uses: list[tuple[str, bytes, int]]) -> CacheInfo:
    damaged: list[str] = []
    spec, paths = None, []
    try:
        spec, paths = read_spec(folder), shard_paths(folder)
    except CacheError as error:
        damaged.append(str(error))
    parts, records = [], []
    for path in paths:
        if spec is None:
            break
        try:
            parts.append(read_rows(path, spec))
            records.append(read_record(path))
        except CacheError as error:
            if path.exists():
                damaged.append(str(error))
    try:
        n_rows, n_twice = _count_rows(folder, parts)
    except CacheError as error:
        n_rows, n_twice = 0, 0
        damaged.append(str(error))
    damaged += [f"{path}: {reason}" for path, reason in damaged_ranges(folder, spec)]
    mine = [(images, used) for name, images, used in uses if name == folder.name]
    return CacheInfo(
        folder=folder,
        spec=spec,
        weights=", ".join(dict.fromkeys(str(record["weights"]) for record in records if "weights" in record)),
        n_rows=n_rows,
        n_duplicates=n_twice,
        n_shards=len(paths),
        n_bytes=folder_bytes(folder),
        written=max((str(record.get("created", "")) for record in records), default=""),
        used=_iso(max(used for _, used in mine)) if mine else "",
        images=tuple(os.fsdecode(images) for images, _ in mine),
        damaged=tuple(damaged),
    )


def _count_rows(folder: Path, parts: Sequence[tuple[NDArray[np.uint8], int]]) -> tuple[int, int]:
    """Return the number of images and of second copies among the rows that count. Raises CacheError.

    parts: the digests (n, 32) and the decode revision of each shard.
    """
    if not parts:
        return 0, 0
    names = as_names(np.concatenate([digests for digests, _ in parts]))
    revisions = np.repeat([revision for _, revision in parts], [len(digests) for digests, _ in parts])
    names = names[which_count(names, revisions, read_withdrawn(folder)[1])]
    n_rows = len(distinct_names(names)[0])
    return n_rows, len(names) - n_rows


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
