"""Left-over files of killed processes next to runs, and their removal.

.run-<16 hex digits>              a work folder; one with a run that is on its way into its folder stays
.run-probe-<process>              a trial whether folders can be moved
.<run>.reserved                   a name that is taken, an empty folder
.writing-<16 hex digits>-latest   a link that was to become `latest`; .latest-<process> of former versions
.writing-<16 hex digits>-.finetune-<identity>.pt     half of a training's state; a whole one stays for --resume.
                                  .finetune-<identity>.pt-<process> of former versions
.<run>-<8 characters>             a run in the making, of versions before there were work folders; or in a folder
                                  .<run>-old-<8 characters> the run that was about to be replaced
<run>/.writing-<16 hex digits>-report.html           half of a file of a run; .report.html-<process> of former versions
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from featurecache.base.files import TEMPORARY
from featurecache.runs.folder import FILES, HEADS_FOLDER, RUNS_ROOT, WORK_FOLDER, foreign_entries, known_files
from featurecache.runs.locks import LOCK_FILE, try_lock, unlock
from featurecache.runs.placing import FRESH, NOTE, work_folders

# A run that was stopped is continued the next day at the latest.
OLD_SECONDS = 86400.0
OWN = {LOCK_FILE, FRESH, HEADS_FOLDER}
OLD_NOTE = f"{NOTE}-new"  # of former versions, half of a note
EMPTY = re.compile(r"\.run-probe-\d+|\.(.+)\.reserved")
FILE = re.compile(
    rf"{TEMPORARY.pattern}(latest|\.finetune-[0-9a-f]{{16}}\.pt)|\.latest-\d+|\.finetune-[0-9a-f]{{16}}\.pt-\d+"
)
OF_OLD = re.compile(r"\.(?P<run>.+?)(?P<old>-old)?-[a-z0-9_]{8}")


def sweep_runs(out: Path) -> list[Path]:
    """Remove what is left over next to the run `out` for a day, and return it; what cannot be removed stays.

    Folders of former versions are looked for under the name of `out`, and in data/runs under any. A run that one of
    those was about to replace is put back where there is none.
    """
    place = Path(os.path.realpath(out))
    home, removed = place.parent, []
    is_root = home == RUNS_ROOT.resolve()
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(home)):
            path = Path(entry.path)
            with contextlib.suppress(OSError):
                if entry.name.startswith("."):
                    removed += [path] if _is_old(path) and _sweep(path, None if is_root else place.name) else []
                elif path == place or (is_root and entry.is_dir(follow_symlinks=False)):
                    removed += _sweep_inside(path)
    return removed


def _is_old(path: Path) -> bool:
    """Whether nobody has changed a file, or what a folder or one in it holds, for a day."""
    is_folder = path.is_dir() and not path.is_symlink()
    inside = [each for pattern in ("*", "*/*") for each in path.glob(pattern)] if is_folder else []
    return max(each.lstat().st_mtime for each in (path, *inside)) < time.time() - OLD_SECONDS


def _sweep(path: Path, run: str | None) -> bool:
    """Remove one left-over, if it is one; run: the name that those of former versions must have, None for any."""
    of_old = OF_OLD.fullmatch(path.name)
    if path.is_symlink() or not path.is_dir():
        if not FILE.fullmatch(path.name):
            return False
        path.unlink()
    elif EMPTY.fullmatch(path.name):
        path.rmdir()
    elif WORK_FOLDER.fullmatch(path.name):
        return _sweep_work(path)
    elif of_old and run in (None, of_old["run"]):
        return _sweep_old(path, path.with_name(of_old["run"]) if of_old["old"] else None)
    else:
        return False
    return True


def _sweep_work(path: Path) -> bool:
    names = {each.name for each in path.iterdir()}
    half_written = {name for name in names if TEMPORARY.match(name) or name == OLD_NOTE}
    if not names - half_written <= OWN:  # or a run that is on its way
        return False
    lock = try_lock(path)
    if lock is None:
        return False
    try:
        for name in OWN - {LOCK_FILE}:
            shutil.rmtree(path / name, ignore_errors=True)
        for name in half_written:
            (path / name).unlink(missing_ok=True)
        (path / LOCK_FILE).unlink()
        path.rmdir()
    finally:
        unlock(lock)
    return True


def _sweep_old(path: Path, replaced: Path | None) -> bool:
    """Remove an unfinished run of a former version, or put back one that it was about to replace."""
    run = path if replaced is None else path / "run"
    if replaced is not None and {each.name for each in path.iterdir()} != {"run"}:
        return False
    found = known_files(run) if run.is_dir() and not foreign_entries(run) else ["something else"]
    if found and not any(name.startswith(f"{HEADS_FOLDER}/") for name in found):  # heads were what was written first
        return False
    if replaced is not None and found and not os.path.lexists(replaced):
        run.rename(replaced)
        path.rmdir()
    else:
        shutil.rmtree(path)
    return True


def _sweep_inside(run: Path) -> list[Path]:
    """Remove what is left over in a run; work folders where it is a disk of its own."""
    found = [path for path in run.glob(".*-*") if FILES.fullmatch(path.name) and path.is_file() and _is_old(path)]
    for path in found:
        path.unlink()
    return found + [path for path in work_folders(run) if _is_old(path) and _sweep_work(path)]
