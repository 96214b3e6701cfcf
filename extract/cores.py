"""How many cores there are for this process, which may be fewer than the machine has."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def count_cores() -> int:
    """The cores that this process is bound to (taskset, Slurm), or what its container may spend, where that is less.

    A container that may spend a part of a core beyond whole ones has a use for it: 1.5 are 2.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _spendable()
    return min(bound, max(1, -(-quota // period))) if quota > 0 else bound


def _spendable() -> tuple[int, int]:
    """Microseconds of all cores together in each period of microseconds; none of them where there is no limit."""
    old = CGROUP / "cpu" / "cpu.cfs_quota_us", CGROUP / "cpu" / "cpu.cfs_period_us"
    for told in ((CGROUP / "cpu.max",), old):
        try:
            quota, period = " ".join(path.read_text() for path in told).split()
            return int(quota), int(period)
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return 0, 1
