"""What an exported file says of itself, in its own metadata and in a document next to it.

    format      1
    head        the head and its features
    classes     JSON: the names of the classes, in the order of the probabilities
    input       JSON: the shape of the input, and how an image file becomes its pixels
    features    JSON: of each kind of features its key, backbone, digest of the weights, transform and so on
    versions    JSON: of the libraries that made the file
    created     when
    parity      JSON: how far the file agrees with `predict`, see `parity.py`

The keys in the file begin with "featurecache.".
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from featurecache.base.versions import installed_version
from featurecache.predictor.exported_session import FORMAT, PREFIX

if TYPE_CHECKING:
    from featurecache.extract.cache.spec import FeatureSpec

LIBRARIES = ("featurecache", "numpy", "onnx", "onnxruntime", "scikit-learn", "torch")
# How decode.py makes pixels of files, in the words of somebody who has to do it in another program.
DECODING = (
    "uint8 RGB, rows from top to bottom; turned upright by the EXIF orientation; grey and palette images as RGB; "
    "transparent pixels on white; CMYK as Pillow converts it; no colour profile applied; the first frame"
)
WIDE = {"full": "of 16 bits a channel the high byte", "image": "of more than 8 bits from the least to the greatest"}


def describe(
    *, head: str, classes: Sequence[str], specs: Sequence[FeatureSpec], shape: Sequence[int | str], parity: Any = None
) -> dict[str, Any]:
    """Return the document next to an exported file; the values are those of its metadata."""
    first = specs[0]
    return {
        "format": FORMAT,
        "head": head,
        "classes": list(classes),
        "input": {
            "name": "image",
            "shape": list(shape),
            "pixels": DECODING,
            "more_than_8_bits": WIDE.get(first.range, f"values of more than 8 bits from {first.range}"),
            "decode": first.decode,
            "decode_version": first.decode_version,
        },
        "features": [{"key": spec.key, **spec.to_dict()} for spec in specs],
        "versions": {name: installed_version(name) for name in LIBRARIES},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **({} if parity is None else {"parity": parity}),
    }


def with_metadata(content: bytes, document: dict[str, Any]) -> bytes:
    """Return a serialized model with the document in its metadata; concatenated protobuf messages are one message."""
    import onnx

    entries = [
        onnx.StringStringEntryProto(key=PREFIX + name, value=value if isinstance(value, str) else json.dumps(value))
        for name, value in document.items()
    ]
    more: bytes = onnx.ModelProto(metadata_props=entries).SerializeToString()
    return content + more
