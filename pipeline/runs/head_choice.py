"""The choice of a head of a run: by name, or the best on val."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from featurecache.base.errors import UsageError
from featurecache.classify.evaluation.criteria import ACCURACY, preference
from featurecache.runs.documents import HeadRow, Results

# The name of the mean of several heads, among heads.
ENSEMBLE = "ensemble"


def metric_of(results: Results) -> str:
    """The metric that a run chooses and ranks by; runs that do not name one did by accuracy."""
    return str(results.get("config", {}).get("metric", ACCURACY))


def value_of(test: Mapping[str, Any], metric: str) -> float:
    """The value of a metric of a head on test; NaN where the run does not say it."""
    value = test.get(metric)
    return nan if value is None else float(value)


def interval_of(test: Mapping[str, Any], metric: str) -> tuple[float, float] | None:
    """The 95 % interval of a metric of a head on test; None where the run does not say it."""
    ends = test["accuracy_ci"] if metric == ACCURACY else test.get("ci", {}).get(metric, [None, None])
    return None if None in ends else (ends[0], ends[1])


def choose_head(heads: Sequence[HeadRow], name: str | None, *, metric: str = ACCURACY) -> HeadRow:
    """Return the head called `head` or `backbone--head`; without a name the best on val, for test is for reporting.

    In a version of a model it is the head that was promoted. metric: that of the run, which the best is by, see
    `classify.evaluation.criteria.preference`. Raises UsageError that lists the heads of the run.
    """
    if name is None:
        promoted = [head for head in heads if head.get("promoted")]
        return min(promoted or heads, key=lambda head: preference(head["val"], metric))
    matching = [h for h in heads if name in (h["name"], f"{features_of(h)}--{h['name']}")]
    if len(matching) == 1:
        return matching[0]
    several = len({features_of(h) for h in heads}) > 1
    names = [f"{features_of(h)}--{h['name']}" if several else h["name"] for h in heads]
    if matching:
        raise UsageError(
            f"The run has more than one head '{name}': name one of {', '.join(map(head_title, matching))}."
        )
    if current := [head["name"] for head in heads if head.get("promoted")]:
        raise UsageError(f"A model has one head, this one {current[0]}: leave --head out, or name a run with '{name}'.")
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names
    raise UsageError(f"The run has no head '{name}'. Did you mean {', '.join(near)}? It has: {', '.join(names)}.")


def members_of(heads: Sequence[HeadRow], head: HeadRow) -> list[HeadRow]:
    """Return the heads whose mean an ensemble is; none for any other head. Raises UsageError where one is gone."""
    return [choose_head(heads, name) for name in head.get("members") or [] if name != head_title(head)]


def head_title(head: HeadRow) -> str:
    """Return the name of a head among all of a run, with its features."""
    return f"{features_of(head)}--{head['name']}"


def head_titles(heads: Sequence[tuple[str, str]]) -> list[str]:
    """Return what to call each head (features, name): by its name, behind its features where these are several."""
    several = len({features for features, _ in heads}) > 1
    return [f"{features} {name}" if several else name for features, name in heads]


def features_of(head: HeadRow) -> str:
    """The name of the features that a head takes; in runs of versions without layers that of the backbone."""
    return str(head.get("features", head["backbone"]))
