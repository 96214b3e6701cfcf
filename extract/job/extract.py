"""Extraction of the features that a cache lacks: reader, engine and writer, composed and timed.

    samples -> digests -> what is missing -> bytes -> pixels -> engine -> columns -> shards

Several requests share one pass over the images: each image is read and decoded once, resized once for all backbones
with the same transform, and passes once through every network that is needed. If the run is stopped (Ctrl-C, a full
disk, an image with `on_error="fail"`), the vectors computed so far are published before the error is raised.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from featurecache.base.errors import CacheError, ImageRefused, RequestError
from featurecache.base.progress import Pace, Progress, Silent
from featurecache.base.text import printable
from featurecache.base.values import not_of, refuse
from featurecache.extract.cache.compact import merge_if_many
from featurecache.extract.cache.memo import Memo
from featurecache.extract.images.decoding.levels import DimImages
from featurecache.extract.images.digests import Digested, Refusal, digest_samples
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.job.compute import Computed, Item, compute_vectors
from featurecache.extract.job.fixed_pictures import check_pixels
from featurecache.extract.job.outlook import outlook
from featurecache.extract.job.plan import Group, Plan, Work, plan_work
from featurecache.extract.job.refused_before import remember_refused
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import OnError, Settings
from featurecache.extract.job.summary import ExtractReport, Filled, Seconds, write_report
from featurecache.extract.job.writer import Writer

__all__ = ["ExtractReport", "Filled", "OnError", "Progress", "Seconds", "Settings", "Silent", "extract_features"]


def extract_features(
    manifest: Manifest,
    asked: Sequence[FeatureRequest],
    cache_root: Path,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> ExtractReport:
    """Compute the vectors of all images of a manifest that the caches of the requests lack, and write them.

    Raises RequestError, BackboneError, EngineError, CacheError, or with `on_error="fail"` ImageRefused. Otherwise a
    refused image does not end the run: it is in the report.
    """
    refuse(RequestError, not_of("requests", asked, FeatureRequest))
    settings, progress, seconds = settings or Settings(), progress or Silent(), Seconds()
    with _timing(seconds, "total"), Memo(cache_root) as memo, ExitStack() as kept:
        with _timing(seconds, "digest"):
            digested = digest_samples(manifest.samples, memo, on_progress=progress.digesting)
        if digested.refusals and settings.on_error == "fail":
            raise ImageRefused(_refused_line(digested.refusals[0]))
        with _timing(seconds, "load"):
            max_pixels = None if settings.retry_refused else settings.max_pixels
            work = plan_work(asked, cache_root, memo, digested, max_pixels=max_pixels, say=progress.say)
            kept.enter_context(_settings_of_torch_kept(work))
            notes = _start(work, digested, cache_root, settings, progress)
        run = _Run(work, settings, progress, seconds)
        run.refuse_again(_distinct(digested, work.refused), work.plans)
        try:
            run.fill(_distinct(digested, work.missing))
        finally:
            remember_refused(memo, run.lasting, settings.max_pixels)
        if line := run.dim.line():
            notes.append(line)
            progress.say(line)
        for plan in work.plans:
            plan.cache.refresh()
            if len(plan.cache):
                merge_if_many(plan.cache, progress.say)
    return write_report(
        digested,
        work,
        refused=run.refused,
        seconds=seconds,
        n_decoded=run.n_decoded,
        n_extracted=run.n_extracted,
        notes=notes,
    )


def _settings_of_torch_kept(work: Work) -> AbstractContextManager[None]:
    """Return a context that leaves torch's settings for the process as they were; torch is imported only to be used."""
    if not work.groups:
        return nullcontext()
    from featurecache.extract.engines.torch_settings import restored_settings

    return restored_settings()


