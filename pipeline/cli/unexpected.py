"""One sentence for any exception that ends a command, and a log file with the traceback for those nobody expected."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LOG_NAME = "featurecache-error-{time}-{pid}.log"
LIBRARIES = (
    "featurecache",
    "numpy",
    "torch",
    "torchvision",
    "onnxruntime",
    "h5py",
    "scikit-learn",
    "pillow",
    "pyarrow",
)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
GONE = {errno.ENOENT, errno.ENOTDIR, getattr(errno, "ESTALE", errno.ENOENT)}
# What libraries say, whatever the class of their error: torch on a CPU and on CUDA, ONNX Runtime; SQLite, HDF5, zlib.
SAID_OF_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "cannot allocate memory", "failed to allocate")
SAID_OF_ROOM = ("no space left on device", "database or disk is full", "disk quota exceeded")


def explain(error: BaseException, values: Mapping[str, Any] | None = None) -> str:
    """Return what happened and what to do next, for an exception that no part of this package raises on purpose.

    values: of the options of the command, so that only options are named that it has.
    """
    for each in _chain(error):
        for says in (_of_memory, _of_files, _of_depth, _of_imports):
            if sentence := says(each, values or {}):
                return sentence
    return (
        f"An unexpected {type(error).__name__} in {_place(error)}: {_first_line(error)} Run the same command again; if "
        "it ends here again, report it with the log."
    )


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an error that is raised on purpose; None for any other."""
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, int) else None


def write_log(error: BaseException, argv: Sequence[str], places: Sequence[Path]) -> Path | None:
    """Write traceback, command line and versions into the first of the places, or the system's temporary folder.

    Returns the file; None where it can be written nowhere.
    """
    name = LOG_NAME.format(time=time.strftime("%Y%m%d-%H%M%S"), pid=os.getpid())
    text = "\n".join(_log_lines(error, argv))
    for place in [*places, *_temporary_folder()]:
        try:
            (place / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return place / name
    return None


def log_places(values: Mapping[str, Any] | None) -> list[Path]:
    """The folders that a command works in and that are there already: its cache, and that of its result.

    A run folder is none of them: what is in it is a run's.
    """
    cache, out = (values or {}).get("cache"), (values or {}).get("out")
    return [place for place in (cache, out and out.absolute().parent) if place is not None and place.is_dir()]


def say_unexpected(error: BaseException, argv: Sequence[str], values: Mapping[str, Any] | None = None) -> str:
    """Write the log, and return the sentence that names it."""
    log = write_log(error, argv, log_places(values))
    where = f" Log: '{log}'" if log else " There is no log: it could be written nowhere."
    return f"featurecache: {explain(error, values)}{where}"


def _temporary_folder() -> list[Path]:
    try:
        return [Path(tempfile.gettempdir())]
    except OSError:  # not one of the usual places can be written to
        return []


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__


def _of_memory(error: BaseException, values: Mapping[str, Any]) -> str:
    text = str(error).lower()
    if not isinstance(error, MemoryError) and not any(said in text for said in SAID_OF_MEMORY):
        return ""
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        return ""
    where = "of the GPU " if "cuda" in text or "mps" in text else ""
    smaller = [f"--{name.replace('_', '-')}" for name in ("batch_size", "memory") if name in values]
    less = f"give a smaller {' or '.join(smaller)}" if smaller else "ask for fewer images or features at once"
    return f"The memory {where}is not enough ({_first_line(error)}) Close other programs, or {less}."


def _of_files(error: BaseException, values: Mapping[str, Any]) -> str:
    text = str(error).lower()
    if getattr(error, "errno", None) in NO_ROOM or any(said in text for said in SAID_OF_ROOM):
        elsewhere = [f"--{name}" for name in ("cache", "out") if name in values]
        choose = f", or choose another place with {' or '.join(elsewhere)}" if elsewhere else ""
        return (
            f"The disk is full: {_file(error)}could not be written. Free some space{choose}; what was finished is kept."
        )
    if not isinstance(error, OSError):
        return ""
    if error.errno in TOO_MANY_FILES:
        return (
            "Too many files are open at once. Allow more with 'ulimit -n 4096' and run the same command again, or have "
            "fewer shards with 'featurecache cache compact'."
        )
    if error.errno in FORBIDDEN:
        return f"{_file(error)}may not be read or written ({error.strerror}). Correct its permissions, or use another."
    if error.errno in GONE:
        return f"{_file(error)}is not there, or not any more. Check the path and run the same command again."
    reason = error.strerror or _first_line(error)
    return (
        f"{_file(error)}cannot be read or written: {reason.rstrip('.')}. Check the disk and run the same command again."
    )


def _of_depth(error: BaseException, values: Mapping[str, Any]) -> str:
    if not isinstance(error, RecursionError):
        return ""
    return (
        f"Something is nested too deeply to be followed, in {_place(error)}: folders, or a damaged JSON file. Name the "
        "folder that holds the images themselves; if it ends here again, report it with the log."
    )


def _of_imports(error: BaseException, values: Mapping[str, Any]) -> str:
    if not isinstance(error, ImportError):
        return ""
    return (
        f"A library is missing or broken: {_first_line(error)} 'featurecache doctor' shows what is installed; "
        "'pip install --upgrade featurecache' brings what is missing."
    )


def _file(error: BaseException) -> str:
    """The file that an OSError is about, in quotes and with a space behind it."""
    from featurecache.base.text import printable

    name = getattr(error, "filename", None)
    if name is None or isinstance(name, int):
        return "a file "
    return f"'{printable(os.fsdecode(name))}' "


def _first_line(error: BaseException) -> str:
    """The first line of a message as a sentence; messages of compiled libraries are pages."""
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{text.rstrip('.:; ') or 'no further details'}."


def _place(error: BaseException) -> str:
    """The file of this package, or of whatever, where it was raised, and the line."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    ours = [each for each in frames if str(each[0].f_globals.get("__name__")).startswith("featurecache.")]
    if not frames:
        return "no place that is known"
    frame, line = (ours or frames)[-1]
    path = Path(frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{line}"


def _log_lines(error: BaseException, argv: Sequence[str]) -> Iterator[str]:
    from featurecache.base.versions import installed_version

    yield f"command   {shlex.join(['featurecache', *argv])}"
    yield f"folder    {_working_folder()}"
    yield f"time      {time.strftime('%Y-%m-%dT%H:%M:%S%z')}"
    yield f"system    {platform.platform()}, Python {platform.python_version()} ({sys.executable})"
    versions = [f"{name} {installed_version(name) or '(not installed)'}" for name in LIBRARIES]
    yield f"versions  {', '.join(versions)}"
    yield ""
    yield "".join(traceback.format_exception(error))


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # deleted meanwhile
        return "none"
