"""Notes on the results of a run: units of its test images, its paired test, labels that settings were chosen on."""

from __future__ import annotations

from featurecache.base.text import count
from featurecache.classify.evaluation.criteria import ACCURACY
from featurecache.runs.documents import FewLabels, Results, TestUnits


def units_text(test: TestUnits) -> str:
    """Return "40 groups" where the test images are fewer units than images, "990 distinct images" for copies; or "".

    test: the dataset of results.json; runs of versions that did not count units do not have their number.
    """
    n = test.get("n_test_units", test["n_test"])
    if n == test["n_test"]:
        return ""
    return count(n, "group" if test["test_units"] == "group" else "distinct image")


def paired_test_name(test: TestUnits, metric: str = ACCURACY) -> str:
    """Return the name of the paired test of the heads of a run, which depends on the metric that it is by."""
    units = units_text(test)
    if metric != ACCURACY:
        return f"permutation test over {units}" if units else "paired permutation test"
    return f"sign-flip test over {units}" if units else "McNemar's exact test"


def few_shot_note(results: FewLabels | Results) -> str:
    """A sentence where settings were chosen on more labels than the heads were trained on; else empty."""
    if not any(row.get("n_chosen", row["n_train"]) > row["n_train"] for row in results.get("shots") or []):
        return ""
    return "1 a class: settings are chosen on 2 labels a class, since 1 leaves none to hold out; heads train on 1."
