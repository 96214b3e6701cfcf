"""The requests for the features of a data set: those of images are named, vectors are their own."""

from __future__ import annotations

from collections.abc import Sequence

from featurecache.base.errors import UsageError
from featurecache.base.text import printable
from featurecache.extract.images.manifest import Manifest
from featurecache.extract.job.request import FeatureRequest


def requests_for(manifest: Manifest, requests: Sequence[FeatureRequest]) -> tuple[FeatureRequest, ...]:
    """Return the requests for the features of a data set: those given, or the one that names its own vectors.

    Raises UsageError for vectors with a request for others, and for images without any.
    """
    if manifest.vectors is None:
        if not requests:
            raise UsageError("No features are named: give a FeatureRequest for each kind of features of the images.")
        return tuple(requests)
    own = FeatureRequest(manifest.vectors.name)
    if any(each != own for each in requests):
        raise UsageError(
            f"'{printable(manifest.source or manifest.name)}' holds vectors, which are the features: no request for "
            "others goes with it."
        )
    return (own,)
