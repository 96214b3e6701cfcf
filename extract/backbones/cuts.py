"""What a cut of a network is: a layer and a pooling, requested and resolved; where stages end; which pooling applies.

A network with its normalisation and its pooling is one module of plain tensor operations, `FeatureExtractor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from featurecache.base.errors import BackboneError
from featurecache.extract.backbones.architectures import PROBE_ROWS, Family
from featurecache.extract.cache.transform_spec import TransformSpec

STAGES = "stages"
N_QUARTERS = 4  # most networks with stages have four
FULL_RANGE = 255.0
CLASS_TOKEN = ("cls", "cls+avg")  # poolings that need one


class CutRequest(NamedTuple):
    """A layer and a pooling as the user names them; None for the network's default."""

    layer: str | None = None
    pooling: str | None = None


@dataclass(frozen=True)
class Cut:
    """A resolved CutRequest: D = `feature_dim` columns of the output, from column `start` on.

    layer: the node, or "stages:" and the nodes joined by "+".
    """

    layer: str
    pooling: str
    feature_dim: int
    start: int = 0

    @property
    def columns(self) -> slice:
        """The columns of this cut in the module's output."""
        return slice(self.start, self.start + self.feature_dim)


@dataclass(frozen=True)
class CutNetwork:
    """A network cut at one or more layers: one module, and the columns of each cut in its output."""

    module: FeatureExtractor
    cuts: tuple[Cut, ...]

    @property
    def feature_dim(self) -> int:
        """D, the width of the module's output: the sum over all cuts."""
        return sum(cut.feature_dim for cut in self.cuts)


class FeatureExtractor(nn.Module):
    """Normalisation, network and pooling as one module of plain tensor operations.

    network: normalised images (B, 3, S, S) -> features (B, D), pooling included. (It cannot be called `graph`:
        exporters convert this module to one that has an attribute of that name.)
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, transform: TransformSpec) -> None:
        super().__init__()
        mean = torch.tensor(transform.mean, dtype=torch.float64).view(1, -1, 1, 1)
        std = torch.tensor(transform.std, dtype=torch.float64).view(1, -1, 1, 1)
        self.register_buffer("scale", (1.0 / (FULL_RANGE * std)).float())
        self.register_buffer("shift", (-mean / std).float())
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> float32 (B, D)."""
        features: Tensor = self.network(images.float() * self.scale + self.shift)
        return features


def stage_ends(outputs: dict[str, Any]) -> list[str]:
    """Return the nodes that end a stage by the rules of `cutting.py`; `outputs` in execution order, the last does."""
    *blocks, end = outputs
    stages = [list(stage) for _, stage in groupby(blocks, key=lambda name: outputs[name].shape)]
    if len(stages) == 1 and len(blocks) < N_QUARTERS:
        return [*blocks[:-1], end]
    if len(stages) == 1:
        return [*(blocks[len(blocks) * quarter // N_QUARTERS - 1] for quarter in range(1, N_QUARTERS)), end]
    return [*(stage[-1] for stage in stages), end]


def check_output(name: str, node: str, output: Any) -> None:
    """Raise BackboneError if an output for two images is not a feature map, tokens or a vector for each."""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise BackboneError(
            f"Layer '{node}' of {name} does not put out one feature map. Choose the layer before or after."
        )
    if output.ndim not in (2, 3, 4) or output.shape[0] != PROBE_ROWS:
        shape = " x ".join(str(size) for size in output.shape)
        raise BackboneError(
            f"Layer '{node}' of {name} puts out {shape} for {PROBE_ROWS} images, not a feature map, tokens or a vector "
            "for each. Choose the layer before or after."
        )


def pooling_for(output: Any, family: Family, request: CutRequest) -> str:
    """Return the requested or default pooling of an output; `flatten` for an output that already is a vector."""
    n_dimensions = getattr(output, "ndim", 0)
    if n_dimensions == 2 and request.pooling not in CLASS_TOKEN:
        return "flatten"
    return request.pooling or (family.pooling if n_dimensions == 3 else "avg")


def is_channels_last(output: Tensor) -> bool:
    """Whether a map is (B, h, w, D): images are square, so h = w."""
    return output.ndim == 4 and output.shape[1] == output.shape[2] != output.shape[3]
