"""What became of every file of a data set, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from featurecache.base.text import count, printable
from featurecache.extract.images.left_out import BAD_ARGUMENT, EMPTY_CLASS, NO_FILE, REASONS, Reason
from featurecache.extract.images.manifest import IMAGE, ROW

if TYPE_CHECKING:
    from featurecache.runs.documents import FilesDocument

# So many suffixes of a reason, and names of classes, are shown; the others are counted together.
SHOWN = 8


def files_lines(files: FilesDocument) -> list[str]:
    """Return how many files are used, and a line for each reason for which others are left out."""
    n, n_used = files["n_files"], files["n_used"]
    if files.get("noun") == ROW:
        return _rows_lines(files)
    if not files["by_reason"] and not files["folders"]:
        return [f"files: {n:,}, all of them images that are used"]
    lines = [f"files: {n:,}, of which {count(n_used, 'image is', 'images are')} used"]
    by_reason: dict[str, dict[str, int]] = {}
    for row in files["by_reason"]:
        by_reason.setdefault(row["reason"], {})[row["suffix"]] = row["n"]
    lines += [_line(REASONS[code], sum(n_of.values()), _suffixes(n_of)) for code, n_of in by_reason.items()]
    for code, n_folders in files["folders"].items():
        names = files["vanished_classes"] if code == EMPTY_CLASS.code else []
        lines.append(_line(REASONS[code], n_folders, _names(names)))
    return lines


def _rows_lines(files: FilesDocument) -> list[str]:
    """Return the same of vectors, which are rows of a file, or the files of a folder."""
    n, n_used = files["n_files"], files["n_used"]
    if not files["by_reason"]:
        return [f"rows: {n:,}, all of them used"]
    lines = [f"rows: {n:,}, of which {n_used:,} {'is' if n_used == 1 else 'are'} used"]
    n_of: dict[str, int] = {}
    for row in files["by_reason"]:
        n_of[row["reason"]] = n_of.get(row["reason"], 0) + row["n"]
    return lines + [_line(REASONS[code], n, "").replace(IMAGE, ROW) for code, n in n_of.items()]


def missed_by_noun(files: FilesDocument) -> dict[str, int]:
    """Return how many images, folders and arguments are left out that somebody would miss."""
    n_bad = sum(row["n"] for row in files["by_reason"] if row["reason"] == BAD_ARGUMENT.code)
    n_arguments = n_bad + files["folders"].get(NO_FILE.code, 0)
    n_folders = sum(n for code, n in files["folders"].items() if REASONS[code].missed and code != NO_FILE.code)
    n_images = files["n_missed"] - n_folders - n_arguments
    return {"image": n_images, "folder": n_folders, "argument": n_arguments}


def _line(reason: Reason, n: int, shown: str) -> str:
    noun = (reason.one if n == 1 else reason.many).rpartition(" ")[0]  # without its verb
    return f"  {n:,} {noun}{shown}"


def _suffixes(n_of: dict[str, int]) -> str:
    rows = sorted(n_of.items(), key=lambda row: (-row[1], row[0]))
    named = [f"{n:,} {printable(suffix) or 'without a suffix'}" for suffix, n in rows[:SHOWN]]
    named += [f"{sum(n for _, n in rows[SHOWN:]):,} of {len(rows) - SHOWN:,} more"] if len(rows) > SHOWN else []
    return f": {', '.join(named)}"


def _names(names: Sequence[str]) -> str:
    named = [f"'{name}'" for name in names[:SHOWN]]
    named += [f"{len(names) - SHOWN:,} more"] if len(names) > SHOWN else []
    return f": {', '.join(named)}" if named else ""
