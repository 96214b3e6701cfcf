"""The folder of one run: what is in it, where it may be, and how its files are written and read.

It is made in a work folder (`work_folder.py`), so it is whole or not there.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.base.errors import PipelineError, UsageError
from featurecache.base.files import TEMPORARY, replacing_file, temporary_path
from featurecache.base.plain_files import read_json_file
from featurecache.base.text import printable

if TYPE_CHECKING:
    from featurecache.extract.images.digests import Refusal

# The files of a run by name: these, a folder for each head, and a table for each kind of an audit's findings.
RESULTS_FILE = "results.json"
CONFIG_FILE = "config.json"
OPTIONS_FILE = "config.toml"
SPLITS_FILE = "splits.csv"
LEADERBOARD_FILE = "leaderboard.csv"
PREDICTIONS_FILE = "predictions.parquet"
REPORT_FILE = "report.html"
LOG_FILE = "log.txt"
ERRORS_FILE = "errors.csv"
WEIGHTS_FILE = "weights.safetensors"
AUDIT_FILE = "audit.json"
NAMED_FILES = (RESULTS_FILE, CONFIG_FILE, OPTIONS_FILE, SPLITS_FILE, LEADERBOARD_FILE, PREDICTIONS_FILE, REPORT_FILE,
               LOG_FILE, ERRORS_FILE, WEIGHTS_FILE, AUDIT_FILE)  # fmt: skip
AUDIT_TABLE = "audit_{}.csv"
RANGES_FILES = r"ranges-[0-9a-f]{12}\.json"  # activation ranges of features in int8, see extract/cache/ranges.py
HEADS_FOLDER = "heads"
HEAD_FILES = ("head.json", "head.safetensors", "head.skops")
LATEST = "latest"
# In the folder of a model, above those of its versions: which one is current, see `runs.models.places`.
CURRENT_FILE = "current.json"
# A run of thousands of heads and classes has tens of megabytes, an audit of many near-duplicates hundreds.
MOST_JSON_BYTES = 512 << 20
RUNS_ROOT = Path("data/runs")
FORMATS = (1,)  # of results.json: those that are read, the last is written
# Every file of a run, by its path in the folder; then those that a killed process may have left there.
_HEAD_FOLDER = rf"{HEADS_FOLDER}/[^/]+--[^/]+"
_AUDIT_TABLES = re.escape(AUDIT_TABLE).replace(r"\{\}", "[a-z_]+")
FILES = re.compile(
    rf"{'|'.join(map(re.escape, NAMED_FILES))}|{RANGES_FILES}|{_AUDIT_TABLES}"
    rf"|{_HEAD_FOLDER}/({'|'.join(map(re.escape, HEAD_FILES))})"
    rf"|{TEMPORARY.pattern}({re.escape(REPORT_FILE)}|{re.escape(AUDIT_FILE)}|{_AUDIT_TABLES})"
    rf"|\.({re.escape(REPORT_FILE)}|{re.escape(AUDIT_FILE)}|{_AUDIT_TABLES})-\d+"  # of former versions
)
FOLDERS = re.compile(rf"{HEADS_FOLDER}|{_HEAD_FOLDER}")
WORK_FOLDER = re.compile(r"\.run-[0-9a-f]{16}(-\d+)?")
# What may be in the folder besides and is left alone: work that goes on, where the folder is a disk of its own, and
# what systems put anywhere.
LEFT_ALONE = re.compile(
    rf"{WORK_FOLDER.pattern}|({TEMPORARY.pattern})?\.finetune-[0-9a-f]{{16}}\.pt(-\d+)?"
    r"|lost\+found|\.DS_Store|Thumbs\.db|desktop\.ini"
)
# So many of the entries that are in the way are named.
NAMED_ENTRIES = 3


def default_run_folder(images: Path) -> Path:
    """data/runs/<data set>-<time>: a new folder for every run; `reserving` sees to it that none is overwritten."""
    name = images.stem if images.is_file() else images.resolve().name
    return RUNS_ROOT / f"{printable(name) or 'images'}-{time.strftime('%Y%m%d-%H%M%S')}"


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run that this program wrote, by its results.json."""
    try:
        results = read_json_file(folder / RESULTS_FILE, folder, most_bytes=MOST_JSON_BYTES)
        return results["format"] in FORMATS and isinstance(results["heads"], list)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def known_files(folder: Path) -> list[str]:
    """The paths in a folder of those files that a run consists of."""
    return [name for name, is_known in _entries(folder, "") if is_known]


