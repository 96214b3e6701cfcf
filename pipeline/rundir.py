"""The folder of one run: written beside its place under a temporary name, then renamed, so it is whole or not there."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.digests import Refusal
from extract.manifest import printable
from pipeline.errors import PipelineError, UsageError

REPORT_FILE = "report.html"
RESULTS_FILE = "results.json"
ERRORS_FILE = "errors.csv"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
LATEST = "latest"
RUNS_ROOT = Path("data/runs")


def default_run_folder(images: Path) -> Path:
    """data/runs/<data set>-<time>: a new folder for every run; `reserving` sees to it that none is overwritten."""
    name = images.stem if images.is_file() else images.resolve().name
    return RUNS_ROOT / f"{printable(name) or 'images'}-{time.strftime('%Y%m%d-%H%M%S')}"


def check_run_folder(folder: Path, *, may_be_tuned: bool = False) -> None:
    """Raises UsageError when `folder` is `latest`, or holds what would be lost: no run, or a tuned network."""
    if folder.name == LATEST:
        raise UsageError(
            f"'{printable(folder)}' is the link that leads to the newest run. Choose another name with --out."
        )
    if folder.is_dir() and not (folder / RESULTS_FILE).exists() and any(folder.iterdir()):
        raise UsageError(f"'{printable(folder)}' is not empty and not a run. Choose another folder with --out.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{printable(folder)}' is a file. Choose a folder with --out.")
    if not may_be_tuned and (folder / WEIGHTS_FILE).exists():
        raise UsageError(
            f"'{printable(folder)}' holds a tuned network, and other runs may stand on its weights. Choose another "
            "folder with --out, or delete that one."
        )


def check_writable(folder: Path) -> None:
    """Raises PipelineError where the run folder `folder` cannot be made; makes nothing."""
    _check_place(folder.absolute().parents, f"The run folder '{printable(folder)}'")


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

    The name is kept by a hidden folder beside it for as long as the block takes. Raises PipelineError when the place
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


@contextlib.contextmanager
def writing_run(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends without an error; an older run there is replaced.

    Raises PipelineError when the place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        _replace(temporary, folder)
    except OSError as error:
        raise PipelineError(f"The run could not be written to '{printable(folder)}': {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    old = aside / "run"
    try:
        folder.rename(old)
        temporary.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        if folder.exists():  # otherwise the old run is the only one left
            shutil.rmtree(aside, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> PipelineError:
    return PipelineError(
        f"The run folder '{printable(folder)}' cannot be written: {error.strerror}. Choose another with --out."
    )


@contextlib.contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path` that replaces it when the block ends without an error.

    Raises UsageError where there is no such folder, PipelineError when the place cannot be written.
    """
    target = path.resolve()
    if not target.parent.is_dir():
        raise UsageError(f"There is no folder '{printable(path.parent)}'. Make it, or choose another place with --out.")
    if target.is_dir():
        raise UsageError(f"'{printable(path)}' is a folder. Choose a file with --out.")
    temporary = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        temporary.touch()
    except OSError as error:
        raise PipelineError(
            f"'{printable(path)}' cannot be written: {error.strerror}. Choose another place with --out."
        ) from error
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def point_latest(folder: Path) -> None:
    """Let `latest` beside the run lead to it; without links on this system it is simply not there."""
    link = folder.parent / LATEST
    with contextlib.suppress(OSError):
        if link.is_symlink() or not link.exists():
            temporary = folder.parent / f".{LATEST}-{os.getpid()}"
            temporary.symlink_to(folder.name)
            temporary.replace(link)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Plain JSON; class and file names that are not UTF-8 are escaped."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text.encode("utf-8", "backslashreplace").decode() + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The inverse. Raises UsageError where there is no such file, PipelineError where it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"'{printable(path.parent)}' is not a run: it has no {path.name}. "
            f"A run is a folder that 'featurecache classify' wrote, such as {RUNS_ROOT / LATEST}."
        ) from None
    except (OSError, ValueError) as error:
        raise PipelineError(f"'{printable(path)}' cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise PipelineError(f"'{printable(path)}' is not what 'featurecache classify' writes.")
    return values


@contextlib.contextmanager
def reading_run(folder: Path) -> Iterator[None]:
    """Let the block read what `classify` wrote; raises PipelineError for whatever it stumbles over."""
    try:
        yield
    except (OSError, LookupError, TypeError, ValueError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PipelineError(
            f"The run '{printable(folder)}' is not whole, or of an older version ({printable(reason)}): classify again."
        ) from error


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
