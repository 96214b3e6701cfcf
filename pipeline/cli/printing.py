"""Options for what a command prints; apart from the others, since listing heads or backbones needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from featurecache.cli.declare import option


@dataclass(frozen=True)
class JsonOption:
    """What is printed."""

    json: bool = option("--json", is_flag=True, default=False, help="print JSON on stdout")


@dataclass(frozen=True)
class Printing(JsonOption):
    """What is printed, and what is shown meanwhile."""

    quiet: bool = option("--quiet", is_flag=True, default=False, help="no progress on stderr")
