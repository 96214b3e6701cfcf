"""The gain of transfer: the best head on a backbone against the best on raw pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIXELS = "pixels"


class Chosen(NamedTuple):
    """The head that val chose on one set of features, and which test images it got right: bool (N,)."""

    head: str
    correct: NDArray[np.bool_]


def compare_with_pixels(chosen: Mapping[str, Chosen], units: NDArray[np.integer[Any]] | None = None) -> list[str]:
    """A sentence for every set of features but the pixels, by name; none where the pixels are not among them.

    Heads are compared on the same test images, in units (N,), by `classify.evaluation.significance.paired_test`,
    Holm-corrected over the backbones.
    """
    from featurecache.classify.evaluation.significance import SIGNIFICANCE, holm, paired_test

    if PIXELS not in chosen:
        return []
    others = [name for name in chosen if name != PIXELS]
    pixels = chosen[PIXELS]
    p_values = holm([paired_test(chosen[name].correct, pixels.correct, units) for name in others])
    return [
        _sentence(name, chosen[name], pixels, p, p <= SIGNIFICANCE) for name, p in zip(others, p_values, strict=True)
    ]


def _sentence(name: str, ours: Chosen, pixels: Chosen, p: float, differs: bool) -> str:
    backbone = f"{name} ({ours.head}, {100 * ours.correct.mean():.2f} %)"
    baseline = f"the pixels themselves ({pixels.head}, {100 * pixels.correct.mean():.2f} %)"
    if not differs:
        return f"No significant difference between {backbone} and {baseline}, p = {p:.2g}."
    if ours.correct.mean() > pixels.correct.mean():
        return f"Transfer helps here: {backbone} beats {baseline}, p = {p:.2g}."
    return f"Transfer hurts here: {baseline} beat {backbone}, p = {p:.2g}. Use the pixels, or another backbone."
