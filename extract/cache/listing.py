"""The list of the shards in a cache folder, and the marks of merged shards.

A mark is an empty file `<shard>.h5.merged`: the rows of that shard were copied to other shards (compact.py).
"""

from __future__ import annotations

from pathlib import Path

from featurecache.base.errors import CacheError
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import SHARDS_FOLDER

MERGED_SUFFIX = f"{shards.SUFFIX}.merged"


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
