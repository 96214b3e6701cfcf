"""The image format of files whose names do not say it, by their first bytes; in the memo until a file changes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from featurecache.base.errors import CacheUnwritable
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.images.formats import FORMATS, N_FIRST_BYTES, Format, format_of_bytes
from featurecache.extract.images.sources import open_sample

N_THREADS = 8
# Files read between two writes of the memo.
BLOCK = 2048
NO_IMAGE = b"none"
BY_NAME = {each.name.encode(): each for each in FORMATS} | {NO_IMAGE: None}


def read_formats(paths: Sequence[str], cache_root: Path | None = None) -> list[Format | OSError | None]:
    """Return the format of each file, None where it is no image, or the error of one that cannot be read.

    cache_root: where the memo is that knows files which have not changed; None to read all.
    """
    if not paths:
        return []
    memo = _memo(cache_root)
    with ThreadPoolExecutor(N_THREADS, thread_name_prefix="first bytes") as pool:
        found: list[Format | OSError | None] = []
        for start in range(0, len(paths), BLOCK):
            found += _read_block(paths[start : start + BLOCK], memo, pool)
    if memo is not None:
        memo.__exit__()
    return found


def _memo(cache_root: Path | None) -> Memo | None:
    if cache_root is None:
        return None
    try:
        return Memo(cache_root)
    except CacheUnwritable:
        return Memo(cache_root, read_only=True)


def _read_block(paths: Sequence[str], memo: Memo | None, pool: ThreadPoolExecutor) -> list[Format | OSError | None]:
    if memo is None:
        return [found for found, _ in pool.map(_read_format, paths)]
    names = [os.fsencode(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (links are named as the user did)
    known = memo.known_formats(names)
    found: list[Format | OSError | None] = [None] * len(paths)
    unread: list[int] = []
    for i, (path, name) in enumerate(zip(paths, names, strict=True)):
        state, format_name = known.get(name, (None, b""))
        if format_name in BY_NAME and state == _state(path):
            found[i] = BY_NAME[format_name]
        else:
            unread.append(i)
    read_ns = time.time_ns()
    fresh: list[tuple[bytes, FileState, bytes]] = []
    for i, (result, seen) in zip(unread, pool.map(_read_format, [paths[i] for i in unread]), strict=True):
        found[i] = result
        if seen is not None and not isinstance(result, OSError):
            fresh.append((names[i], seen, result.name.encode() if result else NO_IMAGE))
    memo.remember_formats(fresh, read_ns=read_ns)
    return found


def _state(path: str) -> FileState | None:
    try:
        return FileState.of(os.stat(path))  # noqa: PTH116 (hot loop)
    except OSError:
        return None


def _read_format(path: str) -> tuple[Format | OSError | None, FileState | None]:
    try:
        with open_sample(path) as file:
            state = FileState.of(os.fstat(file.fileno()))
            return format_of_bytes(file.read(N_FIRST_BYTES)), state
    except OSError as error:
        return error, None
