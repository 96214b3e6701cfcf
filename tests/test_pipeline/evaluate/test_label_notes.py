"""Several labels in one cell are named."""

from __future__ import annotations

import numpy as np
import pytest

from featurecache.evaluate.join import Labelled
from featurecache.evaluate.label_notes import label_warnings
from featurecache.extract.images.manifest import Sample


def labelled(rows) -> Labelled:
    """Samples of (picture, label): equal pictures have equal digests."""
    classes = sorted({label for _, label in rows})
    samples = tuple(Sample(f"/{i}", f"{picture}.png", label) for i, (picture, label) in enumerate(rows))
    digests = np.array([np.full(32, picture) for picture, _ in rows], dtype=np.uint8)
    y = np.array([classes.index(label) for _, label in rows])
    return Labelled(samples, digests, y, classes, np.full(len(rows), "train"), (), ())


@pytest.mark.parametrize("label", ["cat|dog", "cat; dog", "dog,cat", "cat/dog", "cat & dog", "cat+dog", "cat|dog|cat"])
def test_a_label_that_is_made_of_others_is_named(label):
    (warning,) = label_warnings(labelled([(1, "cat"), (2, "dog"), (3, label), (4, label)]))
    assert warning == (
        f"1 label with 2 images is made of other labels ('{label}') and is a class of its own: "
        "an image has one label here."
    )


def test_labels_that_are_made_of_parts_of_others_are_named_too():
    rows = [(1, "cat"), (2, "cat|dog"), (3, "cat|dog|owl"), (4, "owl|cat"), (5, "dog|owl")]
    (warning,) = label_warnings(labelled(rows))
    assert warning.startswith("3 labels with 3 images are made of other labels ('cat|dog', 'cat|dog|owl', 'owl|cat')")


@pytest.mark.parametrize("labels", [["Lynx, Eurasian", "Lynx, Canadian", "Fox"], ["R&D", "R", "Sales"], ["1/2", "3/4"]])
def test_a_label_with_a_separator_in_it_is_a_label(labels):
    assert label_warnings(labelled(list(enumerate(labels)))) == []
