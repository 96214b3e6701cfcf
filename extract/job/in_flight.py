"""The images that are being decoded, in a file that outlives the process: a decoder in C can end the process.

    <cache root>/.decoding-<16 hex digits>     the SHA-256 of the image that each thread decodes, zeros for none

The file is mapped into memory, so that a note costs no call of the system, and it keeps its content when the process
ends. It is locked as long as its process runs, which removes it at the end. A file without a lock is that of a process
that was ended in some way: the images in it are decoded last, in a process of their own (trial.py).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

PREFIX = ".decoding-"
# More threads never decode at once.
N_SLOTS, DIGEST_BYTES = 128, 32
NONE = bytes(DIGEST_BYTES)


class InFlight:
    """Notes of the images that are being decoded; a context manager.

    suspects: the digests that a process which was ended has left behind. Where the folder cannot be written or files
    cannot be locked there are no notes.
    """

    def __init__(self, cache_root: Path) -> None:
        self._left = dict(_left_behind(cache_root))
        self.suspects: set[bytes] = set().union(*self._left.values())
        self._path = cache_root / f"{PREFIX}{secrets.token_hex(8)}"
        self._file: BinaryIO | None = None
        self._notes: mmap.mmap | None = None
        self._free: deque[int] = deque()

    def __enter__(self) -> InFlight:
        with contextlib.suppress(OSError, ImportError, ValueError):
            import fcntl

            self._file = self._path.open("w+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.write(bytes(N_SLOTS * DIGEST_BYTES))  # on a full disk an error here, not a signal later
            self._file.flush()
            os.fsync(self._file.fileno())
            self._notes = mmap.mmap(self._file.fileno(), N_SLOTS * DIGEST_BYTES)
            self._free.extend(range(0, N_SLOTS * DIGEST_BYTES, DIGEST_BYTES))
        return self

    def __exit__(self, *_: object) -> None:
        self._free.clear()
        if self._notes is not None:
            self._notes.close()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._file.close()

    @contextlib.contextmanager
    def noting(self) -> Iterator[Callable[[bytes], None]]:
        """Yield what notes the SHA-256 of the image that this thread decodes next; until the end of the context."""
        try:
            at = self._free.pop()
        except IndexError:  # no notes are possible
            yield _not_noted
            return
        notes = self._notes
        assert notes is not None

        def note(digest: bytes) -> None:
            notes[at : at + DIGEST_BYTES] = digest

        try:
            yield note
        finally:
            note(NONE)
            self._free.append(at)

    def settle(self, digests: Iterable[bytes]) -> None:
        """Remove the notes that were left behind if all of their images are among those that were settled now."""
        settled = set(digests)
        for path, left in self._left.items():
            if left <= settled:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)


def _not_noted(digest: bytes) -> None:
    pass


def _left_behind(cache_root: Path) -> Iterator[tuple[Path, set[bytes]]]:
    """Yield the notes of processes that do not run any more, with the digests in them."""
    try:
        import fcntl

        paths = sorted(path for path in cache_root.iterdir() if path.name.startswith(PREFIX))
    except (OSError, ImportError):
        return
    for path in paths:
        with contextlib.suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            notes = file.read(N_SLOTS * DIGEST_BYTES)
            slots = (notes[at : at + DIGEST_BYTES] for at in range(0, len(notes), DIGEST_BYTES))
            yield path, {slot for slot in slots if len(slot) == DIGEST_BYTES and slot != NONE}
