"""The short version of `make torture`: a few kills at random instants, a few processes at once, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from prepared import run_program


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs fork and /proc")
def test_kills_and_crowds_lose_nothing():
    ended = run_program("import torture; torture.main(8, 3, 1, 64)")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "13 passed, 0 failed"
