"""Progress of a run: the protocol, one that is silent, and the rate that is said once."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Protocol

from featurecache.base.text import readable_seconds

# A rate measured over less is mostly the first batches, which also fill the queue and warm the machine up.
PACE_SECONDS = 5.0
# Who waits less than this has no use for a forecast.
LONG_SECONDS = 60.0


class Progress(Protocol):
    """Who is told how far things are, and what is worth a line. All calls come from one thread."""

    @property
    def lines(self) -> list[str]:
        """Every line so far, and details that are for a log alone: who writes one adds to it."""

    def say(self, text: str) -> None:
        """One line for people."""

    def digesting(self, done: int, total: int) -> None:
        """So many files have been hashed."""

    def extracting(self, done: int, total: int, refused: int) -> None:
        """So many images have gone through, so many of them refused."""

    def counting(self, what: str, unit: str, done: int, total: int) -> None:
        """So many of something have been gone through."""

    def sweeping(self, head: str, done: int, total: int, text: str) -> None:
        """So many settings of a head have been fitted."""

    def training(self, done: int, total: int, text: str) -> None:
        """So many steps of a training are done, perhaps by an earlier process."""


class Silent:
    """Progress that shows nothing."""

    @cached_property
    def lines(self) -> list[str]:
        """No line but those that somebody adds."""
        return []

    def say(self, text: str) -> None:
        """Nothing."""

    def digesting(self, done: int, total: int) -> None:
        """Nothing."""

    def extracting(self, done: int, total: int, refused: int) -> None:
        """Nothing."""

    def counting(self, what: str, unit: str, done: int, total: int) -> None:
        """Nothing."""

    def sweeping(self, head: str, done: int, total: int, text: str) -> None:
        """Nothing."""

    def training(self, done: int, total: int, text: str) -> None:
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
