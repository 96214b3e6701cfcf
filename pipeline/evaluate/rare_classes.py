"""Classes to name: those with too few images, which --min-per-class leaves out, and those that are made of others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from featurecache.base.text import count, printable
from featurecache.runs.documents import Dataset, LeftOut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# So many classes are named on the terminal; all of them are in results.json.
MAX_NAMED = 20
# What people put between several labels in one cell.
SEPARATOR = re.compile(r"\s*[|;,/+&]\s*")
# So many labels that are made of others are named.
MAX_MADE_NAMED = 3


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


def label_warnings(labels: Sequence[str]) -> list[str]:
    """Return a sentence on labels that are made of others; none where there are none."""
    return list(_compounds(Counter(labels)))


def _compounds(n_of: Counter[str]) -> Iterator[str]:
    """Yield a sentence where all parts of a label, such as 'cat|dog', are labels too, or parts of several labels."""
    parts = {name: SEPARATOR.split(name) for name in sorted(n_of) if SEPARATOR.search(name)}
    known = Counter(part for own in parts.values() for part in set(own))
    plain = n_of.keys() - parts.keys()
    found = [name for name, own in parts.items() if all(part in plain or known[part] > 1 for part in own)]
    found = [name for name in found if any(part in plain for part in parts[name])]
    if found:
        n_images = sum(n_of[name] for name in found)
        named = ", ".join(f"'{printable(name)}'" for name in found[:MAX_MADE_NAMED])
        more = f" and {len(found) - MAX_MADE_NAMED:,} more" if len(found) > MAX_MADE_NAMED else ""
        made, classes_of = ("is", "is a class of its") if len(found) == 1 else ("are", "are classes of their")
        yield (
            f"{count(len(found), 'label')} with {count(n_images, 'image')} {made} made of other labels ({named}{more}) "
            f"and {classes_of} own: an image has one label here."
        )
