"""The memo: digests of files and resolved requests, in one SQLite file next to the caches, `digests.sqlite`.

    digests     (path, size, mtime_ns, ctime_ns) -> SHA-256, so that a later run opens no image;
                or the image format of a file whose name does not say it
    requests    FeatureRequest -> FeatureSpec, so that a later run loads no backbone
    uses        (cache folder, IMAGES) -> time of the last use, for `cache info`
    refused     (SHA-256, key) -> why an image has no row in a cache: `classify` leaves it out without an error

All of it is derived: deleting the file costs time, nothing else, and so does a lock of another program on it. A file
that changed within the resolution of the clock is not remembered (git's "racily clean" rule), so no edit is missed. The
change time is stored because it differs even for a file that was replaced by one of the same size and modification
time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from featurecache.base.errors import CacheUnwritable
from featurecache.base.files import make_folder
from featurecache.base.plain_files import UnfitFile, check_plain_file
from featurecache.base.progress import LOGGER
from featurecache.base.text import printable
from featurecache.extract.cache.memo_checks import check_schema, is_damaged, is_locked

FILE_NAME = "digests.sqlite"
# Not less than the resolution of any file system's clock (FAT: 2 s), so that a later edit always has another time.
RACY_NS = 2_000_000_000
# Long enough for another process to finish a batch of inserts.
LOCK_TIMEOUT_S = 20.0
# Paths of one SELECT: every version of SQLite takes 999 values.
SELECTED = 500
# Of the year 9999, the last one of Python's calendar.
LAST_SECOND = 253_402_300_799

_SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, sha256 BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (request TEXT PRIMARY KEY, answer TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (sha256 BLOB, key TEXT, reason TEXT, PRIMARY KEY (sha256, key)) WITHOUT ROWID;
"""
_IS_DIGEST = "typeof(sha256) = 'blob' AND length(sha256) = 32"
# Behind a path, where a row has the format of the file in place of its SHA-256: for earlier versions that is no digest,
# while a table of its own would be damage to them.
_FORMAT_OF = b"\0"
_IS_FORMAT = "typeof(sha256) = 'blob' AND length(sha256) < 32"
_FILES = "SELECT path, size, mtime_ns, ctime_ns, sha256 FROM digests WHERE"
# The columns of many rows as one; what is a blob is not read as text.
_BLOCK = f"""SELECT CAST(group_concat(path, x'00') AS BLOB), group_concat(size), group_concat(mtime_ns),
    group_concat(ctime_ns), CAST(group_concat(sha256, '') AS BLOB)
    FROM ({_FILES} path BETWEEN ? AND ? AND {_IS_DIGEST} ORDER BY path LIMIT ?)"""
# Created when first needed: a memo of an older version, on a read-only disk, can still be used for everything else.
_USES = "CREATE TABLE IF NOT EXISTS uses (cache TEXT, images BLOB, used INTEGER, PRIMARY KEY (cache, images))"


