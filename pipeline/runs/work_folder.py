"""The hidden folder in which a run is made: `.run-<16 hex digits>` next to its place, one process at a time in each.

lock          held by the process at work
heads/        finished heads, each whole or not there (`kept_heads.py`): the same command continues from them
fresh/        the run, while it is put together
into.json     the run in fresh/ is whole and on its way into its folder (`placing.py`)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from featurecache.base.errors import PipelineError
from featurecache.base.files import TEMPORARY_PREFIX
from featurecache.base.text import printable
from featurecache.runs.folder import HEADS_FOLDER
from featurecache.runs.locks import LOCK_FILE, try_lock, unlock
from featurecache.runs.placing import FRESH, NOTE, commit, complete, home_of, read_note, work_folders


class WorkFolder:
    """A work folder that this process holds. `heads`, `fresh`: the folders in it."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock = path, lock
        self.heads, self.fresh = path / HEADS_FOLDER, path / FRESH
        self._is_done = False

    def begin(self) -> Path:
        """Return an empty folder for the run."""
        shutil.rmtree(self.fresh, ignore_errors=True)
        self.fresh.mkdir()
        return self.fresh

    def place(self, out: Path) -> None:
        """Move the run into its folder; an interrupt between two files waits for the last of them.

        Raises PipelineError where `out` has become something that may not be replaced, OSError.
        """
        commit(self.path, out)
        try:
            complete(self.path)
        except KeyboardInterrupt:
            complete(self.path)
            raise

    def finish(self) -> None:
        """Keep no head: nothing will go on from here."""
        self._is_done = True

    def close(self) -> None:
        """Let others have the folder; without heads to go on from, or a run to complete, it is removed."""
        if self._is_done:
            shutil.rmtree(self.heads, ignore_errors=True)
        if not (self.path / NOTE).exists():
            shutil.rmtree(self.fresh, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.heads.rmdir()
            if not self.heads.exists():
                with contextlib.suppress(OSError):
                    for half_written in self.path.glob(f"{TEMPORARY_PREFIX}*"):
                        half_written.unlink()
                    (self.path / LOCK_FILE).unlink()
                    self.path.rmdir()
        unlock(self._lock)


@contextlib.contextmanager
def working(home: Path, identity: str) -> Iterator[WorkFolder]:
    """The work folder of an identity (16 hex digits) for this process alone, with the heads that were kept in it.

    home: where it lies, see `placing.home_of`. Where another process is at work on the same, it is one of its own.
    Raises OSError where it cannot be written, PipelineError where a run in it cannot be put where it belongs.
    """
    work = _claim(home, identity)
    try:
        yield work
    finally:
        work.close()


def _claim(home: Path, identity: str) -> WorkFolder:
    home.mkdir(parents=True, exist_ok=True)
    path, lock = next(_entered(home / f".run-{identity}"))
    try:
        complete(path)
        for half_written in path.glob(f"{HEADS_FOLDER}/.*"):
            shutil.rmtree(half_written, ignore_errors=True)
    except BaseException:
        unlock(lock)
        raise
    return WorkFolder(path, lock)


def _entered(first: Path) -> Iterator[tuple[Path, int]]:
    """The folder, or with -2, -3 behind its name where another process is at work in it, and its lock."""
    for number in itertools.count(1):
        path = first if number == 1 else first.with_name(f"{first.name}-{number}")
        lock = _enter(path)
        if lock is not None:
            yield path, lock


def _enter(path: Path) -> int | None:
    while True:
        path.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # removed by another process between the two
            return try_lock(path)


def heal(out: Path) -> None:
    """Complete runs that killed processes had committed: into the folder `out`, in it and next to it.

    Raises PipelineError where what is to go into `out` itself cannot.
    """
    place = Path(os.path.realpath(out))
    for home in (place.parent, place):
        for path in work_folders(home):
            note = read_note(path)
            if note is not None:
                _heal(path, wanted=note[0] == place)


def _heal(path: Path, *, wanted: bool) -> None:
    try:
        lock = try_lock(path)
    except OSError:  # completed meanwhile, or another user's
        return
    if lock is None:
        return
    try:
        complete(path)
    except PipelineError:
        if wanted:
            raise
    finally:
        WorkFolder(path, lock).close()


@contextlib.contextmanager
def writing_run(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends without an error; an older run there is replaced.

    Raises PipelineError when the place cannot be written.
    """
    with unwritable(folder), working(home_of(folder), secrets.token_hex(8)) as work:
        yield work.begin()
        work.place(folder)


@contextlib.contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Turn an OSError into the PipelineError that says which run could not be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        where = f" ('{printable(os.fsdecode(error.filename))}')" if isinstance(error.filename, str | bytes) else ""
        raise PipelineError(
            f"The run folder '{printable(folder)}' cannot be written: {reason}{where}. Free some space or correct the "
            "permissions, or choose another with --out; heads that are finished are kept."
        ) from error
