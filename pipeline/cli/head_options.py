"""Options for the head of a run and what it may need, for commands that label images with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurecache.cli.declare import option


@dataclass(frozen=True)
class HeadOptions:
    """Which head of a run, and what may be used for it."""

    head: str | None = option("--head", metavar="NAME", help="a head of the run (default: the best on val)")
    weights: str | None = option(
        "--weights", metavar="FILE",
        help="the weights that the run was made with, where their file has moved; checked by their digest "
        "(default: found by the run, or next to it)",
    )  # fmt: skip
    backbone: Sequence[str] = option(
        "--backbone", metavar="MODULE:FUNCTION", multiple=True,
        help="a function of yours that the run has its network from, so that it may be imported here; repeatable",
    )  # fmt: skip
    trust_head: bool = option(
        "--trust-head", is_flag=True, default=False,
        help="use a scikit-learn head even if its arrays could crash Python or read its memory; only for heads that "
        "you made yourself",
    )  # fmt: skip
