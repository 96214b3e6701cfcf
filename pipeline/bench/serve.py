"""Requests per second of `serve`, against FastAPI with ONNX Runtime and against LitServe, on this machine.

Each service is a process, and a client in another sends JPEG photographs of 500 x 375 pixels over connections that it
keeps busy, on the same cores. All have the same network in fp32; ours runs the graph that extraction runs, the others
the same network exported for one image. They take turns, for each number of connections; the share is ours against the
rate of an extraction of the same photographs into an empty cache, without a client, right before and after it.
At last ours gets twice the requests that it answered with most connections. Requests without any response are lost.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
import numpy as np

from featurecache.base.defaults import DEFAULT_BACKBONE
from featurecache.base.errors import PipelineError
from featurecache.base.exits import DONE
from featurecache.base.text import table
from featurecache.base.versions import installed_version
from featurecache.bench.extract import machine
from featurecache.bench.inputs import N_PHOTOS, SIZE, weights_for, write_photos
from featurecache.bench.output import BenchCommand, Output, say
from featurecache.bench.passes import first, ours
from featurecache.bench.serving.overload import Overload, overload
from featurecache.bench.serving.services import OTHERS, OURS, Model, Service, serving
from featurecache.cli.declare import POSITIVE, Counts, option, takes
from featurecache.cli.main import run
from featurecache.extract.images.folders.scan import scan_folder
from featurecache.extract.job.request import FeatureRequest

N_REQUESTS, N_OF_OTHERS, CONNECTIONS = 10_000, 2_000, (1, 8, 64)
# Images of the run that is served, and classes of its head: the time of a request does not depend on them.
N_TRAINED, CLASSES = 64, ("one", "two")
# Each is asked for so long before what counts, with so many requests at a time: torch, which a service may load late to
# resize images, takes some seconds.
WARM_SECONDS, N_WARM = 15.0, 200
# Extractions before, and after, the requests over most connections.
N_EXTRACTIONS = 2
LIBRARIES = ("uvicorn", "uvloop", "httptools", "fastapi", "litserve")


@dataclass(frozen=True)
class Measured:
    """One service with so many connections. rate: answered requests a second. ms: latencies by percent of requests."""

    service: str
    connections: int
    requests: int
    rate: float
    ms: dict[str, float]
    statuses: dict[str, int]
    lost: int
    peak_mb: float
    start_seconds: float


@dataclass(frozen=True)
class Comparison:
    """All that was measured; extract_rates: images/s before and after. skipped: services that are not installed."""

    measured: list[Measured]
    extract_rates: list[float]
    overload: Overload | None
    skipped: list[str]

    @property
    def share(self) -> float:
        """Our rate with most connections against that of extraction."""
        most = max(each.connections for each in self.measured)
        rate = next(each.rate for each in self.measured if (each.service, each.connections) == (OURS, most))
        return rate / median(self.extract_rates)


def prepare(images: Path, name: str, scratch: Path) -> Model:
    """Train a head on some of the images, and export the network for the others."""
    from featurecache.extract.engines.export import export_graph

    samples = scan_folder(images).samples
    for i, sample in enumerate(samples[:N_TRAINED]):
        place = scratch / "trained" / CLASSES[i % len(CLASSES)] / f"{i}{Path(sample.path).suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path(sample.path).resolve())
    words = ["run", str(scratch / "trained"), "--backbone", name, "--heads", "logistic", "--quiet"]
    if run([*words, "--cache", str(scratch / "cache"), "--out", str(scratch / "run")]) != DONE:
        raise PipelineError("The head that is to be served could not be trained.")
    backbone = FeatureRequest(name).load()
    graph, head = scratch / "graph.onnx", scratch / "head.npz"
    graph.write_bytes(export_graph(backbone.module, batch_size=1, side=backbone.transform.crop))
    rng = np.random.default_rng(0)
    coef = rng.normal(size=(len(CLASSES), backbone.feature_dim)).astype(np.float32)
    np.savez(head, coef=coef, intercept=np.zeros(len(CLASSES), np.float32))
    return Model(scratch / "run", graph, head)


def compare(
    images: Path,
    name: str,
    *,
    n: int,
    n_others: int,
    connections: Sequence[int],
    say: Callable[[str], None],
    with_overload: bool = True,
) -> Comparison:
    """Measure all services in turn. Raises PipelineError where ours does not answer."""
    manifest = scan_folder(images)
    paths = [sample.path for sample in manifest.samples]
    with tempfile.TemporaryDirectory(prefix="featurecache-bench-") as folder, weights_for(name, Path(folder)):
        scratch = Path(folder)
        say(f"{name}: training a head and exporting the network")
        model = prepare(images, name, scratch)
        extract = ours(first(manifest, len(manifest)), name, scratch)
        extract()
        rates = list[float]()

        def extract_again() -> None:
            say(f"{name}: extracting {len(manifest)} images")
            rates.extend(len(manifest) / extract()[0] for _ in range(N_EXTRACTIONS))

        measured, skipped = _in_turn(
            model, paths, connections, n=n, n_others=n_others, around_most=extract_again, say=say
        )
        beyond = None
        if with_overload:
            say(f"{OURS}: twice the requests that it can bear")
            most = max(connections)
            rate = next(each.rate for each in measured if (each.service, each.connections) == (OURS, most))
            with serving(OURS, model, paths[0]) as running:
                warm(running, paths, n, most)
                beyond = overload(running, paths, rate)
    return Comparison(measured, [round(rate, 1) for rate in rates], beyond, skipped)


def _in_turn(
    model: Model,
    paths: Sequence[str],
    connections: Sequence[int],
    *,
    n: int,
    n_others: int,
    around_most: Callable[[], None],
    say: Callable[[str], None],
) -> tuple[list[Measured], list[str]]:
    """Measure each service with each number of connections; return a sentence on each that is left out.

    around_most: called before and after ours with most connections.
    """
    names, skipped = there()
    measured = []
    for count in connections:
        for service in list(names):
            is_most = service == OURS and count == max(connections)
            if is_most:
                around_most()
            say(f"{service}: {count} connections")
            try:
                with serving(service, model, paths[0]) as running:
                    measured.append(_measure(running, paths, n if service == OURS else min(n, n_others), count))
            except PipelineError as error:  # the figures of the others are worth having without it
                if service == OURS:
                    raise
                names.remove(service)
                skipped.append(str(error))
            if is_most:
                around_most()
    return measured, skipped


def there() -> tuple[list[str], list[str]]:
    """Return the services that are installed, and a sentence on each that is not."""
    absent = {name: package for name, (_, package) in OTHERS.items() if installed_version(package) is None}
    skipped = [f"{name} is not measured: pip install {package} installs it." for name, package in absent.items()]
    return [OURS, *(name for name in OTHERS if name not in absent)], skipped


def warm(service: Service, paths: Sequence[str], n: int, count: int) -> None:
    """Send requests that do not count, before n that do: for some seconds, but no more than these."""
    started, sent = time.perf_counter(), 0
    while sent < n and time.perf_counter() - started < WARM_SECONDS:
        service.ask(paths, n=min(n - sent, N_WARM), connections=count)
        sent += N_WARM


def _measure(service: Service, paths: Sequence[str], n: int, count: int) -> Measured:
    warm(service, paths, n, count)
    found = service.ask(paths, n=n, connections=count)
    return Measured(
        service=service.name,
        connections=count,
        requests=n,
        rate=round(found.n_good / found.seconds, 1),
        ms=found.ms,
        statuses=found.statuses,
        lost=found.n_lost,
        peak_mb=round(service.memory_mb("VmHWM")),
        start_seconds=round(service.start_seconds, 2),
    )


def text_of(found: Comparison) -> str:
    """The table, and sentences on the share and on the overload."""
    headers = (
        "service", "connections", "requests", "rate/s", "p50 ms", "p95 ms", "p99 ms", "lost", "peak MB", "start s",
    )  # fmt: skip
    rows = [
        (
            each.service,
            str(each.connections),
            f"{each.requests:,}",
            f"{each.rate:.1f}",
            *(f"{each.ms[p]:.1f}" for p in ("p50", "p95", "p99")),
            str(each.lost),
            f"{each.peak_mb:.0f}",
            f"{each.start_seconds:.1f}",
        )
        for each in found.measured
    ]
    here = ", ".join(f"{name} {value}" for name, value in described().items() if value)
    rates = ", ".join(f"{rate:.1f}" for rate in found.extract_rates)
    lines = [f"extract: {rates} images/s; share of {OURS} with most connections: {found.share:.2f}"]
    if found.overload is not None:
        lines.append(_overload_line(found.overload))
    return "\n\n".join([here, table(rows, headers, right=range(1, len(headers))), "\n".join([*lines, *found.skipped])])


def _overload_line(beyond: Overload) -> str:
    found, (before, early, late) = beyond.found, beyond.megabytes
    statuses = ", ".join(f"{n:,} with {status}" for status, n in sorted(found.statuses.items()))
    return (
        f"{beyond.rate:.0f} requests/s for {found.seconds:.0f} s: {statuses}; {found.n_lost} lost; p99 "
        f"{found.ms['p99']:.0f} ms; memory {before:.0f} MB before, {early:.0f} at the beginning, {late:.0f} at the end"
    )


def described() -> dict[str, object]:
    """Return the machine and versions that the numbers belong to."""
    return {**machine(), **{name: installed_version(name) for name in LIBRARIES}}


@dataclass(frozen=True)
class ServeBench:
    """Which network, on which images, how many requests."""

    images: Path | None = option(
        "--images", metavar="DIR", type=click.Path(path_type=Path),
        help=f"class folders (default: {N_PHOTOS:,} photos made here)",
    )  # fmt: skip
    backbone: str = option(
        "--backbone", metavar="NAME", default=DEFAULT_BACKBONE, show_default=True, help="the network"
    )
    requests: int = option(
        "--requests", metavar="N", type=POSITIVE, default=N_REQUESTS, show_default=True, help="requests to ours"
    )
    of_others: int = option(
        "--of-others", metavar="N", type=POSITIVE, default=N_OF_OTHERS, show_default=True,
        help="requests to the others, at most as many as to ours",
    )  # fmt: skip
    connections: tuple[int, ...] = option(
        "--connections", metavar="1,8,64", type=Counts(), default=CONNECTIONS,
        help="numbers of connections (default: 1,8,64)",
    )  # fmt: skip
    no_overload: bool = option("--no-overload", is_flag=True, default=False, help="no requests beyond what it can bear")


@click.command(cls=BenchCommand, examples=["featurecache bench serve --requests 2000 --connections 8,64"])
@takes(ServeBench, Output)
def command(asked: ServeBench, output: Output) -> int:
    """Measure requests/s of 'serve' and of other services.

    Those that are not installed are left out with a line: pip install fastapi litserve.
    """
    with tempfile.TemporaryDirectory() as made:
        images = asked.images or Path(made) / "photos"
        if asked.images is None:
            say(f"making {N_PHOTOS} photographs of {SIZE[0]} x {SIZE[1]}")
            write_photos(images, N_PHOTOS)
        found = compare(
            images,
            asked.backbone,
            n=asked.requests,
            n_others=asked.of_others,
            connections=asked.connections,
            say=say,
            with_overload=not asked.no_overload,
        )
    output.show(text_of(found), {"machine": described(), **asdict(found), "share": round(found.share, 3)})
    return DONE
