"""The feature cache: immutable shards in a folder, addressed by image digest, and an HDF5 index over them.

    <cache root>/<backbone>-<key12>/spec.json  shards/<uuid>.h5  judged-*.digests  withdrawn-*.digests
                                    features.h5  rows.index

Rows are read from the shards only, without those that are withdrawn (`judged.py`). `rows.index` (`row_index.py`) says
in which shard the row of an image is; `features.h5` (`index.py`) presents all rows as one array to other HDF5 tools.
Both are derived, replaced atomically and rebuilt when the shards or these lists have changed.
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
from featurecache.extract.cache.index import INDEX_FILE, SHARDS_FOLDER, ServedRows, is_index_of, write_index_file
from featurecache.extract.cache.judged import read_judged, remember_judged, withdraw
from featurecache.extract.cache.names import NameSet, Places, as_names
from featurecache.extract.cache.opening import open_index
from featurecache.extract.cache.reading.rows import ReadableRows
from featurecache.extract.cache.row_index import UnfitIndex
from featurecache.extract.cache.snapshot import N_LISTINGS, Snapshot, read_snapshot
from featurecache.extract.cache.spec import FeatureSpec, as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC_FILE = "spec.json"
# A spec has half a kilobyte; that of a hundred layers a few.
MOST_SPEC_BYTES = 1 << 20

T = TypeVar("T")


class FeatureCache(ReadableRows):
    """The rows of one FeatureSpec below a cache root.

    Opening reads the head of the row index; where that is not up to date, the digests of every shard (32 bytes a row).
    from_shards: read these in any case. Raises CacheDamaged if a shard is damaged, CacheError if it cannot be read or
    the folder belongs to another spec.
    """

    def __init__(self, cache_root: str | os.PathLike[str], spec: FeatureSpec, *, from_shards: bool = False) -> None:
        self.spec = spec
        self.folder = Path(cache_root) / spec.folder_name
        self._check_spec()
        self._judged: dict[int, NameSet] = {}
        self._snapshot = read_snapshot(self.folder, spec, from_shards=from_shards)
        self._snapshot.keep_index(self.folder, spec)

    def refresh(self, *, without: Collection[Path] = (), from_shards: bool = False) -> None:
        """Read the list of shards again, which other processes may have changed; `without` excludes some.

        from_shards: read the digests of every shard, whatever the row index says.
        """
        self._judged = {}
        if from_shards or not self._snapshot.is_still(self.folder, frozenset(without)):
            self._snapshot = read_snapshot(self.folder, self.spec, without=frozenset(without), from_shards=from_shards)
            self._snapshot.keep_index(self.folder, self.spec)

    def __len__(self) -> int:
        return len(self._snapshot.rows)

    @property
    def n_shards(self) -> int:
        """The number of shards, as of the last `refresh`."""
        return len(self._snapshot.paths)

    @property
    def n_withdrawn(self) -> int:
        """The number of rows in the shards that do not count, as of the last `refresh`."""
        return self._snapshot.facts.n_withdrawn

    def is_outdated(self) -> bool:
        """Whether another process has removed a shard since the last `refresh`, as `compact` does."""
        return self._snapshot.is_outdated()

    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the digests (N, 32) have no row: bool (N,)."""
        return ~self._read(lambda snapshot: snapshot.find(digests)).found

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
        if all(found >= revision for found in self._snapshot.facts.revisions):
            return np.zeros(len(digests), dtype=bool)
        found = self.revisions(digests)
        return (found > 0) & (found < revision)

    def revisions(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the decode revision of the row of each digest (N, 32): int64 (N,), 0 where it has no row."""
        return self._read(lambda snapshot: snapshot.revisions_of(digests))

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
        of, places = self._read(lambda snapshot: (snapshot, snapshot.find(digests)))
        n_absent = int((~places.found).sum())
        if n_absent:
            raise CacheError(
                f"{n_absent} of {len(digests)} images have no features in '{self.folder}'. Extract them first."
            )
        return self._read(
            lambda now: self._read_rows(now, digests, places if now is of else now.find(digests)),
        )

    def _read_rows(self, snapshot: Snapshot, digests: NDArray[np.uint8], places: Places) -> NDArray[np.float32]:
        shard, row, found = places
        if not found.all():
            raise CacheDamaged(
                f"The features of {int((~found).sum())} images were removed from '{self.folder}' "
                "by another process while they were read. Extract them again."
            )
        out = np.full((len(digests), self.spec.feature_dim), np.nan, dtype=np.float32)
        order = np.argsort(shard, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1) if len(order) else []:
            path = snapshot.paths[shard[mine[0]]]
            shards.read_features(path, row[mine], out, mine, spec=self.spec, digests=digests[mine])
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
        places = self._read(lambda snapshot: snapshot.find(digests))
        order: NDArray[np.int64] = np.lexsort((places.row, places.shard))
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
        return self._read(lambda snapshot: snapshot.served())

    def write_index(self) -> Path:
        """Bring `features.h5`, the row index and spec.json up to date, and return the path of the first.

        Raises CacheUnwritable.
        """
        path = self.folder / INDEX_FILE
        if len(self):
            self._write_spec()
        for _ in range(N_LISTINGS):
            if not (self._snapshot.is_from_shards or self._index_is_current(path, self._snapshot)):
                self.refresh(without=self._snapshot.without, from_shards=True)
            self._read(lambda snapshot: self._bring_up_to_date(path, snapshot))
            self._snapshot.bring_index_up_to_date(self.folder, self.spec)
            if not self._snapshot.differs_from_disk(self.folder):
                break
            # The shards changed while the index was made; the process that publishes the last index has read them all.
            self._refresh_alike()
        return path

    def _bring_up_to_date(self, path: Path, snapshot: Snapshot) -> None:
        if not len(snapshot.rows):
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
        """Return the result of `read`; after a refresh if `compact` has replaced a shard since the last one.

        What a row index says that is damaged, or that does not agree with a shard, is read from the shards instead.
        """
        for _ in range(N_LISTINGS):
            try:
                return read(self._snapshot)
            except UnfitIndex:
                self._replace_row_index()
            except (CacheDamaged, ShardGone):
                if self._snapshot.is_outdated():
                    self._refresh_alike()
                elif self._snapshot.is_from_shards:
                    raise
                else:
                    self._replace_row_index()
        self.refresh(without=self._snapshot.without, from_shards=True)
        return read(self._snapshot)

    def _refresh_alike(self) -> None:
        """Refresh, with the same shards excluded."""
        self.refresh(without=self._snapshot.without)

    def _replace_row_index(self) -> None:
        """Read the shards, and replace the row index unless it has the same rows."""
        before = self._snapshot
        self.refresh(without=before.without, from_shards=True)
        if not before.has_rows_of(self._snapshot):
            self._snapshot.write_index(self.folder, self.spec)

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
                temporary.write_text(as_text(self.spec.to_document()), encoding="utf-8")
        except OSError as error:
            raise CacheUnwritable(
                f"The cache folder '{self.folder}' cannot be written: {error.strerror}. "
                "Choose another with --cache, or correct its permissions."
            ) from error

    def _index_is_current(self, path: Path, snapshot: Snapshot) -> bool:
        try:
            with open_index(path) as file:
                return is_index_of(shards.read_attributes(file), snapshot.paths, snapshot.facts.withdrawn)
        except CacheError:
            return False

    def _write_virtual(self, path: Path) -> None:
        write_index_file(path, self.spec, self.served(), withdrawn=self._snapshot.facts.withdrawn)


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
