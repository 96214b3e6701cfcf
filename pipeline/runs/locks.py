"""One process at a time in a folder: a lock that the system takes back when its holder ends, however that is."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

LOCK_FILE = "lock"


def try_lock(folder: Path) -> int | None:
    """Take the lock of a folder that is there and return it for `unlock`; None where another process has it.

    It is advisory (flock); a network disk without locks gives it to all. Raises FileNotFoundError where the folder is
    gone, or goes away, OSError where it cannot be written.
    """
    path = folder / LOCK_FILE
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _lock(file):
            os.close(file)
            return None
        if not _is_same(file, path):  # its holder removed it after it was opened here
            raise FileNotFoundError(f"{path} is gone")
        os.truncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError:
        os.close(file)
        raise
    return file


def unlock(lock: int) -> None:
    """Give a lock back."""
    os.close(lock)


def _lock(file: int) -> bool:
    """Whether the lock of an open file is ours now; True also where the disk knows no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
