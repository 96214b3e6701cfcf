"""The value of `--weights` as a file and a part of it: FILE, or FILE#PART for one of several sets of weights in it."""

from __future__ import annotations

import os
from pathlib import Path

SEPARATOR = "#"


def file_and_part(weights: str) -> tuple[Path, str]:
    """Return the file that a value of `--weights` names, whether or not it exists, and the part; mostly an empty one.

    A file whose own name has a `#` is meant by that name.
    """
    whole = Path(weights).expanduser()
    name, separator, part = weights.rpartition(SEPARATOR)
    if separator and part and not _is_file(whole):
        path = Path(name).expanduser()
        if _is_file(path):
            return path, part
    return whole, ""


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 (names that are too long)


def with_part(path: str, part: str) -> str:
    """Return the value of `--weights` for a file and a part of it."""
    return f"{path}{SEPARATOR}{part}" if part else path
