"""Settings of torch for the whole process that an extraction changes, and their restoration.

They are global because two threads would undo each other's. glibc's allocator keeps what `reuse_freed_memory` set: the
C library has no function that reads the values before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def restored_settings() -> Iterator[None]:
    """Restore TF32, determinism and benchmarking of torch's CUDA libraries when the block ends."""
    from torch.backends import cuda, cudnn

    places = [(cudnn, "allow_tf32"), (cuda.matmul, "allow_tf32"), (cudnn, "deterministic"), (cudnn, "benchmark")]
    before = []
    for place, name in places:
        with contextlib.suppress(RuntimeError):  # set by newer functions, which this one does not read
            before.append((place, name, getattr(place, name)))
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)
