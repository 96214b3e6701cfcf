"""Numbers in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def there_are(n: int, noun: str, rest: str = "") -> str:
    """Return "1 image is", "2 images are"; `rest` stands behind the noun: "1 image without a label is"."""
    words = f"{n:,} {noun}{'' if n == 1 else 's'}"
    return f"{words} {rest}{' ' if rest else ''}{'is' if n == 1 else 'are'}"


def units_text(dataset: Mapping[str, Any]) -> str:
    """Return "40 groups" where the test images are fewer units than images, "990 distinct images" for copies; or "".

    dataset: that of results.json; it says nothing in runs of versions that did not count units.
    """
    n = dataset.get("n_test_units", dataset["n_test"])
    if n == dataset["n_test"]:
        return ""
    one, many = ("group", "groups") if dataset["test_units"] == "group" else ("distinct image", "distinct images")
    return f"{n:,} {one if n == 1 else many}"


def test_text(dataset: Mapping[str, Any]) -> str:
    """Return the name of the paired test of the heads of a run."""
    units = units_text(dataset)
    return f"sign-flip test over {units}" if units else "McNemar's exact test"
