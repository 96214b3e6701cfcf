"""The index features.h5: all shards of a cache as one array, for other HDF5 tools.

    /features   (N, D)   a virtual dataset over the shards, in their order; NaN for the rows of a missing shard
    /digests    (N, 32)  copied from the shards
    /paths      (N,)     copied from the shards
    attributes  format, spec (JSON), key, shards (JSON: number of rows of each), shards_sha256 (of their names, and of
                the rows that do not count)

It is derived from the shards, and this package reads it only to verify it: HDF5 returns fill values, without an error,
for a source file that cannot be opened, even for lack of file handles, and the virtual dataset could refer to any file.
So its mapping is compared with the expected one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import CacheDamaged, CacheError
from featurecache.base.plain_files import UnfitFile, parse_json
from featurecache.extract.cache import shards
from featurecache.extract.cache.opening import damaged, open_index, open_shard
from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Since format 2 digests and paths are copies; virtual datasets read as zeros with more shards than file handles.
INDEX_FORMAT = 2
INDEX_FILE = "features.h5"
SHARDS_FOLDER = "shards"
# Rows of digests and paths in one HDF5 chunk.
CHUNK_ROWS = 1 << 14
# Paths of so many rows are kept from finding the longest until they are written: each shard is opened once.
MOST_KEPT_PATHS = 50_000
# The SHA-256 of the file is appended to it; it is computed block by block.
SUM_BYTES, HASHED_BYTES = 32, 1 << 24


@dataclass(frozen=True)
class ServedRows:
    """The rows (m,) that are read from one shard of n rows, and their digests (m, 32).

    is_alone: whether no other shard has a row of the same digest. revision: of the decode rules of these rows.
    """

    path: Path
    n: int
    rows: NDArray[np.int64]
    digests: NDArray[np.uint8]
    is_alone: bool
    revision: int = shards.FIRST_REVISION


def write_index_file(path: Path, spec: FeatureSpec, served: Sequence[ServedRows], *, withdrawn: str = "") -> None:
    """Write an index of the served rows of each shard, in shard order. Raises CacheError, OSError.

    withdrawn: the digest of the rows that do not count (`Snapshot.withdrawn`), empty if all do.
    """
    import h5py

    n = sum(len(part.rows) for part in served)
    layout = h5py.VirtualLayout((n, spec.feature_dim), spec.dtype)
    for part, start, stop, at in _runs(served):
        name, shape = f"{SHARDS_FOLDER}/{part.path.name}", (part.n, spec.feature_dim)
        layout[at : at + stop - start] = h5py.VirtualSource(name, "features", shape=shape, dtype=spec.dtype)[start:stop]
    with shards.new_file(path) as file:
        file.create_virtual_dataset("features", layout, fillvalue=np.nan)
        rows = min(n, CHUNK_ROWS)
        digests = file.create_dataset("digests", (n, 32), np.uint8, chunks=(rows, 32), fletcher32=True)
        stored = [_paths_of(part) for part in served] if n <= MOST_KEPT_PATHS else []
        longest = max(each.dtype.itemsize for each in stored) if stored else _longest_path(served)
        text = h5py.string_dtype("utf-8", longest)
        # Paths are padded to the longest; compressed, they need no more space than the digests.
        paths = file.create_dataset("paths", (n,), text, chunks=(rows,), compression=1, fletcher32=True)
        for number, (part, at) in enumerate(_places(served)):
            digests[at : at + len(part.rows)] = part.digests
            paths[at : at + len(part.rows)] = stored[number] if stored else _paths_of(part)
        shards.write_attributes(file, {"format": INDEX_FORMAT, "spec": spec.to_json(), "key": spec.key})
        shown = {part.path.name: len(part.rows) for part in served}
        shards.write_attributes(
            file, {"shards_sha256": shard_list_digest(shown, withdrawn), "shards": json.dumps(shown)}
        )
    with path.open("r+b") as written:
        digest = hashlib.file_digest(written, "sha256").digest()
        written.write(digest)


def is_index_of(attributes: Mapping[str, Any], paths: Iterable[Path], withdrawn: str) -> bool:
    """Whether an index with these attributes is complete, of this version, and of the rows of these shards that count.

    withdrawn: the digest of those that do not, empty if all do.
    """
    is_whole = attributes.get("format") == INDEX_FORMAT and "shards" in attributes
    expected = shard_list_digest((path.name for path in paths), withdrawn)
    return is_whole and bool(attributes.get("shards_sha256") == expected)


def shard_list_digest(names: Iterable[str], withdrawn: str = "") -> str:
    """Return the SHA-256 in hex of the names of shards, by which an index recognises the shards it was made from.

    withdrawn: the digest of their rows that do not count, empty if all do; it is the last line then.
    """
    return hashlib.sha256("\n".join([*names, *filter(None, [withdrawn])]).encode()).hexdigest()


def index_is_intact(path: Path) -> bool:
    """Whether an index matches the SHA-256 that is appended to it.

    HDF5 stores the mapping of a virtual dataset without a checksum and crashes on some flipped bits in it. So the
    SHA-256 is compared before the mapping is read; HDF5 ignores what is appended to a file.
    """
    left, found = path.stat().st_size - SUM_BYTES, hashlib.sha256()
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, HASHED_BYTES))):
            found.update(block)
            left -= len(block)
        return left == 0 and file.read() == found.digest()


def index_agrees(path: Path, spec: FeatureSpec, served: Sequence[ServedRows]) -> bool:
    """Whether an index refers to the served rows, each once, and to nothing else; no row is read through it.

    Raises CacheError if it cannot be read.
    """
    if not index_is_intact(path):
        return False
    n = sum(len(part.rows) for part in served)
    with open_index(path) as file:
        if not _is_made_like_an_index(file, (n, spec.feature_dim), np.dtype(spec.dtype), _longest_path(served)):
            return False
        runs = [(f"{SHARDS_FOLDER}/{p.path.name}", start, stop, at) for p, start, stop, at in _runs(served)]
        if sorted(_mapped(file["features"])) != sorted(runs):
            return False
        return all(
            np.array_equal(file["digests"][at : at + len(part.rows)], part.digests)
            and np.array_equal(file["paths"][at : at + len(part.rows)], _paths_of(part))
            for part, at in _places(served)
        )


def _is_made_like_an_index(file: Any, shape: tuple[int, int], dtype: Any, text: int) -> bool:
    import h5py

    if sorted(file.id) != [b"digests", b"features", b"paths"]:
        return False
    if any(file.id.links.get_info(name).type != h5py.h5l.TYPE_HARD for name in file.id):
        return False
    wanted = {"features": (shape, dtype), "digests": ((shape[0], 32), np.dtype("u1")), "paths": (shape[:1], f"S{text}")}
    for name, (sides, kind) in wanted.items():
        dataset = h5py.h5o.open(file.id, name.encode())
        if not isinstance(dataset, h5py.h5d.DatasetID):
            return False
        plan = dataset.get_create_plist()
        is_virtual = plan.get_layout() == h5py.h5d.VIRTUAL
        if is_virtual != (name == "features") or plan.get_external_count():
            return False
        if dataset.get_space().get_simple_extent_dims(True) != sides or dataset.dtype != np.dtype(kind):
            return False
    return True


def _mapped(features: Any) -> Iterator[tuple[str, int, int, int]]:
    """Yield the sources of a virtual dataset of whole rows: (file, first row, end row, first row in the index)."""
    for source in features.virtual_sources():
        (at, left), (end, right) = source.vspace.get_select_bounds()
        (start, first), (last, final) = source.src_space.get_select_bounds()
        n = last - start + 1
        is_whole = source.src_space.get_select_npoints() == source.vspace.get_select_npoints() == n * (right + 1)
        is_whole &= (left, first, right, end - at + 1) == (0, 0, final, n) and right + 1 == features.shape[1]
        yield (source.file_name if is_whole and source.dset_name == "features" else "", start, last + 1, at)


def _runs(served: Sequence[ServedRows]) -> Iterator[tuple[ServedRows, int, int, int]]:
    """Yield the runs of consecutive rows of each shard: (shard, first row, end row, first row in the index)."""
    for part, at in _places(served):
        breaks = np.flatnonzero(np.diff(part.rows) != 1) + 1
        for first, last in zip([0, *breaks], [*breaks, len(part.rows)], strict=True):
            if first < last:
                yield part, int(part.rows[first]), int(part.rows[last - 1]) + 1, at + int(first)


def _places(served: Sequence[ServedRows]) -> Iterator[tuple[ServedRows, int]]:
    """Yield every shard and its first row in the index."""
    at = 0
    for part in served:
        yield part, at
        at += len(part.rows)


def _paths_of(part: ServedRows) -> NDArray[np.bytes_]:
    with open_shard(part.path) as file:
        paths: NDArray[np.bytes_] = file["paths"][:][part.rows]
    return paths


def _longest_path(served: Sequence[ServedRows]) -> int:
    """Return the length of the longest path in bytes, padding included."""
    longest = 1
    for part in served:
        with open_shard(part.path) as file:
            longest = max(longest, file["paths"].dtype.itemsize)
    return longest


class IndexState:
    """The shards that features.h5 refers to, compared with those that are present.

    withdrawn: the digest of their rows that do not count (`Snapshot.withdrawn`).
    shown: the number of rows of each shard. gone: those of missing shards. is_current: it was made from the present
    shards and these rows. is_broken: it is not an index. closed: the error if it cannot be read, else empty.
    """

    def __init__(self, folder: Path, present: Sequence[Path], withdrawn: str) -> None:
        self.path = folder / INDEX_FILE
        self.shown: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.is_current = self.is_broken = False
        self.closed = ""
        if not os.path.lexists(self.path):
            return
        try:
            with open_index(self.path) as file:
                attributes = shards.read_attributes(file)
            self.is_current = is_index_of(attributes, present, withdrawn)
            self.shown = _counts(self.path, attributes.get("shards", "{}"))
        except CacheDamaged:
            self.is_broken = True
        except CacheError as error:
            self.closed = str(error)
        names = {path.name for path in present}
        self.gone = {name: n for name, n in self.shown.items() if name not in names}


def _counts(path: Path, text: object) -> dict[str, int]:
    """Return the number of rows of each shard according to an index. Raises CacheDamaged if it has no such numbers."""
    try:
        counts = parse_json(str(text))
    except UnfitFile as error:
        raise damaged(path, str(error)) from error
    if not isinstance(counts, dict) or not all(type(n) is int and n >= 0 for n in counts.values()):
        raise damaged(path, "what it shows cannot be read")
    return {name: n for name, n in counts.items() if Path(name).name == name}
