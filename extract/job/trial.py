"""Trial decoding of suspect images in a process of their own, which a decoder in C may end.

python -m featurecache.extract.job.trial     arguments: the limit of pixels, and the ways to decode
input: a JSON list of paths; output: a line when it begins, and one for each decoded image
"""

from __future__ import annotations

import contextlib
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
BEGUN, DECODED = "begun", "decoded"

# The shortest side that an image may be reduced to, None for its full size; and the range of its values.
How = tuple[int | None, str]


def find_ending(paths: Sequence[str], *, max_pixels: int, ways: Collection[How]) -> dict[int, str]:
    """Return the positions of the images whose decoding ends the process, with the reason of their refusal.

    ways: each image is decoded in all of them. A process that is stopped from outside says nothing about the image that
    it was decoding; one that cannot be started says nothing about any.
    """
    ending: dict[int, str] = {}
    start = 0
    while start < len(paths):
        has_begun, n_done, status = _run(paths[start:], max_pixels, ways)
        at = start + n_done
        if not has_begun or at >= len(paths):
            break
        if (reason := _reason(status)) is not None:
            ending[at] = reason
        start = at + 1
    return ending


def _run(paths: Sequence[str], max_pixels: int, ways: Collection[How]) -> tuple[bool, int, int]:
    """Return whether the process began to decode, how many images it decoded, and the status with which it ended."""
    arguments = [json.dumps([max_pixels, sorted(ways, key=str)])]
    search = os.pathsep.join(path for path in sys.path if path)
    try:
        ended = subprocess.run(
            [*command(), *arguments],
            input=json.dumps([*paths]),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "PYTHONPATH": search},
        )
    except OSError:
        return False, 0, 0
    lines = ended.stdout.splitlines()  # a library may print others
    return BEGUN in lines, lines.count(DECODED), ended.returncode


def command() -> list[str]:
    """Return the command of a trial."""
    return [sys.executable, "-P", "-m", MODULE]  # -P: no module is taken from the working folder


def _reason(status: int) -> str | None:
    """Return why an image is refused whose trial ended with this status; None if it was stopped from outside."""
    if status >= LEAST_OF_WINDOWS:
        return _sentence(f"error {status:#x}")
    if status >= 0:  # a library in C called exit(): errors of Python are caught
        return _sentence(f"exit status {status}")
    try:
        name = signal.Signals(-status).name
    except ValueError:
        return None
    return _sentence(name) if name in ENDING_SIGNALS else None


def _sentence(how: str) -> str:
    return f"decoding it ends the process ({how}); convert it to another format, for example PNG"


def main(limits: str) -> None:
    """Decode the images named on stdin, and print a line after each."""
    from featurecache.extract.images.decode import decode_pixels
    from featurecache.extract.images.sources import open_hashed

    max_pixels, ways = json.loads(limits)
    paths = json.load(sys.stdin)
    _write(BEGUN)
    for path in paths:
        for at_least, levels in ways:
            with contextlib.suppress(Exception), open_hashed(path) as file:
                decode_pixels(file.content, max_pixels=max_pixels, at_least=at_least, levels=levels)
        _write(DECODED)


def _write(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
