"""Versions of installed libraries, without importing them."""

from __future__ import annotations

import os
import re
import sys
from functools import cache
from pathlib import Path

SUFFIX = ".dist-info"
KINDS = (SUFFIX, ".egg-info", ".egg")
FIELD = "Version:"


@cache
def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    found = _version_on_path(distribution)
    if found:
        return found
    import importlib.metadata  # with the parser of e-mails, which takes longer than all that is asked of it

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version_on_path(distribution: str) -> str:
    """Return the version by the first folder of the import path that has it; empty where that is not plain to see."""
    wanted = _plain_name(distribution)
    for entry in sys.path:
        folder = Path(entry or os.curdir)
        if folder.is_file():  # an archive
            return ""
        here = [name for known, name in _described_in(folder) if known == wanted]
        if here:
            return _version_in(folder / here[0]) if len(here) == 1 else ""
    return ""


@cache
def _described_in(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the plain name of each distribution that is described in a folder, and the name of the description."""
    try:
        names = [path.name for path in folder.iterdir() if path.name.endswith(KINDS)]
    except OSError:
        return ()
    return tuple((_plain_name(name.rpartition(".")[0].partition("-")[0]), name) for name in names)


def _plain_name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _version_in(description: Path) -> str:
    """Return the version in the head of METADATA; empty where it has none."""
    if description.suffix != SUFFIX:
        return ""
    try:
        with (description / "METADATA").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(FIELD):
                    return line.removeprefix(FIELD).strip()
                if not line.strip():
                    return ""
    except (OSError, ValueError):
        return ""
    return ""
