"""Augmented views of images. They are deterministic functions of a seed, so that views can be cached like images.

    view = function(uint8 pixels (3, S, S), kind, seed, number, image digest)

    flip     odd views are mirrored, even ones are not: there are two different views
    light    a window of 0.85 to 1.15 S, up to S / 12 off the centre; brightness and contrast up to 20 % off
    strong   a window of 0.65 to 1.15 S of any shape between 3:4 and 4:3; mirrored or not; brightness and contrast up to
             40 % off; half of the time a rectangle is erased (Zhong et al., Random Erasing, AAAI 2020)

Light does not mirror, which would change letters, digits and road signs. View 0 is the image itself and has no name.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurecache.base.errors import ExtractError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

# Part of the name of every view and so of its key: increased when a view of any kind has other pixels.
VERSION = 1
MARGIN = 4  # the border is replicated by S / 4, so that every window is inside the padded image
ERASED_SHARE = 0.5


@dataclass(frozen=True)
class Strength:
    """The ranges of a kind: window sides and shift as parts of S, aspect ratio, tone, mirroring, erased area."""

    window: tuple[float, float]
    shift: float
    shape: float
    tone: float
    mirrors: bool
    erases: tuple[float, float] | None


STRENGTHS = {
    "light": Strength((0.85, 1.15), 1 / 12, 1.0, 0.2, mirrors=False, erases=None),
    "strong": Strength((0.65, 1.15), 1 / 8, 4 / 3, 0.4, mirrors=True, erases=(0.02, 0.2)),
}
VIEW_KINDS = ("flip", *STRENGTHS)


@dataclass(frozen=True)
class View:
    """One of the views of every image; number 1, 2, ..."""

    kind: str
    seed: int
    number: int

    @property
    def name(self) -> str:
        """Return the name of the view in requests and specs."""
        return f"{self.kind}-v{VERSION}:{self.seed}:{self.number}"

    @classmethod
    def of(cls, name: str) -> View:
        """Return the view of a name. Raises ExtractError for other names, and for views of another version."""
        kind, _, rest = name.partition(f"-v{VERSION}:")
        seed, _, number = rest.partition(":")
        if kind not in VIEW_KINDS or not seed.isdecimal() or not number.isdecimal():
            raise ExtractError(
                f"there is no view '{name}' in this version; one is called like {cls('light', 0, 1).name}, "
                f"with {', '.join(VIEW_KINDS)} in front"
            )
        return cls(kind, int(seed), int(number))


def apply_view(image: Tensor, view: View, digest: bytes) -> Tensor:
    """Return one view of an image, uint8 (3, S, S) -> uint8 (3, S, S). digest: SHA-256 of the image file."""
    if view.kind == "flip":
        return image.flip(-1) if view.number % 2 else image
    drawn = random.Random(int.from_bytes(hashlib.sha256(view.name.encode() + digest).digest()[:8], "big"))
    strength = STRENGTHS[view.kind]
    image = _toned(_window(image, strength, drawn), strength.tone, drawn)
    if strength.mirrors and drawn.random() < 0.5:
        image = image.flip(-1)
    if strength.erases and drawn.random() < ERASED_SHARE:
        image = _erased(image, strength.erases, drawn)
    return image


def viewed(pixels: NDArray[np.uint8], view: View, digest: bytes) -> NDArray[np.uint8]:
    """Return `apply_view` of an array, uint8 (3, S, S)."""
    import torch

    found: NDArray[np.uint8] = apply_view(torch.from_numpy(pixels), view, digest).numpy()
    return found


def _window(image: Tensor, strength: Strength, drawn: random.Random) -> Tensor:
    """Return a random window of the image, with replicated borders, resized to (3, S, S)."""
    from torchvision.transforms.v2 import functional as F  # noqa: N812

    size = image.shape[-1]
    margin = size // MARGIN
    side = size * drawn.uniform(*strength.window)
    stretch = strength.shape ** (drawn.uniform(-1.0, 1.0) / 2)
    whole = size + 2 * margin
    sides = [min(whole, max(1, round(length))) for length in (side * stretch, side / stretch)]
    starts = []
    for length in sides:
        start = round((whole - length) / 2 + size * drawn.uniform(-strength.shift, strength.shift))
        starts.append(min(max(start, 0), whole - length))
    padded = F.pad(image, [margin] * 4, padding_mode="edge")
    resized: Tensor = F.resized_crop(padded, *starts, *sides, [size, size], antialias=True)
    return resized


def _toned(image: Tensor, tone: float, drawn: random.Random) -> Tensor:
    """Return (x - mean) * contrast + mean * brightness, rounded."""
    contrast, brightness = 1 + drawn.uniform(-tone, tone), 1 + drawn.uniform(-tone, tone)
    pixels = image.float()
    mean = pixels.mean()
    return ((pixels - mean) * contrast + mean * brightness).round().clamp(0, 255).to(image.dtype)


def _erased(image: Tensor, area: tuple[float, float], drawn: random.Random) -> Tensor:
    """Return the image with a rectangle, of an area in this range, filled with the mean colour."""
    size = image.shape[-1]
    share, stretch = drawn.uniform(*area), 3.0 ** drawn.uniform(-0.5, 0.5)
    height, width = (min(size, max(1, round(size * (share * s) ** 0.5))) for s in (stretch, 1 / stretch))
    top, left = drawn.randint(0, size - height), drawn.randint(0, size - width)
    image = image.clone()
    image[:, top : top + height, left : left + width] = image.float().mean((1, 2), keepdim=True).round().to(image.dtype)
    return image
