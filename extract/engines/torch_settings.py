"""Settings of torch for the whole process that an extraction changes, and their restoration.

They are global, and TF32 is one that two engines of a run may need at different values. glibc's allocator keeps what
`reuse_freed_memory` set: the C library has no function that reads the values before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from threading import Condition


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


class SharedSetting:
    """A setting of the process that threads need at a value: those that need it at another wait for them to end."""

    def __init__(self, apply: Callable[[bool], None]) -> None:
        self._apply, self._value, self._n_users = apply, False, 0
        self._freed = Condition()

    @contextlib.contextmanager
    def at(self, value: bool) -> Iterator[None]:
        """Have the setting at this value while the context is active."""
        with self._freed:
            self._freed.wait_for(lambda: not self._n_users or self._value == value)
            if not self._n_users:  # others may have set it since
                self._apply(value)
            self._value = value
            self._n_users += 1
        try:
            yield
        finally:
            with self._freed:
                self._n_users -= 1
                self._freed.notify_all()


def _set_tf32(value: bool) -> None:
    from torch.backends import cuda, cudnn

    cudnn.allow_tf32 = cuda.matmul.allow_tf32 = value


# Whether CUDA multiplies numbers of 32 bits with 10 bits of mantissa, cuDNN's default: it changes vectors by 1e-3.
TF32 = SharedSetting(_set_tf32)
