"""Python's search for cyclic garbage, which is of no use among objects that all stay."""

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


@contextlib.contextmanager
def older_objects_apart(*, searched: bool) -> Iterator[None]:
    """Leave the objects that exist now out of searches until the end of the context.

    With torch imported they are half a million, and a search takes a second. searched: look through them once before,
    for garbage that is large. Objects that the user has set apart stay so.
    """
    if searched:
        gc.collect()
    is_ours = gc.get_freeze_count() == 0
    if is_ours:
        gc.freeze()
    try:
        yield
    finally:
        if is_ours:
            gc.unfreeze()
