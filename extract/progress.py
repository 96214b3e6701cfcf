"""What is told while a run goes on, to whom, and in which words."""

from __future__ import annotations

import time
from typing import Protocol

# A rate measured over less is mostly the first batches, which also fill the queue and warm the machine up.
PACE_SECONDS = 5.0
# Who waits less than this has no use for a forecast.
LONG_SECONDS = 60.0


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


class Pace:
    """Says once, after the first chunks of a long run, how fast it goes and how long it will take."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.progress = total, progress
        self._started: tuple[int, float] | None = None
        self._said = False

    def reached(self, done: int) -> None:
        """So many images of `total` have gone through: a chunk has come to its end."""
        now = time.perf_counter()
        if self._started is None:
            self._started = done, now
        first, started = self._started
        if self._said or now - started < PACE_SECONDS:
            return
        self._said = True
        rate = (done - first) / (now - started)
        seconds_left = (self.total - done) / rate
        if seconds_left >= LONG_SECONDS:
            self.progress.say(f"{rate:.1f} images/s: {readable_seconds(seconds_left)} left")


def readable_bytes(n: float) -> str:
    """A size as people write it: 12 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def readable_seconds(seconds: float) -> str:
    """A time as people say it: 50 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
