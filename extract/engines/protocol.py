"""The protocol of engines, and the source that an engine is built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from featurecache.extract.backbones.registry import Backbone
    from featurecache.extract.cache.transform_spec import TransformDocument

DEVICES = ("auto", "cpu", "cuda", "mps")
ENGINES = ("auto", "onnxruntime", "torch")


class Engine(Protocol):
    """A backbone that is loaded on one device.

    name: as in `--engine`. device: as in `--device`, resolved. precision: "fp32", "fp16", "bf16" or "int8".
    batch_size: images per batch inside `run`, which accepts any number of images.
    n_lanes: how many threads may call `run` at once; together they use every core, and more would only wait.
    reason: one line on the chosen engine and device, and why.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def n_lanes(self) -> int: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102

    def run(self, batch: Tensor) -> np.ndarray:
        """Compute features: uint8 (B, 3, S, S) -> float32 (B, D)."""
        ...


class NetworkIdentity(TypedDict):
    """Everything that the vectors of a network depend on, as plain JSON values.

    weights: digest of the tensors. cuts: layer and pooling of each, in order of columns.
    """

    backbone: str
    weights: str
    cuts: list[list[str]]
    transform: TransformDocument


@dataclass(frozen=True)
class Source:
    """A network that an engine is built from. It is loaded only if there is no stored graph.

    side: S. load: returns the module, uint8 (B, 3, S, S) -> float32 (B, D).
    feature_dim: D, None if unknown before loading. columns: of each cut in the vectors; empty for a single cut.
    exported: graphs in fp32 that were exported for it, by batch size.
    """

    identity: NetworkIdentity
    side: int
    load: Callable[[], nn.Module]
    feature_dim: int | None = None
    columns: tuple[slice, ...] = ()
    exported: dict[int, bytes] = field(default_factory=dict, compare=False)


def source_of(backbone: Backbone) -> Source:
    """Return the source of a loaded backbone."""
    identity: NetworkIdentity = {
        "backbone": backbone.name,
        "weights": backbone.weights_digest,
        "cuts": [[backbone.layer, backbone.pooling]],
        "transform": backbone.transform.to_dict(),
    }
    return Source(identity, backbone.transform.crop, lambda: backbone.module, backbone.feature_dim)
