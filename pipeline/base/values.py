"""Checks of values that callers give, each a sentence for people; `refuse` raises the first as an error."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from numbers import Integral

from featurecache.base.text import printable

MOST_SHOWN = 40  # characters of a value in a message
LIKE = 0.6  # likeness from which a value is taken for a mistyped other one


def refuse(error: type[Exception], *sentences: str) -> None:
    """Raise an error with the first sentence that is not empty; nothing if all are."""
    wrong = next(filter(None, sentences), None)
    if wrong is not None:
        raise error(wrong)


def no_such(kind: str, value: object, allowed: Sequence[str]) -> str:
    """Return the sentence on a value that is none of `allowed`, with the one that is most like it; empty if it is one.

    kind: what the value is of, such as "dtype".
    """
    if isinstance(value, str) and value in allowed:
        return ""
    near = difflib.get_close_matches(value.lower(), allowed, 1, LIKE) if isinstance(value, str) else []
    meant = f"; did you mean '{near[0]}'? Choose" if near else ": choose"
    return f"There is no {kind} {printable(repr(value)[:MOST_SHOWN])}{meant} from {', '.join(allowed)}."


def not_whole(kind: str, value: object, least: int, most: int | None = None, *, may_be_none: bool = False) -> str:
    """Return the sentence on a value that is not a whole number of `least` or more; empty if it is one.

    may_be_none: whether None is fine too.
    """
    if value is None and may_be_none:
        return ""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if is_whole and least <= int(value) and (most is None or int(value) <= most):  # type: ignore[call-overload]
        return ""
    allowed = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
    return f"The {kind} is {printable(repr(value)[:MOST_SHOWN])} and has to be a whole number of {allowed}."


def not_of(kind: str, values: object, one: type) -> str:
    """Return the sentence on a value that is not a sequence of objects of a class; empty if it is one."""
    if isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(each, one) for each in values):
        return ""
    return f"The {kind} are {printable(repr(values)[:MOST_SHOWN])} and have to be a list of {one.__name__}."
