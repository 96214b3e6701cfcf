"""Raw pixels as a backbone: the baseline without a network or weights.

    uint8 (B, 3, 32, 32) -> x / 255 -> 3,072 numbers, channel by channel

Cutting, pooling, key and cache are those of every other backbone; the digest of its weights is that of no tensors.
`--layer pixels` is the resized image as a feature map, so `--pooling avg` of it is the mean colour.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from featurecache.extract.cache.transform_spec import TransformSpec

# Enough for digits and icons, and the size of CIFAR, where raw pixels are the usual baseline.
SIDE = 32
# Used as the weights file: a remembered spec is valid for one state of a file, and this module determines the vectors.
OWN_FILE = Path(__file__)


class Pixels(nn.Module):
    """(B, 3, S, S) -> (B, 3 S S). It has a last layer, which is removed as that of every network."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Identity()
        self.flatten = nn.Flatten()
        self.last = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Flatten images (B, 3, S, S) to (B, 3 S S)."""
        vectors: Tensor = self.last(self.flatten(self.pixels(images)))
        return vectors


def pixels_transform() -> TransformSpec:
    """Return the transform: shortest side to 32 pixels with antialiasing, centre crop, values in 0..1."""
    return TransformSpec(SIDE, SIDE, "bilinear", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
