"""Python's search for cyclic garbage, which is of no use while millions of objects are made that all stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage_search() -> Iterator[None]:
    """Make no search for cyclic garbage in this process until the end of the context; what is garbage waits for it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
