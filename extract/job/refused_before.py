"""Images that an earlier run has refused for their content: they are not decoded again in the same circumstances.

The circumstances are all that decides whether an image is refused: the modules that decode, the versions of the
libraries, and the limit of pixels. The memo has each refusal under the key of the cache, which `classify` reads, and
under the key and the circumstances.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from featurecache.base.versions import installed_version
from featurecache.extract.cache.memo import Memo

DECODING_LIBRARIES = (
    "featurecache",
    "numpy",
    "pillow",
    "pillow-heif",
    "pydicom",
    "simplejpeg",
    "torch",
    "torchvision",
)


def refused_before(memo: Memo, key: str, max_pixels: int) -> dict[bytes, str]:
    """Return SHA-256 -> reason of the images that were refused for the cache of this key in the same circumstances."""
    return memo.refusals(_name(key, max_pixels))


def remember_refused(memo: Memo, reasons: Mapping[tuple[bytes, str], str], max_pixels: int) -> None:
    """Store why images were refused for their content: (SHA-256, key) -> reason."""
    named = {(digest, _name(key, max_pixels)): reason for (digest, key), reason in reasons.items()}
    memo.remember_refusals({**reasons, **named})


def _name(key: str, max_pixels: int) -> str:
    return f"{key} {_decoding_digest()} {max_pixels}"


@cache
def _decoding_digest() -> str:
    """Return 16 hex digits of the SHA-256 of the modules in extract/images and of the versions of the libraries."""
    found = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / "images").rglob("*.py")):
        found.update(path.read_bytes())
    found.update(json.dumps([installed_version(name) for name in DECODING_LIBRARIES]).encode())
    return found.hexdigest()[:16]
