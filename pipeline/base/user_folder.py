"""The folder of a user for what all caches share: exported graphs, and what names of networks resolve to.

    FEATURECACHE_USER_CACHE, the folder itself, empty for none; else $XDG_CACHE_HOME/featurecache,
    %LOCALAPPDATA%/featurecache/Cache, ~/Library/Caches/featurecache or ~/.cache/featurecache

Everything in it is derived and may be deleted at any time. One that cannot be made or written is no error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "FEATURECACHE_USER_CACHE"
NAME = "featurecache"


def user_folder() -> Path | None:
    """Return the folder, which need not exist; None where there is none, or the user wants none."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named).expanduser() if named else None
    try:
        return _usual_folder()
    except RuntimeError:  # a user without a home
        return None


def _usual_folder() -> Path:
    xdg, local = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("LOCALAPPDATA", "")
    if os.path.isabs(xdg):  # noqa: PTH117 (the standard ignores relative ones)
        return Path(xdg) / NAME
    if sys.platform == "win32" and local:
        return Path(local) / NAME / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / NAME
    return Path.home() / ".cache" / NAME
