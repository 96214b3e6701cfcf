"""The absolute paths under which the memo knows files: many at once, since a warm run makes one for every image."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Those of os.fsencode.
ENCODING, ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
NO_NAMES = {"", os.curdir, os.pardir}


def memo_paths(paths: Sequence[str], folders: dict[str, bytes]) -> list[bytes]:
    """Return `memo_path` of every path; their names are encoded together."""
    if (found := _in_one_folder(paths, folders)) is not None:
        return found
    parts = [path.rpartition(os.sep) for path in paths]
    names = [part[2] for part in parts]
    encoded = "\0".join(names).encode(ENCODING, ERRORS).split(b"\0")
    within = {part[0] for part in parts}
    if os.altsep or "" in within or len(encoded) != len(names) or not NO_NAMES.isdisjoint(names):
        return [memo_path(path, folders) for path in paths]
    prefixes = {folder: _memo_prefix(folder, folders) for folder in within}
    return [prefixes[part[0]] + name for part, name in zip(parts, encoded, strict=True)]


def _in_one_folder(paths: Sequence[str], folders: dict[str, bytes]) -> list[bytes] | None:
    """Return `memo_path` of every path if all are of one folder and have usual names: no step for each path."""
    folder, separator, _ = paths[0].rpartition(os.sep) if paths else ("", "", "")
    if not folder or os.altsep:
        return None
    prefix, text = folder + separator, "\0".join(["", *paths, ""])
    starts = text.count("\0" + prefix)
    if starts != len(paths) or text.count(os.sep) != starts * prefix.count(os.sep) or text.count("\0") != starts + 1:
        return None
    if any(f"\0{prefix}{name}\0" in text for name in NO_NAMES):
        return None
    begin = b"\0" + prefix.encode(ENCODING, ERRORS)
    encoded = text.encode(ENCODING, ERRORS).replace(begin, b"\0" + _memo_prefix(folder, folders))
    return encoded[1:-1].split(b"\0")


def memo_path(path: str, folders: dict[str, bytes]) -> bytes:
    """Return the absolute path under which the memo knows a file; `folders` keeps those of its folder for the next."""
    folder, separator, name = path.rpartition(os.sep)
    if not separator or name in NO_NAMES or (os.altsep and os.altsep in name):
        return os.fsencode(os.path.abspath(path))  # noqa: PTH100 (links are named as the user named them)
    return _memo_prefix(folder, folders) + name.encode(ENCODING, ERRORS)


def _memo_prefix(folder: str, folders: dict[str, bytes]) -> bytes:
    if folder not in folders:
        folders[folder] = os.fsencode(os.path.join(os.path.abspath(folder + os.sep), ""))  # noqa: PTH100, PTH118
    return folders[folder]
