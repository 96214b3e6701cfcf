"""The check of a device when an extraction begins: two images run on it and on the CPU, cut by cut.

Drivers and libraries of accelerators have computed wrong convolutions without an error, some of them in channels_last
memory only. A device whose vectors differ is tried once more in contiguous memory, then not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from featurecache.base.errors import EngineFailed, OutOfMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from featurecache.extract.engines.protocol import Engine, Source

# The largest relative difference of a vector from the CPU's in fp32 that is no fault, by precision: other kernels and
# orders of summation differ by 1e-5, 10 bits of mantissa (tf32 and fp16) and 7 by much more.
TOLERANCES = {"fp32": 1e-3, "tf32": 5e-2, "fp16": 5e-2, "bf16": 2e-1}


class Difference(NamedTuple):
    """The largest relative difference of a vector, and the cut that it is of."""

    error: float
    cut: str


def checked_on_cpu(
    build: Callable[[bool], Engine],
    reference: Callable[[], Engine],
    source: Source,
    *,
    may_fall_back: bool,
    say: Callable[[str], None],
) -> Engine:
    """Return the engine of a device whose vectors of two images are those of the CPU, cut by cut.

    build: returns the engine, in channels_last memory or in contiguous. reference: returns the engine of the CPU in
    fp32. may_fall_back: whether the CPU is used instead of a device that differs in both; otherwise EngineFailed is
    raised. say: called with a line where anything but the first engine is used.
    """
    images = check_images(source.side)
    try:
        expected = reference().run(images)
    except OutOfMemory:
        say("The device is not compared with the CPU: the network needs more memory than there is.")
        return build(True)
    differences: list[Difference] = []
    for is_channels_last in (True, False):
        engine = build(is_channels_last)
        found = largest_difference(engine.run(images), expected, source, judge_overflow=engine.precision == "fp32")
        if found.error <= TOLERANCES[engine.precision]:
            if not is_channels_last:
                say(f"{_differs(engine, differences[0])} in channels_last memory: contiguous memory is used, slower.")
            return engine
        differences.append(found)
    text = _differs(engine, differences[0])
    if not may_fall_back:
        raise EngineFailed(f"{text}. Use --device cpu, or another version of torch or of the device's driver.")
    say(f"{text}: the CPU is used.")
    return reference()


def largest_difference(
    vectors: NDArray[np.float32], expected: NDArray[np.float32], source: Source, *, judge_overflow: bool = True
) -> Difference:
    """Return the largest relative difference of any row and cut of (N, D), infinite where it is not a number.

    judge_overflow: whether vectors that are not finite count; below fp32 they may be an image's own.
    """
    if not judge_overflow:
        is_finite = np.isfinite(vectors).all(axis=1)
        vectors, expected = vectors[is_finite], expected[is_finite]
    names = [f"{layer} ({pooling})" for layer, pooling in source.identity.get("cuts", [])]
    columns = source.columns or (slice(None),)
    if len(names) != len(columns):
        names = [", ".join(names) or "the network"] * len(columns)
    errors = [largest_error(vectors[:, each], expected[:, each]) for each in columns]
    return max((Difference(*pair) for pair in zip(errors, names, strict=True)), key=lambda each: each.error)


def largest_error(vectors: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return max_i |v_i - r_i| / |r_i| over the rows of (N, D): 0 without rows, infinite if any is NaN."""
    if not len(vectors):
        return 0.0
    with np.errstate(all="ignore"):
        distances, lengths = np.linalg.norm(vectors - reference, axis=1), np.linalg.norm(reference, axis=1)
        errors = np.where((distances == 0) & (lengths == 0), 0.0, distances / lengths)
    return float(np.nan_to_num(errors, nan=np.inf).max())


def check_images(side: int) -> Tensor:
    """Return two images, uint8 (2, 3, side, side): independent pixels, and a smooth picture."""
    import torch

    noise = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 255, side)
    smooth = torch.stack([ramp.expand(side, side), ramp.expand(side, side).T, ramp.flip(0).expand(side, side)])
    return torch.cat([noise, smooth.to(torch.uint8).unsqueeze(0)])


def _differs(engine: Engine, found: Difference) -> str:
    at_most = f"at most {TOLERANCES[engine.precision]:g} is expected"
    return f"Vectors of {found.cut} on {engine.device} differ from the CPU's by {found.error:.1g}, where {at_most}"
