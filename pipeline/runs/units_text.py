"""The units of a run's test images, groups and copies, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurecache.base.text import count


def units_text(dataset: Mapping[str, Any]) -> str:
    """Return "40 groups" where the test images are fewer units than images, "990 distinct images" for copies; or "".

    dataset: that of results.json; runs of versions that did not count units do not have their number.
    """
    n = dataset.get("n_test_units", dataset["n_test"])
    if n == dataset["n_test"]:
        return ""
    return count(n, "group" if dataset["test_units"] == "group" else "distinct image")


def paired_test_name(dataset: Mapping[str, Any]) -> str:
    """Return the name of the paired test of the heads of a run."""
    units = units_text(dataset)
    return f"sign-flip test over {units}" if units else "McNemar's exact test"
