"""Reading the JSON files of a run."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featurecache.base.errors import PipelineError, UsageError
from featurecache.base.plain_files import UnfitFile, read_json_file
from featurecache.base.text import printable
from featurecache.runs.folder import LATEST, MOST_JSON_BYTES, RUNS_ROOT

# Of a file that `featurecache export` wrote.
EXPORTED = ".onnx"


def read_json(path: Path) -> dict[str, Any]:
    """Return what `folder.write_json` wrote.

    Raises UsageError where there is no such file, PipelineError where it is damaged.
    """
    _check_folder(path.parent)
    try:
        values = read_json_file(path, path.parent, most_bytes=MOST_JSON_BYTES)
    except FileNotFoundError:
        if _is_completed(path):
            return read_json(path)
        raise UsageError(_no_run(path.parent, path.name)) from None
    except (OSError, UnfitFile) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PipelineError(
            f"'{printable(path)}' cannot be read: {printable(str(reason))}. Correct its permissions, or classify again."
        ) from error
    if not isinstance(values, dict):
        raise PipelineError(f"'{printable(path)}' is not what 'featurecache classify' writes: classify again.")
    return values


def is_exported_file(named: str | os.PathLike[str]) -> bool:
    """Return whether something named in place of a run is a file of `featurecache export`, by its name."""
    return Path(named).suffix.lower() == EXPORTED and not os.path.isdir(named)  # noqa: PTH112 (names that are too long)


def _check_folder(run: Path) -> None:
    """Raise UsageError for a file in place of a run."""
    if not os.path.isfile(run):  # noqa: PTH113 (names that are too long)
        return
    if is_exported_file(run):
        raise UsageError(
            f"'{printable(run)}' is an exported file, and this needs a run: name the folder of the run that it was "
            "exported from. 'featurecache predict' and 'featurecache serve' take exported files."
        )
    raise UsageError(f"'{printable(run)}' is a file, not a run. Name a folder that 'featurecache classify' wrote.")


def _no_run(folder: Path, name: str) -> str:
    """Return the sentence on a folder without the file that every run has."""
    shown, usual = printable(folder), RUNS_ROOT / LATEST
    if not folder.exists():
        where = "there is none yet" if folder == usual else f"the last one is '{usual}'"
        return f"There is no folder '{shown}'. 'featurecache classify' writes runs; {where}."
    return f"'{shown}' is not a run: it has no {name}. Give a folder that 'featurecache classify' wrote."


def _is_completed(path: Path) -> bool:
    """Whether a file exists once a run that a killed process had committed is moved into its folder."""
    from featurecache.runs.work_folder import heal

    heal(path.parent)
    return path.exists()


@contextlib.contextmanager
def reading_run(folder: Path) -> Iterator[None]:
    """Let the block read and check what `classify` wrote; raises PipelineError for every error of reading.

    Only reading belongs into the block: a later error is not the run's. Raises UsageError for a file in place of a run.
    """
    _check_folder(folder)
    try:
        yield
    except (OSError, LookupError, TypeError, ValueError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PipelineError(
            f"The run '{printable(folder)}' is not whole, or of an older version ({printable(reason)}): classify again."
        ) from error
