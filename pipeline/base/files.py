"""Files and folders that get their final name when they are complete, also where a process is killed or power is cut.

    write under a temporary name in the same folder -> fsync -> rename -> fsync of the folder

A temporary name is `.writing-<16 hex digits>-<the end of the final name>`. A killed process leaves it behind; whoever
sweeps a folder knows it by `TEMPORARY`. Files and folders are made with the permissions that the umask leaves.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_PREFIX = ".writing-"
# Of any temporary name; what follows it is the end of the final name.
TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{16}-")
# Windows replaces and removes no file that a program has open: a scanner of viruses, say, which is done in a moment.
REPLACES_OPEN_FILES = os.name == "posix"
REPLACING_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
# A name may have 255 bytes, and a character up to four.
NAME_CHARACTERS = 48


def temporary_path(path: Path) -> Path:
    """A name next to `path` that nobody else uses; it ends as the final name does, so that its suffix is the same."""
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{path.name[-NAME_CHARACTERS:]}")


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield the temporary path of a file to write; it becomes `path` when the block ends, and is removed on an error.

    Raises OSError where it cannot be put in its place.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path, *, is_durable: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder; it becomes `path` when the block ends, and is removed on an error.

    is_durable: flush every file to the disk before, so that a power cut, too, leaves all or nothing. A folder that is
    there is moved aside first and then removed. Raises OSError where it cannot be put in its place.
    """
    temporary, aside = temporary_path(path), temporary_path(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if is_durable:
            flush_tree(temporary)
        _swap(temporary, path, aside)
        if is_durable:
            flush(path.parent)
    finally:
        for leftover in (temporary, aside):
            shutil.rmtree(leftover, ignore_errors=True)


def _swap(temporary: Path, path: Path, aside: Path) -> None:
    if not os.path.lexists(path):
        temporary.rename(path)
        return
    path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        aside.rename(path)
        raise


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its final name: it is there completely or not at all, also after a power cut."""
    flush(temporary)
    _replace(temporary, path)
    flush(path.parent)


def _replace(temporary: Path, path: Path) -> None:
    for seconds in () if REPLACES_OPEN_FILES else REPLACING_SECONDS:
        try:
            temporary.replace(path)
            return
        except PermissionError:
            time.sleep(seconds)
    temporary.replace(path)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing; each is in the folder above it also after a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        flush(folder.parent)


def flush_tree(folder: Path) -> None:
    """Have all files of a folder, and the folders themselves, on the disk when this returns."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            flush(Path(root) / name)
        flush(Path(root))


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk when this returns."""
    if path.is_dir() and os.name != "posix":  # no such thing on Windows
        return
    file = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        _to_disk(file)
    finally:
        os.close(file)


def _to_disk(file: int) -> None:
    """Let the disk itself store an open file; on macOS fsync leaves it in the disk's own memory."""
    try:
        import fcntl

        fcntl.fcntl(file, getattr(fcntl, "F_FULLFSYNC"))  # noqa: B009 (types know it on macOS only)
    except (ImportError, AttributeError, OSError):  # another system, or a network disk that has no such command
        os.fsync(file)
