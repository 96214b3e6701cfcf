"""Opening of the HDF5 files of a cache, with one exception for each kind of failure.

CacheDamaged  the content is not that of a shard: checksum, signature or structure; `verify --repair` moves it away
ShardGone     another process has removed the file, as `compact` does after merging: list the shards again
CacheError    no permission, too many open files, a failing disk: the shard may be intact, so it is not changed
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from featurecache.base.errors import CacheDamaged, CacheError, ShardGone
from featurecache.base.plain_files import UnfitFile, check_plain_file
from featurecache.base.quoting import as_command
from featurecache.base.text import printable
from featurecache.extract.cache.shard_structure import Unfit, check_attributes, check_shard_file

GONE = {errno.ENOENT, errno.ESTALE}
# Errors of the system for an impossible address, which HDF5 has read from the file.
IMPOSSIBLE = {0, errno.EINVAL, errno.EFBIG, errno.EOVERFLOW}
# Of HDF5's message about a file that a program has opened for writing, or had when it was killed.
OPEN_FOR_WRITING = "already open for write"
# Without a lock first, then as a plain h5py.File of this process may have it: HDF5 refuses to open a file differently.
LOCKINGS = (False, None, True, "best-effort")

# Files that changed within the resolution of a clock may change once more without another time (FAT: 2 s).
SETTLED_NS = 2_000_000_000
# Files whose structure this process has checked, and that have not changed since: a command opens each several times.
MOST_CHECKED = 4096

Check = Callable[[Any, int], None]
FileState = tuple[int, ...]
_CHECKED: set[tuple[Check, FileState]] = set()


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[Any]:
    """Open a shard and check its structure; an error of HDF5 becomes one sentence that names the file.

    Raises CacheDamaged, ShardGone, and CacheError for a file that may be intact but cannot be read.
    """
    with _open(path, path.parent, check_shard_file) as file:
        yield file


@contextlib.contextmanager
def open_index(path: Path) -> Iterator[Any]:
    """Open an index and check its attributes; raises the errors of `open_shard`."""
    with _open(path, path.parent, check_attributes) as file:
        yield file


@contextlib.contextmanager
def _open(path: Path, root: Path, check: Check) -> Iterator[Any]:
    try:
        check_plain_file(path, root)
        before = settled_state(path)
        with _open_as_it_is_open(path) as file:
            if before is None or before != settled_state(path):
                _check(path, file, check)
            elif (check, before) not in _CHECKED:
                _check(path, file, check)
                _remember_checked(check, before)
            yield file
    except UnfitFile as error:
        raise damaged(path, str(error)) from error
    except (OSError, RuntimeError) as error:
        raise _as_cache_error(path, error) from error


def settled_state(path: Path) -> FileState | None:
    """Return by what a change of a file is noticed; None of one that changed just now. Raises OSError."""
    found = path.stat()
    changed_ns = found.st_mtime_ns, found.st_ctime_ns
    is_settled = max(changed_ns) < time.time_ns() - SETTLED_NS
    return (found.st_dev, found.st_ino, found.st_size, *changed_ns) if is_settled else None


def _remember_checked(check: Check, state: FileState) -> None:
    if len(_CHECKED) >= MOST_CHECKED:
        _CHECKED.clear()
    _CHECKED.add((check, state))


def _open_as_it_is_open(path: Path) -> Any:
    """Open the file for reading, without a lock unless this process has it open with one, as a notebook may."""
    import h5py

    for locking in LOCKINGS:
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "lock" not in str(error) or "flag values don't match" not in str(error):
                raise
    raise CacheError(f"'{printable(path)}' is open in this process in a mode without other readers. Close it there.")


def _check(path: Path, file: Any, check: Check) -> None:
    try:
        check(file, path.stat().st_size)
    except Unfit as error:
        raise damaged(path, str(error)) from error
    except (OSError, RuntimeError):
        raise
    except Exception as error:
        raise damaged(path, f"what it is made of cannot be read: {reason_of(error)}") from error


def _as_cache_error(path: Path, error: OSError | RuntimeError) -> CacheError:
    number = getattr(error, "errno", None) or 0
    if number in GONE:
        return ShardGone(f"'{printable(path)}' is gone. Run the same command again: what was merged has another name.")
    if OPEN_FOR_WRITING in str(error):
        return CacheError(
            f"The shard '{printable(path)}' is open for writing in another program. Close it there; if that program "
            "was killed, move this file away and run extract again: only its rows are redone."
        )
    if number in IMPOSSIBLE:
        return damaged(path, reason_of(error))
    more = "" if isinstance(error, PermissionError) else " It may be whole; nothing was changed."
    return CacheError(f"The shard '{printable(path)}' cannot be read: {reason_of(error)}.{more}")


def reason_of(error: BaseException) -> str:
    """Return the reason of an error of HDF5 or of the system, as a clause."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if "filter returned failure" in str(error):
        return "a checksum does not match"
    return (str(error).splitlines() or [type(error).__name__])[0]


def damaged(path: Path, reason: str) -> CacheDamaged:
    """Return the error for a damaged shard, with the command that repairs the cache."""
    command = as_command(["featurecache", "cache", "verify", "--repair", "--cache", str(path.parent.parent.parent)])
    error = CacheDamaged(
        f"The shard '{printable(path)}' is damaged ({printable(reason)}). Run '{printable(command)}' and then extract "
        "again: only its rows are redone."
    )
    error.reason = reason
    return error
