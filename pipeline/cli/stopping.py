"""Ctrl-C and SIGTERM, which `docker stop`, `systemctl stop`, `timeout` and Slurm send: both keep what is finished."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from featurecache.base.exits import INTERRUPTED, TERMINATED

# `timeout` sends its signal to the process and to the process's group: what comes so soon is no second wish.
SAME_WISH_S = 0.5
# What is finished is written in less, mostly; a head that is refitted, or a report, takes longer.
QUIET_S = 2.0
STOPPING = "Stopping: what is finished is being kept. A second Ctrl-C ends at once, without it."


class Terminated(KeyboardInterrupt):
    """SIGTERM: whatever keeps its work on Ctrl-C keeps it now."""

    exit_code = TERMINATED


class Stops:
    """The signals that came: the first raises KeyboardInterrupt or Terminated, a second ends the process at once."""

    def __init__(self) -> None:
        self.first: int | None = None
        self._came = 0.0
        self._is_done = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Act on a signal, in the main thread, between two instructions of it or while it waits for a lock."""
        if self.first is None:
            self.first, self._came = number, time.monotonic()
            with contextlib.suppress(RuntimeError):  # no more threads
                # Those of `threading` take locks, which the main thread may hold at this very instant.
                _thread.start_new_thread(self._say_that_it_stops, ())
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if time.monotonic() - self._came > SAME_WISH_S:
            os._exit(128 + number)

    def done(self) -> None:
        """Say no more that it stops."""
        self._is_done = True

    def _say_that_it_stops(self) -> None:
        time.sleep(QUIET_S)
        if not self._is_done:
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
                print(f"\n{STOPPING}", file=sys.stderr, flush=True)

    def code(self, code: int) -> int:
        """The exit code of a command that ended with `code`: one that kept what it had says by which signal."""
        return TERMINATED if code == INTERRUPTED and self.first == signal.SIGTERM else code


@contextmanager
def stoppable() -> Iterator[Stops]:
    """Let the first signal end the block by an exception; behind the block, a signal ends the process in silence.

    Signals that the process was started to ignore (`nohup`, a shell's background job) stay ignored.
    """
    stops = Stops()
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, stops.handle)
    try:
        yield stops
    finally:
        stops.done()
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
