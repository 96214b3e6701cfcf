"""The list of the shards in a cache folder, the marks of merged shards, and left-over files.

A mark is an empty file `<shard>.h5.merged`: the rows of that shard were copied to other shards (compact.py).
Left-over are temporary files of killed processes, and merged shards.
"""

from __future__ import annotations

import time
from pathlib import Path

from featurecache.base.errors import CacheError
from featurecache.base.files import TEMPORARY_PREFIX, temporary_path
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import SHARDS_FOLDER

MERGED_SUFFIX = f"{shards.SUFFIX}.merged"
# A live writer needs seconds: every file is built in memory and written at once.
OLD_SECONDS = 3600.0
# Programs that opened an index before its shards were merged can read them for this long.
MERGED_SECONDS = 24 * 3600.0


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a cache folder, by name, without those marked as merged.

    Raises CacheError if the folder cannot be read.
    """
    found, merged = _listed(folder)
    return [path for path in found if path.name not in merged]


def settled_shard_paths(folder: Path) -> list[Path]:
    """Return the same, listed until two lists agree: one list can miss a shard that replaces a removed one."""
    listed = shard_paths(folder)
    while (again := shard_paths(folder)) != listed:
        listed = again
    return listed


def merged_paths(folder: Path) -> list[Path]:
    """Return the marks of merged shards that are not removed yet, by name; see `shard_of_mark`.

    Raises CacheError if the folder cannot be read.
    """
    return [mark_of_shard(folder / SHARDS_FOLDER / name) for name in sorted(_listed(folder)[1])]


def mark_of_shard(path: Path) -> Path:
    """Return the path of the mark of a merged shard."""
    return path.with_name(path.name.removesuffix(shards.SUFFIX) + MERGED_SUFFIX)


def shard_of_mark(mark: Path) -> Path:
    """Return the path of the shard of a mark."""
    return mark.with_name(mark.name.removesuffix(MERGED_SUFFIX) + shards.SUFFIX)


def _listed(folder: Path) -> tuple[list[Path], set[str]]:
    try:
        paths = sorted((folder / SHARDS_FOLDER).iterdir())
    except FileNotFoundError:
        return [], set()
    except OSError as error:
        raise CacheError(
            f"The cache '{folder}' cannot be read: {error.strerror}. Correct its permissions, or name another."
        ) from error
    merged = {shard_of_mark(path).name for path in paths if path.name.endswith(MERGED_SUFFIX)}
    return [path for path in paths if path.suffix == shards.SUFFIX and not path.name.startswith(".")], merged


def find_leftovers(cache_root: Path) -> list[Path]:
    """Return all temporary files in the caches below a root, including those of live writers."""
    patterns = (f"{TEMPORARY_PREFIX}*", f"*/{TEMPORARY_PREFIX}*", f"*/shards/{TEMPORARY_PREFIX}*")
    return sorted(path for pattern in patterns for path in cache_root.glob(pattern))


def sweep_leftovers(cache_root: Path) -> list[Path]:
    """Remove temporary files that were not written to for an hour and shards merged a day ago; return their paths.

    Files that cannot be removed are ignored: a left-over file is never read.
    """
    now = _clock_of(cache_root)
    removed = [path for path in find_leftovers(cache_root) if _remove_old(path, path, now - OLD_SECONDS)]
    for mark in sorted(cache_root.glob(f"*/{SHARDS_FOLDER}/*{MERGED_SUFFIX}")):
        shard = shard_of_mark(mark)
        if _remove_old(shard, mark, now - MERGED_SECONDS):  # first the shard: without its mark it would count again
            _remove_old(mark, mark, now - MERGED_SECONDS)
            removed.append(shard)
    return removed


def _clock_of(cache_root: Path) -> float:
    """Return the time by the clock that dates the files of a cache: that of a file server may be another.

    That of this machine where nothing can be written.
    """
    probe = temporary_path(cache_root / "clock")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()
    return now


def _remove_old(path: Path, dated: Path, before: float) -> bool:
    """Remove `path` if `dated` was last modified before a time; return whether it was removed."""
    try:
        if dated.stat().st_mtime >= before:
            return False
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
