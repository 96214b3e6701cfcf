"""Trial decoding of suspect images in a process of their own, which a decoder in C may end.

python -m featurecache.extract.job.trial     arguments: the limit of pixels, and the sizes that may be reduced to
input: a JSON list of paths; output: a line for each decoded one
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence

# How a decoder ends a process on Windows: a number like 0xC0000005, an access violation.
LEAST_OF_WINDOWS = 0xC0000000
ENDING_SIGNALS = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"}
MODULE = "featurecache.extract.job.trial"


def find_ending(paths: Sequence[str], *, max_pixels: int, at_least: Collection[int | None]) -> dict[int, str]:
    """Return the positions of the images whose decoding ends the process, with the reason of their refusal.

    A trial that says nothing, because it cannot be started or was stopped, finds none.
    """
    ending: dict[int, str] = {}
    start = 0
    while start < len(paths):
        n_done, status = _run(paths[start:], max_pixels, at_least)
        reason = _reason(status)
        at = start + n_done
        if reason is None or at >= len(paths):
            break
        ending[at] = reason
        start = at + 1
    return ending


def _run(paths: Sequence[str], max_pixels: int, at_least: Collection[int | None]) -> tuple[int, int]:
    """Return how many images were decoded, and the status with which the process ended."""
    arguments = [json.dumps([max_pixels, sorted(at_least, key=str)])]
    search = os.pathsep.join(path for path in sys.path if path)
    try:
        ended = subprocess.run(
            [*command(), *arguments],
            input=json.dumps([os.path.abspath(path) for path in paths]),  # noqa: PTH100
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": search},
        )
    except OSError:
        return 0, 0
    return ended.stdout.count("\n"), ended.returncode


def command() -> list[str]:
    """Return the command of a trial."""
    return [sys.executable, "-P", "-m", MODULE]  # -P: no module is taken from the working folder


def _reason(status: int) -> str | None:
    """Return why an image is refused whose trial ended with this status; None if a decoder did not end it."""
    if status >= LEAST_OF_WINDOWS:
        return _sentence(f"error {status:#x}")
    if status >= 0:
        return None
    try:
        name = signal.Signals(-status).name
    except ValueError:
        return None
    return _sentence(name) if name in ENDING_SIGNALS else None


def _sentence(how: str) -> str:
    return f"decoding it ends the process ({how}); convert it to another format, for example PNG"


def main(limits: str) -> None:
    """Decode the images named on stdin, and print a line after each."""
    from featurecache.base.errors import ImageRefused
    from featurecache.extract.images.decode import decode_image

    max_pixels, sizes = json.loads(limits)
    for path in json.load(sys.stdin):
        for at_least in sizes:
            try:
                with open(path, "rb") as file:  # noqa: PTH123
                    decode_image(file.read(), max_pixels=max_pixels, at_least=at_least)
            except (OSError, ImageRefused, MemoryError):
                continue
        sys.stdout.write("decoded\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
