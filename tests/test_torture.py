"""The short version of `make torture`: a few kills at random instants, a few processes at once, nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs fork and /proc")
def test_kills_and_crowds_lose_nothing():
    program = Path(__file__).with_name("tools") / "torture.py"
    ended = subprocess.run([sys.executable, program, "8", "3", "1", "64"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "13 passed, 0 failed"
