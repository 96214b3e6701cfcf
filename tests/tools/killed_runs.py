"""Kill who writes a run at every call that touches the disk, and look what is left.

    python tests/tools/killed_runs.py WHERE FOLDER

WHERE: what is in the folder before, or "who reads". In a process of its own, which is small, so that a fork is quick.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from featurecache.runs import placing
from featurecache.runs.reading import read_json
from featurecache.runs.work_folder import heal, writing_run

OLD = {"results.json": "old", "log.txt": "old", "audit.json": "old", "heads/a--h/head.json": "old",
       "heads/b--h/head.json": "old"}  # fmt: skip
NEW = {"results.json": "new", "log.txt": "new", "config.json": "new", "heads/b--h/head.json": "new",
       "heads/c--h/head.json": "new"}  # fmt: skip
MINE = {"notes.txt": "mine", "heads/b--h/notes.txt": "mine"}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        told = json.dumps({"format": 1, "heads": [], "what": text}) if name == "results.json" else text
        (folder / name).write_text(told)


def read(folder: Path) -> dict[str, str]:
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".run-"):
            found[name] = json.loads(path.read_text())["what"] if name == "results.json" else path.read_text()
    return found


def replace_with(out: Path, files: dict[str, str]) -> None:
    with writing_run(out) as folder:
        write(folder, files)


# What is done with the disk, one call after the other; a kill before each is tried.
STEPS = ((Path, ("rename", "replace", "unlink", "rmdir", "mkdir", "write_text")), (os, ("open", "fsync")))


def killed_at(call: int, work: Callable[..., None]) -> bool:
    """Whether a forked process that does some work came to that call of a step, where it ends at once, as if killed.

    Calls are counted from when the work calls what it is given.
    """
    gc.freeze()  # a search in what is there would copy its memory for the new process
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77
    calls, armed = itertools.count(1), []

    def deadly(step):
        def until(*args, **kwargs):
            if armed and next(calls) == call:
                os._exit(77)
            return step(*args, **kwargs)

        return until

    for owner, names in STEPS:
        for name in names:
            setattr(owner, name, deadly(getattr(owner, name)))
    try:
        work(lambda: armed.append(True))
        os._exit(0)
    except BaseException:  # noqa: BLE001  (a child must end here)
        os._exit(1)


def kill_writers(tmp_path: Path, there: str) -> None:
    """Kill at every call who writes a run where something is; the next command must find the old run or the new one."""
    if there == "a run on another disk":
        placing._can_move = lambda folder, into: False
    seen = set()
    for call in itertools.count(1):
        root = tmp_path / str(call)
        out = root / "run"
        root.mkdir()
        if there == "an empty folder":
            out.mkdir()
        elif there != "nothing":
            write(out, OLD | MINE)
        before = read(root)

        def work(arm, out=out):
            with writing_run(out) as folder:
                write(folder, NEW)
                write(out.parent, {"beside.txt": "mine"})
                arm()

        if not killed_at(call, work):
            break
        heal(out)
        found, mine = read(out), MINE if there.startswith("a run") else {}
        assert found in ({}, OLD | mine, NEW | mine), (call, found)
        assert found or not before, "both are lost"
        seen.add(found.get("results.json"))
        replace_with(out, OLD)
        assert read(out) == OLD | mine
        assert {path.name for path in root.iterdir() if not path.name.startswith(".")} <= {"run", "beside.txt"}
        for name in root.glob(".run-*/into.json"):
            raise AssertionError(f"{name} is still on its way")
    assert read(out) == NEW | mine
    assert "new" in seen, "no kill came behind the note"
    assert len(seen) == 2, "no kill came before it"


def read_after_kills(out: Path) -> None:
    """Kill at every call who replaces a run; who reads it then must see one run in all its files."""
    for call in itertools.count(1):
        shutil.rmtree(out, ignore_errors=True)
        write(out, OLD)

        def work(arm):
            with writing_run(out) as folder:
                write(folder, NEW)
                arm()

        if not killed_at(call, work):
            break
        assert read_json(out / "results.json")["what"] in {"old", "new"}
        assert read(out) in (OLD, NEW)


if __name__ == "__main__":
    os.fsync = lambda file: None  # nobody cuts the power
    if sys.argv[1] == "who reads":
        read_after_kills(Path(sys.argv[2], "run"))
    else:
        kill_writers(Path(sys.argv[2]), sys.argv[1])
