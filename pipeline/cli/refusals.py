"""Files that are not in a result: named on stderr, listed in errors.csv, counted, and shown in the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.errors import PipelineError
from featurecache.base.exits import DONE, REFUSED
from featurecache.cli.file_counts_text import files_lines, missed_by_noun
from featurecache.cli.text import refusals_text, refused_line
from featurecache.runs.folder import ERRORS_FILE, RESULTS_FILE
from featurecache.runs.refusal_list import list_refusals

if TYPE_CHECKING:
    from featurecache.cli.console import Console
    from featurecache.runs.documents import Dataset, FilesDocument
    from featurecache.runs.file_counts import FileCounts


def account_for(files: FileCounts, place: Path, images: Sequence[str], console: Console) -> int:
    """Say what became of every file, list in errors.csv what somebody would miss, and return the exit code.

    place: that of errors.csv. images: as the user named them.
    """
    code = list_missed(files, place, images)
    show_files(files.to_dict(), console)
    return code


def list_missed(files: FileCounts, place: Path, images: Sequence[str]) -> int:
    """Name the files that somebody would miss, here and in errors.csv, and return the exit code that they make."""
    try:
        listed_in: Path | str = list_refusals(place, files.refusals, images)
    except PipelineError as error:
        if not files.refusals:
            return DONE
        print(error, file=sys.stderr)
        listed_in = "--json"
    if not files.refusals:
        return DONE
    print(refusals_text(files.refusals, missed_by_noun(files.to_dict()), listed_in), file=sys.stderr)
    return REFUSED


def account_for_run(dataset: Dataset, place: Path, console: Console) -> int:
    """Say what became of every file of a run, and where its errors.csv is; returns the exit code.

    place: of errors.csv. Runs of versions that did not count files have the number of refused images.
    """
    files = dataset.get("files")
    if n := files["n_missed"] if files else dataset["skipped"]:
        console.say(f"{refused_line(missed_by_noun(files) if files else {'image': n}, place)}.")
    if files:
        show_files(files, console)
    return REFUSED if n else DONE


def show_files(files: FilesDocument, console: Console) -> None:
    """Show how many files are used and why others are not; only the latter where no progress is to be shown."""
    lines = files_lines(files)
    if len(lines) > 1:
        print("\n".join(lines), file=sys.stderr)
    else:
        console.say(lines[0])


def errors_place(out: Path | None, cache_root: Path) -> Path:
    """Return errors.csv next to `out`, unless that is `out` itself or the list of a run; then in the cache root."""
    if out is None or out.name.lower() == ERRORS_FILE or (out.parent / RESULTS_FILE).exists():
        return cache_root / ERRORS_FILE
    return out.parent / ERRORS_FILE
