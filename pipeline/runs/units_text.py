"""The units of a run's test images, groups and copies, in words."""

from __future__ import annotations

from featurecache.base.text import count
from featurecache.runs.documents import TestUnits


def units_text(test: TestUnits) -> str:
    """Return "40 groups" where the test images are fewer units than images, "990 distinct images" for copies; or "".

    test: the dataset of results.json; runs of versions that did not count units do not have their number.
    """
    n = test.get("n_test_units", test["n_test"])
    if n == test["n_test"]:
        return ""
    return count(n, "group" if test["test_units"] == "group" else "distinct image")


def paired_test_name(test: TestUnits) -> str:
    """Return the name of the paired test of the heads of a run."""
    units = units_text(test)
    return f"sign-flip test over {units}" if units else "McNemar's exact test"
