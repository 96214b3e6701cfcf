"""Allowed values of the parameters of heads, one table a head; other values are refused with a message.

allowed: ClassVar[Allowed] = {"C": POSITIVE, "metric": Choice("cosine", "euclidean")}
common: ClassVar[tuple[str, ...]] = ("class_weight",)      parameters that all settings of a grid must share
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Range:
    """Finite numbers between two ends, and their description in messages."""

    description: str
    least: float = -inf
    most: float = inf
    above: float = -inf
    below: float = inf
    whole: bool = False
    optional: bool = False
    """None is allowed as well."""

    def holds(self, value: Any) -> bool:
        """Return whether the value is allowed."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        try:
            number = float(value)
        except OverflowError:  # whole numbers of Python have no end
            return False
        return isfinite(number) and self.least <= number <= self.most and self.above < number < self.below

    def refusal(self, name: str, value: Any) -> str:
        """Return the message for a value that is not allowed."""
        return f"{name}={value!r} is not possible: use {self.description}."


class Choice:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def holds(self, value: Any) -> bool:
        """Return whether the value is allowed."""
        return isinstance(value, str) and value in self.words

    def refusal(self, name: str, value: Any) -> str:
        """Return the message for a value that is not allowed."""
        *first, last = map(repr, self.words)
        return f"{name}={value!r} is unknown: use {', '.join(first)} or {last}."


Allowed = Mapping[str, Range | Choice]
POSITIVE = Range("a number above 0", above=0.0)
OPTIONAL = Range("a number above 0, or None", above=0.0, optional=True)
NOT_NEGATIVE = Range("0 or more", least=0.0)
SHARE = Range("a number from 0 to 1", least=0.0, most=1.0)
COUNT = Range("a whole number, 1 or more", least=1.0, whole=True)


@cache
def parameter_names(head_class: type) -> tuple[str, ...]:
    """Return the names of the parameters of a class of heads, found once for all settings of a grid."""
    return tuple(inspect.signature(head_class).parameters)


def check_parameters(head: Any) -> None:
    """Raise ValueError for the first parameter of a head with a value that its table `allowed` excludes."""
    for name, values in head.allowed.items():
        value = getattr(head, name)
        if not values.holds(value):
            raise ValueError(values.refusal(name, value))


def check_class_weight(class_weight: Mapping[Any, float]) -> None:
    """Raise ValueError for the first class weight that is not a number of 0 or more."""
    for label, weight in class_weight.items():
        if not NOT_NEGATIVE.holds(weight):
            raise ValueError(NOT_NEGATIVE.refusal(f"class_weight[{label!r}]", weight))


def check_common(heads: Sequence[Any]) -> None:
    """Raise ValueError where the settings of a grid differ in a parameter of their table `common`."""
    for name in heads[0].common:
        first, *others = (getattr(head, name) for head in heads)
        for other in others:
            if other != first:
                raise ValueError(
                    f"All settings of a grid must have the same {name}, but these have {first!r} and {other!r}: "
                    f"fit one grid for each {name}."
                )


def equal_settings(values: Sequence[Any]) -> list[list[int]]:
    """Return the settings (numbers of `values`) grouped by equal values, in the order in which they are first met."""
    groups: list[list[int]] = []
    for setting, value in enumerate(values):
        same = next((group for group in groups if values[group[0]] == value), None)
        groups.append([setting]) if same is None else same.append(setting)
    return groups
