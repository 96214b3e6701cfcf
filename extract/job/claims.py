"""Claims on contents: each is computed once in a run, whatever the number of files that have it.

The digest of a file that the memo does not know, or knows wrongly, is found by the thread that decodes it. The thread
claims the content; another file with the same content is then not decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from threading import Lock

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.images.decoding.revisions import last_revision
from featurecache.extract.job.in_flight import InFlight
from featurecache.extract.job.outdated import CHANGED, judge
from featurecache.extract.job.plan import Plan


class Claims:
    """The contents that this run computes, for threads.

    filled: the plans whose missing rows this run computes. suspects: contents that are not computed until they were
    tried in a process of their own.
    """

    def __init__(
        self, plans: Sequence[Plan], notes: InFlight, *, filled: Iterable[Plan], suspects: Iterable[bytes] = ()
    ) -> None:
        self.suspects = set(suspects)
        self._plans, self._filled, self._notes = plans, set(filled), notes
        self._taken: set[bytes] = set()
        self._lock = Lock()

    def take_all(self, digests: Iterable[bytes]) -> None:
        """Claim contents whose own files are read in this run."""
        with self._lock:
            self._taken.update(digests)

    def lacking(self, digests: Sequence[bytes]) -> list[list[Plan]]:
        """Return for each of N contents the plans whose caches have no row for it; for many at once this is quick."""
        rows = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)
        columns = [(plan, plan.cache.missing(rows)) for plan in self._plans]
        return [[plan for plan, is_missing in columns if is_missing[i]] for i in range(len(digests))]

    def take(self, digest: bytes, path: str, lacking: Sequence[Plan] = ()) -> bool:
        """Claim a content that a file turned out to have; False if it needs no computing, or not by this file.

        lacking: plans whose caches have no row for it, as `lacking` returns them, if it was asked.
        Raises OSError if the file cannot be read, ImageRefused if it changed, or if a cache lacks it for which this run
        has no network, because it had a row for every file as the files were.
        """
        if len(lacking) < len(self._plans):
            verdict = cache(lambda since, last: judge(path, digest, since, last))
            lacking = [plan for plan in self._plans if plan in lacking or _lacks(plan.cache, digest, verdict)]
        with self._lock:
            if digest in self._taken:
                return False
            missed_by = [plan for plan in lacking if _misses(plan, digest)]
            if any(plan not in self._filled for plan in missed_by):
                raise ImageRefused(CHANGED)
            is_missing = bool(missed_by)
            if digest not in self.suspects:
                self._taken.add(digest)
            return is_missing and digest not in self.suspects

    def noting(self) -> AbstractContextManager[Callable[[bytes], None]]:
        """Return a context with what notes the image that this thread is about to decode."""
        return self._notes.noting()


def _lacks(features: FeatureCache, digest: bytes, verdict: Callable[[int, int], bool | str]) -> bool:
    """Whether a cache has no row for an image, or one by rules that read its file otherwise or did not refuse it.

    verdict: called with the revision of those rules and the last that concerns it, if it was not judged before.
    """
    row = np.frombuffer(digest, dtype=np.uint8)[None]
    if features.missing(row)[0]:
        return True
    last = last_revision(features.spec.decode)
    return bool(features.outdated(row, last)[0]) and bool(verdict(int(features.revisions(row)[0]), last))


def _misses(plan: Plan, digest: bytes) -> bool:
    """Let a plan miss an image that its cache lacks, and return True; False if it was refused before."""
    if digest in plan.refused_before:
        plan.refused[digest] = plan.refused_before[digest]
        return False
    plan.missing.add(digest)
    return True
