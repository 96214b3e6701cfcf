"""Temporary files that a killed process left in a cache, and their removal once nobody can be writing them."""

from __future__ import annotations

import time
from pathlib import Path

from extract.shards import TEMPORARY_PREFIX

# Every file is built in memory and written in one go, which takes seconds.
OLD_SECONDS = 3600.0


def find_leftovers(cache_root: Path) -> list[Path]:
    """Every temporary file in the caches below a root, those of live writers too."""
    patterns = (f"{TEMPORARY_PREFIX}*", f"*/{TEMPORARY_PREFIX}*", f"*/shards/{TEMPORARY_PREFIX}*")
    return sorted(path for pattern in patterns for path in cache_root.glob(pattern))


def sweep_leftovers(cache_root: Path) -> list[Path]:
    """Remove the temporary files that nobody has written to for an hour; returns them.

    What cannot be removed stays: a left-over is never read.
    """
    removed = []
    for path in find_leftovers(cache_root):
        try:
            if time.time() - path.stat().st_mtime > OLD_SECONDS:
                path.unlink()
                removed.append(path)
        except OSError:
            continue
    return removed
