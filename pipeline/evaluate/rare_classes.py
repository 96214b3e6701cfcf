"""Classes with too few images, which --min-per-class leaves out, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from featurecache.base.text import count, printable
from featurecache.runs.documents import Dataset, LeftOut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# So many classes are named on the terminal; all of them are in results.json.
MAX_NAMED = 20


def rare_classes(
    labels: Sequence[str], digests: NDArray[np.uint8], groups: Sequence[str | None], least: int
) -> dict[str, int]:
    """Return {class: number of images} of the classes with fewer than `least` images, by name.

    labels (N,), digests (N, 32), groups (N,). Copies of an image and images of a group count once, as in splits: so
    `least` 2 leaves out the very classes that cannot be in both train and test.
    """
    import numpy as np

    from featurecache.classify.evaluation.units import count_units, units_of

    if least <= 1 or not labels:
        return {}
    classes, codes = np.unique(np.array(labels, dtype=object), return_inverse=True)
    n_units = count_units(units_of(digests, groups), codes.ravel(), len(classes))
    n_images = Counter(labels)
    return {str(name): n_images[name] for name, n in zip(classes, n_units, strict=True) if n < least}


def left_out_rows(left_out: Mapping[str, int]) -> list[LeftOut]:
    """Return the classes that were left out as rows of results.json."""
    return [{"class": printable(name), "n_images": n} for name, n in left_out.items()]


def left_out_line(left_out: Mapping[str, int], least: int) -> str:
    """Return a sentence on the classes that have fewer than `least` images, with the number of images of each."""
    named = [f"{printable(name)} ({n:,})" for name, n in list(left_out.items())[:MAX_NAMED]]
    named += [f"and {len(left_out) - MAX_NAMED:,} more"] if len(left_out) > MAX_NAMED else []
    are = "is" if len(left_out) == 1 else "are"
    why = f"fewer than {least} images, counting copies and members of a group once"
    return f"{left_out_count(left_out)} {are} left out, having {why}: {', '.join(named)}."


def left_out_count(left_out: Mapping[str, int]) -> str:
    """Return the numbers of classes and images left out: "2 classes with 3 images"."""
    return f"{count(len(left_out), 'class', 'classes')} with {count(sum(left_out.values()), 'image')}"


def left_out_of(dataset: Dataset) -> dict[str, int]:
    """The inverse of `left_out_rows`, from the dataset of results.json."""
    return {row["class"]: row["n_images"] for row in dataset.get("left_out", [])}
