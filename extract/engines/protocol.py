"""What an engine is, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from featurecache.extract.backbones.registry import Backbone

DEVICES = ("auto", "cpu", "cuda", "mps")
ENGINES = ("auto", "onnxruntime", "torch")


class Engine(Protocol):
    """A backbone made ready to run on one device.

    name: as in `--engine`. device: as in `--device`, resolved. precision: "fp32", "fp16" or "bf16".
    batch_size: rows of every batch that really runs; `run` takes any number of rows.
    n_lanes: how many threads may call `run` at once; together they use every core, and more would only wait.
    reason: one line on which engine and device were taken, and why.
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
        """uint8 (B, 3, S, S) -> float32 (B, D)."""
        ...


@dataclass(frozen=True)
class Source:
    """A network on its way to an engine: an engine that finds its graph never loads it.

    identity: JSON-able, everything that the vectors of the network depend on. side: S. load: uint8 images to vectors.
    feature_dim: D, None where only the network itself knows.
    """

    identity: Mapping[str, Any]
    side: int
    load: Callable[[], nn.Module]
    feature_dim: int | None = None


def source_of(backbone: Backbone) -> Source:
    """A backbone that is loaded already."""
    identity = {
        "backbone": backbone.name,
        "weights": backbone.weights_digest,
        "cuts": [[backbone.layer, backbone.pooling]],
        "transform": backbone.transform.to_dict(),
    }
    return Source(identity, backbone.transform.crop, lambda: backbone.module, backbone.feature_dim)
