"""Files that get their final name when they are complete."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY_PREFIX = ".writing-"


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its final name so that it is there completely or not at all, also after a power cut."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
