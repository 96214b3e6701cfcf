"""The rows of older decode rules that were judged by the present ones: their images are not judged again.

    <cache folder>/judged-<revision>.npy       the rows that stay, since the rules of the revision read the image alike
    <cache folder>/withdrawn-<revision>.npy    the older rows that do not count, since these rules refuse the image

Each holds digests (n, 32) uint8. They are derived: without them these images are judged once more. A file with another
structure is ignored.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.files import replacing_file
from featurecache.base.plain_files import UnfitFile, check_plain_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

JUDGED, WITHDRAWN = "judged", "withdrawn"


def read_judged(folder: Path, revision: int) -> NDArray[np.uint8]:
    """Return the digests (n, 32) that were judged to be read alike by this revision."""
    return _read(folder, folder / f"{JUDGED}-{revision}.npy")


def remember_judged(folder: Path, revision: int, digests: NDArray[np.uint8]) -> None:
    """Add digests (n, 32) to those that are read alike. A folder that cannot be written costs time, nothing else."""
    with contextlib.suppress(OSError):
        _add(folder, folder / f"{JUDGED}-{revision}.npy", digests)


def read_withdrawn(folder: Path) -> list[tuple[int, NDArray[np.uint8]]]:
    """Return the digests (n, 32) whose rows by the rules before a revision do not count, with that revision."""
    found = []
    for path in sorted(folder.glob(f"{WITHDRAWN}-*.npy")):
        revision = path.stem.removeprefix(f"{WITHDRAWN}-")
        if revision.isdecimal() and len(digests := _read(folder, path)):
            found.append((int(revision), digests))
    return found


def withdraw(folder: Path, revision: int, digests: NDArray[np.uint8]) -> None:
    """Let the rows of digests (n, 32) by the rules before a revision not count any more. Raises OSError."""
    _add(folder, folder / f"{WITHDRAWN}-{revision}.npy", digests)


def _add(folder: Path, path: Path, digests: NDArray[np.uint8]) -> None:
    if not len(digests):
        return
    whole = np.unique(np.concatenate([_read(folder, path), digests]), axis=0)
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, whole)


def _read(folder: Path, path: Path) -> NDArray[np.uint8]:
    try:
        check_plain_file(path, folder)
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, UnfitFile):
        return np.empty((0, 32), dtype=np.uint8)
    is_ours = isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.ndim == 2 and found.shape[1] == 32
    return found if is_ours else np.empty((0, 32), dtype=np.uint8)
