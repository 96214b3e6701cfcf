"""Where models are, and which of their versions is current.

data/models/NAME/v1, v2, ...    a run folder each, with one head; once it is there, only its report.html changes
data/models/NAME/current.json   {"format": 1, "versions": [1, 2]}: the versions promoted so far without those that
                                were rolled back; the last is the current one
data/models/NAME/lock           held while a version is written
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from featurecache.base.errors import PipelineError, SavedHeadError, UsageError
from featurecache.base.files import replacing_file
from featurecache.base.plain_files import UnfitFile, read_json_file
from featurecache.base.text import printable
from featurecache.extract.cache.spec import DEVICE
from featurecache.extract.images.sources import NO_PATH, can_be_path
from featurecache.runs.folder import CURRENT_FILE, RESULTS_FILE, is_run, write_json
from featurecache.runs.locks import try_lock, unlock

MODELS_ROOT = Path("data/models")
FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME_RULE = "up to 64 letters of a to z, digits, - and _, and begins with a letter or a digit"
VERSION = re.compile(r"v([1-9][0-9]{0,8})")
MOST_RECORD_BYTES = 1 << 20
# How long one promotion waits for another of the same model, which copies a head and perhaps the weights of a network.
LOCK_SECONDS, LOCK_STEP = 60.0, 0.05


def check_name(name: str) -> None:
    """Raise UsageError for a name that a model cannot have."""
    if not NAME.fullmatch(name):
        raise UsageError(f"A model cannot be called '{printable(name)}': a name has {NAME_RULE}.")
    if DEVICE.match(name):
        raise UsageError(f"A model cannot be called '{name}', which is a device on Windows. Choose another name.")


def find_run(
    named: str | os.PathLike[str], *, say: Callable[[str], None] | None = None, root: Path = MODELS_ROOT
) -> Path:
    """Return the folder of a run: the folder or file of that name, or else the current version of the model.

    say: called with a line where a model is taken, or where there is a model of that name too and the folder is taken.
    Raises UsageError where there are models and none has this name, PipelineError where its record is damaged.
    """
    path, name, say = Path(named), os.fspath(named), say or (lambda _: None)
    if not can_be_path(path):
        raise UsageError(f"There is no folder '{printable(path)}': {NO_PATH}.")
    model = root / name if NAME.fullmatch(name) else None
    if os.path.lexists(path) and not _is_model(path):
        if model is not None and _is_model(model):
            say(f"'{name}' is a folder here and is taken; the model of that name is '{printable(model)}'.")
        return path
    if model is not None and not os.path.lexists(path):
        if not _is_model(model):
            _refuse_unknown(name, root)
            return path
        path = model
    if not _is_model(path):
        return path
    version = path / f"v{current_version(path)}"
    say(f"model '{printable(path.name)}', version {version.name[1:]}: {printable(version)}")
    return version


@contextlib.contextmanager
def going_back(run: Path) -> Iterator[None]:
    """Add to the error of a damaged head, where the run is a version of a model, how to go back to the one before."""
    try:
        yield
    except SavedHeadError as error:
        model = run.parent
        if not _is_model(model) or len(promoted_versions(model)) < 2:
            raise
        back = f"Go back by: featurecache promote {printable(model.name)} --rollback"
        raise SavedHeadError(f"{str(error).rstrip('.')}. {back}") from error


def _is_model(folder: Path) -> bool:
    """Whether a folder holds a record of versions, and is no run itself."""
    # pathlib's own raise where a name is too long or a folder is closed.
    has_record = os.path.isfile(folder / CURRENT_FILE)  # noqa: PTH113
    return has_record and not os.path.exists(folder / RESULTS_FILE)  # noqa: PTH110


def _refuse_unknown(name: str, root: Path) -> None:
    names = model_names(root)
    if names:
        near = difflib.get_close_matches(name, names, n=3)
        others = f"Did you mean {' or '.join(near)}?" if near else f"Models are {', '.join(names[:10])}."
        raise UsageError(f"There is neither a folder nor a model '{name}'. {others} 'featurecache models' lists them.")


def model_names(root: Path = MODELS_ROOT) -> list[str]:
    """Return the names of all models, sorted."""
    try:
        found = sorted(os.listdir(root))  # noqa: PTH208 (names only)
    except OSError:
        return []
    return [name for name in found if NAME.fullmatch(name) and _is_model(root / name)]


def version_numbers(model: Path) -> list[int]:
    """Return the numbers of the versions whose folders are there, sorted."""
    found = [VERSION.fullmatch(name) for name in os.listdir(model)]  # noqa: PTH208 (names only)
    return sorted(int(match[1]) for match in found if match)


def current_version(model: Path) -> int:
    """Return the number of the current version. Raises UsageError for no model, PipelineError for a damaged record."""
    number = promoted_versions(model)[-1]
    if not is_run(model / f"v{number}"):
        raise PipelineError(
            f"Version {number} of the model '{printable(model.name)}', the current one, is not whole in "
            f"'{printable(model)}'. Go back by: featurecache promote {printable(model.name)} --rollback"
        )
    return number


def promoted_versions(model: Path) -> list[int]:
    """Return the numbers in the record, the current one last. Raises UsageError, PipelineError."""
    path = model / CURRENT_FILE
    try:
        record = read_json_file(path, model, most_bytes=MOST_RECORD_BYTES)
    except FileNotFoundError:
        raise UsageError(
            f"There is no model '{printable(model.name)}'. 'featurecache promote RUN NAME' makes one."
        ) from None
    except (OSError, UnfitFile) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _damaged(path, str(reason)) from error
    versions = record.get("versions") if isinstance(record, dict) else None
    if not isinstance(versions, list) or not versions or not all(map(_is_number, versions)):
        raise _damaged(path, "it does not list versions")
    if record.get("format") != FORMAT:
        raise _damaged(path, "it is of another version of this program")
    return versions


def _is_number(value: Any) -> bool:
    return type(value) is int and 1 <= value < 10**9


def _damaged(path: Path, reason: str) -> PipelineError:
    return PipelineError(
        f"'{printable(path)}' is not what 'featurecache promote' writes: {printable(reason)}. Remove that file and "
        "promote the run again: the versions stay."
    )


def write_current(model: Path, versions: Sequence[int]) -> None:
    """Let the last of these versions be the current one: the record is replaced whole. Raises OSError."""
    with replacing_file(model / CURRENT_FILE) as temporary:
        write_json(temporary, {"format": FORMAT, "versions": list(versions)})


@contextlib.contextmanager
def locked(model: Path) -> Iterator[None]:
    """Let no other process write a version of the model while the block runs. Raises PipelineError, OSError."""
    end = time.monotonic() + LOCK_SECONDS
    while (lock := try_lock(model)) is None:
        if time.monotonic() > end:
            raise PipelineError(
                f"Another process is promoting to the model '{printable(model.name)}'. Wait for it and try again."
            )
        time.sleep(LOCK_STEP)
    try:
        yield
    finally:
        unlock(lock)
