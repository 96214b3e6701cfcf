"""`make gpu`: the tests that need CUDA, and the table of `featurecache bench gpu`, for whoever has a GPU.

python tests/tools/gpu.py [options of bench gpu]    writes gpu.json unless --out is among them

Any Python from 3.11 runs it that can import the dependencies, also from a bare tree: nothing is installed. It takes
8 minutes at most: the tests are stopped after LONGEST_TESTS seconds, and the table leaves out what its minutes do not
allow, and says so.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/test_extract/engines/test_cuda.py", "tests/test_extract/engines/test_torch_engine.py")
LONGEST_TESTS = 90


def missing() -> str:
    """Return the sentence on what this machine lacks; empty if it has a GPU."""
    if importlib.util.find_spec("torch") is None:
        return f"{sys.executable} has no torch: name a Python that has it, with make gpu PYTHON=..."
    import torch

    if not torch.cuda.is_available():
        return "There is no GPU on this machine as torch sees it, so nothing was measured."
    return ""


def make_links(folder: Path) -> str:
    """Lay out the tree as the package featurecache in a folder; return the search path with it."""
    package = folder / "featurecache"
    package.mkdir()
    for entry in [*(ROOT / "pipeline").iterdir(), ROOT / "extract", ROOT / "classify"]:
        (package / entry.name).symlink_to(entry)
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def run_tests(surroundings: dict[str, str]) -> int:
    """Run the tests that need CUDA; return their exit status."""
    if importlib.util.find_spec("pytest") is None:
        print("pytest is not installed: the tests are left out", flush=True)
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda", "-p", "no:cacheprovider", *TESTS]
    try:
        return subprocess.run(command, cwd=ROOT, env=surroundings, timeout=LONGEST_TESTS).returncode
    except subprocess.TimeoutExpired:
        print(f"the tests were stopped after {LONGEST_TESTS} seconds", flush=True)
        return 1


def main(arguments: Sequence[str]) -> int:
    """Run the tests and print the table; return the exit status."""
    if lacking := missing():
        print(lacking)
        return 1
    out = () if "--out" in arguments else ("--out", "gpu.json")
    with tempfile.TemporaryDirectory() as folder:
        surroundings = {**os.environ, "PYTHONPATH": make_links(Path(folder)), "PYTHONSAFEPATH": "1"}
        status = run_tests(surroundings)
        command = [sys.executable, "-m", "featurecache", "bench", "gpu", *out, *arguments]
        return subprocess.run(command, env=surroundings).returncode or status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
