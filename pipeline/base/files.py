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
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_PREFIX = ".writing-"
# Of any temporary name; what follows it is the end of the final name.
TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{16}-")
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
    temporary.replace(path)
    flush(path.parent)


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
        os.fsync(file)
    finally:
        os.close(file)
