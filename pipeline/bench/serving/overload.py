"""More requests than a service can bear: refused at once or answered in time, none lost, and its memory stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Thread

from featurecache.bench.serving.client import Found
from featurecache.bench.serving.services import Service

TIMES, SECONDS, SAMPLE_SECONDS = 2.0, 20.0, 0.5
# The memory of the beginning is that of the first part of the samples, that of the end of the last part.
PARTS = 4


@dataclass(frozen=True)
class Overload:
    """rate: requests sent a second. megabytes: of the service before, in the first and in the last quarter."""

    rate: float
    found: Found
    megabytes: tuple[float, float, float]


def overload(service: Service, images: Sequence[str], bearable: float) -> Overload:
    """Send twice as many requests a second as the service answers."""
    before, samples, over = service.memory_mb(), list[float](), Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            samples.append(service.memory_mb())

    watcher = Thread(target=sample, daemon=True)
    watcher.start()
    rate = TIMES * bearable
    try:
        found = service.ask(images, n=round(rate * SECONDS), rate=rate)
    finally:
        over.set()
        watcher.join()
    part = max(1, len(samples) // PARTS)
    first, last = samples[:part] or [before], samples[-part:] or [before]
    return Overload(rate, found, (before, max(first), max(last)))
