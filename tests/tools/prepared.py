"""Programs in processes of their own that need not import torch first: they are forked from one that has.

A fork server (`multiprocessing`) starts once in each process of the tests, imports what a command does, and has no
thread. Where a test is about what a program imports, it starts Python instead.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

IMPORTED = [
    "featurecache.cli.commands.classify",
    "featurecache.evaluate.classify",
    "featurecache.extract.engines.torch_engine",
    "featurecache.extract.job.extract",
    "featurecache.head_training",
    "featurecache.report.page",
    "sklearn.linear_model",
]


def run_program(program: str, *argv: object) -> subprocess.CompletedProcess[str]:
    """Run the text of a program with arguments in a forked process, and return how it ended and what it printed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    words = [*map(str, argv)]
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name, "out"), Path(name, "err")
        process = context.Process(target=_execute, args=(program, words, str(out), str(err)))
        process.start()
        process.join()
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _execute(program: str, argv: list[str], out: str, err: str) -> None:
    gc.freeze()  # what was imported stays, and a search in it copies its memory for this process
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["-c", *argv]
    exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
