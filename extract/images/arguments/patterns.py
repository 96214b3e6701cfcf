"""Files and folders by a pattern, for shells that do not replace patterns, and for patterns in quotes."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from featurecache.base.errors import NoSuchImages
from featurecache.base.text import printable
from featurecache.extract.images.folders.skipped import skipped

_MAGIC = re.compile(r"[*?[]")
_ANY_DEPTH = "**"


def is_pattern(argument: str) -> bool:
    """Return whether an argument is a pattern: it has a `*`, `?` or `[`, and nothing is called so."""
    return _MAGIC.search(argument) is not None and not os.path.lexists(argument)


def matching_paths(pattern: str) -> tuple[list[str], list[str]]:
    """Return the files and folders that a pattern matches, in order, and the folders that could not be looked into.

    `**` is any number of folders, and follows no links. Hidden files and those of operating systems match only a
    pattern with a dot where they have theirs. Of what is below a folder that matches too, only the folder is returned.
    Raises NoSuchImages where nothing matches.
    """
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    closed: dict[str, None] = {}
    found = sorted(
        dict.fromkeys(_below(str(Path(*parts[:first])) if first else "", parts[first:], closed)), key=os.fsencode
    )
    folders = {path for path in found if os.path.isdir(path)}  # noqa: PTH112 (many)
    kept = [path for path in found if not folders or not any(str(above) in folders for above in Path(path).parents)]
    if not kept and not closed:
        raise NoSuchImages(
            f"The pattern '{printable(pattern)}' matches no file or folder. Check it: * is any part of a name, and ** "
            "any number of folders."
        )
    return kept, list(closed)


def _below(folder: str, parts: Sequence[str], closed: dict[str, None]) -> Iterator[str]:
    """Yield the paths below a folder that match the parts of a pattern."""
    if not parts:
        yield folder or os.curdir
        return
    part, *rest = parts
    if not _MAGIC.search(part):
        path = os.path.join(folder, part)  # noqa: PTH118 (many)
        if os.path.lexists(path):
            yield from _below(path, rest, closed)
        return
    if part == _ANY_DEPTH:
        yield from _below(folder, rest, closed)
    for entry in _entries(folder, closed):
        is_hit = part == _ANY_DEPTH or fnmatch.fnmatchcase(os.path.normcase(entry.name), os.path.normcase(part))
        if not is_hit or (skipped(entry.name) is not None and not part.startswith(".")):
            continue
        path = os.path.join(folder, entry.name)  # noqa: PTH118
        if part != _ANY_DEPTH:
            if not rest or entry.is_dir():
                yield from _below(path, rest, closed)
        elif entry.is_dir(follow_symlinks=False):
            yield from _below(path, parts, closed)
        elif not rest:
            yield path


def _entries(folder: str, closed: dict[str, None]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder or ".") as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        closed[folder] = None
        return []
