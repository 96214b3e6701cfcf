"""Kill extractions, classifies and fine-tunes at random instants, and let several processes at once into one cache.

    python tests/torture.py [EXTRACTIONS [CLASSIFIES [FINE-TUNES [IMAGES]]]]
                              (`make torture`: 100, 100 and 20 kills, then four processes on 2,000 images)

Prints how often each kill point was drawn. A point that the code has lost, or never reaches, is a failure.
"""

from __future__ import annotations

import sys
from collections import Counter

import torture_classify
import torture_extract
import torture_finetune
from killing import KillPoints


def main(extractions: int = 100, classifies: int = 100, finetunes: int = 20, n_images: int = 2000) -> None:
    """Everything, and what was seen."""
    n_kills = show("extract", torture_extract.torture(extractions), torture_extract.POINTS)
    n_kills += show("classify", torture_classify.torture(classifies), torture_classify.POINTS)
    n_kills += show("finetune", torture_finetune.torture(finetunes), torture_finetune.POINTS)
    looks = torture_extract.crowd(n_images)
    print(f"{torture_extract.N_PROCESSES} processes on {n_images} images, and a reader that looked {looks} times")
    print(f"{n_kills + 1} passed, 0 failed")


def show(what: str, where: Counter[str], points: KillPoints) -> int:
    """Print how often the kills came where; returns how many there were.

    Raises AssertionError where a point was missed by as many kills as would have hit each.
    """
    for place, times in sorted(where.items()):
        print(f"{times:4d}  {what}: {place}")
    if where.total() >= 2 * len(points.points):
        points.check_drawn(where)
    return where.total()


if __name__ == "__main__":
    main(*[int(word) for word in sys.argv[1:]])
