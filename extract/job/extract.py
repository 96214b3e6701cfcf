"""Extraction of the features that a cache lacks: reader, engine and writer, composed and timed.

    samples -> digests -> what is missing -> bytes -> pixels -> engine -> columns -> shards

Several requests share one pass over the images: each image is read and decoded once, resized once for all backbones
that want the same pixels, and goes once through every network that any missing vector comes from. What is finished when
something stops the run (Ctrl-C, a full disk, an image with `on_error="fail"`) is published before the error goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ImageRefused
from featurecache.base.progress import Pace, Progress, Silent
from featurecache.base.text import printable
from featurecache.base.versions import installed_version
from featurecache.extract.cache.memo import Memo
from featurecache.extract.cache.shards import Rows
from featurecache.extract.images.digests import Digested, Refusal, digest_samples
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.job.compute import Computed, Item, compute_vectors
from featurecache.extract.job.plan import Group, Plan, Work, outlook, plan_work
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import OnError, Settings
from featurecache.extract.job.summary import ExtractReport, Filled, Seconds, write_report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurecache.extract.engines.protocol import Engine

# A kill loses at most the unfinished shard, so shards are published this often; the bytes bound memory on a fast GPU.
SHARD_SECONDS = 30.0
SHARD_BYTES = 64 << 20
RECORDED_LIBRARIES = ("featurecache", "torch", "torchvision", "pillow", "h5py", "numpy")

__all__ = ["ExtractReport", "Filled", "OnError", "Progress", "Seconds", "Settings", "Silent", "extract_features"]


def extract_features(
    manifest: Manifest,
    asked: Sequence[FeatureRequest],
    cache_root: Path,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> ExtractReport:
    """Give every image of the manifest its vector in the cache of every request; what is there is left alone.

    Raises BackboneError, EngineError, CacheError, or with `on_error="fail"` ImageRefused. A refused image never ends
    the run otherwise: it is in the report.
    """
    settings, progress, seconds = settings or Settings(), progress or Silent(), Seconds()
    with _timing(seconds, "total"), Memo(cache_root) as memo:
        with _timing(seconds, "digest"):
            digested = digest_samples(manifest.samples, memo, on_progress=progress.digesting)
        if digested.refusals and settings.on_error == "fail":
            raise ImageRefused(_refused_line(digested.refusals[0]))
        with _timing(seconds, "load"):
            work = plan_work(asked, cache_root, memo, digested)
            _start(work, digested, cache_root, settings, progress)
        run = _Run(work, digested, settings, progress, seconds)
        try:
            run.fill()
        finally:
            memo.remember_refusals(run.lasting)
        for plan in work.plans:
            plan.cache.refresh()
            if len(plan.cache):
                plan.cache.write_index()
    return write_report(digested, work, run.refused, seconds, run.n_decoded)


def _start(work: Work, digested: Digested, cache_root: Path, settings: Settings, progress: Progress) -> None:
    if not work.groups:
        return
    progress.say(outlook(work, digested, cache_root))
    for reason in dict.fromkeys([group.start(settings, progress.say).reason for group in work.groups]):
        progress.say(reason)


@contextmanager
def _timing(seconds: Seconds, name: str) -> Iterator[None]:
    """Add the time that the block takes to one of the parts."""
    started = time.perf_counter()
    try:
        yield
    finally:
        setattr(seconds, name, getattr(seconds, name) + time.perf_counter() - started)


class _Run:
    """One pass over the missing images."""

    def __init__(
        self, work: Work, digested: Digested, settings: Settings, progress: Progress, seconds: Seconds
    ) -> None:
        self.groups, self.settings, self.progress, self.seconds = work.groups, settings, progress, seconds
        self.items = _distinct(digested, work.missing)
        self.refused: dict[bytes, Refusal] = {}
        # Of these, by digest and key, what the bytes are refused for, and not the state of the disk.
        self.lasting: dict[tuple[bytes, str], str] = {}
        self.n_decoded = 0

    def fill(self) -> None:
        if not self.groups:
            return
        for group in self.groups:
            for plan in group.plans.values():
                plan.published = time.perf_counter()
        pace = Pace(len(self.items), self.progress)
        done = 0
        try:
            with closing(compute_vectors(self.items, self.groups, max_pixels=self.settings.max_pixels)) as computed:
                for chunk in self._awaited(computed):
                    done += len(chunk.decoded)
                    self._take(chunk)
                    self.progress.extracting(done, len(self.items), len(self.refused))
                    pace.reached(done)
        finally:
            for group in self.groups:
                for plan in group.plans.values():
                    self._publish(plan, group)

    def _awaited(self, computed: Iterator[Computed]) -> Iterator[Computed]:
        while True:
            with _timing(self.seconds, "wait"):
                chunk = next(computed, None)
            if chunk is None:
                return
            yield chunk

    def _take(self, chunk: Computed) -> None:
        for group, keys, vectors in chunk.vectors:
            group.forward_seconds += chunk.forward_seconds[id(group)]
            self.seconds.forward += chunk.forward_seconds[id(group)]
            for plan in group.plans.values():
                self._keep(plan, keys, vectors[:, plan.columns])
                self._publish_when_due(plan, group)
        for item in chunk.decoded:
            self.seconds.read += item.read_seconds
            self.seconds.decode += item.decode_seconds
            if item.refusal is None:
                self.n_decoded += 1
            else:
                plans = [plan for group in self.groups for plan in group.plans.values()] if item.is_lasting else []
                self._refuse(item.digest, item.name, item.refusal, [p for p in plans if item.digest in p.missing])

    def _publish_when_due(self, plan: Plan, group: Group) -> None:
        row_bytes = plan.spec.feature_dim * np.dtype(plan.spec.dtype).itemsize
        is_old = time.perf_counter() - plan.published > SHARD_SECONDS
        if is_old or len(plan.row_keys) * row_bytes > SHARD_BYTES:
            self._publish(plan, group)

    def _refuse(self, digest: bytes, name: str, reason: str, plans: Sequence[Plan]) -> None:
        """Leave an image out; `plans` are those that will have no row of these bytes."""
        refusal = Refusal(name, digest.hex(), reason)
        self.refused[digest] = refusal
        self.lasting.update({(digest, plan.spec.key): reason for plan in plans})
        if self.settings.on_error == "fail":
            raise ImageRefused(_refused_line(refusal))

    def _keep(self, plan: Plan, keys: list[tuple[bytes, str]], vectors: NDArray[np.float32]) -> None:
        """Of a batch, the rows that this plan misses; what its numbers cannot hold is refused."""
        missing = [i for i, (digest, _) in enumerate(keys) if digest in plan.missing]
        with np.errstate(over="ignore"):
            rows = vectors[missing].astype(plan.spec.dtype, copy=False)
        is_finite = np.isfinite(rows).all(axis=1)
        plan.rows.append(rows[is_finite])
        plan.row_keys += [keys[i] for i, good in zip(missing, is_finite, strict=True) if good]
        for i, good in zip(missing, is_finite, strict=True):
            if not good:
                self._refuse(*keys[i], _overflow(plan, vectors[i]), [plan])

    def _publish(self, plan: Plan, group: Group) -> None:
        if not plan.row_keys:
            return
        started = time.perf_counter()
        # Networks that share a pass over the images share its time, by what each of them needed.
        share = group.forward_seconds / (sum(each.forward_seconds for each in self.groups) or 1.0)
        with _timing(self.seconds, "write"):
            digests = np.frombuffer(b"".join(digest for digest, _ in plan.row_keys), dtype=np.uint8).reshape(-1, 32)
            rows = Rows(np.concatenate(plan.rows), digests, [name for _, name in plan.row_keys])
            plan.cache.add(rows, _record(plan, group.started, share * (started - plan.published)))
        plan.n_extracted += len(rows.names)
        plan.rows, plan.row_keys, plan.published = [], [], time.perf_counter()


def _record(plan: Plan, engine: Engine, seconds: float) -> dict[str, Any]:
    return {
        "engine": engine.name,
        "device": engine.device,
        "batch_size": engine.batch_size,
        "weights": plan.resolved.weights,
        "versions": {name: installed_version(name) for name in RECORDED_LIBRARIES},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 3),
    }


def _overflow(plan: Plan, vector: NDArray[np.float32]) -> str:
    """Why a vector is not finite: in the network's arithmetic already, or only as the numbers that are kept."""
    if np.isfinite(vector).all():
        return f"its features overflow {plan.spec.dtype}; use --dtype float32"
    if plan.spec.precision == "fp32":
        return "its features are not finite numbers"
    return f"its features overflow in {plan.spec.precision}; use --precision fp32"


def _distinct(digested: Digested, missing: set[bytes]) -> list[Item]:
    """One item per missing image, in the order of the samples; copies of an image are read once."""
    items: dict[bytes, Sample] = {}
    for row, sample in zip(digested.digests, digested.samples, strict=True):
        digest = bytes(row)
        if digest in missing:
            items.setdefault(digest, sample)
    return list(items.items())


def _refused_line(refusal: Refusal) -> str:
    return f"'{printable(refusal.name)}' is refused: {refusal.reason}."
