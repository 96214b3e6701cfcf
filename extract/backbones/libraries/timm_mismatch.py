"""What torch says of a state dict that is not that of its network, in one clause on the first tensor that differs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from featurecache.base.text import printable

OTHER_SHAPE = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\(\[([\d, ]*)\]\) from checkpoint, the shape in "
    r"current model is torch\.Size\(\[([\d, ]*)\]\)"
)
MISSING = re.compile(r"Missing key\(s\) in state_dict: \"([^\"]+)\"")
UNEXPECTED = re.compile(r"Unexpected key\(s\) in state_dict: \"([^\"]+)\"")


def first_difference(text: str, classifiers: Sequence[str] = ()) -> str:
    """Return a clause on the first tensor that differs; empty for texts of other errors.

    classifiers: the names of the last layers, of whose tensors the configuration has the number of classes.
    """
    shapes = OTHER_SHAPE.search(text)
    if shapes is not None:
        name, own, expected = shapes.groups()
        clause = f"'{printable(name)}' has the shape ({own}) in the file and ({expected}) in the network"
        is_of_classes = name.rpartition(".")[0] in classifiers and own.split(", ")[1:] == expected.split(", ")[1:]
        advice = f"; for {own.split(', ')[0]} classes set num_classes in its config.json"
        return f"{clause}{advice if is_of_classes else ''}"
    if missing := MISSING.search(text):
        return f"the file has no '{printable(missing[1])}'"
    if unexpected := UNEXPECTED.search(text):
        return f"the network has no '{printable(unexpected[1])}', which is in the file"
    return ""
