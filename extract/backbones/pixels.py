"""The image itself as a backbone: no network, no weights, the baseline that every network has to beat.

    uint8 (B, 3, 32, 32) -> x / 255 -> 3,072 numbers, channel by channel

It goes through the same cut, pooling, key and cache as every other backbone; the digest of its weights is that of
nothing. `--layer pixels` is the small image as a map, so `--pooling avg` on it is the mean colour.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from featurecache.extract.cache.transform_spec import TransformSpec

# Fine enough for small pictures such as digits and icons, and the size of CIFAR, where pixels are the usual baseline.
SIDE = 32
# In place of a weights file: a remembered answer is tied to the state of a file, and this one decides the vectors.
OWN_FILE = Path(__file__)


class Pixels(nn.Module):
    """(B, 3, S, S) -> (B, 3 S S), with a last layer like every network, which is removed like every network's."""

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
    """Shortest side to 32 pixels with antialiasing, the centre square, values in 0..1."""
    return TransformSpec(SIDE, SIDE, "bilinear", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