def foreign_entries(folder: Path) -> list[str]:
    """The paths of everything in a folder that this program does not write there; of a folder that itself alone."""
    return [name for name, is_known in _entries(folder, "") if not is_known]


def _entries(folder: Path, above: str) -> Iterator[tuple[str, bool]]:
    """Every file of a run, and what is foreign; links are foreign, for what they lead to is elsewhere."""
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        name, is_folder = f"{above}{entry.name}", entry.is_dir(follow_symlinks=False)
        if is_folder and FOLDERS.fullmatch(name):
            yield from _entries(Path(entry.path), f"{name}/")
        elif not LEFT_ALONE.fullmatch(name):
            yield name, bool(FILES.fullmatch(name)) and not is_folder and not entry.is_symlink()


def check_run_folder(folder: Path, *, may_be_tuned: bool = False) -> None:
    """Raises UsageError where `folder` is `latest`, or holds what is no run's, or a tuned network."""
    if folder.name == LATEST:
        raise UsageError(
            f"'{printable(folder)}' is the link that leads to the newest run. Choose another name with --out."
        )
    if not os.path.lexists(folder):
        return
    if (folder.resolve().parent / CURRENT_FILE).exists():
        raise UsageError(
            f"'{printable(folder)}' is a version of a model, which no run replaces. Choose another folder with --out."
        )
    if not folder.is_dir():
        what = "is a link that leads nowhere" if folder.is_symlink() else "is a file"
        raise UsageError(f"'{printable(folder)}' {what}. Choose a folder with --out.")
    foreign = foreign_entries(folder)
    if not is_run(folder) and (foreign or known_files(folder)):
        raise UsageError(
            f"'{printable(folder)}' is not empty and not a run{_named(foreign)}. Choose another folder with --out."
        )
    if foreign:
        raise UsageError(
            f"'{printable(folder)}' holds a run, which this one would replace, and what is no run's{_named(foreign)}. "
            "Move that away, or choose another folder with --out."
        )
    if not may_be_tuned and (folder / WEIGHTS_FILE).exists():
        raise UsageError(
            f"'{printable(folder)}' holds a tuned network, and other runs may stand on its weights. Choose another "
            "folder with --out, or delete that one."
        )


def _named(entries: Sequence[str]) -> str:
    if not entries:
        return ""
    named = ", ".join(f"'{printable(name)}'" for name in entries[:NAMED_ENTRIES])
    n_more = len(entries) - NAMED_ENTRIES
    return f" ({named}{f' and {n_more:,} more' if n_more > 0 else ''})"


def check_writable(folder: Path) -> None:
    """Raises PipelineError where the run folder `folder` cannot be made or filled; makes nothing."""
    place = Path(os.path.realpath(folder))
    try:
        is_there = place.lstat() is not None
    except (FileNotFoundError, NotADirectoryError):
        is_there = False
    except OSError as error:  # a name that is too long
        raise _unwritable(folder, error) from error
    _check_place([place] if is_there else place.parents, f"The run folder '{printable(folder)}'")


def check_fillable(folder: Path) -> None:
    """Raises PipelineError where no file can be put into `folder`, which need not be there yet; makes nothing."""
    _check_place([folder, *folder.absolute().parents], f"The folder '{printable(folder)}'")


