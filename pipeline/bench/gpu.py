"""Images per second on a GPU: the whole extraction, its parts alone, and the usual loop.

    pipeline     featurecache's own extraction into an empty cache, from reading files to shards on the disk
    engine       the network alone on pixels that are ready, in all lanes
    decode       the pipeline with an engine that returns at once
    share        pipeline / min(engine, decode): both go on at the same time
    loop         ImageFolder + DataLoader (16 workers, batches of 256) and the eager network in inference mode, in a
                 process of its own; in fp32 as torch is set by default, which allows TF32 in convolutions

The images are JPEGs of 500 x 375 that are made here: cuts of two photographs, each in several files that differ behind
the image data. Random weights stand in for those that this machine does not have. Loading is outside all rates. What
does not fit into the minutes is left out and named.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from featurecache.base.errors import EngineError, PipelineError
from featurecache.base.exits import DONE
from featurecache.base.text import table
from featurecache.bench.inputs import weights_for, write_photos
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.bench.pipeline import Everything, TimedEngine
from featurecache.bench.rivals import PLAIN, Job, elsewhere, go_through
from featurecache.cli.declare import POSITIVE, option, takes
from featurecache.cli.options import Device
from featurecache.extract.cache.spec import image_digest
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.job.compute import compute_vectors
from featurecache.extract.job.extract import extract_features
from featurecache.extract.job.request import FeatureRequest
from featurecache.extract.job.settings import Settings

BACKBONES, PRECISIONS = ("resnet50", "vit_b_16", "efficientnet_lite0"), ("fp32", "tf32", "bf16")
N_IMAGES, N_PHOTOS, WORKERS, BATCH = 8_000, 500, 16, 256
MINUTES = 6.0


@dataclass(frozen=True)
class Row:
    """One network in one precision: images/s, memory in MB, and why nothing was measured, if so."""

    backbone: str
    precision: str
    pipeline: float | None = None
    engine: float | None = None
    decode: float | None = None
    loop: float | None = None
    gpu_mb: float | None = None
    process_mb: float | None = None
    reason: str = ""

    @property
    def share(self) -> float | None:
        """The part of the bound that the pipeline reaches."""
        if self.pipeline is None or self.engine is None or self.decode is None:
            return None
        return self.pipeline / min(self.engine, self.decode)


@dataclass(frozen=True)
class Plan:
    """What is measured where."""

    device: str
    backbones: Sequence[str]
    precisions: Sequence[str]
    count: int
    minutes: float = MINUTES
    workers: int = WORKERS
    batch: int = BATCH
    size: int | None = None


def write_images(folder: Path, count: int) -> Manifest:
    """Write `count` JPEGs of 500 x 375 with different digests."""
    n_photos = min(N_PHOTOS, count)
    write_photos(folder, n_photos)
    photos = sorted((folder / "photo").iterdir())
    for i in range(n_photos, count):
        data = photos[i % n_photos].read_bytes()
        (folder / "photo" / f"{i:06d}.jpg").write_bytes(data + i.to_bytes(4, "big"))
    return scan_folder(folder)


def measure(plan: Plan, scratch: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[Row]:
    """Yield a row for each network and precision, in order, as long as there is time."""
    started = time.perf_counter()
    say(f"making {plan.count:,} photographs of 500 x 375")
    manifest = write_images(scratch / "images", plan.count)
    longest = 0.0
    for name in plan.backbones:
        with tempfile.TemporaryDirectory(dir=scratch) as hub, weights_for(name, Path(hub)):
            decode: float | None = None
            for precision in plan.precisions:
                begun = time.perf_counter()
                if begun - started + longest > 60 * plan.minutes:
                    yield Row(name, precision, reason=f"no time left of {plan.minutes:g} minutes")
                    continue
                say(f"{name} in {precision}")
                row = _row(plan, manifest, name, precision, decode)
                decode = row.decode or decode
                longest = max(longest, time.perf_counter() - begun)
                yield row


def _row(plan: Plan, manifest: Manifest, name: str, precision: str, decode: float | None) -> Row:
    import torch

    request, settings = FeatureRequest(name, precision=precision, size=plan.size), Settings(device=plan.device)
    is_cuda = plan.device.startswith("cuda")
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        pipeline = _pipeline(manifest, request, settings)
    except EngineError as error:
        return Row(name, precision, reason=str(error))
    gpu_mb = torch.cuda.max_memory_allocated() / 1e6 if is_cuda else None
    return Row(
        name,
        precision,
        pipeline=round(pipeline, 1),
        engine=round(_engine(request, settings, len(manifest)), 1),
        decode=decode or round(_decode(manifest, request, settings), 1),
        loop=round(_loop(plan, manifest, request), 1),
        gpu_mb=None if gpu_mb is None else round(gpu_mb),
        process_mb=_peak_mb(),
    )


def _pipeline(manifest: Manifest, request: FeatureRequest, settings: Settings) -> float:
    with tempfile.TemporaryDirectory() as cache:
        seconds = extract_features(manifest, [request], Path(cache), settings=settings).seconds
    return len(manifest) / (seconds.total - seconds.load)


def _engine(request: FeatureRequest, settings: Settings, count: int) -> float:
    import torch

    from featurecache.extract.engines.build import build_engine
    from featurecache.extract.engines.protocol import source_of

    backbone = request.load()
    engine = build_engine(source_of(backbone), device=settings.device, precision=request.precision)
    side = backbone.transform.crop
    pixels = torch.randint(0, 256, (engine.batch_size, 3, side, side), dtype=torch.uint8)
    if settings.device.startswith("cuda"):
        pixels = pixels.pin_memory()
    n_batches = max(engine.n_lanes, -(-count // engine.batch_size))
    with ThreadPoolExecutor(engine.n_lanes) as pool:
        list(pool.map(lambda _: engine.run(pixels), range(engine.n_lanes)))  # which prepares every lane
        started = time.perf_counter()
        list(pool.map(lambda _: engine.run(pixels), range(n_batches)))
        return n_batches * engine.batch_size / (time.perf_counter() - started)


def _decode(manifest: Manifest, request: FeatureRequest, settings: Settings) -> float:
    engine = TimedEngine(settings.device, n_lanes=2, batch_size=BATCH, seconds=0)
    items = [(image_digest(Path(sample.path).read_bytes()), sample) for sample in manifest.samples]
    groups = [Everything(engine, request.load().transform)]
    started = time.perf_counter()
    for _ in compute_vectors(items, groups, max_pixels=MAX_PIXELS):
        pass
    return len(items) / (time.perf_counter() - started)


def _loop(plan: Plan, manifest: Manifest, request: FeatureRequest) -> float:
    import torch

    device = "cuda" if plan.device.startswith("cuda") else plan.device
    job = Job(
        request.backbone,
        str(manifest.root),
        len(manifest),
        torch.hub.get_dir(),
        device,
        workers=plan.workers,
        batch=plan.batch,
        precision=request.precision,
        size=plan.size,
    )
    with elsewhere() as process:
        seconds, _ = process.submit(go_through, PLAIN, job).result()
    return len(manifest) / seconds


def _peak_mb() -> float | None:
    """The most memory that this process has had, in MB; None where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((round(int(line.split()[1]) / 1e3) for line in lines if line.startswith("VmHWM")), None)


