"""Rows of older decode rules: which of the requested images the present rules read otherwise, or refuse.

Every image with such a row is judged once, and the answer is kept next to the rows (judged.py), block by block: a run
that is stopped continues from there. What is judged is the content of the row: a file that has changed since its digest
was found is judged at another time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.base.text import count
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.decoding.revisions import last_revision, reads_otherwise, refusal_since
from featurecache.extract.images.digests import N_THREADS, Digested
from featurecache.extract.images.loader import load_ahead
from featurecache.extract.images.manifest import Sample
from featurecache.extract.images.sources import open_checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_AHEAD = 256
# So many take a second or more.
MANY = 1000
# Images that are judged before their verdicts are kept.
BLOCK = 8192
CHANGED = "it changed while the run was going on; run extract again"

# Whether an image is read otherwise, or why it is refused; None if its file cannot be read now.
Verdict = bool | str | None
# The digest of an image, the decode revision of its row, and the last one that concerns it.
Row = tuple[bytes, int, int]


class OutdatedRows:
    """The images of a data set whose rows have to be computed again; each is judged once, for all caches.

    Images that cannot be judged now are not among them.

    say: called with a line before many are judged.
    """

    def __init__(self, digested: Digested, say: Callable[[str], None] | None = None) -> None:
        self._digested, self._say = digested, say
        self._verdicts: dict[Row, Verdict] = {}

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
        digests, last = self._digested.digests, last_revision(cache.spec.decode)
        asked = np.flatnonzero(cache.outdated(digests, last))
        names = [bytes(digests[i]) for i in asked]
        rows = [
            (name, since, last) for name, since in zip(names, cache.revisions(digests[asked]).tolist(), strict=True)
        ]
        self._announce(rows)
        changed, refused = np.zeros(len(digests), dtype=bool), {}
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            judged = list(zip(asked[part].tolist(), self._judged(rows[part], asked[part].tolist()), strict=True))
            cache.remember_judged(digests[[i for i, verdict in judged if verdict is False]], last)
            changed[[i for i, verdict in judged if verdict is True]] = True
            refused.update({bytes(digests[i]): verdict for i, verdict in judged if isinstance(verdict, str)})
        return changed, refused

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

    def _announce(self, rows: Sequence[Row]) -> None:
        n = len(set(rows) - self._verdicts.keys()) if self._say is not None and len(rows) >= MANY else 0
        if self._say is not None and n >= MANY:
            self._say(f"checking {count(n, 'image')} whose features are of an older version for damage, once")

    def _judged(self, rows: Sequence[Row], samples: Sequence[int]) -> list[Verdict]:
        """Return the verdict on each row, of the sample at this position."""
        files = {
            row: (self._digested.samples[i].path, *row)
            for row, i in zip(rows, samples, strict=True)
            if row not in self._verdicts
        }
        with closing(load_ahead(list(files.values()), _verdict, n_threads=N_THREADS, n_ahead=N_AHEAD)) as verdicts:
            self._verdicts.update(zip(files, verdicts, strict=True))
        return [self._verdicts[row] for row in rows]


def judge(path: str, digest: bytes, since: int, until: int) -> bool | str:
    """Return whether the rules of `until` read a file otherwise than those of `since`, or why they refuse it.

    Raises OSError if the file cannot be read, ImageRefused if its SHA-256 is not `digest` any more.
    """
    with open_checked(path, digest, changed=CHANGED) as content:
        file = io.BytesIO(content) if isinstance(content, bytes) else content
        return refusal_since(file, since) or reads_otherwise(file, since, until)


def _verdict(file: tuple[str, bytes, int, int]) -> Verdict:
    try:
        return judge(*file)
    except (OSError, ImageRefused, MemoryError):
        return None
