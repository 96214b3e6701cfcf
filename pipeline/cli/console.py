"""The console: progress bars and lines on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from threading import Event, Timer
from types import TracebackType
from typing import TYPE_CHECKING, Never, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

# A terminal that shows nothing for so long gets a line: torch alone takes seconds to load from a cold disk.
SILENT_SECONDS = 1.0
_shown = Event()


@contextlib.contextmanager
def saying_that_it_loads(*, quiet: bool = False) -> Iterator[Timer]:
    """Yield a timer by which a terminal gets one line where no console shows anything at first."""
    _shown.clear()
    timer = Timer(SILENT_SECONDS, _say_that_it_loads)
    timer.daemon = True
    if sys.stderr.isatty() and not quiet:
        timer.start()
    try:
        yield timer
    finally:
        timer.cancel()


def _say_that_it_loads() -> None:
    if not _shown.is_set():
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
            print("loading ...", file=sys.stderr, flush=True)


class Console:
    """Progress bars and single lines on stderr, every line kept for log.txt. A context manager.

    On something that is no terminal (a pipe, a CI log) a bar is one line at most every ten seconds.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.lines: list[str] = []
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._bar: tqdm[Never] | None = None
        self._kind = ""

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def say(self, text: str) -> None:
        """One line for people; a bar that is running goes on below it."""
        _shown.set()
        self.lines.append(text)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif not self._quiet:
            print(text, file=self._stream, flush=True)

    def digesting(self, done: int, total: int) -> None:
        """So many files have been hashed."""
        self._show("reading", "images", done, total)

    def extracting(self, done: int, total: int, refused: int) -> None:
        """So many images have gone through the backbone."""
        self._show("extracting", "images", done, total, f"{refused} refused" if refused else "")

    def checking(self, done: int, total: int) -> None:
        """So many bytes of the caches have been read."""
        n_total = -(-total // 1_000_000)
        self._show("checking", "MB", n_total if done >= total else min(done // 1_000_000, n_total - 1), n_total)

    def counting(self, what: str, unit: str, done: int, total: int) -> None:
        """So many of something have been gone through."""
        self._show(what, unit, done, total)

    def sweeping(self, head: str, done: int, total: int, text: str) -> None:
        """So many settings of a head have been fitted."""
        self._show(head, "settings", done, total, text)

    def training(self, done: int, total: int, text: str) -> None:
        """So many steps of a training are done, perhaps by an earlier process."""
        self._show("fine-tuning", "steps", done, total, text, before=done - 1)

    def _show(self, kind: str, unit: str, done: int, total: int, postfix: str = "", before: int = 0) -> None:
        _shown.set()
        if self._quiet:
            return
        if self._bar is None or self._kind != kind:
            if done >= total > 0 and not postfix:  # at once: a bar would show no true rate
                self._close()
                return
            self._open(kind, unit, total, before)
        assert self._bar is not None
        if postfix:
            self._bar.set_postfix_str(postfix, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._close()

    def _open(self, kind: str, unit: str, total: int, before: int) -> None:
        from tqdm import tqdm

        self._close()
        interval = 0.2 if self._stream.isatty() else 10.0
        self._kind = kind
        self._bar = tqdm(
            total=total,
            initial=before,
            desc=kind,
            unit=f" {unit}",
            file=self._stream,
            mininterval=interval,
            maxinterval=60.0,
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