def text_of(rows: Sequence[Row]) -> str:
    """A table with a row for each network and precision, and a line for each that was not measured."""
    names = ("pipeline", "engine", "decode", "share", "loop", "gpu_mb", "process_mb")
    headers = ("backbone", "precision", *(name.replace("_mb", " MB") for name in names))
    cells = [
        (each.backbone, each.precision, *(_number(getattr(each, name), 2 if name == "share" else 0) for name in names))
        for each in rows
        if not each.reason
    ]
    left = [f"{each.backbone} in {each.precision} is not measured: {each.reason}" for each in rows if each.reason]
    return "\n".join([table(cells, headers, right=range(2, len(headers))), *left])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


@dataclass(frozen=True)
class GpuBench:
    """On which device, with how many images, how long."""

    device: str = option("--device", type=Device(), metavar="cuda|cuda:N|cuda:all", default="cuda", help="which GPU")
    count: int = option("--count", metavar="N", type=POSITIVE, default=N_IMAGES, show_default=True, help="images")
    minutes: int = option(
        "--minutes", metavar="N", type=POSITIVE, default=int(MINUTES), show_default=True, help="of all, at most"
    )


@click.command(cls=BenchCommand, examples=["featurecache bench gpu --device cuda:1"])
@takes(GpuBench, Output)
def command(asked: GpuBench, output: Output) -> int:
    """Measure extraction on a GPU, its parts, and the usual loop.

    Of resnet50, vit_b_16 and efficientnet_lite0 in fp32, tf32 and bf16.
    """
    from featurecache.extract.engines.torch_engine import choose_device

    if not asked.device.startswith("cuda"):
        raise PipelineError(f"This measures GPUs, not {asked.device}: use 'featurecache bench extract'.")
    choose_device(asked.device)
    plan = Plan(asked.device, BACKBONES, PRECISIONS, asked.count, asked.minutes)
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder:
        rows = list(measure(plan, Path(folder), say))
    output.show(text_of(rows), {"machine": _machine(), "rows": [{**asdict(row), "share": row.share} for row in rows]})
    return DONE


def _machine() -> dict[str, Any]:
    """Return the machine and versions that the figures belong to."""
    import torch

    from featurecache.bench.extract import machine

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {**machine(), "gpus": gpus, "cuda": torch.version.cuda}
