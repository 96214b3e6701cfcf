"""The rows of an older decode revision whose image the present rules read alike: they stay, and are not judged again.

    <cache folder>/judged-<revision>.npy     the digests (n, 32) of these rows, uint8

It is derived: without it the headers of these images are looked at once more. A file with another structure is ignored.
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


def read_judged(folder: Path, revision: int) -> NDArray[np.uint8]:
    """Return the digests (n, 32) that were judged to be read alike by this revision."""
    path = _path(folder, revision)
    try:
        check_plain_file(path, folder)
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, UnfitFile):
        return np.empty((0, 32), dtype=np.uint8)
    is_ours = isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.ndim == 2 and found.shape[1] == 32
    return found if is_ours else np.empty((0, 32), dtype=np.uint8)


def remember_judged(folder: Path, revision: int, digests: NDArray[np.uint8]) -> None:
    """Add digests (n, 32) to those that are read alike. A folder that cannot be written costs time, nothing else."""
    if not len(digests):
        return
    whole = np.unique(np.concatenate([read_judged(folder, revision), digests]), axis=0)
    with (
        contextlib.suppress(OSError),
        replacing_file(_path(folder, revision)) as temporary,
        temporary.open("wb") as file,
    ):
        np.save(file, whole)


def _path(folder: Path, revision: int) -> Path:
    return folder / f"judged-{revision}.npy"
