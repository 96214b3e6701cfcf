"""The feature cache: immutable shards in a folder, addressed by image digest, and an HDF5 index over them.

    <cache root>/<backbone>-<key12>/spec.json  shards/<uuid>.h5  features.h5

The shards are the truth and the only thing read here. `features.h5` shows them as one array to everybody else
(`index.py`); it is derived, replaced atomically and rebuilt when the list of shards is not the one it was made from.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable, ShardGone
from featurecache.base.files import TEMPORARY_PREFIX, publish
from featurecache.base.plain_files import read_json_file
from featurecache.base.text import printable
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import SHARDS_FOLDER, Served, is_index_of, write_index_file
from featurecache.extract.cache.opening import open_index
from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC_FILE = "spec.json"
INDEX_FILE = "features.h5"
# An empty file of the shard's name that ends in this says that the rows stand in other shards now (compact.py).
MERGED_SUFFIX = f"{shards.SUFFIX}.merged"
# A spec is half a kilobyte; that of a hundred layers side by side a few.
MOST_SPEC_BYTES = 1 << 20
# How often shards are listed anew because one went meanwhile; compacting in a loop would be needed to use them up.
N_LISTINGS = 10

T = TypeVar("T")


class FeatureCache:
    """The rows of one FeatureSpec below a cache root.

    Opening reads the digests of every shard (32 bytes a row) and nothing else. Raises CacheDamaged when a shard cannot
    be read, CacheError when the folder belongs to another spec.
    """

    def __init__(self, cache_root: str | os.PathLike[str], spec: FeatureSpec) -> None:
        self.spec = spec
        self.folder = Path(cache_root) / spec.folder_name
        self._check_spec()
        self.refresh()

    def refresh(self, *, without: Collection[Path] = ()) -> None:
        """Look again which shards there are, for instance those of another process; `without` leaves some out."""
        self._without = frozenset(without)
        self._shards = self._shard_paths()
        parts = self._steadily(lambda: [shards.read_digests(path, self.spec) for path in self._shards], self._list)
        digests = np.concatenate(parts) if parts else np.empty((0, 32), dtype=np.uint8)
        shard_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        row_of = np.concatenate([np.arange(len(part)) for part in parts]) if parts else np.empty(0, dtype=np.int64)
        # A digest that two processes wrote counts once: the first in shard order, for every reader the same.
        self._sorted, first, self._copies = np.unique(as_names(digests), return_index=True, return_counts=True)
        self._shard_of, self._row_of = shard_of[first], row_of[first].astype(np.int64)
        self._lengths = [len(part) for part in parts]

    def __len__(self) -> int:
        return len(self._sorted)

    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the digests (N, 32) have no row: bool (N,)."""
        return ~self._find(digests)[1]

    def lookup(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The vectors of these digests: (N, 32) -> float32 (N, D), row i for digest i.

        Raises CacheError when a digest has no row (ask `missing` first), CacheDamaged when a shard fails its checksums.
        """
        absent = self.missing(digests)
        if absent.any():
            raise CacheError(
                f"{int(absent.sum())} of {len(digests)} images have no features in '{self.folder}'. Extract them first."
            )
        return self._steadily(lambda: self._read_rows(digests), self._list_again)

    def _read_rows(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        place, found = self._find(digests)
        if not found.all():
            raise CacheDamaged(f"The features of {int((~found).sum())} images went from '{self.folder}' meanwhile.")
        out = np.full((len(digests), self.spec.feature_dim), np.nan, dtype=np.float32)
        shard, row = self._shard_of[place], self._row_of[place]
        for number in np.unique(shard):
            places = np.flatnonzero(shard == number)
            shards.read_features(
                self._shards[number], row[places], out, places, spec=self.spec, digests=digests[places]
            )
        strange = np.flatnonzero(~np.isfinite(out).all(axis=1))
        if len(strange):
            first = place[strange[0]]
            name = shards.read_names(self._shards[self._shard_of[first]])[self._row_of[first]]
            more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
            raise CacheDamaged(
                f"The features of '{printable(name)}'{more} in '{self.folder}' are not numbers: "
                "run 'featurecache cache verify --repair', then 'featurecache extract' again."
            )
        return out

    def stored_order(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The positions 0..N-1 of these digests (N, 32) in the order in which their rows stand on the disk."""
        place = self._find(digests)[0]
        if not len(self._sorted):
            return place
        order: NDArray[np.int64] = np.lexsort((self._row_of[place], self._shard_of[place]))
        return order

    def add(self, rows: shards.Rows, record: dict[str, Any]) -> None:
        """Publish rows as one more shard; they are seen after `refresh`. Raises CacheUnwritable."""
        self._write_spec()
        shards.write_shard(self.folder / SHARDS_FOLDER, rows, self.spec, record)

    def records(self) -> list[dict[str, Any]]:
        """What was written down with each shard, oldest first; `n` is its number of rows."""
        return self._steadily(lambda: [shards.read_record(path) for path in self._shards], self._list_again)

    def served(self) -> list[Served]:
        """What each shard contributes, in shard order, as of the last look."""
        found = []
        for number, (path, n) in enumerate(zip(self._shards, self._lengths, strict=True)):
            places = np.flatnonzero(self._shard_of == number)
            places = places[np.argsort(self._row_of[places])]
            digests = self._sorted[places].view(np.uint8).reshape(-1, 32)
            is_alone = len(places) == n and bool((self._copies[places] == 1).all())
            found.append(Served(path, n, self._row_of[places], digests, is_alone))
        return found

    def write_index(self) -> Path:
        """Bring `features.h5` and spec.json up to date with the shards; returns its path. Raises CacheUnwritable."""
        path = self.folder / INDEX_FILE
        if len(self):
            self._write_spec()
        for _ in range(N_LISTINGS):
            self._steadily(lambda: self._bring_up_to_date(path), self._list_again)
            if self._shard_paths() == self._shards:
                break
            # Shards came or went while the index was made; whoever publishes an index last has seen them all.
            self._list_again()
        return path

    def _bring_up_to_date(self, path: Path) -> None:
        if not len(self):
            path.unlink(missing_ok=True)
            return
        if self._index_is_current(path):
            return
        temporary = self.folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{shards.SUFFIX}"
        try:
            self._write_virtual(temporary)
            publish(temporary, path)
        except (CacheDamaged, ShardGone):
            raise
        except (OSError, RuntimeError, CacheError) as error:
            raise CacheUnwritable(f"The index '{path}' cannot be written: {str(error).rstrip('.')}.") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _steadily(self, read: Callable[[], T], look_again: Callable[[], None]) -> T:
        """What `read` returns, read anew when a shard has gone meanwhile: `compact` puts others in its place."""
        for _ in range(N_LISTINGS):
            try:
                return read()
            except (CacheDamaged, ShardGone):
                if all(os.path.lexists(path) for path in self._shards):
                    raise
                look_again()
        return read()

    def _list(self) -> None:
        self._shards = self._shard_paths()

    def _list_again(self) -> None:
        self.refresh(without=self._without)

    def _find(self, digests: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        names = as_names(digests)
        if not len(self._sorted):
            return np.zeros(len(names), dtype=np.int64), np.zeros(len(names), dtype=bool)
        place = np.searchsorted(self._sorted, names).clip(max=len(self._sorted) - 1)
        return place, self._sorted[place] == names

    def _shard_paths(self) -> list[Path]:
        """Every shard there is, by name, but for those left out.

        Listed until two lists agree: one can miss a shard that was published and another that was removed for it.
        """
        listed = shard_paths(self.folder)
        while (again := shard_paths(self.folder)) != listed:
            listed = again
        return [path for path in listed if path not in self._without]

    def _check_spec(self) -> None:
        found = read_spec(self.folder)
        if found is not None and found != self.spec:
            fields = ", ".join(found.differences(self.spec))
            raise CacheError(f"The cache '{self.folder}' was made with another {fields}. Move the folder away.")

    def _write_spec(self) -> None:
        path = self.folder / SPEC_FILE
        temporary = self.folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.json"
        try:
            if path.exists():
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.spec.to_json(), encoding="utf-8")
            publish(temporary, path)
        except OSError as error:
            raise CacheUnwritable(
                f"The cache folder '{self.folder}' cannot be written: {error.strerror}. "
                "Choose another with --cache, or correct its permissions."
            ) from error

    def _index_is_current(self, path: Path) -> bool:
        try:
            with open_index(path) as file:
                return is_index_of(shards.read_attributes(file), self._shards)
        except CacheError:
            return False

    def _write_virtual(self, path: Path) -> None:
        write_index_file(path, self.spec, self.served())


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a cache folder, by name, without those that were merged into others.

    Raises CacheError when the folder cannot be read.
    """
    found, merged = _listed(folder)
    return [path for path in found if path.name not in merged]


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


def read_spec(folder: Path) -> FeatureSpec | None:
    """The spec of a cache folder, or None where there is none. Raises CacheDamaged when it is no spec."""
    path = folder / SPEC_FILE
    try:
        return FeatureSpec.from_dict(read_json_file(path, folder, most_bytes=MOST_SPEC_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheDamaged(
            f"'{path}' is no feature spec ({type(error).__name__}). Delete that one file: extract writes it again."
        ) from error


def as_names(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Digests (N, 32) as (N,) byte strings, which numpy can sort and search."""
    return np.ascontiguousarray(digests).reshape(-1, 32).view("S32").reshape(-1)
