"""Files that somebody else may have written: which of them are opened, and JSON with its limits.

A folder from elsewhere may hold links to files of this machine, pipes that never end, and JSON that is too deep or too
large for memory. Each is refused here, before anything of it is read.
"""

from __future__ import annotations

import json
import math
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

# Nothing that is written here is deeper than ten levels; Python itself gives up at about a thousand.
MOST_LEVELS = 50


class UnfitFile(ValueError):
    """A file that is not read; the message is the reason, as the rest of a sentence that begins with its name."""


def check_plain_file(path: Path, root: Path) -> None:
    """Raise UnfitFile unless `path` is an ordinary file that lies in the folder `root`, also where it is a link.

    Raises FileNotFoundError where there is none, OSError where it cannot be looked at.
    """
    if path.is_symlink():
        _check_link(path, root)
    if not stat.S_ISREG(path.stat().st_mode):
        raise UnfitFile("it is not an ordinary file")


def check_is_stored(path: Path) -> None:
    """Raise UnfitFile where a file of torch is packed, which torch never does: few bytes could become any number."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UnfitFile(f"it is no file of torch: {error}") from error
    if is_packed:
        raise UnfitFile("it is packed")


def _check_link(path: Path, root: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise UnfitFile("it is a link that leads nowhere") from None
    if not target.is_relative_to(root.resolve()):
        raise UnfitFile("it is a link that leads out of its folder")


def read_json_file(path: Path, root: Path, *, most_bytes: int) -> Any:
    """The value of a JSON file in the folder `root`; raises UnfitFile with the reason, FileNotFoundError and OSError.

    Refused are links that lead out, more than `most_bytes`, more than MOST_LEVELS levels, and numbers that are not
    finite.
    """
    check_plain_file(path, root)
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise UnfitFile(f"it is larger than {most_bytes >> 20} MiB")
    return parse_json(data)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text from elsewhere; raises UnfitFile with the reason."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        deepest = _depth(value)
    except RecursionError:
        deepest = MOST_LEVELS + 1
    except UnicodeDecodeError:
        raise UnfitFile("it is not UTF-8") from None
    except UnfitFile:
        raise
    except ValueError as error:
        raise UnfitFile(f"it is no JSON: {error}") from None
    if deepest > MOST_LEVELS:
        raise UnfitFile(f"it is nested deeper than {MOST_LEVELS} levels")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise UnfitFile(f"it holds {name}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UnfitFile(f"it holds the number {text[:20]}, which is too large")
    return value


def _depth(value: Any) -> int:
    """The number of levels of lists and objects, up to one more than MOST_LEVELS."""
    level, depth = [value], 0
    while level and depth <= MOST_LEVELS:
        level = [inner for outer in level for inner in _inner(outer)]
        depth += bool(level)
    return depth


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
