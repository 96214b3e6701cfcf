"""Stage one: P(x), once per image, ever. Reader, engine, writer; here they are composed and timed.

    samples -> digests -> what is missing -> bytes -> pixels -> engine -> shard

Several requests share one pass over the images: each image is read and decoded once, and goes to every backbone that
has no vector of it. What is finished when something stops the run (Ctrl-C, a full disk, an image with
`on_error="fail"`) is published before the error goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from extract import request as requests
from extract.cache import FeatureCache
from extract.decode import DECODE_VERSION, MAX_PIXELS, decode_image
from extract.digests import Digested, Refusal, digest_samples
from extract.errors import CacheUnwritable, ImageRefused
from extract.loader import default_threads, load_ahead
from extract.manifest import Manifest, Sample, printable
from extract.memo import Memo
from extract.request import FeatureRequest, Resolved, installed_version
from extract.shards import Rows
from extract.spec import FeatureSpec, image_digest

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from extract.backbones import Backbone
    from extract.engines import Engine

OnError = Literal["skip", "fail"]

# A kill loses at most the unfinished shard, so shards are published this often; the bytes bound memory on a fast GPU.
SHARD_SECONDS = 30.0
SHARD_BYTES = 64 << 20
# HDF5 structures, checksums, digests and paths beside the vectors: measured 130 bytes a row, rounded up.
OVERHEAD_BYTES_PER_ROW = 256
RECORDED_LIBRARIES = ("featurecache", "torch", "torchvision", "pillow", "h5py", "numpy")


class Progress(Protocol):
    """Who is told how far things are. All calls come from one thread."""

    def say(self, text: str) -> None:
        """One line for people."""

    def digesting(self, done: int, total: int) -> None:
        """So many files have been hashed."""

    def extracting(self, done: int, total: int, refused: int) -> None:
        """So many images have gone through, so many of them refused."""


class Silent:
    """Progress for nobody."""

    def say(self, text: str) -> None:
        """Nothing."""

    def digesting(self, done: int, total: int) -> None:
        """Nothing."""

    def extracting(self, done: int, total: int, refused: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Settings:
    """How to run; nothing here changes a vector beyond 1e-4 relative, so nothing here is in the key."""

    engine: str = "auto"
    device: str = "auto"
    batch_size: int | None = None
    on_error: OnError = "skip"
    max_pixels: int = MAX_PIXELS


@dataclass
class Seconds:
    """Where the time went. Reading and decoding run in threads beside the engine, so the parts add up to more."""

    read: float = 0.0
    decode: float = 0.0
    forward: float = 0.0
    write: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Filled:
    """One cache after the run."""

    request: FeatureRequest
    resolved: Resolved
    cache: FeatureCache
    n_present: int
    n_extracted: int


@dataclass(frozen=True)
class ExtractReport:
    """What `extract_features` did: counts are distinct images, `refusals` name samples."""

    samples: tuple[Sample, ...]
    digests: NDArray[np.uint8]
    filled: tuple[Filled, ...]
    refusals: tuple[Refusal, ...]
    seconds: Seconds
    n_decoded: int
    engines: tuple[str, ...] = field(default=())


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
    settings, progress = settings or Settings(), progress or Silent()
    started = time.perf_counter()
    with Memo(cache_root) as memo:
        digested = digest_samples(manifest.samples, memo, on_progress=progress.digesting)
        if digested.refusals and settings.on_error == "fail":
            raise ImageRefused(_refused_line(digested.refusals[0]))
        plans = [_plan(request, cache_root, memo, digested, settings, progress) for request in asked]
        run = _Run(plans, digested, settings, progress)
        try:
            run.fill()
        finally:
            memo.forget_refusals(run.decoded)
            memo.remember_refusals(DECODE_VERSION, run.lasting)
    for plan in plans:
        plan.cache.refresh()
        if len(plan.cache):
            plan.cache.write_index()
    run.seconds.total = time.perf_counter() - started
    return _report(digested, plans, run)


@dataclass
class _Plan:
    """One request on its way: what it resolved to, what is missing, and the rows not yet published."""

    request: FeatureRequest
    resolved: Resolved
    cache: FeatureCache
    missing: set[bytes]
    n_present: int
    backbone: Backbone | None
    engine: Engine | None
    n_extracted: int = 0
    images: list[torch.Tensor] = field(default_factory=list)
    keys: list[tuple[bytes, str]] = field(default_factory=list)
    rows: list[NDArray[np.floating[Any]]] = field(default_factory=list)
    row_keys: list[tuple[bytes, str]] = field(default_factory=list)
    published: float = field(default_factory=time.perf_counter)

    @property
    def spec(self) -> FeatureSpec:
        return self.resolved.spec


def _plan(
    request: FeatureRequest, cache_root: Path, memo: Memo, digested: Digested, settings: Settings, progress: Progress
) -> _Plan:
    """Resolve a request, from memory if possible, and load its backbone only if an image needs it."""
    resolved, backbone = requests.recall(request, memo), None
    if resolved is None:
        backbone = request.load()
        resolved = requests.resolve(request, backbone)
        requests.remember(request, resolved, backbone, memo)
    cache = FeatureCache(cache_root, resolved.spec)
    absent = cache.missing(digested.digests)
    missing = {bytes(row) for row in digested.digests[absent]}
    n_present = len({bytes(row) for row in digested.digests[~absent]})
    engine = None
    if missing:
        from extract.engines import build_engine

        _check_disk(cache_root, resolved.spec, len(missing))
        backbone = backbone or request.load()
        engine = build_engine(
            backbone,
            engine=settings.engine,
            device=settings.device,
            precision=request.precision,
            batch_size=settings.batch_size,
        )
        progress.say(engine.reason)
    return _Plan(request, resolved, cache, missing, n_present, backbone, engine)


def _check_disk(cache_root: Path, spec: FeatureSpec, n: int) -> None:
    needed = n * (spec.feature_dim * np.dtype(spec.dtype).itemsize + OVERHEAD_BYTES_PER_ROW)
    free = shutil.disk_usage(cache_root).free
    if needed > free:
        raise CacheUnwritable(
            f"{n:,} vectors need {needed / 1e9:.2f} GB and '{cache_root}' has {free / 1e9:.2f} GB free: "
            f"{(needed - free) / 1e9:.2f} GB too little. Free some space or choose another folder with --cache."
        )


@dataclass(frozen=True)
class _Decoded:
    """What a loader thread returns: pixels for each plan that needs them, or the reason why there are none."""

    digest: bytes
    name: str
    images: list[tuple[_Plan, torch.Tensor]]
    refusal: str | None
    is_lasting: bool
    read_seconds: float
    decode_seconds: float


class _Run:
    """One pass over the missing images."""

    def __init__(self, plans: list[_Plan], digested: Digested, settings: Settings, progress: Progress) -> None:
        self.plans, self.settings, self.progress = plans, settings, progress
        self.items = _distinct(digested, set().union(*(plan.missing for plan in plans)))
        self.refused: dict[bytes, Refusal] = {}
        self.lasting: dict[bytes, str] = {}  # of these, what the bytes are refused for, and not the state of the disk
        self.decoded: list[bytes] = []
        self.seconds = Seconds()

    def fill(self) -> None:
        engines = [plan.engine for plan in self.plans if plan.engine is not None]
        if not self.items or not engines:
            return
        n_ahead = 2 * max(engine.batch_size for engine in engines)
        n_threads = default_threads(engines[0].device)
        try:
            with closing(load_ahead(self.items, self._load, n_threads=n_threads, n_ahead=n_ahead)) as loaded:
                for done, item in enumerate(loaded, start=1):
                    self._take(item)
                    self.progress.extracting(done, len(self.items), len(self.refused))
            for plan in self.plans:
                self._forward(plan)
        finally:
            for plan in self.plans:
                self._publish(plan)

    def _load(self, item: tuple[bytes, Sample]) -> _Decoded:
        from extract.transform import apply_transform

        digest, sample = item
        started = time.perf_counter()
        read, images, refusal, is_lasting = started, [], None, False
        try:
            data = Path(sample.path).read_bytes()
            read = time.perf_counter()
            if image_digest(data) != digest:
                raise ImageRefused("it changed while the run was going on; run extract again")
            is_lasting = True
            pixels = decode_image(data, max_pixels=self.settings.max_pixels)
            for plan in self.plans:
                if digest in plan.missing:
                    images.append((plan, apply_transform(pixels, plan.spec.transform)))
        except OSError as error:
            refusal = f"cannot be read: {error.strerror or error}"
        except ImageRefused as error:
            refusal = str(error)
        return _Decoded(digest, sample.name, images, refusal, is_lasting, read - started, time.perf_counter() - read)

    def _take(self, item: _Decoded) -> None:
        self.seconds.read += item.read_seconds
        self.seconds.decode += item.decode_seconds
        if item.refusal is not None:
            self._refuse(item.digest, item.name, item.refusal, is_lasting=item.is_lasting)
            return
        self.decoded.append(item.digest)
        for plan, image in item.images:
            assert plan.engine is not None
            plan.images.append(image)
            plan.keys.append((item.digest, item.name))
            if len(plan.images) == plan.engine.batch_size:
                self._forward(plan)

    def _refuse(self, digest: bytes, name: str, reason: str, *, is_lasting: bool = False) -> None:
        refusal = Refusal(name, digest.hex(), reason)
        self.refused[digest] = refusal
        if is_lasting:
            self.lasting[digest] = reason
        if self.settings.on_error == "fail":
            raise ImageRefused(_refused_line(refusal))

    def _forward(self, plan: _Plan) -> None:
        import torch

        if not plan.images:
            return
        assert plan.engine is not None
        started = time.perf_counter()
        with np.errstate(over="ignore"):
            vectors = plan.engine.run(torch.stack(plan.images)).astype(plan.spec.dtype)
        self.seconds.forward += time.perf_counter() - started
        finite = np.isfinite(vectors).all(axis=1)
        for (digest, name), good in zip(plan.keys, finite, strict=True):
            if not good:
                self._refuse(digest, name, f"its features overflow {plan.spec.dtype}; use --precision fp32")
        plan.rows.append(vectors[finite])
        plan.row_keys += [key for key, good in zip(plan.keys, finite, strict=True) if good]
        plan.images, plan.keys = [], []
        row_bytes = plan.spec.feature_dim * vectors.itemsize
        if started - plan.published > SHARD_SECONDS or len(plan.row_keys) * row_bytes > SHARD_BYTES:
            self._publish(plan)

    def _publish(self, plan: _Plan) -> None:
        if not plan.row_keys or plan.engine is None:
            return
        started = time.perf_counter()
        digests = np.frombuffer(b"".join(digest for digest, _ in plan.row_keys), dtype=np.uint8).reshape(-1, 32)
        rows = Rows(np.concatenate(plan.rows), digests, [name for _, name in plan.row_keys])
        plan.cache.add(rows, self._record(plan, started - plan.published))
        plan.n_extracted += len(rows.names)
        plan.rows, plan.row_keys, plan.published = [], [], time.perf_counter()
        self.seconds.write += plan.published - started

    def _record(self, plan: _Plan, seconds: float) -> dict[str, Any]:
        engine = plan.engine
        assert engine is not None
        return {
            "engine": engine.name,
            "device": engine.device,
            "batch_size": engine.batch_size,
            "weights": plan.resolved.weights,
            "versions": {name: installed_version(name) for name in RECORDED_LIBRARIES},
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 3),
        }


def _distinct(digested: Digested, missing: set[bytes]) -> list[tuple[bytes, Sample]]:
    """One item per missing image, in the order of the samples; copies of an image are read once."""
    items: dict[bytes, Sample] = {}
    for row, sample in zip(digested.digests, digested.samples, strict=True):
        digest = bytes(row)
        if digest in missing:
            items.setdefault(digest, sample)
    return list(items.items())


def _report(digested: Digested, plans: list[_Plan], run: _Run) -> ExtractReport:
    refused = dict(run.refused)
    keep = [i for i, row in enumerate(digested.digests) if bytes(row) not in refused]
    samples = tuple(digested.samples[i] for i in keep)
    refusals = list(digested.refusals)
    for row, sample in zip(digested.digests, digested.samples, strict=True):
        with suppress(KeyError):
            reason = refused[bytes(row)]
            refusals.append(Refusal(sample.name, reason.digest, reason.reason))
    filled = tuple(Filled(p.request, p.resolved, p.cache, p.n_present, p.n_extracted) for p in plans)
    engines = tuple(p.engine.reason for p in plans if p.engine is not None)
    return ExtractReport(
        samples, digested.digests[keep], filled, tuple(refusals), run.seconds, len(run.decoded), engines
    )


def _refused_line(refusal: Refusal) -> str:
    return f"'{printable(refusal.name)}' is refused: {refusal.reason}."


__all__ = ["ExtractReport", "Filled", "OnError", "Progress", "Seconds", "Settings", "Silent", "extract_features"]
