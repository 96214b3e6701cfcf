"""The feature cache: immutable shards in a folder, addressed by image digest, and an HDF5 index over them.

    <cache root>/<backbone>-<key12>/spec.json  shards/<uuid>.h5  features.h5

The shards are the truth and the only thing read here. `features.h5` shows them as one array to everybody else; it is
derived, replaced atomically and rebuilt when the list of shards is no longer the one it was made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from extract import shards
from extract.errors import CacheDamaged, CacheError, CacheUnwritable
from extract.manifest import printable
from extract.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC_FILE = "spec.json"
INDEX_FILE = "features.h5"
SHARDS_FOLDER = "shards"
# How often shards are listed anew because one went meanwhile; compacting in a loop would be needed to use them up.
N_LISTINGS = 10

T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """The rows (m,) that are served from one shard of n rows, and their digests (m, 32).

    `is_alone`: none of its rows is in another shard too.
    """

    path: Path
    n: int
    rows: NDArray[np.int64]
    digests: NDArray[np.uint8]
    is_alone: bool


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
            raise CacheError(f"{int(absent.sum())} of {len(digests)} images have no features in '{self.folder}'.")
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
        temporary = self.folder / f"{shards.TEMPORARY_PREFIX}{secrets.token_hex(8)}{shards.SUFFIX}"
        try:
            self._write_virtual(temporary)
            shards.publish(temporary, path)
        except CacheDamaged:
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
            except CacheDamaged:
                if all(os.path.exists(path) for path in self._shards):  # noqa: PTH110 (pathlib's own can raise)
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
        temporary = self.folder / f"{shards.TEMPORARY_PREFIX}{secrets.token_hex(8)}.json"
        try:
            if path.exists():
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.spec.to_json(), encoding="utf-8")
            shards.publish(temporary, path)
        except OSError as error:
            raise CacheUnwritable(
                f"The cache folder '{self.folder}' cannot be written: {error.strerror}. "
                "Choose another with --cache, or correct its permissions."
            ) from error

    def _index_is_current(self, path: Path) -> bool:
        try:
            with shards.open_shard(path) as file:
                return is_index_of(shards.read_attributes(file), self._shards)
        except CacheError:
            return False

    def _write_virtual(self, path: Path) -> None:
        import h5py

        n, width = len(self), self.spec.feature_dim
        lengths, text_length = self._source_sizes()
        layouts = {
            "features": h5py.VirtualLayout((n, width), self.spec.dtype),
            "digests": h5py.VirtualLayout((n, 32), np.uint8),
            "paths": h5py.VirtualLayout((n,), h5py.string_dtype("utf-8", text_length)),
        }
        for number, start, stop, at in self._runs():
            source_name = f"{SHARDS_FOLDER}/{self._shards[number].name}"
            size, text = lengths[number]
            sources: dict[str, tuple[tuple[int, ...], Any]]
            sources = {"features": ((size, width), self.spec.dtype), "digests": ((size, 32), np.uint8)}
            sources["paths"] = ((size,), h5py.string_dtype("utf-8", text))
            for name, (shape, dtype) in sources.items():
                source = h5py.VirtualSource(source_name, name, shape=shape, dtype=dtype)
                layouts[name][at : at + stop - start] = source[start:stop]
        with shards.new_file(path) as file:
            for name, layout in layouts.items():
                file.create_virtual_dataset(name, layout, fillvalue=np.nan if name == "features" else None)
            attributes = {"format": shards.FORMAT, "spec": self.spec.to_json(), "key": self.spec.key}
            shown = {part.path.name: len(part.rows) for part in self.served()}
            attributes |= {"shards_sha256": shard_list_digest(self._shards), "shards": json.dumps(shown)}
            shards.write_attributes(file, attributes)
        with path.open("r+b") as written:
            digest = hashlib.sha256(written.read()).digest()
            written.write(digest)

    def _source_sizes(self) -> tuple[list[tuple[int, int]], int]:
        """Rows and bytes of the longest path, for each shard, and the longest of all."""
        sizes = []
        for path in self._shards:
            with shards.open_shard(path) as file:
                sizes.append((len(file["paths"]), file["paths"].dtype.itemsize))
        return sizes, max((text for _, text in sizes), default=1)

    def _runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Stretches of rows that are served from one shard: (shard, first row, end row, place in the index)."""
        order = np.lexsort((self._row_of, self._shard_of))
        shard, row = self._shard_of[order], self._row_of[order]
        breaks = np.flatnonzero((np.diff(shard) != 0) | (np.diff(row) != 1)) + 1
        for first, last in zip([0, *breaks], [*breaks, len(row)], strict=True):
            if first < last:
                yield int(shard[first]), int(row[first]), int(row[last - 1]) + 1, int(first)


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a cache folder, by name. Raises CacheError when the folder cannot be read."""
    try:
        paths = sorted((folder / SHARDS_FOLDER).iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"The cache '{folder}' cannot be read: {error.strerror}.") from error
    return [path for path in paths if path.suffix == shards.SUFFIX and not path.name.startswith(".")]


def is_index_of(attributes: Mapping[str, Any], paths: Iterable[Path]) -> bool:
    """Whether an index with these attributes shows these shards; one of an older version is none."""
    return "shards" in attributes and bool(attributes.get("shards_sha256") == shard_list_digest(paths))


def index_is_intact(path: Path) -> bool:
    """Whether every byte of an index is the one that was written.

    HDF5 keeps the map of a virtual dataset without a checksum and ends the process over some of its flipped bits. So
    the SHA-256 of the file stands behind its end, where HDF5 does not look, and is compared before the map is read.
    """
    data = path.read_bytes()
    return hashlib.sha256(data[:-32]).digest() == data[-32:]


def shard_list_digest(paths: Iterable[Path]) -> str:
    """By what an index tells whether these are the shards that it shows."""
    return hashlib.sha256("\n".join(path.name for path in paths).encode()).hexdigest()


def read_spec(folder: Path) -> FeatureSpec | None:
    """The spec of a cache folder, or None where there is none. Raises CacheDamaged when it is no spec."""
    path = folder / SPEC_FILE
    try:
        return FeatureSpec.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CacheDamaged(
            f"'{path}' is no feature spec ({type(error).__name__}). Delete that one file: extract writes it again."
        ) from error


def as_names(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Digests (N, 32) as (N,) byte strings, which numpy can sort and search."""
    return np.ascontiguousarray(digests).reshape(-1, 32).view("S32").reshape(-1)
