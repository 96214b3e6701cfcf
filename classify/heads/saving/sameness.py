"""Bitwise comparison of a loaded head with the one that was saved."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from featurecache.classify.arrays.array_types import AnyArray
from featurecache.classify.heads.saving.skops_types import BALL_TREE, KD_TREE
from featurecache.classify.heads.shared.learned import pieces


def first_difference(ours: Any, theirs: Any, place: str = "") -> str:
    """Return the place of the first difference between two values, such as "estimator_.tree_.values", or nothing.

    Arrays are compared by type, shape and every number, where NaN is NaN; objects by their type and state.
    """
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        return "" if _same_array(ours, theirs) else place or "state"
    if type(ours) is not type(theirs):
        return place or "state"
    if isinstance(ours, str | bytes | int | float | np.generic | None):
        return "" if ours == theirs or (ours != ours and theirs != theirs) else place or "state"
    if isinstance(ours, Mapping) and {(type(key), key) for key in ours} != {(type(key), key) for key in theirs}:
        return place or "state"
    if isinstance(ours, list | tuple) and len(ours) != len(theirs):
        return place or "state"
    return next((found for each in _parts(ours, theirs, place) if (found := first_difference(*each))), "")


def _parts(ours: Any, theirs: Any, place: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield what two values of one type consist of, side by side, with its place."""
    if isinstance(ours, Mapping):
        for key in ours:
            yield ours[key], theirs[key], f"{place}.{key}".lstrip(".")
    elif isinstance(ours, list | tuple):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield one, other, f"{place}[{number}]"
    else:
        yield _state(ours), _state(theirs), place


def _state(value: Any) -> Any:
    """Return what an object is made of, but for what changes with its use."""
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    state = value.__getstate__()
    if f"{type(value).__module__}.{type(value).__name__}" in (KD_TREE, BALL_TREE):
        return [*state[:7], *state[11:]]  # between them it counts its queries
    return state


def _same_array(ours: AnyArray, theirs: AnyArray) -> bool:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    if ours.dtype.kind == "O":
        return not first_difference(ours.tolist(), theirs.tolist())
    if ours.dtype.names:
        return all(_same_array(ours[name], theirs[name]) for name in ours.dtype.names)
    return all(map(_same_numbers, pieces(ours), pieces(theirs)))


def _same_numbers(ours: AnyArray, theirs: AnyArray) -> bool:
    return bool(np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f"))
