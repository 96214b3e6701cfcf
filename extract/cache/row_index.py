"""The row index rows.index: the shard and row of every digest, sorted, so that opening a large cache reads no shard.

    8 bytes     magic
    2 x uint64  the number of bytes of the JSON, and of rows M
    JSON        spec, state of the cache folder, and per shard its rows, decode revision and `alone`
    32 bytes    for each block of 102 rows: its first digest, then 8 bytes for each: of the SHA-256 of the block
    32 bytes    the SHA-256 of everything before
    M x 40      digest (32), shard (uint32), row (uint32), sorted by digest; all numbers little-endian

It is derived from the shards and counts only for the state from which it was made: the names, sizes and times of all
shards and of the lists of withdrawn rows. What is read of it is compared with its checksums, and a row that is found
there is compared with the shard when it is read. A reader keeps the file open, so that it has the same rows after
another process has replaced it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.files import replacing_file
from featurecache.base.plain_files import UnfitFile, check_plain_file, parse_json
from featurecache.extract.cache.names import NameTable, Places, find_names, heads_of
from featurecache.extract.cache.spec import FeatureSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW_INDEX_FILE = "rows.index"
MAGIC = b"fcrows1\n"
HEAD = struct.Struct("<8sQQ")
SUM_BYTES, BLOCK_SUM_BYTES, DIGEST_BYTES = 32, 8, 32
RECORD = np.dtype([("name", "S32"), ("shard", "<u4"), ("row", "<u4")])
# 4 KiB, a page of most disks; the table of blocks has a hundredth of the size of the rows.
BLOCK_ROWS = 102
BLOCK_BYTES = BLOCK_ROWS * RECORD.itemsize
TABLE_BYTES = SUM_BYTES + BLOCK_SUM_BYTES
# Blocks that are in memory at the same time: 32 MiB.
N_BLOCKS_AT_ONCE = 1 << 13
MOST_JSON_BYTES = 1 << 26

# The name, size, modification and change time of a file.
FileEntry = tuple[str, int, int, int]


class UnfitIndex(Exception):
    """The row index does not match its checksums, or cannot be read: the shards are read instead."""


@dataclass(frozen=True)
class FolderState:
    """The files of a cache folder that determine its rows: shards, in order, and lists of withdrawn rows."""

    shards: tuple[FileEntry, ...]
    withdrawn: tuple[FileEntry, ...]

    @classmethod
    def of(cls, paths: Sequence[Path], withdrawn: Sequence[Path]) -> FolderState:
        """Return the state of these files. Raises OSError if one is gone."""
        return cls(tuple(map(_entry, paths)), tuple(map(_entry, withdrawn)))

    @property
    def n_bytes(self) -> int:
        """The size of all shards."""
        return sum(size for _, size, *_ in self.shards)

    @property
    def changed_ns(self) -> int:
        """The time of the last change of any of the files, 0 if there are none."""
        return max((max(entry[2:]) for entry in self.shards + self.withdrawn), default=0)


@dataclass(frozen=True)
class RowFacts:
    """What is known of the rows as a whole.

    lengths, revisions: the number of rows of each shard, and the decode revision by which they were read.
    alone: whether all rows of a shard are served, and no other row has one of these digests. n_withdrawn: rows of older
    decode rules that do not count. withdrawn: the SHA-256 of their digests, in hex; empty if there are none.
    """

    lengths: tuple[int, ...]
    revisions: tuple[int, ...]
    alone: tuple[bool, ...]
    n_withdrawn: int
    withdrawn: str


class RowIndex:
    """The rows of an open row index. Raises UnfitIndex from every method if its blocks do not match their checksums."""

    def __init__(self, path: Path, state: FolderState | None = None) -> None:
        """Open the file and read its table of blocks; not if it has more rows than fit into the shards of a state.

        Raises UnfitIndex, and OSError if it cannot be opened.
        """
        try:
            check_plain_file(path, path.parent)
        except UnfitFile as error:
            raise UnfitIndex(str(error)) from error
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)
        magic, n_json, n = HEAD.unpack(self._read(0, HEAD.size))
        self._n: int = n
        n_blocks = -(-self._n // BLOCK_ROWS)
        self._start = HEAD.size + n_json + n_blocks * TABLE_BYTES + SUM_BYTES
        n_bytes = self._start + self._n * RECORD.itemsize
        if magic != MAGIC or n_json > MOST_JSON_BYTES or n_bytes != os.fstat(self._file).st_size:
            raise UnfitIndex("it is not a row index, or not complete")
        if state is not None and self._n * DIGEST_BYTES > state.n_bytes:
            raise UnfitIndex("it is of a larger cache")
        head = self._read(0, self._start)
        if hashlib.sha256(head[:-SUM_BYTES]).digest() != head[-SUM_BYTES:]:
            raise UnfitIndex("it does not match its checksum")
        table = head[HEAD.size + n_json : -SUM_BYTES]
        self._firsts = np.frombuffer(table[: n_blocks * SUM_BYTES], dtype="S32")
        self._heads = heads_of(self._firsts)
        self._sums = table[n_blocks * SUM_BYTES :]
        try:
            about = parse_json(head[HEAD.size : HEAD.size + n_json])
            self.spec: object = about["spec"]
            self.state: object = about["state"]
            self.facts = _facts(about["facts"])
        except (UnfitFile, KeyError, TypeError) as error:
            raise UnfitIndex("it is of another version") from error

    def __len__(self) -> int:
        return self._n

    def is_of(self, spec: FeatureSpec, state: FolderState) -> bool:
        """Whether the index was made from a cache of this spec in this state."""
        return (
            self.spec == spec.to_json()
            and self.state == json.loads(json.dumps(asdict(state)))
            and len(self.facts.lengths) == len(state.shards)
        )

    def find(self, wanted: NDArray[np.bytes_]) -> Places:
        """Return the shard and row of N digests; only the blocks in which they would be are read."""
        n = len(wanted)
        places = Places(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool))
        blocks = self._blocks_of(wanted)
        order = np.argsort(blocks, kind="stable")
        needed, starts = np.unique(blocks[order], return_index=True)
        for at in range(0, len(needed) if len(self) else 0, N_BLOCKS_AT_ONCE):
            end = at + N_BLOCKS_AT_ONCE
            mine = order[starts[at] : starts[end] if end < len(starts) else n]
            rows = self._rows_of(needed[at:end])
            names = np.ascontiguousarray(rows["name"])
            place, found = find_names(wanted[mine], names, heads_of(names))
            places.found[mine] = found
            places.shard[mine] = np.where(found, rows["shard"][place], 0)
            places.row[mine] = np.where(found, rows["row"][place], 0)
        return places

    def table(self) -> NameTable:
        """Return all rows."""
        n_blocks = len(self._firsts)
        parts = [
            self._rows_of(np.arange(at, min(at + N_BLOCKS_AT_ONCE, n_blocks)))
            for at in range(0, n_blocks, N_BLOCKS_AT_ONCE)
        ]
        rows = np.concatenate([np.empty(0, dtype=RECORD), *parts])
        return NameTable(
            np.ascontiguousarray(rows["name"]), rows["shard"].astype(np.int64), rows["row"].astype(np.int64)
        )

    def _blocks_of(self, wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the block (N,) in which each of N digests would be."""
        if not len(self):
            return np.zeros(len(wanted), dtype=np.int64)
        sought = heads_of(wanted)
        found = np.searchsorted(self._heads, sought, side="right") - 1
        alike = np.flatnonzero(self._heads[found.clip(min=0)] == sought)
        if len(alike):
            found[alike] = np.searchsorted(self._firsts, wanted[alike], side="right") - 1
        return found.clip(min=0)

    def _rows_of(self, blocks: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows of some blocks, in order."""
        parts = []
        for run in np.split(blocks, np.flatnonzero(np.diff(blocks) != 1) + 1):
            first, end = int(run[0]), int(run[-1]) + 1
            start, stop = first * BLOCK_BYTES, min(end * BLOCK_BYTES, self._n * RECORD.itemsize)
            data = self._read(self._start + start, stop - start)
            sums = b"".join(_sums(data))
            if sums != self._sums[first * BLOCK_SUM_BYTES : end * BLOCK_SUM_BYTES]:
                raise UnfitIndex("a block does not match its checksum")
            parts.append(data)
        rows = np.frombuffer(b"".join(parts), dtype=RECORD)
        if len(rows) and (rows["row"] >= self._lengths[rows["shard"].clip(max=len(self._lengths) - 1)]).any():
            raise UnfitIndex("it has rows that no shard has")
        return rows

    @cached_property
    def _lengths(self) -> NDArray[np.int64]:
        return np.array([*self.facts.lengths, 0], dtype=np.int64)

    def _read(self, at: int, n: int) -> bytes:
        try:
            data = _pread(self._file, n, at)
        except OSError as error:
            raise UnfitIndex(f"it cannot be read: {error.strerror}") from error
        if len(data) != n:
            raise UnfitIndex("it is not complete")
        return data


def open_row_index(folder: Path, spec: FeatureSpec, state: FolderState) -> RowIndex | None:
    """Return the row index of a cache folder if it was made from this state; None if the shards have to be read."""
    try:
        index = RowIndex(folder / ROW_INDEX_FILE, state)
    except (OSError, UnfitIndex):
        return None
    return index if index.is_of(spec, state) else None


def write_row_index(folder: Path, spec: FeatureSpec, state: FolderState, facts: RowFacts, table: NameTable) -> None:
    """Replace the row index of a cache folder. Raises OSError if it cannot be written."""
    about = {"spec": spec.to_json(), "state": asdict(state), "facts": asdict(facts)}
    text = json.dumps(about).encode()
    firsts = np.ascontiguousarray(table.names[::BLOCK_ROWS]).tobytes()
    head = HEAD.pack(MAGIC, len(text), len(table)) + text + firsts
    n_blocks = -(-len(table) // BLOCK_ROWS)
    with replacing_file(folder / ROW_INDEX_FILE) as temporary, temporary.open("wb") as file:
        file.seek(len(head) + n_blocks * BLOCK_SUM_BYTES + SUM_BYTES)
        sums = bytearray()
        for part in _parts(table):
            file.write(part)
            sums += b"".join(_sums(part))
        file.seek(0)
        file.write(head + sums + hashlib.sha256(head + sums).digest())


def _parts(table: NameTable) -> Iterator[bytes]:
    """Yield the records of whole blocks."""
    n = N_BLOCKS_AT_ONCE * BLOCK_ROWS
    for at in range(0, len(table), n):
        rows = np.empty(min(n, len(table) - at), dtype=RECORD)
        part = slice(at, at + n)
        rows["name"], rows["shard"], rows["row"] = table.names[part], table.shard_of[part], table.row_of[part]
        yield rows.tobytes()


def _sums(data: bytes) -> Iterator[bytes]:
    """Yield the checksum of each block of the data, of which the last may be shorter."""
    view = memoryview(data)
    for at in range(0, len(data), BLOCK_BYTES):
        yield hashlib.sha256(view[at : at + BLOCK_BYTES]).digest()[:BLOCK_SUM_BYTES]


def _facts(values: Any) -> RowFacts:
    """Return the facts in a JSON document. Raises TypeError, KeyError."""
    lengths, revisions, alone = (tuple(values[name]) for name in ("lengths", "revisions", "alone"))
    numbers = [*lengths, *revisions, values["n_withdrawn"]]
    if not all(type(n) is int and 0 <= n < 1 << 32 for n in numbers) or not all(type(x) is bool for x in alone):
        raise TypeError("a number of rows or a revision is none")
    if not len(lengths) == len(revisions) == len(alone) or not isinstance(values["withdrawn"], str):
        raise TypeError("its shards are described incompletely")
    return RowFacts(lengths, revisions, alone, values["n_withdrawn"], values["withdrawn"])


def _entry(path: Path) -> FileEntry:
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _pread(file: int, n: int, at: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(file, n, at)
    os.lseek(file, at, os.SEEK_SET)
    return os.read(file, n)
