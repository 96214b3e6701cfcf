"""Tables of images as a Manifest: CSV, TSV and Parquet with a column path."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from featurecache.base.errors import ManifestError
from featurecache.base.parquet_files import table_fault
from featurecache.base.text import printable
from featurecache.extract.images.folders.split_names import SPLIT_NAMES
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.read_options import ReadOptions

COLUMNS = ("path", "label", "split", "group")


def read_manifest(path: str | os.PathLike[str], options: ReadOptions | None = None) -> Manifest:
    """Read a table of images: .csv, .tsv or .parquet with columns path, label, split, group (all but path optional).

    Paths are relative to the manifest's folder and may not lead out of it. Raises ManifestError in one sentence that
    names the column, the row or the file at fault.
    """
    path, wanted = Path(path), _wanted_columns(options or ReadOptions())
    if not os.path.isfile(path):  # noqa: PTH113 (a pipe would be waited for)
        raise ManifestError(f"The manifest '{printable(path)}' is not an ordinary file. Name a table that is one.")
    rows = list(_read_parquet(path, wanted) if path.suffix.lower() == ".parquet" else _read_csv(path, wanted))
    if not rows:
        raise ManifestError(f"The manifest '{printable(path)}' has no rows: give it one for each image.")
    samples = tuple(
        _row_sample(path, number, row) for number, row in enumerate((_renamed(row, wanted) for row in rows), start=1)
    )
    missing = [sample for sample in samples if not os.path.isfile(sample.path)]  # noqa: PTH113 (hot loop)
    if missing:
        raise ManifestError(
            f"{len(missing)} of the {len(samples)} files named in '{printable(path)}' are not there, "
            f"the first is '{printable(missing[0].name)}'. Correct the manifest or put the files in place."
        )
    return Manifest(path.parent, samples, name=path.stem)


def _wanted_columns(options: ReadOptions) -> dict[str, str]:
    """What is read -> the name of its column, in small letters."""
    return {name: (getattr(options, f"{name}_column") or name).strip().lower() for name in COLUMNS}


def _renamed(row: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    return {name: row[column] for name, column in wanted.items() if column in row}


def _read_csv(path: Path, wanted: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            _check_columns(path, reader.fieldnames or [], wanted)
            for row in reader:
                yield {key.strip().lower(): value for key, value in row.items() if key is not None and value}
    except (OSError, csv.Error) as error:
        raise ManifestError(
            f"The manifest '{printable(path)}' cannot be read: {_one_line(error)}. Save it as a table in UTF-8."
        ) from error


def _read_parquet(path: Path, wanted: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            names = parquet.schema_arrow.names
            _check_columns(path, names, wanted)
            if fault := table_fault(parquet, wanted.values(), path.stat().st_size):
                raise ManifestError(f"The manifest '{printable(path)}' {fault}. Write one text a row, a row an image.")
            table = parquet.read(columns=[name for name in names if name.strip().lower() in wanted.values()])
            rows = table.to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = _one_line(error)
        raise ManifestError(
            f"The manifest '{printable(path)}' cannot be read as Parquet: {reason}. Write it again, or as .csv."
        ) from error
    for row in rows:
        yield {key.strip().lower(): str(value) for key, value in row.items() if value is not None}


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()).rstrip(". "))


def _check_columns(path: Path, columns: Sequence[str], wanted: Mapping[str, str]) -> None:
    present = {column.strip().lower() for column in columns}
    lacking = next((name for name, column in wanted.items() if column not in present and name != column), None)
    if lacking or wanted["path"] not in present:
        column = printable(wanted[lacking or "path"])
        found = ", ".join(printable(column) for column in columns) or "none"
        raise ManifestError(
            f"The manifest '{printable(path)}' has no column '{column}' (found: {found}). "
            f"Its first line names the columns: {', '.join(COLUMNS)}; all but path may be left out."
        )


def _row_sample(manifest: Path, number: int, row: Mapping[str, str]) -> Sample:
    cells = {column: row.get(column, "").strip() or None for column in COLUMNS}
    name = row.get("path", "")
    if not name.strip():
        raise ManifestError(f"Row {number} of '{printable(manifest)}' has no path: give it one, or delete it.")
    path = os.path.normpath(os.path.join(manifest.parent, name))  # noqa: PTH118 (hot loop, and no links followed)
    if not _inside(path, manifest.parent):
        raise ManifestError(
            f"Row {number} of '{printable(manifest)}' names '{printable(name)}', which lies outside the manifest's "
            "folder. Put the manifest into a folder above its images."
        )
    split = cells["split"]
    if split is not None and split.lower() not in SPLIT_NAMES:
        raise ManifestError(
            f"Row {number} of '{printable(manifest)}' has the split '{printable(split)}'. "
            "A split is train, val or test."
        )
    return Sample(path, name, cells["label"], SPLIT_NAMES[split.lower()] if split else None, cells["group"])


def _inside(path: str, folder: Path) -> bool:
    root = os.path.abspath(folder)  # noqa: PTH100 (links stay links: a link inside may point anywhere)
    return os.path.commonpath([root, os.path.abspath(path)]) == root  # noqa: PTH100
