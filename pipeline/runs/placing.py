"""Moving a finished run into its folder, completed by the next command where that was cut short.

The run is put together in a work folder on the same disk. `commit` flushes it to the disk and then writes down into
which run folder it goes; `complete` moves it there: by one rename where there is no such folder, else file by file,
results.json first out and last in, so that a folder between two runs is none. An older run loses nothing before the new
one is whole on the disk, and a kill at any instant leaves one of the two, with a note of what is left to do. Only files
that a run consists of are replaced or removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from featurecache.base.errors import PipelineError
from featurecache.base.files import flush, flush_tree, replacing_file
from featurecache.base.plain_files import check_plain_file, parse_json
from featurecache.base.text import printable
from featurecache.runs.folder import FILES, HEADS_FOLDER, RESULTS_FILE, WORK_FOLDER, is_run, known_files

FRESH = "fresh"
NOTE = "into.json"
HERE = "."


def home_of(out: Path) -> Path:
    """The folder for the work folder of a run `out`: the one above, or `out` itself where that is another disk.

    So it is where a volume is mounted, or where the folder above may not be written to. A link is followed.
    """
    place = Path(os.path.realpath(out))
    return place.parent if not place.is_dir() or _can_move(place.parent, place) else place


def _can_move(folder: Path, into: Path) -> bool:
    probe = folder / f".run-probe-{os.getpid()}"
    moved = into / probe.name
    try:
        probe.mkdir()
        probe.rename(moved)
    except OSError:
        return False
    finally:
        for path in (probe, moved):
            with contextlib.suppress(OSError):
                path.rmdir()
    return True


def commit(work: Path, out: Path) -> None:
    """Flush the run in a work folder to the disk and write down that it goes into `out`.

    From then on it is not lost. Raises PipelineError where `out` has become something that may not be replaced.
    """
    place = Path(os.path.realpath(out))
    names = sorted(path.relative_to(work / FRESH).as_posix() for path in (work / FRESH).rglob("*") if path.is_file())
    replaces = is_run(place)
    _check_free(place, work / FRESH, names, replaces=replaces)
    flush_tree(work / FRESH)
    note = {"into": HERE if work.parent == place else place.name, "files": names, "replaces": replaces}
    with replacing_file(work / NOTE) as temporary:
        temporary.write_text(json.dumps(note), encoding="utf-8", errors="surrogateescape")


def complete(work: Path) -> None:
    """Move the run of a work folder, where one is committed, into its folder; called again it goes on from there.

    Raises PipelineError where that has become something else meanwhile, OSError where it cannot be written.
    """
    note = read_note(work)
    if note is None:
        return
    place, names, replaces = note
    fresh = work / FRESH
    if (fresh / RESULTS_FILE).is_file():
        _check_free(place, fresh, names, replaces=replaces)
        if os.path.lexists(place):
            _fill(place, fresh, names)
        else:
            fresh.rename(place)
        flush(place.parent)
    (work / NOTE).unlink()
    shutil.rmtree(fresh, ignore_errors=True)


def _fill(place: Path, fresh: Path, names: Sequence[str]) -> None:
    """Let a folder hold these files of a new run instead of those of an older one; others stay."""
    (place / RESULTS_FILE).unlink(missing_ok=True)
    flush(place)
    folders = {place}
    for name in names:
        if name != RESULTS_FILE and (fresh / name).exists():  # otherwise moved before
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).replace(target)
            folders |= {target.parent, *(above for above in target.parents if place in above.parents)}
    _remove_older(place, keep=names)
    for folder in folders:
        flush(folder)
    (fresh / RESULTS_FILE).replace(place / RESULTS_FILE)
    flush(place)


def _remove_older(place: Path, keep: Sequence[str]) -> None:
    for name in set(known_files(place)) - set(keep):
        (place / name).unlink(missing_ok=True)
    for folder in [*(place / HEADS_FOLDER).glob("*"), place / HEADS_FOLDER]:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def _check_free(place: Path, fresh: Path, names: Sequence[str], *, replaces: bool) -> None:
    """Raises PipelineError where a run cannot be put into a folder without loss of what is no run's.

    What is no more in `fresh` is in the folder already.
    """
    if not os.path.lexists(place):
        return
    in_the_way = "" if place.is_dir() else place.name
    if place.is_dir() and not is_run(place):
        coming = [RESULTS_FILE] if replaces else [name for name in names if (fresh / name).exists()]
        in_the_way = next((name for name in coming if os.path.lexists(place / name)), "")
    in_the_way = in_the_way or next((odd for name in names if (odd := _odd(place, name))), "")
    if in_the_way:
        raise PipelineError(
            f"The run is finished, and cannot be put into '{printable(place)}': '{printable(in_the_way)}' has come to "
            "be there meanwhile, and is no run's. Move it away and give the same command again: heads that are "
            "finished are kept."
        )


def _odd(place: Path, name: str) -> str:
    """The entry of a folder that is in the way of a file of a run, because it is of another kind; empty for none."""
    for path in (*reversed([each for each in (place / name).parents if place in each.parents]), place / name):
        is_right = path.is_dir() == (path != place / name) and not (path.is_dir() and path.is_symlink())
        if os.path.lexists(path) and not is_right:
            return path.relative_to(place).as_posix()
    return ""


def work_folders(home: Path) -> list[Path]:
    """The work folders in a folder, those of live processes too."""
    try:
        names = sorted(os.listdir(home))  # noqa: PTH208  (a Path for each of a million files takes seconds)
    except OSError:
        return []
    return [home / name for name in names if WORK_FOLDER.fullmatch(name) and (home / name).is_dir()]


def read_note(work: Path) -> tuple[Path, list[str], bool] | None:
    """Into which folder a committed run goes, its files, and whether it replaces one; None where none is committed.

    The note may be a stranger's: it names files of a run and no others, and nothing that is moved is behind a link.
    """
    try:
        check_plain_file(work / NOTE, work)
        note = parse_json((work / NOTE).read_text(encoding="utf-8", errors="surrogateescape"))
        into, names, replaces = str(note["into"]), [str(name) for name in note["files"]], bool(note["replaces"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if into != HERE and (os.sep in into or into in ("", "..") or "\0" in into):
        return None
    if not all(FILES.fullmatch(name) for name in names) or _has_links(work, names):
        return None
    return (work.parent if into == HERE else work.parent / into), names, replaces


def _has_links(work: Path, names: Sequence[str]) -> bool:
    """Whether a work folder, or any file or folder of the run in it, is a link."""
    fresh = work / FRESH
    paths = {work, fresh, *(fresh / name for name in names)}
    paths |= {above for name in names for above in (fresh / name).parents if fresh in above.parents}
    return any(path.is_symlink() for path in paths)
