"""What a file says of where its vectors come from: their spec, where featurecache exported it.

Vectors of any other tool have a spec as well, which stands for what is known of them: their name and length. It has no
transform, so that of its spec is one pixel.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featurecache.base.plain_files import parse_json
from featurecache.base.text import printable
from featurecache.extract.cache.spec import MOST_IN_A_NAME, FeatureSpec, slug
from featurecache.extract.cache.transform_spec import TransformSpec

# Of the name of features, and of the request for them, that come from a file.
PREFIX = "vectors/"
# The source in the spec of vectors of which nothing but their length is known.
VECTORS_SOURCE = "vectors"
NO_TRANSFORM = TransformSpec(1, 1, "nearest", False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
UNFIT_FIRST = re.compile(r"[^A-Za-z0-9_]+")
LONGEST_SPEC = 1 << 20
# The attribute with the specs of features that are joined, in place of `spec`.
SPECS = "specs"


@dataclass(frozen=True)
class Origin:
    """The spec of vectors, and where they come from in words."""

    spec: FeatureSpec
    words: str


def name_of(stem: str) -> str:
    """Return the name of the features in a file of this name: `vectors/digits`."""
    most = MOST_IN_A_NAME - len(PREFIX)
    return PREFIX + (slug(UNFIT_FIRST.sub("", stem[:1]) + stem[1:], most=most) or "file")


def is_of_vectors(name: str) -> bool:
    """Return whether the name of features, or of a backbone, is that of vectors from a file."""
    return name.startswith(PREFIX)


def plain_spec(name: str, dim: int, *, pooling: str = "", columns: str = "", numbers: bytes = b"") -> FeatureSpec:
    """Return the spec of vectors of D numbers of which nothing else is known.

    columns: what tells their columns from others, where they have names of their own. numbers: the digests of the rows,
    where these are known by others, of images.
    """
    digest = hashlib.sha256(numbers).hexdigest()
    return FeatureSpec(name, VECTORS_SOURCE, digest, "", pooling, NO_TRANSFORM, dim, decode_version=1, network=columns)


def find_origin(
    name: str,
    file_name: str,
    dim: int,
    attributes: Mapping[str, Any],
    *,
    pooling: str = "",
    columns: str = "",
    numbers: bytes = b"",
) -> Origin:
    """Return the origin of vectors of D numbers; attributes: of their file, which need not be true.

    pooling, columns, numbers: see `plain_spec`.
    """
    if parts := _parts(dim, attributes.get(SPECS)):
        keys = " ".join(part.key for part in parts)
        columns = f"joined {hashlib.sha256(keys.encode()).hexdigest()}"
        names = printable(" + ".join(part.backbone for part in parts))
        own = plain_spec(name, dim, columns=columns, numbers=numbers)
        return Origin(own, f"{printable(file_name)}, exported from {names}")
    try:
        text = attributes.get("spec")
        if not isinstance(text, str) or len(text) > LONGEST_SPEC:
            raise ValueError("no spec")
        spec = FeatureSpec.from_dict(parse_json(text))
        if spec.feature_dim != dim:
            raise ValueError("other vectors")
    except (ValueError, KeyError, TypeError):
        words = f"{printable(file_name)}, mean of several each" if pooling else printable(file_name)
        return Origin(plain_spec(name, dim, pooling=pooling, columns=columns, numbers=numbers), words)
    weights = attributes.get("weights")
    weights = weights if isinstance(weights, str) else ""
    return Origin(spec, f"{printable(file_name)}, exported from {printable(f'{spec.backbone} {weights}'.strip())}")


def _parts(dim: int, text: Any) -> list[FeatureSpec]:
    """Return the specs of features that were joined to vectors of D numbers; none where the text does not say so."""
    try:
        if not isinstance(text, str) or len(text) > LONGEST_SPEC:
            return []
        found = [FeatureSpec.from_dict(values) for values in parse_json(text)]
    except (ValueError, KeyError, TypeError):
        return []
    return found if len(found) > 1 and sum(each.feature_dim for each in found) == dim else []
