"""Rows of older decode rules: which of the requested images the present rules read otherwise.

The header of every image with such a row is looked at once, and the answer is kept next to the rows (judged.py).
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from featurecache.extract.cache.judged import remember_judged
from featurecache.extract.cache.shards import FIRST_REVISION
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.decode_rules import DECODE_REVISION
from featurecache.extract.images.decoding.revisions import reads_otherwise
from featurecache.extract.images.digests import N_THREADS, Digested
from featurecache.extract.images.loader import load_ahead

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_AHEAD = 256


class OutdatedRows:
    """The images of a data set whose rows have to be computed again; each is judged once, for all caches."""

    def __init__(self, digested: Digested) -> None:
        self._digested = digested
        self._verdicts: dict[bytes, bool | None] = {}

    def of(self, cache: FeatureCache) -> NDArray[np.bool_]:
        """Return which images (N,) have a row in this cache that the present rules would change: bool (N,)."""
        digests = self._digested.digests
        asked = np.flatnonzero(cache.outdated(digests, DECODE_REVISION))
        self._judge(asked)
        verdicts = [self._verdicts[bytes(digests[i])] for i in asked]
        same = [i for i, verdict in zip(asked, verdicts, strict=True) if verdict is False]
        remember_judged(cache.folder, DECODE_REVISION, digests[same])
        changed = np.zeros(len(digests), dtype=bool)
        changed[[i for i, verdict in zip(asked, verdicts, strict=True) if verdict]] = True
        return changed

    def _judge(self, asked: NDArray[np.int64]) -> None:
        rows = {bytes(self._digested.digests[i]): int(i) for i in asked}
        new = [(digest, row) for digest, row in rows.items() if digest not in self._verdicts]
        paths = [self._digested.samples[row].path for _, row in new]
        with closing(load_ahead(paths, _verdict, n_threads=N_THREADS, n_ahead=N_AHEAD)) as verdicts:
            self._verdicts.update({digest: verdict for (digest, _), verdict in zip(new, verdicts, strict=True)})


def _verdict(path: str) -> bool | None:
    """Whether the file is read otherwise than by the first rules; None if it cannot be read now."""
    try:
        return reads_otherwise(path, FIRST_REVISION)
    except OSError:
        return None
