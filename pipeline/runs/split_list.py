"""splits.csv of a run: every image with its label, split, digest and group."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from sys import intern

from featurecache.base.plain_files import check_plain_file
from featurecache.runs.folder import SPLITS_FILE, write_csv


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image of splits.csv; digest: 64 hex digits; group: None for none, and in runs of versions without groups."""

    path: str
    label: str
    split: str
    digest: str
    group: str | None = None


def write_splits(folder: Path, images: Iterable[ListedImage]) -> None:
    """Write splits.csv into a run folder."""
    columns = [field.name for field in fields(ListedImage)]
    write_csv(folder / SPLITS_FILE, columns, map(attrgetter(*columns), images))


def read_splits(folder: Path) -> list[ListedImage]:
    """Return every image of splits.csv, in its order.

    Nothing that is read is checked. Raises OSError where there is no such file, ValueError or LookupError where it is
    no such table.
    """
    path = folder / SPLITS_FILE
    check_plain_file(path, folder)
    with path.open(newline="", encoding="utf-8") as file:
        return [_image(row) for row in csv.DictReader(file, restval="")]


def _image(row: Mapping[str, str]) -> ListedImage:
    path, label, split, digest = (row[column] for column in ("path", "label", "split", "digest"))
    return ListedImage(path, intern(label), intern(split), digest, intern(row.get("group") or "") or None)
