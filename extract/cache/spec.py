"""The identity of a set of features (FeatureSpec), and its key.

    vector = function(image bytes, FeatureSpec)

Specs with the same key give the same vectors (engines agree to 1e-4 relative); a spec that differs in any field has
another key and another cache folder. Settings that do not change a vector (device, batch size, library versions, the
name of the weights) are not part of the spec; they are recorded in the shards.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypedDict, cast

from featurecache.extract.cache.transform_spec import TransformDocument, TransformSpec

DTYPES = ("float32", "float16")
# Described in pooling.py.
POOLINGS = ("avg", "max", "gem", "flatten", "cls", "cls+avg")
# int8: by activation ranges, whose digest is in the key (ranges.py).
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "tf32")
INT8 = PRECISIONS[3]
# reduced: a JPEG of more than twice the size that is needed is decoded at 1/2, 1/4 or 1/8 of its own (decode.py).
FULL, REDUCED = DECODES = ("full", "reduced")
# Which values of an image of more than 8 bits are black and white: these, or LOW:HIGH (images/levels.py).
FULL_RANGE, IMAGE_RANGE = NAMED_RANGES = ("full", "image")
BOUNDS = re.compile(r"(-?[0-9]{1,10}(?:\.[0-9]{1,6})?):(-?[0-9]{1,10}(?:\.[0-9]{1,6})?)")
# Fields that are omitted from the text, and so from the key, at these values: keys without such fields stay valid.
FIELD_DEFAULTS = {"decode": FULL, "range": FULL_RANGE, "view": "", "ranges": "", "network": ""}


# Names of backbones, those of timm and of the hub too: hf-hub:timm/vit_base_patch16_224, user/repo@revision.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=:/-]{0,199}")
# Characters that not every file system permits in a name; the longest name, to which a key or a head is added, of 255
# bytes; and names of devices, which Windows does not permit for files, with any ending.
UNFIT_IN_A_NAME, MOST_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.+@=,-]"), 200
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
KEY_DIGITS = 12
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")
# The names of all layers of a network have thousands of characters; flattened maps have millions of numbers.
MOST_CHARACTERS, MOST_NUMBERS = 1 << 16, 1 << 30
ABOUT, MOST_OF_ABOUT = "about", 500


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_CHARACTERS


def bounds_of(levels: object) -> tuple[float, float] | None:
    """Return LOW and HIGH of a range LOW:HIGH; None for anything else."""
    found = BOUNDS.fullmatch(levels) if isinstance(levels, str) else None
    if found is None or not float(found[1]) < float(found[2]):
        return None
    return float(found[1]), float(found[2])


def _plain_about(value: object) -> dict[str, str]:
    """Return the entries that are short texts, of what may be anything."""
    entries = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in entries if isinstance(text, str) and len(text) <= MOST_OF_ABOUT}


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
    "range": lambda value: value in NAMED_RANGES or bounds_of(value) is not None,
    "view": _is_text,
    "ranges": lambda value: value == "" or (isinstance(value, str) and HEX_DIGEST.fullmatch(value) is not None),
    "network": _is_text,
}


class _SpecDocument(TypedDict):
    backbone: str
    source: str
    weights_digest: str
    layer: str
    pooling: str
    transform: TransformDocument
    feature_dim: int
    decode_version: int
    precision: str
    dtype: str


class SpecDocument(_SpecDocument, total=False):
    """A FeatureSpec as JSON: spec.json, and the attribute `spec` of a shard. Fields at their default are omitted.

    about: in spec.json only.
    """

    decode: str
    range: str
    view: str
    ranges: str
    network: str
    about: dict[str, str]


@dataclass(frozen=True)
class FeatureSpec:
    """The complete identity of a set of features; every field but `about` is in the key.

    ranges: the digest of the activation ranges in int8, empty in other precisions.
    network: what determines the vectors besides the tensors, where the name does not: the architecture and the
        arguments that it is built with, as JSON, or the digest of the source text of a user's function.
    about: the licence and the source of the weights, for people; not compared.
    """

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
    range: str = FULL_RANGE
    view: str = ""
    ranges: str = ""
    network: str = ""
    about: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def to_json(self) -> str:
        """Return the canonical text: keys sorted, no spaces, plain values only."""
        return self._text

    @cached_property
    def _text(self) -> str:
        return as_text(self.to_dict())

    def to_dict(self) -> SpecDocument:
        """Return the content of spec.json; fields at their default are omitted."""
        defaults = FIELD_DEFAULTS
        written = {name: v for name, v in self._values().items() if name not in defaults or defaults[name] != v}
        return cast("SpecDocument", written)

    def to_document(self) -> SpecDocument:
        """Return the content of spec.json, with what is known of the source of the weights."""
        return cast("SpecDocument", {**self.to_dict(), **({"about": dict(self.about)} if self.about else {})})

    def non_default(self) -> dict[str, Any]:
        """Return the fields, those of the transform too, that differ from their default."""
        mine = {name: getattr(self, name) for name, default in FIELD_DEFAULTS.items() if getattr(self, name) != default}
        return mine | self.transform.non_default()

    def _values(self) -> dict[str, Any]:
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != ABOUT}
        return {**values, "transform": self.transform.to_dict()}

    @classmethod
    def from_dict(cls, values: Any) -> FeatureSpec:
        """Return the spec with these values, the inverse of `to_dict`. Raises KeyError, TypeError or ValueError.

        The values may be untrusted: names that lead out of a folder and numbers too large to compute with are refused.
        """
        if not isinstance(values, dict):
            raise TypeError("a spec is an object")
        whole = {**FIELD_DEFAULTS, **values}
        known = {each.name: whole[each.name] for each in fields(cls) if each.name != ABOUT}
        for name, check in CHECKS.items():
            if not check(known[name]):
                raise ValueError(f"'{name}' is {str(known[name])[:40]!r}")
        if bool(known["ranges"]) != (known["precision"] == INT8):
            raise ValueError("activation ranges belong to int8, and int8 to activation ranges")
        about = _plain_about(values.get(ABOUT))
        return cls(**{**known, "transform": TransformSpec.from_dict(values["transform"]), ABOUT: about})

    @property
    def key(self) -> str:
        """The SHA-256 of the canonical text, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """The name of the cache folder."""
        return folder_name(self.backbone, self.key)

    def differences(self, other: FeatureSpec) -> list[str]:
        """Return the names of the fields that differ, those of the transform as `transform.crop`."""
        mine, theirs = _flat(self._values()), _flat(other._values())
        return [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]


def as_text(document: SpecDocument) -> str:
    """Return the canonical text of a spec: keys sorted, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def slug(name: str, *, most: int = MOST_IN_A_NAME) -> str:
    """Return a name as a part of a file's name: characters that not every file system permits become `_`.

    The end of a name of more than `most` characters is replaced by 12 hex digits of its SHA-256. Two names may have the
    same slug: where they have to differ, a key is added.
    """
    fit = UNFIT_IN_A_NAME.sub("_", name)
    if DEVICE.match(fit):
        fit = f"_{fit}"
    if len(fit) > most:
        fit = f"{fit[: most - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return fit


def folder_name(backbone: str, key: str) -> str:
    """Return the name of a cache folder: the slug of the backbone and the first 12 hex digits of the key."""
    return f"{slug(backbone)}-{key[:KEY_DIGITS]}"


def backbone_slug(folder: str) -> str:
    """Return the slug of the backbone in the name of a cache folder."""
    return folder[: -KEY_DIGITS - 1]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def image_digest(data: bytes) -> bytes:
    """Return the SHA-256 (32 bytes) of an encoded image, the name of its row in every cache."""
    return hashlib.sha256(data).digest()
