"""Folders and files that are no data: those of operating systems, disk stations, notebooks, and featurecache's own."""

from __future__ import annotations

import os
from collections.abc import Collection

from featurecache.extract.images.left_out import CLOSED_SYSTEM, HIDDEN, OWN, SYSTEM, Reason, Tally

# In lower case. Synology, QNAP, Windows, Linux and macOS make these by themselves; Python its caches.
SYSTEM_FOLDERS = frozenset({
    "@eadir", "@sharebin", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin",
    "recycler", "system volume information", "found.000", "lost+found", "__macosx", "network trash folder",
    "temporary items", "__pycache__",
})  # fmt: skip
SYSTEM_FILES = frozenset({
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini", "zbthumbnail.info",
})  # fmt: skip
# What a cache and a run hold, each all of these. A folder of caches is not one: it may hold images as well.
OWN_FILES = (
    frozenset({"spec.json", "shards"}),
    frozenset({"results.json", "config.json", "splits.csv"}),
)
MEMO_FILES = frozenset({"digests.sqlite", "digests.sqlite-journal", "digests.sqlite-wal", "digests.sqlite-shm"})


def skipped(name: str) -> Reason | None:
    """Return why a file or folder of this name is no data; None for all others."""
    if name[0] == ".":
        return HIDDEN
    if name in MEMO_FILES:
        return OWN
    lowered = name.lower()
    return SYSTEM if lowered in SYSTEM_FOLDERS or lowered in SYSTEM_FILES else None


def is_own(names: Collection[str]) -> bool:
    """Return whether a folder with these names in it is a cache or a run of featurecache."""
    return any(files.issubset(names) for files in OWN_FILES)


def count_below(folder: str, name: str, reason: Reason, tally: Tally) -> None:
    """Count the files at any depth below a folder; links are not followed. name: the folder's, for the tally."""
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        tally.add(reason, entry.name)
        except OSError:
            tally.add(CLOSED_SYSTEM, name)
