"""Extraction of the features that a cache lacks: reader, engine and writer, composed and timed.

    samples -> digests -> what is missing -> bytes -> pixels -> engine -> columns -> shards

A file that the memo does not know is read once: the thread that decodes it finds its digest. Only until it is known
that something is missing, files are read for their digests alone, because then no network is needed.

Several requests share one pass over the images: each image is read and decoded once, resized once for all backbones
with the same transform, and passes once through every network that is needed. If the run is stopped (Ctrl-C, a full
disk, an image with `on_error="fail"`), the vectors computed so far are published before the error is raised.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path

from featurecache.base.errors import ImageRefused, RequestError
from featurecache.base.progress import Progress, Silent
from featurecache.base.values import not_of, refuse
from featurecache.extract.cache.compact import merge_if_many
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.spec import INT8
from featurecache.extract.engines.devices import is_surely_cpu
from featurecache.extract.images.digests import Digested, DigestTable, Refusal
from featurecache.extract.images.manifest import Manifest, no_manifest
from featurecache.extract.job.fixed_pictures import check_pixels
from featurecache.extract.job.outlook import check_engines, lacks_rows, needed_bytes, outlook
from featurecache.extract.job.passes import Run, refused_line, timing
from featurecache.extract.job.plan import Work, plan_work
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import OnError, Settings
from featurecache.extract.job.summary import ExtractReport, Filled, Seconds, write_report

__all__ = ["ExtractReport", "Filled", "OnError", "Progress", "Seconds", "Settings", "Silent", "extract_features"]


def extract_features(
    manifest: Manifest,
    asked: Sequence[FeatureRequest],
    cache_root: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> ExtractReport:
    """Compute the vectors of all images of a manifest that the caches of the requests lack, and write them.

    Raises RequestError, BackboneError, EngineError, CacheError, or with `on_error="fail"` ImageRefused, also for a file
    that somebody would miss. Otherwise a refused image does not end the run: it is in the report.
    """
    refuse(RequestError, no_manifest(manifest), not_of("requests", asked, FeatureRequest))
    progress, seconds, cache_root = progress or Silent(), Seconds(), Path(cache_root)
    settings = _checked(settings or Settings(), asked, progress)
    _stop_at(settings, (Refusal(each.name, "", each.reason) for each in manifest.left_out.missed))
    with timing(seconds, "total"), Memo(cache_root) as memo, ExitStack() as kept:
        check_engines(asked, settings, cache_root)
        with timing(seconds, "digest"):
            table = DigestTable(manifest.samples, memo)
            if table.unread:
                table.hash_unread(progress.digesting, until=lacks_rows(asked, cache_root, memo))
        _stop_at(settings, table.collect().refusals)
        with timing(seconds, "load"):
            digested, work = _planned(asked, cache_root, memo, table, settings=settings, progress=progress)
            kept.enter_context(_settings_of_torch_kept(work, settings))
            notes = _start(work, digested, cache_root, settings, progress, n_unread=len(table.unread))
        run = Run(work, table, settings, progress, seconds)
        run.refuse_again(digested)
        try:
            run.fill(cache_root)
        finally:
            table.flush()
            run.remember_refusals(memo)
        digested = run.after(digested)
        for line in filter(None, [run.dim.line(), *run.flat.lines()]):
            notes.append(line)
            progress.say(line)
        for each in work.plans:
            each.cache.refresh()
            if len(each.cache):
                merge_if_many(each.cache, progress.say)
    return write_report(
        digested, work, refused=run.refused, seconds=seconds, n_decoded=run.n_decoded, n_extracted=run.n_extracted,
        notes=notes,
    )  # fmt: skip


def _stop_at(settings: Settings, refusals: Iterable[Refusal]) -> None:
    """Raise ImageRefused for the first, if the first is to end the run."""
    for each in refusals if settings.on_error == "fail" else ():
        raise ImageRefused(refused_line(each))


def _checked(settings: Settings, asked: Sequence[FeatureRequest], progress: Progress) -> Settings:
    """Return the settings, after asking the hub for newer commits if they say so.

    Raises EngineError for an engine or a device that does not run int8, if it is asked for, and WeightsMissing.
    """
    if any(request.precision == INT8 for request in asked):
        from featurecache.extract.engines.build import check_int8

        check_int8(settings.engine, settings.device)
    if settings.refresh:
        from featurecache.extract.backbones.libraries.sources import refresh_commit

        for line in filter(None, map(refresh_commit, dict.fromkeys(request.backbone for request in asked))):
            progress.say(line)
    return settings


def _planned(
    asked: Sequence[FeatureRequest],
    cache_root: Path,
    memo: Memo,
    table: DigestTable,
    *,
    settings: Settings,
    progress: Progress,
) -> tuple[Digested, Work]:
    """Return the digests that are known and the work; all are known if the disk may have too little space.

    Copies of one image, which need no space, are known by their digests only.
    """
    max_pixels = None if settings.retry_refused else settings.max_pixels
    plan = partial(plan_work, asked, cache_root, memo, max_pixels=max_pixels, say=progress.say)
    digested = table.collect()
    work = plan(digested, n_unread=len(table.unread))
    if table.unread and needed_bytes(work, len(table.unread)) > shutil.disk_usage(cache_root).free:
        table.hash_unread(progress.digesting)
        digested = table.collect()
        work = plan(digested)
    return digested, work


def _settings_of_torch_kept(work: Work, settings: Settings) -> AbstractContextManager[None]:
    """Return a context that leaves torch's settings for the process as they were; on a CPU they are not changed."""
    if not work.groups or is_surely_cpu(settings.device):
        return nullcontext()
    from featurecache.extract.engines.torch_settings import restored_settings

    return restored_settings()


def _start(
    work: Work, digested: Digested, cache_root: Path, settings: Settings, progress: Progress, *, n_unread: int
) -> list[str]:
    """Build the engines, and return a line for each cache whose images had other pixels."""
    if not work.groups:
        return []
    progress.say(outlook(work, digested, cache_root, n_unread=n_unread))
    for reason in dict.fromkeys([group.start(settings, progress.say).reason for group in work.groups]):
        progress.say(reason)
    notes = check_pixels(work.groups)
    for line in notes:
        progress.say(line)
    return notes
