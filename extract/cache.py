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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract import shards
from extract.errors import CacheDamaged, CacheError, CacheUnwritable
from extract.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC_FILE = "spec.json"
INDEX_FILE = "features.h5"
SHARDS_FOLDER = "shards"


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

    def refresh(self) -> None:
        """Look again which shards there are, for instance those of another process."""
        self._shards = self._shard_paths()
        parts = [shards.read_digests(path, self.spec) for path in self._shards]
        digests = np.concatenate(parts) if parts else np.empty((0, 32), dtype=np.uint8)
        shard_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        row_of = np.concatenate([np.arange(len(part)) for part in parts]) if parts else np.empty(0, dtype=np.int64)
        # A digest that two processes wrote counts once: the first in shard order, for every reader the same.
        self._sorted, first = np.unique(_as_names(digests), return_index=True)
        self._shard_of, self._row_of = shard_of[first], row_of[first].astype(np.int64)

    def __len__(self) -> int:
        return len(self._sorted)

    def missing(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the digests (N, 32) have no row: bool (N,)."""
        return ~self._find(digests)[1]

    def lookup(self, digests: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The vectors of these digests: (N, 32) -> float32 (N, D), row i for digest i.

        Raises CacheError when a digest has no row (ask `missing` first), CacheDamaged when a shard fails its checksums.
        """
        place, found = self._find(digests)
        if not found.all():
            raise CacheError(f"{int((~found).sum())} of {len(digests)} images have no features in '{self.folder}'.")
        out = np.full((len(digests), self.spec.feature_dim), np.nan, dtype=np.float32)
        shard, row = self._shard_of[place], self._row_of[place]
        for number in np.unique(shard):
            places = np.flatnonzero(shard == number)
            shards.read_features(self._shards[number], row[places], out, places)
        if not np.isfinite(out).all():
            raise CacheDamaged(
                f"The cache '{self.folder}' holds rows that are not numbers; 'extract' never writes such."
            )
        return out

    def add(self, rows: shards.Rows, record: dict[str, Any]) -> None:
        """Publish rows as one more shard; they are seen after `refresh`. Raises CacheUnwritable."""
        self._write_spec()
        shards.write_shard(self.folder / SHARDS_FOLDER, rows, self.spec, record)

    def records(self) -> list[dict[str, Any]]:
        """What was written down with each shard, oldest first; `n` is its number of rows."""
        return [shards.read_record(path) for path in self._shards]

    def write_index(self) -> Path:
        """Bring `features.h5` up to date with the shards and return its path. Raises CacheUnwritable."""
        path = self.folder / INDEX_FILE
        if self._index_is_current(path):
            return path
        temporary = self.folder / f"{shards.TEMPORARY_PREFIX}{secrets.token_hex(8)}{shards.SUFFIX}"
        try:
            self._write_virtual(temporary)
            shards.publish(temporary, path)
        except (OSError, RuntimeError) as error:
            raise CacheUnwritable(f"The index '{path}' cannot be written: {error}.") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return path

    def _find(self, digests: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        names = _as_names(digests)
        if not len(self._sorted):
            return np.zeros(len(names), dtype=np.int64), np.zeros(len(names), dtype=bool)
        place = np.searchsorted(self._sorted, names).clip(max=len(self._sorted) - 1)
        return place, self._sorted[place] == names

    def _shard_paths(self) -> list[Path]:
        try:
            paths = sorted((self.folder / SHARDS_FOLDER).iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CacheError(f"The cache '{self.folder}' cannot be read: {error.strerror}.") from error
        return [path for path in paths if path.suffix == shards.SUFFIX and not path.name.startswith(".")]

    def _check_spec(self) -> None:
        found = read_spec(self.folder)
        if found is not None and found != self.spec:
            fields = ", ".join(found.differences(self.spec))
            raise CacheError(f"The cache '{self.folder}' was made with another {fields}. Move the folder away.")

    def _write_spec(self) -> None:
        path = self.folder / SPEC_FILE
        if path.exists():
            return
        temporary = self.folder / f"{shards.TEMPORARY_PREFIX}{secrets.token_hex(8)}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.spec.to_json(), encoding="utf-8")
            shards.publish(temporary, path)
        except OSError as error:
            raise CacheUnwritable(
                f"The cache folder '{self.folder}' cannot be written: {error.strerror}. "
                "Choose another with --cache, or correct its permissions."
            ) from error

    def _index_is_current(self, path: Path) -> bool:
        import h5py

        try:
            with h5py.File(path, "r", locking=False) as file:
                return bool(shards.read_attributes(file)["shards_sha256"] == self._shard_list_digest())
        except (OSError, KeyError, RuntimeError, ValueError):
            return False

    def _shard_list_digest(self) -> str:
        return hashlib.sha256("\n".join(path.name for path in self._shards).encode()).hexdigest()

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
        with h5py.File(path, "w", libver=shards.LIBVER) as file:
            for name, layout in layouts.items():
                file.create_virtual_dataset(name, layout, fillvalue=np.nan if name == "features" else None)
            attributes = {"format": shards.FORMAT, "spec": self.spec.to_json(), "key": self.spec.key}
            shards.write_attributes(file, {**attributes, "shards_sha256": self._shard_list_digest()})

    def _source_sizes(self) -> tuple[list[tuple[int, int]], int]:
        """Rows and bytes of the longest path, for each shard, and the longest of all."""
        import h5py

        sizes = []
        for path in self._shards:
            with h5py.File(path, "r", locking=False) as file:
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


def _as_names(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Digests (N, 32) as (N,) byte strings, which numpy can sort and search."""
    return np.ascontiguousarray(digests).reshape(-1, 32).view("S32").reshape(-1)
