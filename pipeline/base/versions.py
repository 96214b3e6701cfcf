"""Versions of installed libraries, without importing them."""

from __future__ import annotations

from functools import cache


@cache
def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution; None where it is not installed."""
    import importlib.metadata  # for a version that few commands ask for

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
