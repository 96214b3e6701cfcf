"""The states of many files: one `os.stat` after another, or by threads where each takes long.

A call takes a few microseconds where the folder is in memory, less than a thread needs to take over; on a network disk,
or where the folder has to be read first, a hundred times that.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from featurecache.extract.images.sources import find_state

# What a call may take before threads share the calls, in seconds.
SLOW_S = 100e-6
N_TRIED, N_THREADS, FILES_OF_A_TASK = 8, 16, 16

# Size in bytes, and the times of the last change of the content and of the inode in nanoseconds, as in FileState.
State = tuple[int, int, int]
# The state of each file, None where it has none; and by position why: the error, or None for what is no regular file.
States = tuple[list[State | None], dict[int, OSError | None]]


class StateReader:
    """Reads the states of files, by threads where calls are slow; a context manager."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> StateReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def read(self, paths: Sequence[bytes | str], relative: Sequence[str] = ()) -> States:
        """Return the states of the files at these paths, and why others have none.

        relative: the same files as they were named, for those that an absolute path does not reach: it may be too
        long, or lead through a closed folder above the working folder. The first few show whether calls are slow now.
        """
        started = time.perf_counter()
        tried = read_states(paths[:N_TRIED])
        is_slow = time.perf_counter() - started > SLOW_S * N_TRIED
        n_each = FILES_OF_A_TASK if is_slow else max(1, len(paths))
        starts = range(N_TRIED, len(paths), n_each)
        parts = self._map(is_slow)(read_states, [paths[start : start + n_each] for start in starts])
        states, reasons = tried
        for start, (some, why) in zip(starts, parts, strict=True):
            states += some
            reasons.update({start + i: reason for i, reason in why.items()})
        if relative:
            _reach(relative, states, reasons)
        return states, reasons

    def _map(self, is_slow: bool) -> Callable[..., Iterable[States]]:
        if not is_slow:
            return map
        self._pool = self._pool or ThreadPoolExecutor(N_THREADS, thread_name_prefix="stat")
        return self._pool.map


def read_states(paths: Sequence[bytes | str]) -> States:
    """Return the states of files, one after another, and why others have none."""
    states: list[State | None] = []
    modes: set[int] = set()
    try:
        for status in map(os.stat, paths):
            states.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns))
            modes.add(status.st_mode)
    except OSError:
        return _read_each(paths)
    return (states, {}) if all(map(stat.S_ISREG, modes)) else _read_each(paths)


def _reach(relative: Sequence[str], states: list[State | None], reasons: dict[int, OSError | None]) -> None:
    """Read the states that could not be read by an absolute path."""
    for i in [i for i, reason in reasons.items() if reason is not None and not os.path.isabs(relative[i])]:  # noqa: PTH117
        (states[i],), why = _read_each([relative[i]])
        if why:
            reasons[i] = why[0]
        else:
            del reasons[i]


def _read_each(paths: Sequence[bytes | str]) -> States:
    states: list[State | None] = []
    reasons: dict[int, OSError | None] = {}
    for i, path in enumerate(paths):
        state = None
        try:
            if (state := find_state(path)) is None:
                reasons[i] = None
        except OSError as error:
            reasons[i] = error.with_traceback(None)  # its frame holds `reasons`
        states.append(state)
    return states, reasons