def _start(work: Work, digested: Digested, cache_root: Path, settings: Settings, progress: Progress) -> list[str]:
    """Build the engines, and return a line for each cache whose images had other pixels."""
    if not work.groups:
        return []
    progress.say(outlook(work, digested, cache_root))
    for reason in dict.fromkeys([group.start(settings, progress.say).reason for group in work.groups]):
        progress.say(reason)
    notes = check_pixels(work.groups)
    for line in notes:
        progress.say(line)
    return notes


@contextmanager
def _timing(seconds: Seconds, name: str) -> Iterator[None]:
    """Add the time of the block to a field of `seconds`."""
    started = time.perf_counter()
    try:
        yield
    finally:
        setattr(seconds, name, getattr(seconds, name) + time.perf_counter() - started)


class _Run:
    """One pass over the missing images, which passes the computed vectors to a writer for each cache."""

    def __init__(self, work: Work, settings: Settings, progress: Progress, seconds: Seconds) -> None:
        self.groups, self.settings, self.progress, self.seconds = work.groups, settings, progress, seconds
        self.refused: dict[bytes, Refusal] = {}
        # (digest, key) -> reason of those that are refused for their content, and not for a failure to read them.
        self.lasting: dict[tuple[bytes, str], str] = {}
        self.dim = DimImages()
        self.n_decoded = 0
        self.n_extracted: dict[Plan, int] = {}

    def fill(self, items: Sequence[Item]) -> None:
        """Extract the items and publish their vectors; those computed before an error too."""
        if not self.groups:
            return
        pace, done = Pace(len(items), self.progress), 0
        with (
            self._writers() as writers,
            closing(compute_vectors(items, self.groups, max_pixels=self.settings.max_pixels)) as computed,
        ):
            for chunk in self._awaited(computed):
                done += len(chunk.decoded)
                self._write(chunk, writers)
                self._count(chunk)
                self.progress.extracting(done, len(items), len(self.refused))
                pace.reached(done)

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
            self.n_extracted = {writer.plan: writer.n_extracted for writer in everyone}
            self.seconds.write += sum(writer.seconds for writer in everyone)

    def _share(self, group: Group) -> float:
        """Return a group's share of the elapsed time, in proportion to the seconds of its forward passes."""
        return group.forward_seconds / (sum(each.forward_seconds for each in self.groups) or 1.0)

    def _awaited(self, computed: Iterator[Computed]) -> Iterator[Computed]:
        while True:
            with _timing(self.seconds, "wait"):
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
            if item.refusal is None:
                self.n_decoded += 1
                self.dim.add(item.name, item.span)
            else:
                plans = [plan for group in self.groups for plan in group.plans.values()] if item.is_lasting else []
                self._refuse(item.digest, item.name, item.refusal, [p for p in plans if item.digest in p.missing])

    def refuse_again(self, items: Sequence[Item], plans: Sequence[Plan]) -> None:
        """Refuse the images that an earlier run refused, for the same reasons, without decoding them."""
        for digest, sample in items:
            self._refuse(digest, sample.name, next(p.refused[digest] for p in plans if digest in p.refused), [])

    def _refuse(self, digest: bytes, name: str, reason: str, plans: Sequence[Plan]) -> None:
        """Record the refusal of an image; `plans` are those that will have no row for it."""
        refusal = Refusal(name, digest.hex(), reason)
        self.refused[digest] = refusal
        self.lasting.update({(digest, plan.spec.key): reason for plan in plans})
        if self.settings.on_error == "fail":
            raise ImageRefused(_refused_line(refusal))


def _distinct(digested: Digested, missing: set[bytes]) -> list[Item]:
    """Return one item per missing image, in the order of the samples; identical files are read once."""
    items: dict[bytes, Sample] = {}
    if not missing:
        return []
    for row, sample in zip(digested.digests, digested.samples, strict=True):
        digest = bytes(row)
        if digest in missing:
            items.setdefault(digest, sample)
    return list(items.items())


def _refused_line(refusal: Refusal) -> str:
    return f"'{printable(refusal.name)}' is refused: {refusal.reason}."
