"""How a decode process ended, and why none starts, in sentences."""

from __future__ import annotations

import signal
from contextlib import suppress

from featurecache.base.text import printable

NOT_STARTED = (
    "The decode processes cannot start ({}): a script that uses them has to call extract_features below "
    "'if __name__ == \"__main__\":', because each of them imports it."
)
NO_START = (
    "The decode processes cannot start ({}): ask for fewer decode_processes, or leave them out to decode in threads."
)
ENDED_AGAIN = (
    "{} decode processes were ended one after another, the last by {}, as by a system that is short of memory. What "
    "was extracted is kept: run the same again with fewer decode_processes."
)


def why_none(error: Exception) -> str:
    """Return why a process, or the memory that it shares, could not be had."""
    if isinstance(error, EOFError):
        return "their fork server was ended"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def how_ended(exit_code: int | None) -> str:
    """Return what ended a process: the name of a signal, or its exit status."""
    with suppress(ValueError):
        return signal.Signals(-(exit_code or 0)).name
    return f"exit status {exit_code}"


def replaced(how: str, image: str | None) -> str:
    """Return the sentence on a process that was ended, and on the image that it was decoding, if any."""
    if image is None:
        return f"A decode process was ended by {how}: another takes its place and decodes its images again."
    return (
        f"A decode process was ended by {how} while it decoded '{printable(image)}': another takes its "
        "place, and this image is tried by itself at the end."
    )
