"""What a difference between the pixels of two programs looks like: its usual causes, tried one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.extract.cache.transform_spec import CROP, FITS, INTERPOLATIONS, TransformSpec
from featurecache.extract.images.transform import fit_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

# A cause explains a difference where it leaves less than this share of it.
EXPLAINED = 0.1
WHITE = 255
UNKNOWN = re.compile(r"^[0-9.]+% of the pixels differ")


def describe_decoding(expected: Pixels, found: NDArray[Any]) -> str:
    """Return how decoded pixels differ from the expected ones (H, W, 3), as a clause."""
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
        return f"they are {found.dtype} {found.shape} and have to be uint8 (H, W, 3)"
    return _closest(expected, found, [*_orientations(expected), *_colours(expected)])


def is_known(found: NDArray[Any], expected: Pixels) -> bool:
    """Return whether the difference of decoded pixels from the expected ones has a known cause."""
    return not UNKNOWN.search(describe_decoding(expected, found))


def describe_resizing(image: Pixels, spec: TransformSpec, found: Pixels) -> str:
    """Return how pixels (S, S, 3) differ from those that a transform makes of an image (H, W, 3), as a clause."""
    expected = fitted(image, spec)
    others = [*_transforms(image, spec), *_orientations(expected), *_colours(expected)]
    return _closest(expected, found, others)


def fitted(image: Pixels, spec: TransformSpec) -> Pixels:
    """Return an image (H, W, 3) resized and cropped by a transform: uint8 (S, S, 3)."""
    pixels = fit_pixels(np.array(image, order="C").transpose(2, 0, 1), spec)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _closest(expected: Pixels, found: Pixels, causes: list[tuple[str, Pixels]]) -> str:
    """Return the cause whose pixels are closest to those that were found, or how far these are from the expected."""
    if found.shape != expected.shape:
        same = [cause for cause, pixels in causes if pixels.shape == found.shape and _distance(pixels, found) < 1]
        sizes = f"they are {found.shape[1]} x {found.shape[0]} and not {expected.shape[1]} x {expected.shape[0]}"
        return f"{same[0]}: {sizes}" if same else sizes
    limit = EXPLAINED * _distance(expected, found)
    near = [(_distance(pixels, found), cause) for cause, pixels in causes if pixels.shape == found.shape]
    distance, cause = min(near, default=(np.inf, ""))
    if distance <= limit:
        return cause
    unequal = (expected != found).any(axis=2)
    largest = int(np.abs(expected.astype(int) - found).max())
    return f"{unequal.mean():.1%} of the pixels differ, by up to {largest} of 255"


def _distance(pixels: Pixels, others: Pixels) -> float:
    return float(np.abs(pixels.astype(np.int16) - others).mean())


def _orientations(pixels: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Yield the pixels turned and mirrored: an orientation of EXIF that was not applied, or once too often."""
    why = "the orientation in the EXIF data is not applied"
    for mirrored in (pixels, pixels[:, ::-1]):
        for n_turns in range(4):
            if mirrored is not pixels or n_turns:
                turned = "mirrored" if mirrored is not pixels else f"turned by {90 * n_turns} degrees"
                yield f"the image is {turned}, as where {why}", np.rot90(mirrored, n_turns)


def _colours(pixels: Pixels) -> Iterator[tuple[str, Pixels]]:
    yield "red and blue are exchanged (BGR in place of RGB)", pixels[:, :, ::-1]
    yield "the colours are inverted", WHITE - pixels
    grey = np.broadcast_to(pixels.mean(axis=2, keepdims=True), pixels.shape)
    yield "the colours are gone (grey in place of RGB)", grey.astype(np.uint8)


def _transforms(image: Pixels, spec: TransformSpec) -> Iterator[tuple[str, Pixels]]:
    """Yield the image by other transforms."""
    for interpolation in INTERPOLATIONS:
        if interpolation != spec.interpolation:
            other = replace(spec, interpolation=interpolation)
            yield f"resized {interpolation} in place of {spec.interpolation}", fitted(image, other)
    if spec.antialias:
        yield f"resized {spec.interpolation} without antialiasing", fitted(image, replace(spec, antialias=False))
    for fit in FITS:
        if fit != spec.fit:
            yield f"fitted by {fit} in place of {spec.fit}", fitted(image, replace(spec, fit=fit))
    if spec.fit == CROP and spec.resize != spec.crop:
        yield (
            f"resized to {spec.crop} and not to {spec.resize} before the crop",
            fitted(image, replace(spec, resize=spec.crop)),
        )
