"""`featurecache serve`: labels of images over HTTP, and a page."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featurecache.base.errors import UsageError
from featurecache.base.exits import INTERRUPTED, TERMINATED
from featurecache.base.text import printable
from featurecache.cli.console import Console
from featurecache.cli.declare import POSITIVE, RATE, Command, Whole, argument, option, takes
from featurecache.cli.head_options import HeadOptions
from featurecache.cli.options import PATH, NetworkEngineOptions, RunCacheOption

if TYPE_CHECKING:
    from featurecache.serve.loading import Service

MODEL, NETWORK, LIMITS = "Model", "Network", "Limits"
MB = 1_000_000
TOKEN_VARIABLE = "FEATURECACHE_TOKEN"
EXTRA = "Serving needs packages that are not installed: pip install 'featurecache[serve]'."


@dataclass(frozen=True)
class ModelOptions:
    """Which head is served."""

    run: Path = argument(
        "RUN", "a run folder, such as data/runs/latest, the name of a model, or a file of 'export'", type=PATH
    )
    no_nearest: bool = option(
        "--no-nearest", is_flag=True, default=False, group=MODEL, help="do not show the nearest training images"
    )
    thumbnails: bool | None = option(
        "--thumbnails/--no-thumbnails", default=None, group=MODEL,
        help="show pictures of training images (default: only to this machine)",
    )  # fmt: skip


@dataclass(frozen=True)
class NetworkOptions:
    """Where requests come from."""

    host: str = option(
        "--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, group=NETWORK,
        help="the address to listen on; one that other machines reach needs a token",
    )  # fmt: skip
    port: int = option(
        "--port", metavar="N", type=Whole(0, 65535), default=8000, show_default=True, group=NETWORK,
        help="the port; 0 takes a free one",
    )  # fmt: skip
    allow_host: Sequence[str] = option(
        "--allow-host", metavar="NAME", multiple=True, group=NETWORK,
        help="a further name that requests may have for this machine; repeatable",
    )  # fmt: skip
    token: str = option(
        "--token", metavar="TOKEN", default="", group=NETWORK, envvar=TOKEN_VARIABLE,
        help=f"requests need it in their Authorization header; other users see the command line: better set "
        f"{TOKEN_VARIABLE}",
    )  # fmt: skip
    workers: int = option(
        "--workers", metavar="N", type=POSITIVE, default=1, show_default=True, group=NETWORK,
        help="processes, each with its share of the cores",
    )  # fmt: skip


@dataclass(frozen=True)
class LimitOptions:
    """What a request may cost."""

    max_image_mb: float = option(
        "--max-image-mb", metavar="MB", type=RATE, default=20.0, show_default=True, group=LIMITS,
        help="refuse larger image files",
    )  # fmt: skip
    max_request_mb: float = option(
        "--max-request-mb", metavar="MB", type=RATE, default=64.0, show_default=True, group=LIMITS,
        help="refuse larger requests",
    )  # fmt: skip
    max_images: int = option(
        "--max-images", metavar="N", type=POSITIVE, default=64, show_default=True, group=LIMITS,
        help="refuse requests with more images",
    )  # fmt: skip
    max_pixels: int = option(
        "--max-pixels", metavar="N", type=POSITIVE, default=50_000_000, show_default=True, group=LIMITS,
        help="refuse images of more pixels",
    )  # fmt: skip
    queue: int = option(
        "--queue", metavar="N", type=POSITIVE, default=256, show_default=True, group=LIMITS,
        help="images of each process that may wait; further requests are refused with 429",
    )  # fmt: skip
    timeout: float = option(
        "--timeout", metavar="SECONDS", type=RATE, default=30.0, show_default=True, group=LIMITS,
        help="refuse a request that is not received, or not answered, in time",
    )  # fmt: skip


@dataclass(frozen=True)
class Quiet:
    """What is shown."""

    quiet: bool = option("--quiet", is_flag=True, default=False, help="only the address, no lines on the start")


@click.command(
    cls=Command,
    stopped="Stopped before the service had begun.",
    examples=[
        "featurecache serve data/runs/latest",
        "featurecache serve my-model --port 9000",
        "FEATURECACHE_TOKEN=$(openssl rand -hex 16) featurecache serve data/runs/latest --host 0.0.0.0",
        "featurecache serve --config featurecache.toml",
    ],
    takes_file=True,
)
@takes(ModelOptions, HeadOptions, NetworkOptions, LimitOptions, NetworkEngineOptions, RunCacheOption, Quiet)
def command(
    model: ModelOptions,
    head: HeadOptions,
    network: NetworkOptions,
    limits: LimitOptions,
    engine: NetworkEngineOptions,
    cache: RunCacheOption,
    shown: Quiet,
) -> int:
    """Answer requests for labels over HTTP, and show a page.

    POST /predict takes the bytes of an image, or a form with several, and gives labels with the probability of every
    class, the same as 'featurecache predict'. /openapi.json describes it, /metrics counts for Prometheus, and / is a
    page to drop images on. Images that wait are answered together. Nothing of them is kept.
    It listens on this machine only, unless --host says otherwise.
    """
    try:
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError(EXTRA) from None
    from featurecache.extract.job.settings import Settings
    from featurecache.runs.models.places import find_run
    from featurecache.serve.access import Access
    from featurecache.serve.limits import Limits
    from featurecache.serve.loading import Service

    access = Access(network.host, tuple(name.lower() for name in network.allow_host), network.token)
    service = Service(
        model.run,
        head=head.head,
        weights=head.weights,
        cache_root=cache.cache,
        trust_head=head.trust_head,
        settings=Settings(**vars(engine), on_error="fail", max_pixels=limits.max_pixels),
        limits=Limits(
            image_bytes=int(limits.max_image_mb * MB),
            request_bytes=int(limits.max_request_mb * MB),
            images=limits.max_images,
            pixels=limits.max_pixels,
            waiting=limits.queue,
            seconds=limits.timeout,
        ),
        access=access,
        backbones=tuple(head.backbone),
        has_nearest=not model.no_nearest,
        has_thumbnails=access.is_loopback if model.thumbnails is None else model.thumbnails,
    )
    with Console(quiet=shown.quiet) as console:
        return _serve(replace(service, run=find_run(model.run, say=console.say)), network, console)


def _serve(service: Service, network: NetworkOptions, console: Console) -> int:
    """Listen, serve until a signal, and return the exit code."""
    from featurecache.serve.connections import address_of, listen
    from featurecache.serve.workers import Workers, serve_here

    try:
        listener = listen(network.host, network.port)
    except OSError as error:
        reason = printable(error.strerror or str(error))
        raise UsageError(
            f"'{printable(network.host)}' port {network.port} cannot be listened on: {reason}. Choose another --port, "
            "or 0 for a free one."
        ) from None
    address = address_of(listener)

    def say_ready() -> None:
        console.say("Ready: Ctrl-C stops the service.")
        print(address, flush=True)

    with listener:
        if network.workers == 1:
            stopped_by = serve_here(partial(service.application, progress=console), listener, say_ready)
        else:
            stopped_by = Workers(service.application, listener, network.workers).serve(say_ready)
    console.say("Stopped: every request was answered or refused.")
    return TERMINATED if stopped_by == signal.SIGTERM else INTERRUPTED
