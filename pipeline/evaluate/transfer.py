"""The gain of transfer: the best head on a backbone against the best on raw pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from featurecache.classify.evaluation.criteria import ACCURACY, CRITERIA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from featurecache.classify.evaluation.permutation import Answers

PIXELS = "pixels"


class Chosen(NamedTuple):
    """The head that val chose on one set of features, and its answers on test."""

    head: str
    answers: Answers


def compare_with_pixels(
    chosen: Mapping[str, Chosen],
    truth: NDArray[np.int64],
    *,
    metric: str = ACCURACY,
    units: NDArray[np.integer[Any]] | None = None,
) -> list[str]:
    """A sentence for every set of features but the pixels, by name; none where the pixels are not among them.

    Heads are compared by a metric on the same test images of codes truth (N,), in units (N,), with
    `classify.evaluation.ranking.paired_tests`, Holm-corrected over the backbones.
    """
    from featurecache.classify.evaluation.ranking import paired_tests
    from featurecache.classify.evaluation.significance import SIGNIFICANCE, holm

    if PIXELS not in chosen:
        return []
    others = [name for name in chosen if name != PIXELS]
    answers = [chosen[PIXELS].answers, *(chosen[name].answers for name in others)]
    pairs = [(place, 0) for place in range(1, len(answers))]
    p_values = holm(paired_tests(truth, answers, pairs, metric=metric, units=units))
    values = [each.value(metric, truth) for each in answers]
    return [
        _sentence((name, chosen[name].head), chosen[PIXELS].head, (value, values[0]), p, p <= SIGNIFICANCE, metric)
        for name, value, p in zip(others, values[1:], p_values, strict=True)
    ]


def _sentence(
    ours: tuple[str, str], head_on_pixels: str, values: tuple[float, float], p: float, differs: bool, metric: str
) -> str:
    criterion = CRITERIA[metric]
    title = "" if metric == ACCURACY else f"{criterion.title} "
    backbone = f"{ours[0]} ({ours[1]}, {title}{criterion.shown(values[0])})"
    baseline = f"the pixels themselves ({head_on_pixels}, {title}{criterion.shown(values[1])})"
    if not differs:
        return f"No significant difference between {backbone} and {baseline}, p = {p:.2g}."
    if criterion.cost(values[0]) < criterion.cost(values[1]):
        return f"Transfer helps here: {backbone} beats {baseline}, p = {p:.2g}."
    return f"Transfer hurts here: {baseline} beat {backbone}, p = {p:.2g}. Use the pixels, or another backbone."
