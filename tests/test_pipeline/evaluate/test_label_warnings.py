"""Several labels in one cell are named."""

from __future__ import annotations

import pytest

from featurecache.evaluate.rare_classes import label_warnings


@pytest.mark.parametrize("label", ["cat|dog", "cat; dog", "dog,cat", "cat/dog", "cat & dog", "cat+dog", "cat|dog|cat"])
def test_a_label_that_is_made_of_others_is_named(label):
    (warning,) = label_warnings(["cat", "dog", label, label])
    assert warning == (
        f"1 label with 2 images is made of other labels ('{label}') and is a class of its own: "
        "an image has one label here."
    )


def test_labels_that_are_made_of_parts_of_others_are_named_too():
    (warning,) = label_warnings(["cat", "cat|dog", "cat|dog|owl", "owl|cat", "dog|owl"])
    assert warning.startswith("3 labels with 3 images are made of other labels ('cat|dog', 'cat|dog|owl', 'owl|cat')")


@pytest.mark.parametrize("labels", [["Lynx, Eurasian", "Lynx, Canadian", "Fox"], ["R&D", "R", "Sales"], ["1/2", "3/4"]])
def test_a_label_with_a_separator_in_it_is_a_label(labels):
    assert label_warnings(labels) == []
