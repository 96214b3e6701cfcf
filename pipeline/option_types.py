"""What the values of options may be; anything else is one sentence."""

from __future__ import annotations

import argparse

LARGEST_SEED = 2**32 - 1  # scikit-learn takes no larger one


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def rate(text: str) -> float:
    """A learning rate: above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no learning rate, which is above 0")
    return value


def part(text: str) -> float:
    """A part of one: 0 or more, and less than 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a part: 0 or more, and less than 1")
    return value


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def seed(text: str) -> int:
    """A seed: a whole number that every library takes."""
    value = whole(text)
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{value} is no seed: give a whole number from 0 to {LARGEST_SEED}")
    return value


def shots(text: str) -> tuple[int, ...]:
    """Numbers of labels a class, in order, from a list with commas."""
    shots = tuple(sorted({positive(part) for part in text.split(",") if part}))
    if not shots:
        raise argparse.ArgumentTypeError(f"'{text}' names no number of labels: give some, such as 1,2,4")
    return shots


def folds(text: str) -> int:
    """A number of folds: 2 or more."""
    value = whole(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{value} folds are too few, 2 is the least")
    return value


def gigabytes(text: str) -> float:
    """GB, as bytes."""
    value = _number(text, "a number of GB")
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} GB is no amount of memory, 0 is the least")
    return value * 1e9


def _number(text: str, what: str = "a number") -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}") from None
