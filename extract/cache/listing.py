"""The shards of a cache folder by name, and the marks of those that were merged into others.

A mark is an empty file with the shard's name that ends in `.h5.merged`: the rows are in other shards now (compact.py).
"""

from __future__ import annotations

from pathlib import Path

from featurecache.base.errors import CacheError
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import SHARDS_FOLDER

MERGED_SUFFIX = f"{shards.SUFFIX}.merged"


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a cache folder, by name, without those that were merged into others.

    Raises CacheError when the folder cannot be read.
    """
    found, merged = _listed(folder)
    return [path for path in found if path.name not in merged]


def settled_shard_paths(folder: Path) -> list[Path]:
    """The same, listed until two lists agree: one can miss a shard that replaces another that is already gone."""
    listed = shard_paths(folder)
    while (again := shard_paths(folder)) != listed:
        listed = again
    return listed


def merged_paths(folder: Path) -> list[Path]:
    """The marks of the shards that were merged into others and wait for their removal, by name; see `shard_of_mark`.

    Raises CacheError when the folder cannot be read.
    """
    return [mark_of_shard(folder / SHARDS_FOLDER / name) for name in sorted(_listed(folder)[1])]


def mark_of_shard(path: Path) -> Path:
    """The mark that says of a shard that it was merged into others."""
    return path.with_name(path.name.removesuffix(shards.SUFFIX) + MERGED_SUFFIX)


def shard_of_mark(mark: Path) -> Path:
    """The shard that a mark is about."""
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
