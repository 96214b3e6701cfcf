"""What features are a function of, and the key that follows from it.

    vector = function(image bytes, FeatureSpec)

Two specs with the same key give the same vectors (engines agree to 1e-4 relative); a spec that differs in any field has
another key and lives in another folder. What does not change a vector (device, batch size, library versions, the name
under which weights were asked for) is recorded in the shards and is not here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from featurecache.extract.cache.transform_spec import TransformSpec

DTYPES = ("float32", "float16")
# How a map becomes a vector (pooling.py).
POOLINGS = ("avg", "max", "gem", "flatten", "cls")
PRECISIONS = ("fp32", "fp16", "bf16")
# reduced: a JPEG of more than twice the size that is needed is decoded at 1/2, 1/4 or 1/8 of its own (decode.py).
FULL, REDUCED = DECODES = ("full", "reduced")
# Left out of the text, and so of the key, where they have this value: keys from before there were such fields stay.
USUAL = {"decode": FULL, "view": ""}


# Names of backbones, those of timm and of the hub too: hf-hub:timm/vit_base_patch16_224, user/repo@revision.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=:/-]{0,199}")
# What every file system takes in a name; the longest name, to which a key or a head is added, of 255 bytes; and names
# of devices, which Windows takes for no file whatever their ending.
UNFIT_IN_A_NAME, MOST_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.+@=,-]"), 200
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
KEY_DIGITS = 12
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
# All layers of a network side by side are thousands of characters; maps kept whole are millions of numbers.
MOST_CHARACTERS, MOST_NUMBERS = 1 << 16, 1 << 30


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS


def _is_count(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST_NUMBERS


CHECKS: dict[str, Callable[[Any], bool]] = {
    "backbone": lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None,
    "source": _is_text,
    "weights_digest": lambda value: isinstance(value, str) and HEX_DIGEST.fullmatch(value) is not None,
    "layer": _is_text,
    "pooling": _is_text,
    "feature_dim": _is_count,
    "decode_version": _is_count,
    "precision": lambda value: value in PRECISIONS,
    "dtype": lambda value: value in DTYPES,
    "decode": lambda value: value in DECODES,
    "view": _is_text,
}


@dataclass(frozen=True)
class FeatureSpec:
    """The complete identity of a set of features; every field is in the key."""

    backbone: str
    source: str
    weights_digest: str
    layer: str
    pooling: str
    transform: TransformSpec
    feature_dim: int
    decode_version: int
    precision: str = "fp32"
    dtype: str = "float32"
    decode: str = FULL
    view: str = ""

    def to_json(self) -> str:
        """The canonical text: keys sorted, no spaces, plain values only."""
        return self._text

    @cached_property
    def _text(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; what is USUAL is left out."""
        return {name: value for name, value in self._values().items() if name not in USUAL or USUAL[name] != value}

    def unusual(self) -> dict[str, Any]:
        """Return the fields with a value of their own among those that are mostly left at their default."""
        mine = {name: getattr(self, name) for name, usual in USUAL.items() if getattr(self, name) != usual}
        return mine | self.transform.unusual()

    def _values(self) -> dict[str, Any]:
        return {**asdict(self), "transform": self.transform.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureSpec:
        """The inverse of `to_dict`. Raises KeyError, TypeError or ValueError on values that are no spec.

        They may be anybody's: no name in them leads out of a folder, and no number is beyond what can be computed.
        """
        if not isinstance(values, dict):
            raise TypeError("a spec is an object")
        whole = {**USUAL, **values}
        known = {field.name: whole[field.name] for field in fields(cls)}
        for name, check in CHECKS.items():
            if not check(known[name]):
                raise ValueError(f"'{name}' is {str(known[name])[:40]!r}")
        return cls(**{**known, "transform": TransformSpec.from_dict(values["transform"])})

    @property
    def key(self) -> str:
        """SHA-256 of the canonical text, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """The name of the cache folder."""
        return folder_name(self.backbone, self.key)

    def differences(self, other: FeatureSpec) -> list[str]:
        """The names of the fields in which the two differ, transform values as `transform.crop`."""
        mine, theirs = _flat(self._values()), _flat(other._values())
        return [name for name in mine if mine[name] != theirs.get(name)]


def slug(name: str, *, most: int = MOST_IN_A_NAME) -> str:
    """A name as a part of a file's name: what not every file system takes becomes `_`.

    Plain names of up to `most` characters are left as they are; of longer ones the end is replaced by 12 hex digits of
    their SHA-256. Two names may have one slug: what has to differ adds a key to it.
    """
    fit = UNFIT_IN_A_NAME.sub("_", name)
    if DEVICE.match(fit):
        fit = f"_{fit}"
    if len(fit) > most:
        fit = f"{fit[: most - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return fit


def folder_name(backbone: str, key: str) -> str:
    """The name of the folder with the features of a backbone: its slug and the first 12 hex digits of the key."""
    return f"{slug(backbone)}-{key[:KEY_DIGITS]}"


def backbone_slug(folder: str) -> str:
    """The slug of the backbone in the name of a cache folder."""
    return folder[: -KEY_DIGITS - 1]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def image_digest(data: bytes) -> bytes:
    """SHA-256 of the encoded image: 32 bytes, the name of its row in every cache."""
    return hashlib.sha256(data).digest()
