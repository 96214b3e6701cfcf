"""Progress of a run: the protocol, its silent implementation, and the rate of a long run."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Protocol

from featurecache.base.text import readable_seconds

LOGGER = "featurecache"
# A rate measured over less is mostly the first batches, which also fill the queue and warm the machine up.
PACE_SECONDS = 5.0
# A shorter wait needs no forecast.
LONG_SECONDS = 60.0


class Progress(Protocol):
    """Receives how far a run is, and lines for people. All calls come from one thread."""

    @property
    def lines(self) -> list[str]:
        """Every line so far, with details for a log that are added to it."""

    def say(self, text: str) -> None:
        """One line for people."""

    def digesting(self, done: int, total: int) -> None:
        """Hashed files: `done` of `total`."""

    def extracting(self, done: int, total: int, refused: int) -> None:
        """Extracted images: `done` of `total`, `refused` of them refused."""

    def counting(self, what: str, unit: str, done: int, total: int) -> None:
        """`done` of `total` units of any other work."""

    def sweeping(self, head: str, done: int, total: int, text: str) -> None:
        """Fitted settings of a head: `done` of `total`."""

    def training(self, done: int, total: int, text: str) -> None:
        """Steps of a training: `done` of `total`, also by an earlier process."""


class Silent:
    """Progress that shows nothing; its lines go to the logger `featurecache`, level INFO."""

    @cached_property
    def lines(self) -> list[str]:
        """Every line so far."""
        return []

    def say(self, text: str) -> None:
        """Log a line."""
        import logging  # for callers from Python alone

        self.lines.append(text)
        logging.getLogger(LOGGER).info("%s", text)

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
    """Reports once, after the first chunks of a long run, its rate and how long it will take."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total, self.progress = total, progress
        self._started: tuple[int, float] | None = None
        self._is_reported = False

    def reached(self, done: int) -> None:
        """`done` images of `total` are extracted, at the end of a chunk."""
        now = time.perf_counter()
        if self._started is None:
            self._started = done, now
        first, started = self._started
        if self._is_reported or now - started < PACE_SECONDS:
            return
        self._is_reported = True
        rate = (done - first) / (now - started)
        seconds_left = (self.total - done) / rate
        if seconds_left >= LONG_SECONDS:
            self.progress.say(f"{rate:.1f} images/s: {readable_seconds(seconds_left)} left")
