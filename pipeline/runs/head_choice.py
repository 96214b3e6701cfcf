"""The choice of a head of a run: by name, or the best on val."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from featurecache.base.errors import UsageError
from featurecache.runs.documents import HeadRow


def rank_on_val(val: Mapping[str, float]) -> tuple[float, float]:
    """Return the sort key by which the best head on val is the greatest: accuracy, then log loss."""
    return val["accuracy"], -val["log_loss"]


def choose_head(heads: Sequence[HeadRow], name: str | None) -> HeadRow:
    """Return the head called `head` or `backbone--head`; without a name the best on val, for test is for reporting.

    Raises UsageError that lists the heads of the run.
    """
    if name is None:
        return max(heads, key=lambda head: rank_on_val(head["val"]))
    matching = [h for h in heads if name in (h["name"], f"{features_of(h)}--{h['name']}")]
    if len(matching) == 1:
        return matching[0]
    several = len({features_of(h) for h in heads}) > 1
    names = [f"{features_of(h)}--{h['name']}" if several else h["name"] for h in heads]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names
    problem = "has no head" if not matching else "has more than one head"
    raise UsageError(f"The run {problem} '{name}'. Did you mean {', '.join(near)}? It has: {', '.join(names)}.")


def head_titles(heads: Sequence[tuple[str, str]]) -> list[str]:
    """Return what to call each head (features, name): by its name, behind its features where these are several."""
    several = len({features for features, _ in heads}) > 1
    return [f"{features} {name}" if several else name for features, name in heads]


def features_of(head: HeadRow) -> str:
    """The name of the features that a head takes; in runs of versions without layers that of the backbone."""
    return str(head.get("features", head["backbone"]))