def _check_place(places: Sequence[Path], what: str) -> None:
    """Raises PipelineError unless the first of the places that is there is a folder that may be written to."""
    above = next(place for place in places if os.path.lexists(place))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "may not be written to" if above.is_dir() else "is not a folder"
        raise PipelineError(f"{what} cannot be written: '{printable(above)}' {reason}. Choose another with --out.")


@contextlib.contextmanager
def reserving(folder: Path) -> Iterator[Path]:
    """`folder`, or with -2, -3 behind its name where there is one already or another process is at work on it.

    The name is reserved by a hidden folder next to it while the block runs. Raises PipelineError when the place
    cannot be written.
    """
    for number in itertools.count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        marker = place.with_name(f".{place.name}.reserved")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                marker.mkdir()
                if not os.path.lexists(place):
                    break
                marker.rmdir()
        except OSError as error:
            raise _unwritable(folder, error) from error
    try:
        yield place
    finally:
        marker.rmdir()


def _unwritable(folder: Path, error: OSError) -> PipelineError:
    return PipelineError(
        f"The run folder '{printable(folder)}' cannot be written: {error.strerror}. Choose another with --out."
    )


@contextlib.contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """An empty file next to `path` that replaces it when the block ends without an error.

    Raises UsageError where there is no such folder, PipelineError when the place cannot be written.
    """
    target = path.resolve()
    if not target.parent.is_dir():
        folder = target.parent if path.is_symlink() else path.parent
        raise UsageError(f"There is no folder '{printable(folder)}'. Make it, or choose another place with --out.")
    with replacing_file(target) as temporary:
        try:
            is_folder = target.is_dir()  # a name that no file can have shows now, and not when all is done
            is_device = not is_folder and target.exists() and not target.is_file()
            temporary.touch()
            with contextlib.suppress(FileNotFoundError):
                target.lstat()  # a name that no file can have shows now, and not when all is done
        except OSError as error:
            raise PipelineError(
                f"'{printable(path)}' cannot be written: {error.strerror}. Choose another place with --out."
            ) from error
        if is_folder:
            raise UsageError(f"'{printable(path)}' is a folder. Choose a file with --out.")
        if is_device:  # which would be gone for all programs
            raise UsageError(f"'{printable(path)}' is a device or a pipe. Choose a file with --out.")
        yield temporary


def point_latest(folder: Path) -> None:
    """Let data/runs/latest lead to a run in data/runs; to one anywhere else no link leads.

    Only a link that leads to a run there is moved, or one to a run that is gone. Without links on this system it is
    simply not there.
    """
    with contextlib.suppress(OSError):
        root = RUNS_ROOT.resolve()
        link = root / LATEST
        if folder.resolve().parent == root and (not os.path.lexists(link) or _leads_to_a_run(link)):
            temporary = temporary_path(link)
            temporary.symlink_to(folder.resolve().name)
            temporary.replace(link)


def _leads_to_a_run(link: Path) -> bool:
    if not link.is_symlink():
        return False
    if link.exists():
        return link.resolve().parent == link.parent and is_run(link)
    return str(link.readlink()) == link.readlink().name  # as `point_latest` writes it


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Plain JSON; class and file names that are not UTF-8 are escaped.

    Raises ValueError for a number that is infinite or NaN: `finite_numbers.without_nan` takes these out of a run.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text.encode("utf-8", "backslashreplace").decode() + "\n", encoding="utf-8")


def write_options(folder: Path, options: str) -> None:
    """config.toml: the options of the command, with which it is done again; no file where there are none."""
    if options:
        (folder / OPTIONS_FILE).write_text(options, encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV table in UTF-8 with a header; control characters in names are escaped."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def write_errors(path: Path, refusals: Sequence[Refusal]) -> None:
    """errors.csv: every refused image with its digest and the reason; no file when there are none."""
    if refusals:
        write_csv(path, ("path", "digest", "reason"), [(r.name, r.digest, r.reason) for r in refusals])
    else:
        path.unlink(missing_ok=True)
