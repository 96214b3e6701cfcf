"""The choice of a backbone as text: the candidates, the best first, and what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurecache.base.text import readable_bytes, readable_seconds, table
from featurecache.evaluate.rare_classes import left_out_line

if TYPE_CHECKING:
    from featurecache.evaluate.backbone_choice import Selection

HEADERS = ("backbone", "mean rank", "LogME", "H-score", "ridge %", "kNN %", "LEEP", "NCE", "D", "images/s", "all take",
           "disk")  # fmt: skip


def selection_text(selection: Selection) -> str:
    """The selection for people."""
    rows = [
        (
            each.backbone,
            f"{each.rank:.2f}",
            f"{each.logme:.3f}",
            f"{each.h_score:.2f}",
            f"{100 * each.ridge:.1f}",
            f"{100 * each.knn:.1f}",
            "" if each.leep is None else f"{each.leep:.2f}",
            "" if each.nce is None else f"{each.nce:.2f}",
            each.dim,
            f"{each.images_per_second:.0f}",
            readable_seconds(each.full_seconds),
            readable_bytes(each.full_bytes),
        )
        for each in selection.candidates
    ]
    at_size = f" at {selection.size} px" if selection.size else ""
    measured = f"measured on {selection.n_sample:,} of {selection.n_images:,} images{at_size}"
    title = f"{measured}; higher is better, except mean rank; images/s as recorded when the cache was filled"
    if selection.rare:
        title += f"\n{left_out_line(selection.rare, selection.least)}"
    return f"{title}\n\n{table(rows, HEADERS, right=range(1, len(HEADERS)))}\n\n{selection.advice}"
