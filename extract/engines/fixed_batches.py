"""Batches of a fixed size for any number of images.

Kernels choose their order of summation by the shape of the batch, so a vector would otherwise depend on the number of
images in the last batch. That batch is padded, and the rows of the padding are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from featurecache.base.errors import EngineError, EngineFailed, OutOfMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Messages of the CPU, of MPS and of CUDA's libraries, which have no exception type for it, in lower case.
MEMORY_ERRORS = (
    "can't allocate memory",
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_host_allocation_failed",
    "cudnn_status_internal_error_device_allocation_failed",
    "unable to find an engine to execute this computation",
    "invalid buffer size",
    "larger than int_max",
)


def run_in_batches(
    batch: Tensor | NDArray[np.uint8],
    size: int,
    side: int,
    run: Callable[[Tensor | NDArray[np.uint8]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Call `run` with the images, uint8 (n, 3, side, side), in batches of exactly `size`; return float32 (n, D).

    Raises EngineError if the images have another type or shape.
    """
    shape = (3, side, side)
    if str(batch.dtype).removeprefix("torch.") != "uint8" or tuple(batch.shape[1:]) != shape:
        wanted = f"(B, {', '.join(map(str, shape))})"
        raise EngineError(f"The backbone takes uint8 {wanted}, not {batch.dtype} {tuple(batch.shape)}.")
    rows = []
    for start in range(0, max(len(batch), 1), size):  # of no images, to find D
        part = batch[start : start + size]
        rows.append(run(_padded(part, size))[: len(part)])
    return np.concatenate(rows)


def _padded(part: Tensor | NDArray[np.uint8], size: int) -> Tensor | NDArray[np.uint8]:
    """Return a batch of `size` images that begins with these."""
    if len(part) == size:
        return part
    if isinstance(part, np.ndarray):
        return np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), dtype=np.uint8)])
    import torch

    return torch.cat([part, part.new_zeros((size - len(part), *part.shape[1:]))])


def out_of_memory(batch_size: int) -> OutOfMemory:
    """Return the error for a batch that does not fit into memory."""
    return OutOfMemory(
        f"A batch of {batch_size} images needs more memory than there is; take a smaller --batch-size. "
        "What was extracted is kept."
    )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch is due to a lack of memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error).lower() for text in MEMORY_ERRORS)


def not_run(engine: str, error: Exception, instead: str) -> EngineFailed:
    """Return the error for a batch that fails for another reason."""
    return EngineFailed(f"{engine} failed: {first_line(error)}; try {instead}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; some libraries append their stack."""
    return str(error).strip().partition("\n")[0]
