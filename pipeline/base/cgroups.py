"""The control groups (Linux) of this process, which may have less than the machine: containers, Slurm jobs, services.

A limit holds for a group and everything below it, so the groups from the process's own up to the root all count. In a
container whose own group is the root of what is mounted, the path that the kernel reports does not exist, and the root
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MOUNT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")  # lines of number:controllers:path, all but the path empty for version 2


def group_folders(controller: str) -> Iterator[Path]:
    """The folders of this process's groups, its own first: of version 2, then of version 1 of this controller.

    Whether they, or a file in them, are there is for the caller to see.
    """
    try:
        lines = OWN.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    groups = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    new = [path for _, controllers, path in groups if not controllers]
    old = [path for _, controllers, path in groups if controller in controllers.split(",")]
    for root, paths in ((MOUNT, new), (MOUNT / controller, old)):
        for path in paths or ["/"]:
            own = PurePosixPath(path)
            for group in (own, *own.parents):
                yield root / group.relative_to("/")