class FileState(NamedTuple):
    """The state by which a change of a file is detected without reading it: size in bytes, times in nanoseconds."""

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """Return the state in an `os.stat` result."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_settled(self, now_ns: int) -> bool:
        """Whether every later change of the file will change its state."""
        return max(self.mtime_ns, self.ctime_ns) < now_ns - RACY_NS


# What is remembered of a file: its state as in FileState, and its SHA-256.
RememberedFile = tuple[tuple[int, int, int], bytes]
# The same with its path before it: (path, size, mtime_ns, ctime_ns, SHA-256).
MemoRow = tuple[bytes, int, int, int, bytes]


class Memo:
    """The memo of one cache folder; a context manager.

    A damaged file is replaced by an empty one, and in place of a locked one an empty memo in memory is used, with a
    warning in the log. Raises CacheUnwritable if the folder cannot be written. With `read_only` a missing, damaged or
    unwritable file is an empty memo and stays as it is.
    """

    def __init__(self, cache_root: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.path = Path(cache_root) / FILE_NAME
        self._is_read_only = read_only
        try:
            check_plain_file(self.path, self.path.parent)
            is_ours = True
        except (OSError, UnfitFile):  # missing, or a link to another database, which must not be written to
            is_ours = False
        if read_only and not is_ours:
            self._database = _open(":memory:")
            return
        try:
            if not is_ours:
                self.path.unlink(missing_ok=True)
            if not read_only:
                make_folder(self.path.parent)
            self._database = self._open_file()
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.OperationalError) and is_locked(error):
                self._go_on_in_memory("is locked by another program")
                return
            if read_only:
                self._database = _open(":memory:")
                return
            raise CacheUnwritable(
                f"The cache folder '{self.path.parent}' cannot be written: {error}. "
                "Choose another with --cache, or correct its permissions or free space."
            ) from error

    def _open_file(self) -> sqlite3.Connection:
        try:
            return _open(self.path)
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            if self._is_read_only:
                return _open(":memory:")
            self.path.unlink(missing_ok=True)
            return _open(self.path)

    def _go_on_in_memory(self, reason: str) -> None:
        """Replace the memo by an empty one in memory: nothing more is known or kept, which costs time."""
        logging.getLogger(LOGGER).warning(
            "'%s' %s: this run reads files again instead of looking them up there.", printable(self.path), reason
        )
        self._database = _open(":memory:")

    def __enter__(self) -> Memo:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def known_digests(self, paths: Sequence[bytes]) -> dict[bytes, RememberedFile]:
        """Return what is remembered of these files: path -> (state, SHA-256); it may have that of other files too."""
        return _by_path(self.known_files(paths))

    def known_files(self, paths: Sequence[bytes]) -> list[MemoRow]:
        """Return the rows of these files that have a SHA-256; in the order of the paths where these are all sorted."""
        return self._known(paths, _IS_DIGEST)

    def known_block(self, paths: Sequence[bytes]) -> tuple[list[tuple[int, int, int]], bytes] | None:
        """Return states and SHA-256 (32 N bytes) of N files in sorted order; None unless it has just these.

        It is one row of SQLite, which is found without the interpreter lock.
        """
        found = self._read(_BLOCK, (paths[0], paths[-1], len(paths) + 1)) if paths else []
        if not found or found[0][0] != b"\0".join(paths):
            return None
        try:
            states = list(zip(*(map(int, column.split(",")) for column in found[0][1:4]), strict=True))
        except (AttributeError, ValueError):  # a number that is none
            return None
        digests: bytes = found[0][4]
        return (states, digests) if len(states) == len(paths) and len(digests) == 32 * len(paths) else None

    def known_formats(self, paths: Sequence[bytes]) -> dict[bytes, RememberedFile]:
        """Return path -> (state, format) of the files whose format `remember_formats` stored."""
        found = _by_path(self._known([path + _FORMAT_OF for path in paths], _IS_FORMAT))
        return {path.removesuffix(_FORMAT_OF): remembered for path, remembered in found.items()}

    def remember_formats(self, rows: Iterable[tuple[bytes, FileState, bytes]], *, read_ns: int) -> None:
        """Store (path, state, format) of the files whose state had settled by `read_ns`, before any was read."""
        self.remember_digests(((path + _FORMAT_OF, state, name) for path, state, name in rows), read_ns=read_ns)

    def _known(self, paths: Sequence[bytes], wanted: str) -> list[MemoRow]:
        """Return the rows of these paths, read as a whole where few others lie between, as in a sorted data set."""
        if not paths:
            return []
        most = 2 * len(paths)
        rows = self._read(f"{_FILES} path BETWEEN ? AND ? AND {wanted} LIMIT ?", (min(paths), max(paths), most + 1))
        if len(rows) > most:
            rows = []
            for start in range(0, len(paths), SELECTED):
                part = tuple(paths[start : start + SELECTED])
                rows += self._read(f"{_FILES} path IN ({','.join('?' * len(part))}) AND {wanted}", part)
        return rows

    def paths(self) -> Iterator[bytes]:
        """Yield the paths of all remembered files."""
        for (path,) in self._read(f"SELECT path FROM digests WHERE typeof(path) = 'blob' AND {_IS_DIGEST}"):
            yield path

    def forget(self, paths: Iterable[bytes]) -> None:
        """Remove what is remembered of these files, whose content is another."""
        self._write("DELETE FROM digests WHERE path = ?", [(path,) for path in paths])

    def shrink(self) -> None:
        """Return the space of what was removed to the disk; nothing changes if another program uses the file."""
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("VACUUM")

    def remember_digests(self, rows: Iterable[tuple[bytes, FileState, bytes]], *, read_ns: int) -> None:
        """Store (path, state, SHA-256) of the files whose state had settled by `read_ns`, before any was read."""
        settled = [(path, *state, digest) for path, state, digest in rows if state.is_settled(read_ns)]
        self._write("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", settled)

    def answer(self, request: str) -> str | None:
        """Return what `request` resolved to last time, as JSON, or None."""
        rows = self._read("SELECT answer FROM requests WHERE request = ?", (request,))
        return str(rows[0][0]) if rows else None

    def answers(self) -> list[tuple[str, str]]:
        """Return all remembered requests: (request, answer), both as JSON."""
        wanted = "typeof(request) = 'text' AND typeof(answer) = 'text'"
        return self._read(f"SELECT request, answer FROM requests WHERE {wanted} ORDER BY request")

    def remember_answer(self, request: str, answer: str) -> None:
        """Store what `request` resolved to; both as JSON."""
        self._write("INSERT OR REPLACE INTO requests VALUES (?, ?)", [(request, answer)])

    def refusals(self, key: str) -> dict[bytes, str]:
        """Return SHA-256 -> reason of the images that the last attempt refused for the cache of this key.

        Limits and libraries change, so an image that has a row in the cache is not refused, whatever is stored here.
        """
        wanted = "typeof(sha256) = 'blob' AND typeof(reason) = 'text'"
        return dict(self._read(f"SELECT sha256, reason FROM refused WHERE key = ? AND {wanted}", (key,)))

    def remember_refusals(self, reasons: Mapping[tuple[bytes, str], str]) -> None:
        """Store why images have no row in a cache: (SHA-256, key) -> reason."""
        self._write("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", [(*names, r) for names, r in reasons.items()])

    def remember_use(self, folders: Iterable[str], images: bytes, used: int) -> None:
        """Store that these images used these cache folders, at `used` seconds since 1970."""
        rows = [(folder, images, used) for folder in folders]
        self._write("INSERT OR REPLACE INTO uses VALUES (?, ?, ?)", rows, prepare=_USES)

    def uses(self) -> list[tuple[str, bytes, int]]:
        """Return every remembered (cache folder, images, seconds since 1970), the latest first."""
        wanted = f"typeof(images) = 'blob' AND typeof(used) = 'integer' AND used BETWEEN 0 AND {LAST_SECOND}"
        return self._read(f"SELECT cache, images, used FROM uses WHERE {wanted} ORDER BY used DESC, images")

    def _read(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._database.execute(statement, values).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # Damage that opening did not detect, a lock, or a file of another version: nothing is remembered.
            self._recover(error)
            return []

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]], *, prepare: str | None = None) -> None:
        if not rows:
            return
        try:
            with self._database:
                if prepare is not None:
                    self._database.execute(prepare)
                self._database.executemany(statement, rows)
        except sqlite3.DatabaseError as error:
            # A memo that cannot be written (read-only cache, full disk, a lock) costs time, no results.
            self._recover(error)

    def _recover(self, error: Exception) -> None:
        """After an error: go on in memory if the file is locked, and with an empty file if it is damaged."""
        if isinstance(error, sqlite3.OperationalError) and is_locked(error):
            self._close()
            self._go_on_in_memory("is locked by another program")
        elif not isinstance(error, sqlite3.OperationalError) and is_damaged(self._database):
            self._close()
            if self._is_read_only:
                self._go_on_in_memory("is damaged")
                return
            try:
                self.path.unlink(missing_ok=True)
                self._database = _open(self.path)
            except (OSError, sqlite3.Error):
                self._go_on_in_memory("is damaged and cannot be replaced")

    def _close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.close()


def _by_path(rows: Iterable[MemoRow]) -> dict[bytes, RememberedFile]:
    return {row[0]: (row[1:4], row[4]) for row in rows}


def _open(path: str | Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)
    try:
        database.execute("PRAGMA trusted_schema = OFF")
        check_schema(database)
        database.executescript(_SCHEMA)
    except (sqlite3.Error, UnicodeDecodeError):
        database.close()
        raise
    return database
