"""The passes of a run over the images: chunks of vectors are passed to the writers, and refusals are recorded."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from featurecache.base.errors import CacheError, ImageRefused
from featurecache.base.progress import Pace, Progress
from featurecache.base.text import count, printable
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.names import are_among, as_names
from featurecache.extract.cache.spec import FULL_RANGE
from featurecache.extract.images.decoding.levels import DimImages, FlatImages
from featurecache.extract.images.decoding.revisions import last_revision
from featurecache.extract.images.digests import Digested, DigestTable, Refusal
from featurecache.extract.images.manifest import Sample
from featurecache.extract.job.claims import Claims
from featurecache.extract.job.compute import Computed, compute_vectors
from featurecache.extract.job.decoding.decoder import Decoded, Item
from featurecache.extract.job.in_flight import InFlight
from featurecache.extract.job.outdated import CHANGED
from featurecache.extract.job.plan import Group, Plan, Work
from featurecache.extract.job.refused_before import remember_refused
from featurecache.extract.job.settings import Settings
from featurecache.extract.job.summary import Seconds
from featurecache.extract.job.trial import find_ending
from featurecache.extract.job.writer import Writer

# Passes over what is left after the first: a file that changes again and again is refused after them.
MORE_PASSES = 2


@contextmanager
def timing(seconds: Seconds, name: str) -> Iterator[None]:
    """Add the time of the block to a field of `seconds`."""
    started = time.perf_counter()
    try:
        yield
    finally:
        setattr(seconds, name, getattr(seconds, name) + time.perf_counter() - started)


class Run:
    """The passes over the missing images, which pass the computed vectors to a writer for each cache.

    table: the digests of all samples, those of unread files as they become known.
    """

    def __init__(
        self, work: Work, table: DigestTable, settings: Settings, progress: Progress, seconds: Seconds
    ) -> None:
        self.work, self.table = work, table
        self.groups, self.settings, self.progress, self.seconds = work.groups, settings, progress, seconds
        # Images that were computed or refused in this run.
        self.settled: set[bytes] = set()
        self.refused: dict[bytes, Refusal] = {}
        # (digest, key) -> reason of those that are refused for their content, and not for a failure to read them.
        self.lasting: dict[tuple[bytes, str], str] = {}
        self.dim, self.flat = DimImages(), FlatImages()
        self.n_decoded = 0
        self.n_extracted: Counter[Plan] = Counter()

    def fill(self, cache_root: Path) -> None:
        """Extract the missing images and publish their vectors; those computed before an error too.

        A file whose content is not the one that the memo knew is taken for what it is; its former content is then read
        from another file, if there is one. Images that an ended process was decoding come last.
        """
        if not self.groups:
            return
        with InFlight(cache_root) as notes:
            filled = [plan for group in self.groups for plan in group.plans.values()]
            claims = Claims(self.work.plans, notes, filled=filled, suspects=notes.suspects)
            items = [item for item in self._left() if item[0] not in claims.suspects]
            claims.take_all(digest for digest, _ in items if digest is not None)
            unread = [(None, self.table.samples[i]) for i in self.table.unread]
            self._pass([*items, *unread], claims)
            for _ in range(MORE_PASSES):
                self._try_suspects(self._left(), claims)
                if not (left := self._left()):
                    break
                self._pass(left, claims)
            for digest, sample in self._left():
                self._refuse(digest, sample.name, CHANGED, [])
            notes.settle(map(bytes, self.table.collect().digests))

    def _left(self) -> list[tuple[bytes, Sample]]:
        """Return the missing images that were neither computed nor refused, with a file of each."""
        return _distinct(self.table.collect(), self.work.missing - self.settled)

    def _try_suspects(self, items: Sequence[tuple[bytes, Sample]], claims: Claims) -> None:
        """Refuse the suspect images whose decoding ends a process of its own; the others are no suspects any more."""
        suspects = [item for item in items if item[0] in claims.suspects]
        claims.suspects.clear()
        if not suspects:
            return
        self.progress.say(f"trying {count(len(suspects), 'image')} that a process was decoding when it was ended")
        ending = find_ending(
            [sample.path for _, sample in suspects],
            max_pixels=self.settings.max_pixels,
            ways={(group.at_least, group.levels) for group in self.groups},
        )
        for at, reason in ending.items():
            digest, sample = suspects[at]
            self.settled.add(digest)
            self._refuse(digest, sample.name, reason, [p for p in self.work.plans if digest in p.missing])

    def after(self, digested: Digested) -> Digested:
        """Return the digests of all samples after the run, and count the images that each cache had before it."""
        if not self.table.is_changed:
            return digested
        digested = self.table.collect()
        names = {bytes(row) for row in digested.digests}
        for plan in self.work.plans:
            plan.n_present = len(names - plan.missing - plan.refused.keys())
        self.refuse_again(digested)
        return digested

    def _pass(self, items: Sequence[Item], claims: Claims) -> None:
        """Compute the items, and publish their vectors, also those before an error."""
        if not items:
            return
        pace, done = Pace(len(items), self.progress), 0
        with (
            self._writers() as writers,
            closing(self._computed(items, claims)) as computed,
        ):
            for chunk in self._awaited(computed):
                done += len(chunk.decoded)
                self._write(chunk, writers)
                self._count(chunk)
                self.progress.extracting(done, len(items), len(self.refused))
                pace.reached(done)

    def _computed(self, items: Sequence[Item], claims: Claims) -> Generator[Computed, None, None]:
        return compute_vectors(
            items,
            self.groups,
            max_pixels=self.settings.max_pixels,
            claims=claims,
            decode_processes=self.settings.decode_processes,
        )

    @contextmanager
    def _writers(self) -> Iterator[dict[Group, list[Writer]]]:
        """Yield the writers of every group; at the end each publishes its remaining rows, even if another fails.

        The first error is raised: that of the run, or that of the first writer that fails. Others are reported.
        """
        writers = {
            group: [Writer(plan, group.started, partial(self._share, group)) for plan in group.plans.values()]
            for group in self.groups
        }
        everyone = [writer for each in writers.values() for writer in each]
        first: BaseException | None = None
        try:
            try:
                yield writers
            except BaseException as error:  # noqa: BLE001 (raised below, after every writer is closed)
                first = error
            for writer in everyone:
                try:
                    writer.close()
                except BaseException as error:  # noqa: BLE001 (raised below, after every writer is closed)
                    if first is not None and isinstance(error, CacheError):
                        self.progress.say(f"Not published: {error}")
                    first = first or error
            if first is not None:
                raise first
        finally:
            self.n_extracted.update({writer.plan: writer.n_extracted for writer in everyone})
            self.seconds.write += sum(writer.seconds for writer in everyone)

    def _share(self, group: Group) -> float:
        """Return a group's share of the elapsed time, in proportion to the seconds of its forward passes."""
        return group.forward_seconds / (sum(each.forward_seconds for each in self.groups) or 1.0)

    def _awaited(self, computed: Iterator[Computed]) -> Iterator[Computed]:
        while True:
            with timing(self.seconds, "wait"):
                chunk = next(computed, None)
            if chunk is None:
                return
            yield chunk

    def _write(self, chunk: Computed, writers: Mapping[Group, Sequence[Writer]]) -> None:
        """Pass the vectors of a chunk to the writers; images whose features overflow are refused."""
        for each in chunk.vectors:
            each.group.forward_seconds += each.seconds
            self.seconds.forward += each.seconds
            for writer in writers[each.group]:
                for (digest, name), reason in writer.add(each.keys, each.vectors[:, writer.plan.columns]):
                    self._refuse(digest, name, reason, [writer.plan])

    def _count(self, chunk: Computed) -> None:
        """Add up the seconds of a chunk, and refuse its images that could not be decoded."""
        for item in chunk.decoded:
            self.seconds.read += item.read_seconds
            self.seconds.decode += item.decode_seconds
            if item.file is not None:
                self._note(item)
            if item.is_skipped or not item.digest:
                continue
            self.settled.add(item.digest)
            if item.refusal is None:
                self.n_decoded += 1
                self.dim.add(item.name, item.spans.get(FULL_RANGE))
                self.flat.add(item.name, item.spans)
            else:
                plans = [plan for group in self.groups for plan in group.plans.values()] if item.is_lasting else []
                self._refuse(item.digest, item.name, item.refusal, [p for p in plans if item.digest in p.missing])

    def _note(self, item: Decoded) -> None:
        """Note the digest of a file that was not known before, or why it could not be read."""
        assert item.file is not None
        path, state, read_ns = item.file
        refusal = Refusal(item.name, "", item.refusal or "")
        self.table.note(path, item.digest or refusal, state=state, read_ns=read_ns)
        if not item.digest and self.settings.on_error == "fail":
            raise ImageRefused(refused_line(refusal))

    def refuse_again(self, digested: Digested) -> None:
        """Refuse the images that an earlier run refused, for the same reasons, without decoding them."""
        plans = self.work.plans
        for digest, sample in _distinct(digested, self.work.refused):
            reason = next(p.refused[digest] for p in plans if digest in p.refused)
            self._refuse(digest, sample.name, reason, [p for p in plans if digest in p.damaged])

    def remember_refusals(self, memo: Memo) -> None:
        """Remember the images that were refused for their content; their rows by older rules do not count any more.

        Never raises CacheError: this is done after an error too, which it would hide.
        """
        remember_refused(memo, self.lasting, self.settings.max_pixels)
        for plan in self.work.plans:
            refused = [digest for digest, key in self.lasting if key == plan.spec.key]
            digests = np.frombuffer(b"".join(refused), dtype=np.uint8).reshape(-1, 32)
            with contextlib.suppress(CacheError):
                if reason := plan.cache.withdraw(digests, last_revision(plan.spec.decode)):
                    self.progress.say(
                        f"The features of images that are refused stay in '{printable(plan.cache.folder)}' and go on "
                        f"counting, because it cannot be written: {reason}. Correct that and extract again."
                    )

    def _refuse(self, digest: bytes, name: str, reason: str, plans: Sequence[Plan]) -> None:
        """Record the refusal of an image; `plans` are those that will have no row for it."""
        refusal = Refusal(name, digest.hex(), reason)
        self.refused[digest] = refusal
        self.lasting.update({(digest, plan.spec.key): reason for plan in plans})
        if self.settings.on_error == "fail":
            raise ImageRefused(refused_line(refusal))


def _distinct(digested: Digested, missing: set[bytes]) -> list[tuple[bytes, Sample]]:
    """Return one item per missing image, in the order of the samples; identical files are read once."""
    items: dict[bytes, Sample] = {}
    if not missing:
        return []
    is_missing = are_among(as_names(digested.digests), np.array(list(missing), dtype="S32"))
    for i in np.flatnonzero(is_missing).tolist():
        items.setdefault(bytes(digested.digests[i]), digested.samples[i])
    return list(items.items())


def refused_line(refusal: Refusal) -> str:
    """Return the sentence about a refused image."""
    return f"'{printable(refusal.name)}' is refused: {refusal.reason}."
