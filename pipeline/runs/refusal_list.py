"""errors.csv outside a run: the images that were refused, of every set of images what its last command refused."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.base.text import printable
from featurecache.runs.folder import write_csv, writing_file

if TYPE_CHECKING:
    from featurecache.extract.images.digests import Refusal

COLUMNS = ("path", "digest", "reason", "images")


def list_refusals(path: Path, refusals: Sequence[Refusal], images: Sequence[str]) -> Path:
    """Write down which of `images` (folders, manifests, files) are refused, with digest and reason; return the place.

    path: that of errors.csv. Its rows about other sets of images stay, and so does a file that is no such list:
    then the list is called errors-2.csv. Without a row there is none. Raises PipelineError where it cannot be written.
    """
    of = " ".join(printable(Path(each).resolve()) for each in images)
    place, rows = next(found for found in map(_read, _names(path)) if found is not None)
    others = [row for row in rows if row[3] != of]
    kept = others + [[r.name, r.digest, r.reason, of] for r in refusals]
    if kept:
        with writing_file(place) as file:
            write_csv(file, COLUMNS, kept)
    elif place.is_file():
        place.unlink()
    return place


def _names(path: Path) -> itertools.chain[Path]:
    more = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return itertools.chain([path], more)


def _read(path: Path) -> tuple[Path, list[list[str]]] | None:
    """The path and the rows of a list; no rows where there is none, None where something else has its name.

    Lists of former versions do not name the images that they are of, and are replaced.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except FileNotFoundError:
        return path, []
    except (OSError, ValueError, csv.Error):
        return None
    if tuple(header) == COLUMNS[:3]:
        return path, []
    return (path, [row for row in rows if len(row) == len(COLUMNS)]) if tuple(header) == COLUMNS else None
