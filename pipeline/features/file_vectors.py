"""Vectors from a file for a saved head: whether they are of the features that it was trained on."""

from __future__ import annotations

from featurecache.base.errors import UsageError
from featurecache.base.progress import Progress
from featurecache.base.text import printable
from featurecache.extract.cache.spec import FeatureSpec
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.images.vectors.origin import VECTORS_SOURCE, is_of_vectors
from featurecache.extract.images.vectors.vectors import Vectors
from featurecache.features.new_images import FoundFeatures
from featurecache.runs.moved import check_spec


def find_vectors(name: str, backbone: str, spec: FeatureSpec, images: Manifest, progress: Progress) -> FoundFeatures:
    """Return the vectors of a data set for a head; name: of the head. backbone, spec: of its features.

    Raises UsageError where they are of another length, or nothing says that they are these features of images;
    CacheError where they are of another backbone.
    """
    vectors, source = images.vectors, printable(images.source or images.name)
    assert vectors is not None
    if vectors.spec.feature_dim != spec.feature_dim:
        raise UsageError(
            f"The head {name} takes vectors of {spec.feature_dim:,} numbers, and those of '{source}' have "
            f"{vectors.spec.feature_dim:,}. Name vectors of the same network."
        )
    columns = [each.network if each.source == VECTORS_SOURCE else "" for each in (spec, vectors.spec)]
    if all(columns) and columns[0] != columns[1]:
        raise UsageError(
            f"The head {name} takes vectors of other columns, or in another order, than '{source}' has. Give its "
            "columns the names and the order of the table of the run."
        )
    knows = [each.source != VECTORS_SOURCE for each in (spec, vectors.spec)]
    if all(knows):
        check_spec(spec, vectors.spec)
    elif not is_of_vectors(backbone):
        raise UsageError(
            f"The head {name} takes features of images, and nothing in '{source}' says that its vectors are these. "
            "Name the images, or a file of 'featurecache cache export'."
        )
    elif any(knows):
        progress.say(
            f"'{source}' or the run does not say of which network its vectors are: they are taken for the same."
        )
    return _found(images, vectors)


def check_are_images(name: str, backbone: str, spec: FeatureSpec, images: Manifest) -> None:
    """Raise UsageError for images and a head that takes vectors from a file."""
    check_takes_images(name, backbone, spec, f"'{printable(images.source or images.root)}' has images")


def check_takes_images(name: str, backbone: str, spec: FeatureSpec, finding: str) -> None:
    """Raise UsageError for a head that takes vectors from a file. finding: what there is instead, as a clause."""
    if is_of_vectors(backbone):
        raise UsageError(
            f"The head {name} takes vectors of {spec.feature_dim:,} numbers from a file, and {finding}. Name a file of "
            "vectors."
        )


def _found(images: Manifest, vectors: Vectors) -> FoundFeatures:
    return FoundFeatures(images.samples, vectors.digests, vectors, ())
