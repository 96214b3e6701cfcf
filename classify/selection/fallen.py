"""When the climb through strengths may end: val has been below its best for two decades of them.

A weaker penalty costs more passes, and where a head has long begun to learn train by heart its settings only get worse.
The two decades are counted from the first strength above the last that is as good as the best by the metric.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from featurecache.classify.evaluation.criteria import CRITERIA
from featurecache.classify.selection.tally import Outcome

# As a factor of the strength: two decades.
REACH = 100.0
# Strengths in a table are rounded to three digits.
ROUNDED = 1e-2


def climbed_parameter(kind: type, grid: Sequence[Mapping[str, Any]], n_rounds: int) -> str | None:
    """Return the parameter of a head's class whose values are tried from weak to strong, while it alone is swept.

    None where there are several rounds: the folds climb one after the other.
    """
    name: str | None = getattr(kind, "climbs", None)
    if name is None or n_rounds > 1 or not all(name in setting for setting in grid):
        return None
    others = [{key: value for key, value in setting.items() if key != name} for setting in grid]
    return name if all(each == others[0] for each in others) else None


def has_fallen(values: Sequence[float], outcomes: Mapping[int, Outcome], metric: str) -> bool:
    """Return whether no stronger setting need be tried, for the strengths of all settings (S,) and the outcomes so far.

    No while one that is weaker than another with an outcome has none yet: those between two rungs of a climb come last.
    """
    order = sorted(range(len(values)), key=lambda setting: values[setting])
    there = next((place for place, setting in enumerate(order) if setting not in outcomes), len(order))
    if there in (0, len(order)) or len(outcomes) > there:
        return False
    costs = [CRITERIA[metric].cost(outcomes[setting].metrics[metric]) for setting in order[:there]]
    best = max(place for place, cost in enumerate(costs) if cost == min(costs))
    if best + 1 == there:
        return False
    return values[order[there - 1]] >= (1.0 - ROUNDED) * REACH * values[order[best + 1]]


def untried_note(name: str, values: Sequence[float], outcomes: Mapping[int, Outcome], metric: str) -> str:
    """Return a sentence on the strengths that have no outcome."""
    untried = sorted(value for setting, value in enumerate(values) if setting not in outcomes)
    return (
        f"{len(untried)} of {len(values)} values of {name}, from {untried[0]:g} up, were not tried: over the two "
        f"decades before, the {CRITERIA[metric].title} on val was worse than at its best."
    )
