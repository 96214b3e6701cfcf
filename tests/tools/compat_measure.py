"""The pixels and vectors of image files in this environment, by featurecache's own decoding, transforms and engines.

    python tests/tools/compat_measure.py IMAGES OUT.npz

It needs what featurecache itself needs, so that it runs with the oldest libraries that are allowed.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurecache.base.errors import EngineError, ImageRefused
from featurecache.base.versions import installed_version
from featurecache.extract.cache.spec import FULL_RANGE
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.decode import decode_picture
from featurecache.extract.images.decode_rules import MAX_PIXELS
from featurecache.extract.images.transform import apply_transform

BACKBONE, ENGINES = "efficientnet_lite0", ("torch", "onnxruntime")
LIBRARIES = ("torch", "torchvision", "onnxruntime", "numpy", "pillow", "simplejpeg")
DECODED, VECTORS, ABOUT = "decoded", "vectors", "about"
ZEROS, ONES = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Variant(NamedTuple):
    """One way from a file to an input: the transform, the least side of reduced decoding, the range of grey levels."""

    transform: TransformSpec
    at_least: int | None = None
    levels: str = FULL_RANGE


def _variant(resize: int, crop: int, interpolation: str, at_least: int | None = None, levels: str = FULL_RANGE):
    return Variant(TransformSpec(resize, crop, interpolation, True, ZEROS, ONES), at_least, levels)


# The first is that of BACKBONE; then those of most of torchvision's weights, of reduced decoding, and of small inputs.
VARIANTS = {
    "bicubic": _variant(256, 224, "bicubic"),
    "bilinear": _variant(232, 224, "bilinear"),
    "reduced": _variant(64, 56, "bilinear", at_least=64),
    "range": _variant(32, 32, "bilinear", levels="image"),
}


def measure_pixels(paths: Iterable[Path]) -> dict[str, NDArray[np.uint8]]:
    """Return `NAME/decoded` (3, H, W) and `NAME/VARIANT` (3, S, S) of every file; (0,) where it is refused."""
    arrays: dict[str, NDArray[np.uint8]] = {}
    for path in paths:
        data = path.read_bytes()
        for name, variant in VARIANTS.items():
            decoded, arrays[f"{path.name}/{name}"] = _pixels(data, variant)
            arrays.setdefault(f"{path.name}/{DECODED}", decoded)
    return arrays


def _pixels(data: bytes, variant: Variant) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the decoded pixels of a file, and those of the input."""
    try:
        picture = decode_picture(
            io.BytesIO(data),
            max_pixels=MAX_PIXELS,
            at_least=variant.at_least,
            levels=variant.levels,
            reserve=lambda _: None,
        )
        return picture.pixels().numpy(), apply_transform(picture, variant.transform).numpy()
    except ImageRefused:
        return np.empty(0, np.uint8), np.empty(0, np.uint8)


def measure_vectors(pixels: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
    """Return `vectors/ENGINE` (N, D) of BACKBONE for the images that are not refused.

    (0, D) where an engine cannot run; the reason is printed.
    Raises AssertionError if the first variant is not the transform of BACKBONE.
    """
    import torch

    from featurecache.extract.backbones.registry import load_backbone
    from featurecache.extract.engines.build import build_engine
    from featurecache.extract.engines.protocol import source_of

    backbone = load_backbone(BACKBONE)
    name, variant = next(iter(VARIANTS.items()))
    theirs, ours = backbone.transform, variant.transform
    assert (theirs.resize, theirs.crop, theirs.interpolation) == (ours.resize, ours.crop, ours.interpolation)
    inputs = [each for key, each in pixels.items() if key.endswith(f"/{name}") and each.size]
    batch, vectors = torch.from_numpy(np.stack(inputs)), {}
    for engine in ENGINES:
        try:
            found = build_engine(source_of(backbone), engine=engine, device="cpu").run(batch)
        except EngineError as error:
            print(f"  {engine}: {error}", file=sys.stderr)
            found = np.empty((0, backbone.feature_dim), np.float32)
        vectors[f"{VECTORS}/{engine}"] = found
    return vectors


def about() -> dict[str, str | None]:
    """Return the instruction set that torch uses, and the versions of the libraries."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return {"capability": capability, **{name: installed_version(name) for name in LIBRARIES}}


def main(images: Path, out: Path) -> None:
    """Measure every file of a folder, and write the arrays."""
    pixels = measure_pixels(sorted(images.iterdir()))
    np.savez(out, **pixels, **measure_vectors(pixels), **{ABOUT: np.array(json.dumps(about()))})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
