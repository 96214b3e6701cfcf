"""Commands as a shell of this system reads them."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence


def as_command(words: Sequence[str], *, windows: bool = os.name == "nt") -> str:
    """One line that can be pasted: quoted as POSIX shells ask for, or as programs on Windows read their line."""
    return subprocess.list2cmdline(words) if windows else shlex.join(words)
