"""Counts of the service in the text format of Prometheus, shared by its processes.

Every process writes a row of numbers in shared memory, from the thread of its event loop alone; whichever is asked adds
up all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

STATUSES = (200, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503)
# Seconds of a request, upper ends.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
REQUESTS = [f'featurecache_requests_total{{status="{status}"}}' for status in STATUSES]
BUCKETS = [f'featurecache_predict_seconds_bucket{{le="{end:g}"}}' for end in SECONDS]
COUNT, SUM = "featurecache_predict_seconds_count", "featurecache_predict_seconds_sum"
ANSWERED, REFUSED = 'featurecache_images_total{outcome="answered"}', 'featurecache_images_total{outcome="refused"}'
BATCHES, IN_BATCHES, BATCH_SECONDS = (
    "featurecache_batches_total",
    "featurecache_batch_images_total",
    "featurecache_batch_seconds_total",
)
WAITING, HELD, MEMORY = (
    "featurecache_waiting_images",
    "featurecache_request_bytes",
    "featurecache_resident_memory_bytes",
)
NAMES = [*REQUESTS, ANSWERED, REFUSED, *BUCKETS, COUNT, SUM, BATCHES, IN_BATCHES, BATCH_SECONDS, WAITING, HELD, MEMORY]
PLACES = {name: i for i, name in enumerate(NAMES)}
# Name, what it is, and the kind, in the order in which they are written.
DESCRIBED = (
    ("featurecache_requests_total", "Requests by the status of their response.", "counter"),
    ("featurecache_images_total", "Images of requests by their outcome.", "counter"),
    ("featurecache_predict_seconds", "Seconds from the head of a request for labels to its response.", "histogram"),
    (BATCHES, "Batches of images that the network was run on.", "counter"),
    (IN_BATCHES, "Images in these batches.", "counter"),
    (BATCH_SECONDS, "Seconds of these batches, with decoding.", "counter"),
    (WAITING, "Images that wait for an answer.", "gauge"),
    (HELD, "Bytes of requests in memory.", "gauge"),
    (MEMORY, "Resident memory of all processes.", "gauge"),
)
KIND = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counts of one process, and of all together.

    rows: memory for `len(NAMES)` numbers of each process, shared by all; number: of this one.
    """

    def __init__(self, rows: Any = None, number: int = 0) -> None:
        self._rows: Any = [0.0] * len(NAMES) if rows is None else rows
        self._start = number * len(NAMES)
        self._gauges: dict[str, Callable[[], float]] = {MEMORY: resident_bytes}

    def watch(self, name: str, value: Callable[[], float]) -> None:
        """Let a gauge be read from a function when the counts are written."""
        self._gauges[name] = value

    def add(self, name: str, amount: float = 1.0) -> None:
        """Add to a count of this process."""
        self._rows[self._start + PLACES[name]] += amount

    def request(self, status: int) -> None:
        """Count a response."""
        if (name := f'featurecache_requests_total{{status="{status}"}}') in PLACES:
            self.add(name)

    def predicted(self, seconds: float) -> None:
        """Count a request for labels by its seconds."""
        self.add(COUNT)
        self.add(SUM, seconds)
        for end, name in zip(SECONDS, BUCKETS, strict=True):
            if seconds <= end:
                self.add(name)

    def batch(self, n: int, seconds: float) -> None:
        """Count a batch of n images."""
        self.add(BATCHES)
        self.add(IN_BATCHES, n)
        self.add(BATCH_SECONDS, seconds)

    def refresh(self) -> None:
        """Write the gauges of this process for whichever is asked."""
        for name, value in self._gauges.items():
            self._rows[self._start + PLACES[name]] = value()

    def forget(self) -> None:
        """Set the gauges of this process to 0, as it begins or after it ended."""
        for name in (WAITING, HELD, MEMORY):
            self._rows[self._start + PLACES[name]] = 0.0

    def value(self, name: str) -> float:
        """Return a count of all processes together."""
        return float(sum(self._rows[PLACES[name] :: len(NAMES)]))

    def text(self) -> str:
        """Return all counts in the text format of Prometheus."""
        self.refresh()
        lines = []
        for name, what, kind in DESCRIBED:
            lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
            lines += self._series(BUCKETS if kind == "histogram" else _of(name))
            if kind == "histogram":
                lines.append(f'{name}_bucket{{le="+Inf"}} {self.value(COUNT):g}')
                lines += self._series([SUM, COUNT])
        return "\n".join(lines) + "\n"

    def _series(self, names: Iterable[str]) -> Sequence[str]:
        return [f"{name} {_number(self.value(name))}" for name in names]


def _of(name: str) -> list[str]:
    return [each for each in NAMES if each == name or each.startswith(f"{name}{{")]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def resident_bytes() -> float:
    """Return the resident memory of this process; where there is no /proc, the most that it ever was."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return float(pages * resource.getpagesize())
