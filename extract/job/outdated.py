"""Rows of older decode rules: which of the requested images the present rules read otherwise, or refuse.

Every image with such a row is judged once, and the answer is kept next to the rows (judged.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.text import count
from featurecache.extract.cache.judged import remember_judged
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.decode_rules import DECODE_REVISION
from featurecache.extract.images.decoding.revisions import reads_otherwise, refusal_since
from featurecache.extract.images.digests import N_THREADS, Digested
from featurecache.extract.images.loader import load_ahead
from featurecache.extract.images.manifest import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_AHEAD = 256
# So many take a second or more.
MANY = 1000


# Whether an image is read otherwise, or why it is refused; None if its file cannot be read now.
Verdict = bool | str | None


class OutdatedRows:
    """The images of a data set whose rows have to be computed again; each is judged once, for all caches.

    say: called with a line before many are judged.
    """

    def __init__(self, digested: Digested, say: Callable[[str], None] | None = None) -> None:
        self._digested, self._say = digested, say
        self._verdicts: dict[tuple[bytes, int], Verdict] = {}

    @classmethod
    def among(
        cls, samples: Sequence[Sample], digests: NDArray[np.uint8], say: Callable[[str], None] | None = None
    ) -> OutdatedRows:
        """Return those among N samples with their digests (N, 32)."""
        return cls(Digested(tuple(samples), digests, (), 0), say)

    def of(self, cache: FeatureCache) -> tuple[NDArray[np.bool_], dict[bytes, str]]:
        """Return which images (N,) have a row in this cache that the present rules would change: bool (N,).

        Second: SHA-256 -> reason of those with a row that these rules refuse.
        """
        digests = self._digested.digests
        asked = np.flatnonzero(cache.outdated(digests, DECODE_REVISION))
        names = [bytes(digests[i]) for i in asked]
        rows = list(zip(names, cache.revisions(digests[asked]).tolist(), strict=True))
        self._judge(dict(zip(rows, asked.tolist(), strict=True)))
        verdicts = [self._verdicts[row] for row in rows]
        same = [i for i, verdict in zip(asked, verdicts, strict=True) if verdict is False]
        remember_judged(cache.folder, DECODE_REVISION, digests[same])
        changed = np.zeros(len(digests), dtype=bool)
        changed[[i for i, verdict in zip(asked, verdicts, strict=True) if verdict is True]] = True
        return changed, {name: each for name, each in zip(names, verdicts, strict=True) if isinstance(each, str)}

    def note(self, cache: FeatureCache) -> str:
        """Return a sentence on them, for a command that uses the rows as they are; empty where there are none."""
        changed, damaged = self.of(cache)
        n_damaged = sum(bytes(digest) in damaged for digest in self._digested.digests) if damaged else 0
        n = int(changed.sum()) + n_damaged
        if not n:
            return ""
        has, them, they_are, these = (
            ("has", "it", "it is", "this one") if n == 1 else ("have", "them", "they are", "these")
        )
        effects = [("computes", f"read {them} otherwise")] if changed.any() else []
        effects += [("refuses", f"did not notice that {they_are} damaged")] if damaged else []
        verbs, reasons = (" or ".join(words) for words in zip(*effects, strict=True))
        return (
            f"{count(n, 'image')} of {len(changed):,} {has} features of {cache.spec.backbone} by an older version, "
            f"which {reasons}: extract again with the same options, which {verbs} only {these}."
        )

    def _judge(self, asked: Mapping[tuple[bytes, int], int]) -> None:
        """Judge rows by digest and revision; each has the position of a sample."""
        new = [row for row in asked if row not in self._verdicts]
        if self._say is not None and len(new) >= MANY:
            self._say(f"checking {count(len(new), 'image')} whose features are of an older version for damage, once")
        files = [(self._digested.samples[asked[row]].path, row[1]) for row in new]
        with closing(load_ahead(files, _verdict, n_threads=N_THREADS, n_ahead=N_AHEAD)) as verdicts:
            self._verdicts.update(zip(new, verdicts, strict=True))


def _verdict(file: tuple[str, int]) -> Verdict:
    """Judge a file, whose row is of this revision, by the present rules."""
    try:
        return refusal_since(*file) or reads_otherwise(*file)
    except OSError:
        return None
