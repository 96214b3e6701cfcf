"""The state of features.h5, compared with the shards of its folder; no row is read through it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from featurecache.base.errors import CacheDamaged, CacheError
from featurecache.base.plain_files import UnfitFile, parse_json
from featurecache.extract.cache import shards
from featurecache.extract.cache.index import is_index_of
from featurecache.extract.cache.opening import damaged, open_index
from featurecache.extract.cache.store import INDEX_FILE


class IndexState:
    """The shards that features.h5 refers to, compared with those that are present.

    withdrawn: the digest of their rows that do not count (`Snapshot.withdrawn`).
    shown: the number of rows of each shard. gone: those of missing shards. is_current: it was made from the present
    shards and these rows. is_broken: it is not an index. closed: the error if it cannot be read, else empty.
    """

    def __init__(self, folder: Path, present: Sequence[Path], withdrawn: str) -> None:
        self.path = folder / INDEX_FILE
        self.shown: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.is_current = self.is_broken = False
        self.closed = ""
        if not os.path.lexists(self.path):
            return
        try:
            with open_index(self.path) as file:
                attributes = shards.read_attributes(file)
            self.is_current = is_index_of(attributes, present, withdrawn)
            self.shown = _counts(self.path, attributes.get("shards", "{}"))
        except CacheDamaged:
            self.is_broken = True
        except CacheError as error:
            self.closed = str(error)
        names = {path.name for path in present}
        self.gone = {name: n for name, n in self.shown.items() if name not in names}


def _counts(path: Path, text: object) -> dict[str, int]:
    """Return the number of rows of each shard according to an index. Raises CacheDamaged if it has no such numbers."""
    try:
        counts = parse_json(str(text))
    except UnfitFile as error:
        raise damaged(path, str(error)) from error
    if not isinstance(counts, dict) or not all(type(n) is int and n >= 0 for n in counts.values()):
        raise damaged(path, "what it shows cannot be read")
    return {name: n for name, n in counts.items() if Path(name).name == name}
