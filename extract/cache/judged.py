"""The rows of older decode rules that were judged by the present ones: their images are not judged again.

    <cache folder>/judged-<revision>-<16 hex digits>.digests      the rows that stay: the rules of the revision read the
                                                                  image alike
    <cache folder>/withdrawn-<revision>-<16 hex digits>.digests   the older rows that do not count: these rules refuse
                                                                  the image

Each holds digests of 32 bytes, and then a SHA-256 of them. A file is never changed: every process adds its own, so that
none needs a lock, and where there are many they are first published as one and then removed. They are derived: a file
whose SHA-256 does not match is ignored, and its images are judged once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import CacheError
from featurecache.base.files import replacing_file
from featurecache.base.plain_files import UnfitFile, check_plain_file
from featurecache.base.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

JUDGED, WITHDRAWN = "judged", "withdrawn"
SUFFIX = ".digests"
NAME = re.compile(rf"({JUDGED}|{WITHDRAWN})-([1-9][0-9]{{0,5}})-[0-9a-f]{{16}}{re.escape(SUFFIX)}")
DIGEST_BYTES = 32
# 33 million digests; a larger file is no file of ours.
MOST_BYTES = 1 << 30
# With so many files of one kind and revision, the next process to add one merges them.
MOST_FILES = 16
# Attempts to list the files while another process merges some.
N_LISTINGS = 10

Withdrawn = list[tuple[int, "NDArray[np.uint8]"]]


def read_judged(folder: Path, revision: int) -> NDArray[np.uint8]:
    """Return the digests (n, 32) that were judged to be read alike by this revision; what cannot be read is ignored."""
    found = [np.empty((0, DIGEST_BYTES), dtype=np.uint8)]
    with contextlib.suppress(OSError):
        found += [digests for of, digests in _read_all(folder, JUDGED)[1] if of == revision]
    return np.concatenate(found)


def remember_judged(folder: Path, revision: int, digests: NDArray[np.uint8]) -> None:
    """Add digests (n, 32) to those that are read alike. A folder that cannot be written costs time, nothing else."""
    with contextlib.suppress(OSError):
        _add(folder, JUDGED, revision, digests)


def read_withdrawn(folder: Path) -> tuple[tuple[str, ...], Withdrawn]:
    """Return the names of the files of withdrawn rows, and their digests (n, 32) with the revision of each.

    Their rows by the rules before that revision do not count. Raises CacheError if a file cannot be read.
    """
    try:
        return _read_all(folder, WITHDRAWN)
    except OSError as error:
        raise CacheError(
            f"The list of the rows that do not count in '{printable(folder)}' cannot be read: {error.strerror}. "
            "Correct the permissions of its 'withdrawn-*' files and run the same command again."
        ) from error


def withdraw(folder: Path, revision: int, digests: NDArray[np.uint8]) -> None:
    """Let the rows of digests (n, 32) by the rules before a revision not count any more. Raises OSError."""
    _add(folder, WITHDRAWN, revision, digests)


def withdrawn_files(folder: Path) -> tuple[str, ...]:
    """Return the names of the files of withdrawn rows, sorted. Raises OSError."""
    return _names(folder, WITHDRAWN)


def damaged_files(folder: Path) -> list[Path]:
    """Return the files of judged and withdrawn rows that are ignored, since their SHA-256 does not match.

    Raises OSError if one cannot be read.
    """
    names = [*_names(folder, JUDGED), *_names(folder, WITHDRAWN)]
    return [folder / name for name in names if _read(folder, name) is None and os.path.lexists(folder / name)]


def _read_all(folder: Path, kind: str) -> tuple[tuple[str, ...], Withdrawn]:
    for _ in range(N_LISTINGS):
        names = _names(folder, kind)
        found = [(_revision(name), _read(folder, name)) for name in names]
        if _names(folder, kind) == names:  # else what was removed in between is in a file that was not listed
            break
    return names, [(revision, digests) for revision, digests in found if digests is not None]


def _names(folder: Path, kind: str) -> tuple[str, ...]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 (at every opening of a cache)
    except FileNotFoundError:
        return ()
    return tuple(sorted(name for name in names if name.startswith(kind) and NAME.fullmatch(name)))


def _revision(name: str) -> int:
    return int(name.split("-")[1])


def _read(folder: Path, name: str) -> NDArray[np.uint8] | None:
    """Return the digests (n, 32) of a file; None if it is gone, or not as it was written. Raises OSError."""
    path = folder / name
    try:
        check_plain_file(path, folder)
        data = b"" if path.stat().st_size > MOST_BYTES else path.read_bytes()
    except (FileNotFoundError, UnfitFile):
        return None
    content, checksum = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if len(content) % DIGEST_BYTES or checksum != _checksum(name, content):
        return None
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def _checksum(name: str, content: bytes) -> bytes:
    """Return the SHA-256 of the content of a file together with its kind and revision."""
    return hashlib.sha256(name.rpartition("-")[0].encode() + b"\n" + content).digest()


def _add(folder: Path, kind: str, revision: int, digests: NDArray[np.uint8]) -> None:
    if not len(digests):
        return
    older = [name for name in _names(folder, kind) if _revision(name) == revision]
    merged = _mergeable(folder, older) if len(older) >= MOST_FILES else {}
    name = f"{kind}-{revision}-{secrets.token_hex(8)}{SUFFIX}"
    content = np.unique(np.concatenate([digests, *merged.values()]), axis=0).tobytes()
    with replacing_file(folder / name) as temporary:
        temporary.write_bytes(content + _checksum(name, content))
    for each in merged:
        with contextlib.suppress(OSError):
            (folder / each).unlink(missing_ok=True)


def _mergeable(folder: Path, names: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    """Return the digests of each file that can be read, as many as one file may have."""
    found: dict[str, NDArray[np.uint8]] = {}
    left = MOST_BYTES // 2
    for name in names:
        with contextlib.suppress(OSError):
            digests = _read(folder, name)
            if digests is not None and digests.nbytes <= left:
                found[name], left = digests, left - digests.nbytes
    return found
