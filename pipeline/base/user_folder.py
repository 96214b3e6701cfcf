"""The folder of a user for what all caches share: exported graphs, and what names of networks resolve to.

    FEATURECACHE_USER_CACHE, the folder itself, empty for none; else $XDG_CACHE_HOME/featurecache,
    %LOCALAPPDATA%/featurecache/Cache, ~/Library/Caches/featurecache or ~/.cache/featurecache

Everything in it is derived and may be deleted at any time. One that cannot be made or written is no error. Whoever can
write to it decides which features a network gives: so it is made for the user alone, and not used where it belongs to
another one than the user or root, or where others could write to it or put another one in its place.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

VARIABLE = "FEATURECACHE_USER_CACHE"
NAME = "featurecache"
FOR_THE_USER = 0o700


def user_folder() -> Path | None:
    """Return the folder, which need not exist; None where the user has or wants none, or others could write to it."""
    try:
        folder = _named_folder()
        return folder if folder is not None and _is_of_the_user(folder) else None
    except (OSError, RuntimeError):  # a user without a home, a link that leads to itself
        return None


def make_user_folder() -> Path | None:
    """Make the folder if it is missing, and return it; None where there is none or it cannot be made."""
    folder = user_folder()
    if folder is None:
        return None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=FOR_THE_USER, exist_ok=True)
    except OSError:
        return None
    return user_folder()


def _is_of_the_user(folder: Path) -> bool:
    """Whether others can neither write to the folder nor replace it; also true where it is still to be made."""
    if os.name != "posix":
        return True
    here = folder.resolve()
    return _has_no_other_writer(here, stat.S_IWGRP | stat.S_IWOTH) and all(
        _has_no_other_writer(above, stat.S_IWOTH, sticky=stat.S_ISVTX) for above in here.parents
    )


def _has_no_other_writer(folder: Path, writing: int, *, sticky: int = 0) -> bool:
    """Whether a folder is the user's or root's and has none of these permissions, unless it has that of `sticky`.

    A missing one has no writer. Raises OSError.
    """
    try:
        status = folder.stat()
    except FileNotFoundError:
        return True
    return status.st_uid in (0, os.geteuid()) and (not status.st_mode & writing or bool(status.st_mode & sticky))


def _named_folder() -> Path | None:
    named = os.environ.get(VARIABLE)
    if named is None:
        return _usual_folder()
    return Path(named).expanduser() if named else None


def _usual_folder() -> Path:
    xdg, local = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("LOCALAPPDATA", "")
    if os.path.isabs(xdg):  # noqa: PTH117 (the standard ignores relative ones)
        return Path(xdg) / NAME
    if sys.platform == "win32" and local:
        return Path(local) / NAME / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / NAME
    return Path.home() / ".cache" / NAME
