"""The number of cores of this process, which may be fewer than the machine has.

joblib.cpu_count() reads the limit of the group at the root of what is mounted and of no other, so it misses that of a
service or of a Slurm job outside a container, which is on the process's own group or one above it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from featurecache.base.cgroups import group_folders


def count_cores() -> int:
    """The cores that this process is bound to (taskset, Slurm), or what its groups may spend, where that is less.

    A container that may spend a part of a core beyond whole ones has a use for it: 1.5 are 2.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([bound, *(max(1, -(-quota // period)) for quota, period in _spendable())])


def _spendable() -> Iterator[tuple[int, int]]:
    """Microseconds of all cores together in each period of microseconds, for every limit that there is."""
    for folder in group_folders("cpu"):
        for paths in ((folder / "cpu.max",), (folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")):
            try:
                quota, period = (int(number) for number in " ".join(path.read_text() for path in paths).split())
            except (OSError, ValueError):  # no such file, or "max"
                continue
            if quota > 0 and period > 0:
                yield quota, period
