"""Labels that look like a mistake: several in one cell of a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from featurecache.base.text import count, printable
from featurecache.evaluate.join import Labelled

# What people put between several labels in one cell.
SEPARATOR = re.compile(r"\s*[|;,/+&]\s*")
# So many labels are named.
MAX_NAMED = 3


def label_warnings(labelled: Labelled) -> list[str]:
    """Return a sentence on labels that are made of others; none where there are none."""
    return list(_compounds(labelled.classes, Counter(labelled.y.tolist())))


def _compounds(classes: Sequence[str], n_of: Counter[int]) -> Iterator[str]:
    """Yield a sentence where all parts of a label, such as 'cat|dog', are labels too, or parts of several labels."""
    parts = {name: SEPARATOR.split(name) for name in classes if SEPARATOR.search(name)}
    known = Counter(part for own in parts.values() for part in set(own))
    plain = set(classes) - parts.keys()
    found = [name for name, own in parts.items() if all(part in plain or known[part] > 1 for part in own)]
    found = [name for name in found if any(part in plain for part in parts[name])]
    if found:
        n_images = sum(n_of[classes.index(name)] for name in found)
        named = ", ".join(f"'{printable(name)}'" for name in found[:MAX_NAMED])
        more = f" and {len(found) - MAX_NAMED:,} more" if len(found) > MAX_NAMED else ""
        made, classes_of = ("is", "is a class of its") if len(found) == 1 else ("are", "are classes of their")
        yield (
            f"{count(len(found), 'label')} with {count(n_images, 'image')} {made} made of other labels ({named}{more}) "
            f"and {classes_of} own: an image has one label here."
        )
