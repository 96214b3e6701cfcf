"""Numbers of results.json that are infinite or NaN, which JSON does not have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from featurecache.runs.documents import Results
from featurecache.runs.folder import RESULTS_FILE

# So many of the numbers that are none are named; the rest is counted.
NAMED_PLACES = 3


def without_nan(results: Results) -> Results:
    """Return results with null for every number that is infinite or NaN, and a warning that names where these are.

    JSON has no such numbers, and a run is not to be lost for one.
    """
    places: list[str] = []
    found: Results = _finite(results, "", places)
    if places:
        more = f" and {len(places) - NAMED_PLACES:,} more" if len(places) > NAMED_PLACES else ""
        warning = f"Not finite, and null in {RESULTS_FILE}: {', '.join(places[:NAMED_PLACES])}{more}."
        found["warnings"] = [*found.get("warnings", []), warning]
    return found


def _finite(values: Any, place: str, places: list[str]) -> Any:
    if isinstance(values, Mapping):
        return {key: _finite(each, f"{place}.{key}" if place else str(key), places) for key, each in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(each, f"{place}[{i}]", places) for i, each in enumerate(values)]
    if isinstance(values, float) and not math.isfinite(values):
        places.append(place)
        return None
    return values
