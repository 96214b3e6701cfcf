"""The feature cache: immutable shards in a folder, addressed by image digest, and an HDF5 index over them.

    <cache root>/<backbone>-<key12>/spec.json  shards/<uuid>.h5  features.h5  judged-*.digests  withdrawn-*.digests

Rows are read from the shards only, without those that are withdrawn (`judged.py`). `features.h5` (`index.py`) presents
them as one array to other HDF5 tools; it is derived, replaced atomically and rebuilt when the shards or these lists
have changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from featurecache.base.errors import CacheDamaged, CacheError, CacheUnwritable, ShardGone
from featurecache.base.files import make_folder, replacing_file
from featurecache.base.plain_files import read_json_file
from featurecache.base.text import printable
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import SHARDS_FOLDER, ServedRows, is_index_of, write_index_file
from featurecache.extract.cache.judged import read_judged, remember_judged, withdraw
from featurecache.extract.cache.opening import open_index
from featurecache.extract.cache.snapshot import N_LISTINGS, NameSet, Snapshot, as_names, read_snapshot
from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC_FILE = "spec.json"
INDEX_FILE = "features.h5"
# A spec has half a kilobyte; that of a hundred layers a few.
MOST_SPEC_BYTES = 1 << 20

T = TypeVar("T")


class FeatureCache:
    """The rows of one FeatureSpec below a cache root.

    Opening reads only the digests of every shard (32 bytes a row). Raises CacheDamaged if a shard is damaged,
    CacheError if it cannot be read or the folder belongs to another spec.
    """

    def __init__(self, cache_root: str | os.PathLike[str], spec: FeatureSpec) -> None:
        self.spec = spec
        self.folder = Path(cache_root) / spec.folder_name
        self._check_spec()
        self.refresh()

    def refresh(self, *, without: Collection[Path] = ()) -> None:
        """Read the list of shards again, which other processes may have changed; `without` excludes some."""
        self._snapshot = read_snapshot(self.folder, self.spec, without=frozenset(without))
        self._judged: dict[int, NameSet] = {}

    def __len__(self) -> int:
        return len(self._snapshot.names)

    @property
    def n_shards(self) -> int:
        """The number of shards, as of the last `refresh`."""
        return len(self._snapshot.paths)

    @property
    def n_withdrawn(self) -> int:
        """The number of rows in the shards that do not count, as of the last `refresh`."""
        return self._snapshot.n_withdrawn

    def is_outdated(self) -> bool:
        """Whether another process has removed a shard since the last `refresh`, as `compact` does."""
        return self._snapshot.is_outdated()

    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the digests (N, 32) have no row: bool (N,)."""
        return ~self._snapshot.find(digests)[1]

    def outdated(self, digests: NDArray[np.uint8], revision: int) -> NDArray[np.bool_]:
        """Return which of the digests (N, 32) have a row by decode rules before `revision`: bool (N,).

        Rows that were judged to be the same by these rules are left out.
        """
        older = self.older(digests, revision)
        if not older.any():
            return older
        if revision not in self._judged:
            self._judged[revision] = NameSet(as_names(read_judged(self.folder, revision)))
        return older & ~self._judged[revision].has(as_names(digests))

    def remember_judged(self, digests: NDArray[np.uint8], revision: int) -> None:
        """Leave these digests (N, 32) out of `outdated`: their rows are the same by the rules of this revision."""
        remember_judged(self.folder, revision, digests)
        self._judged.pop(revision, None)

    def older(self, digests: NDArray[np.uint8], revision: int) -> NDArray[np.bool_]:
        """Return which of the digests (N, 32) have a row by decode rules before `revision`, judged or not."""
        if all(found >= revision for found in self._snapshot.revisions):
            return np.zeros(len(digests), dtype=bool)
        found = self.revisions(digests)
        return (found > 0) & (found < revision)

    def revisions(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the decode revision of the row of each digest (N, 32): int64 (N,), 0 where it has no row."""
        snapshot = self._snapshot
        place, found = snapshot.find(digests)
        revisions = np.zeros(len(digests), dtype=np.int64)
        revisions[found] = np.array(snapshot.revisions, dtype=np.int64)[snapshot.shard_of[place[found]]]
        return revisions

    def withdraw(self, digests: NDArray[np.uint8], revision: int) -> str:
        """Let the rows of these digests (N, 32) by decode rules before `revision`, which refuses them, not count.

        Returns why they still count, if the folder cannot be written; else an empty text. Raises CacheError.
        """
        older = digests[self.older(digests, revision)]
        if not len(older):
            return ""
        try:
            withdraw(self.folder, revision, older)
        except OSError as error:
            return error.strerror or type(error).__name__
        with contextlib.suppress(OSError):
            (self.folder / INDEX_FILE).unlink(missing_ok=True)  # which has these rows; it is written again
        self.refresh()
        return ""

    def lookup(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the vectors of these digests: (N, 32) -> float32 (N, D), row i for digest i.

        Raises CacheError if a digest has no row (see `missing`), CacheDamaged if a checksum does not match.
        """
        absent = self.missing(digests)
        if absent.any():
            raise CacheError(
                f"{int(absent.sum())} of {len(digests)} images have no features in '{self.folder}'. Extract them first."
            )
        return self._read(lambda snapshot: self._read_rows(snapshot, digests))

    def _read_rows(self, snapshot: Snapshot, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        place, found = snapshot.find(digests)
        if not found.all():
            raise CacheDamaged(
                f"The features of {int((~found).sum())} images were removed from '{self.folder}' "
                "by another process while they were read. Extract them again."
            )
        out = np.full((len(digests), self.spec.feature_dim), np.nan, dtype=np.float32)
        shard, row = snapshot.shard_of[place], snapshot.row_of[place]
        order = np.argsort(shard, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1) if len(order) else []:
            path = snapshot.paths[shard[places[0]]]
            shards.read_features(path, row[places], out, places, spec=self.spec, digests=digests[places])
        strange = np.flatnonzero(~np.isfinite(out).all(axis=1))
        if len(strange):
            first = strange[0]
            name = shards.read_names(snapshot.paths[shard[first]])[row[first]]
            more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
            raise CacheDamaged(
                f"The features of '{printable(name)}'{more} in '{self.folder}' are NaN or infinite: "
                "run 'featurecache cache verify --repair', then 'featurecache extract' again."
            )
        return out

    def stored_order(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the positions 0..N-1 of these digests (N, 32), sorted by the order of their rows on the disk."""
        place = self._snapshot.find(digests)[0]
        if not len(self):
            return place
        order: NDArray[np.int64] = np.lexsort((self._snapshot.row_of[place], self._snapshot.shard_of[place]))
        return order

    def add(self, rows: shards.ShardRows, record: shards.ShardRecord) -> None:
        """Publish rows as a new shard; they are visible after `refresh`. Raises CacheUnwritable."""
        self._write_spec()
        shards.write_shard(self.folder / SHARDS_FOLDER, rows, self.spec, record)

    def records(self) -> list[shards.ShardRecord]:
        """Return the attributes of each shard, oldest first; `n` is its number of rows."""
        return self._read(lambda snapshot: [shards.read_record(path) for path in snapshot.paths])

    def served(self) -> list[ServedRows]:
        """Return the served rows of each shard, in shard order, as of the last `refresh`."""
        return self._snapshot.served()

    def write_index(self) -> Path:
        """Bring `features.h5` and spec.json up to date and return the path of the former. Raises CacheUnwritable."""
        path = self.folder / INDEX_FILE
        if len(self):
            self._write_spec()
        for _ in range(N_LISTINGS):
            self._read(lambda snapshot: self._bring_up_to_date(path, snapshot))
            if not self._snapshot.differs_from_disk(self.folder):
                break
            # The shards changed while the index was made; the process that publishes the last index has read them all.
            self._refresh_alike()
        return path

    def _bring_up_to_date(self, path: Path, snapshot: Snapshot) -> None:
        if not len(snapshot.names):
            path.unlink(missing_ok=True)
            return
        if self._index_is_current(path, snapshot):
            return
        try:
            with replacing_file(path) as temporary:
                self._write_virtual(temporary)
        except (CacheDamaged, ShardGone):
            raise
        except (OSError, RuntimeError, CacheError) as error:
            raise CacheUnwritable(f"The index '{path}' cannot be written: {str(error).rstrip('.')}.") from error

    def _read(self, read: Callable[[Snapshot], T]) -> T:
        """Return the result of `read`; after a refresh if `compact` has replaced a shard since the last one."""
        for _ in range(N_LISTINGS):
            try:
                return read(self._snapshot)
            except (CacheDamaged, ShardGone):
                if not self._snapshot.is_outdated():
                    raise
                self._refresh_alike()
        return read(self._snapshot)

    def _refresh_alike(self) -> None:
        """Refresh, with the same shards excluded."""
        self.refresh(without=self._snapshot.without)

    def _check_spec(self) -> None:
        found = read_spec(self.folder)
        if found is not None and found != self.spec:
            fields = ", ".join(found.differences(self.spec))
            raise CacheError(f"The cache '{self.folder}' was made with another {fields}. Move the folder away.")

    def _write_spec(self) -> None:
        path = self.folder / SPEC_FILE
        try:
            if path.exists():
                return
            make_folder(self.folder)
            with replacing_file(path) as temporary:
                temporary.write_text(self.spec.to_json(), encoding="utf-8")
        except OSError as error:
            raise CacheUnwritable(
                f"The cache folder '{self.folder}' cannot be written: {error.strerror}. "
                "Choose another with --cache, or correct its permissions."
            ) from error

    def _index_is_current(self, path: Path, snapshot: Snapshot) -> bool:
        try:
            with open_index(path) as file:
                return is_index_of(shards.read_attributes(file), snapshot.paths, snapshot.withdrawn)
        except CacheError:
            return False

    def _write_virtual(self, path: Path) -> None:
        write_index_file(path, self.spec, self.served(), withdrawn=self._snapshot.withdrawn)


def read_spec(folder: Path) -> FeatureSpec | None:
    """Return the spec of a cache folder, or None if it has none. Raises CacheDamaged if the file is not a spec."""
    path = folder / SPEC_FILE
    try:
        return FeatureSpec.from_dict(read_json_file(path, folder, most_bytes=MOST_SPEC_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheDamaged(
            f"'{path}' is no feature spec ({type(error).__name__}). Delete that one file: extract writes it again."
        ) from error
