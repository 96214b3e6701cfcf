"""Which images there are: folders and manifests become samples.

Three shapes are read. A folder of class folders, with or without train/ val/ test/ above them; a flat folder, whose
samples have no label; a manifest (.csv, .tsv, .parquet) with a column `path` and optionally `label`, `split`, `group`.
Samples come sorted by their path, so that the same images give the same order on every machine.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extract.errors import ManifestError, NoSuchImages
from extract.parquet_files import table_fault

# What Pillow reads as a still picture by itself, without an outside program or a plug-in. Asking Pillow costs 0.2 s at
# every start, so the list stands here and a test compares it with Pillow's own registry.
_SUFFIX_LIST = """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico .iim
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr
    .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm
"""
IMAGE_SUFFIXES = frozenset(_SUFFIX_LIST.split())
MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
COLUMNS = ("path", "label", "split", "group")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and what is known of it.

    `path` opens the file; `name` is the path as users know it, relative to the folder they named.
    """

    path: str
    name: str
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The samples of one data set, in a fixed order, with what was left out and why.

    `unreadable`: the folders whose images, if there are any, could not be seen; each has its note too. `name`: what the
    data set is called, that of a manifest file without its suffix; empty where it is that of the folder.
    """

    root: Path
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = field(default=())
    unreadable: tuple[str, ...] = field(default=())
    name: str = ""

    @property
    def classes(self) -> list[str]:
        """The class names, sorted."""
        return sorted({sample.label for sample in self.samples if sample.label is not None})

    def __len__(self) -> int:
        return len(self.samples)


def printable(text: str | os.PathLike[str]) -> str:
    r"""A path or class name that is safe on a terminal and in a file.

    Control characters, line separators and bytes that are not UTF-8 come out as backslash escapes.
    """
    characters = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    if characters.isprintable():
        return characters
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in characters)


def read_images(images: str | os.PathLike[str]) -> Manifest:
    """Read a folder, a manifest or a single image file as samples.

    Raises NoSuchImages when there is nothing there, ManifestError when there is nothing in it.
    """
    path = Path(images)
    if os.path.isdir(path):  # noqa: PTH112 (pathlib's own raises where a name is too long or a folder is closed)
        return scan_folder(path)
    if not os.path.exists(path):  # noqa: PTH110
        raise NoSuchImages(f"There is no folder or file '{printable(path)}'. Check the path.")
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return read_manifest(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Manifest(path.parent, (Sample(str(path), path.name),))
    raise ManifestError(
        f"'{printable(path)}' is neither a folder, an image nor a manifest. "
        f"A manifest ends in {', '.join(MANIFEST_SUFFIXES)} and has a column 'path'."
    )


def scan_folder(root: str | os.PathLike[str]) -> Manifest:
    """Read a folder of images: class folders, splits over class folders, or flat.

    Raises ManifestError when the folder holds no image, or when splits and other folders stand side by side.
    """
    root = Path(root)
    tree = _Tree()
    here, folders = tree.list_folder(root)
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    is_split = bool(folders) and all(splits.values())
    if is_split:
        samples = [s for folder, split in splits.items() for s in tree.labelled(root, folder, split)]
    elif "train" in splits.values():
        strangers = ", ".join(f"'{printable(folder.name)}'" for folder, split in splits.items() if split is None)
        raise ManifestError(
            f"'{printable(root)}' has a folder 'train' and beside it {strangers}, so splits and classes cannot be told "
            "apart. Name the splits train, val and test and move everything else away, or write a manifest."
        )
    else:
        samples = list(tree.labelled(root, root, None))
    if here and (is_split or any(sample.label is not None for sample in samples)):
        stray = set(here)
        samples = [sample for sample in samples if sample.path not in stray]
        tree.notes.append(f"{len(here)} images directly in '{printable(root)}' belong to no class and are left out.")
    if tree.n_other:
        tree.notes.append(f"{tree.n_other} files that are not images are left out.")
    if not samples:
        raise ManifestError(
            f"'{printable(root)}' holds no images{_and_not(tree)}. "
            "Put one folder per class into it, or images without folders to extract or predict only."
        )
    samples.sort(key=lambda s: os.fsencode(s.name))
    return Manifest(root, tuple(samples), tuple(tree.notes), tuple(tree.unreadable))


def _and_not(tree: _Tree) -> str:
    return f" ({' '.join(tree.notes)})" if tree.notes else ""


class _Tree:
    """A walk that follows links without going round in circles and remembers what it left out."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.unreadable: list[str] = []
        self.n_other = 0
        self._listed: dict[Path, tuple[list[str], list[Path]]] = {}

    def list_folder(self, folder: Path) -> tuple[list[str], list[Path]]:
        """The images and the folders directly in `folder`, hidden ones left out, each sorted.

        Images are strings: 70,000 of pathlib's objects took 25 MB and 0.6 s more.
        """
        if folder in self._listed:
            return self._listed[folder]
        images: list[str] = []
        folders: list[Path] = []
        prefix = _prefix(folder)
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda e: os.fsencode(e.name)):
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if self._is_folder(entry):
                        folders.append(Path(entry.path))
                    elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 (hot loop)
                        images.append(prefix + entry.name)
                    else:
                        self.n_other += 1
        except OSError as error:
            self.unreadable.append(str(folder))
            self.notes.append(f"The folder '{printable(folder)}' cannot be read ({error.strerror}) and is left out.")
        self._listed[folder] = (images, folders)
        return images, folders

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except PermissionError:  # a link into a closed folder, and perhaps to a folder there
            return os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES  # noqa: PTH122
        except OSError:  # a link to itself
            return False

    def labelled(self, root: Path, parent: Path, split: str | None) -> Iterator[Sample]:
        """Samples below `parent`: its folders are the classes, images directly in it have no label."""
        images, folders = self.list_folder(parent)
        above = _prefix(root)
        for path in images:
            yield _sample(above, path, None, split)
        for folder in folders:
            for path in self.walk(folder, seen=frozenset({_identity(root), _identity(parent)})):
                yield _sample(above, path, folder.name, split)

    def walk(self, folder: Path, *, seen: frozenset[tuple[int, int] | None]) -> Iterator[str]:
        """Every image at any depth below `folder`; a link back to a folder on the way is not followed."""
        waiting = [(folder, seen)]  # and no recursion: folders can be nested deeper than Python's calls
        while waiting:
            folder, above = waiting.pop()
            identity = _identity(folder)
            if identity in above:
                self.notes.append(f"The link '{printable(folder)}' leads back to a folder above it and is left out.")
                continue
            images, folders = self.list_folder(folder)
            yield from images
            waiting += [(inner, above | {identity}) for inner in reversed(folders)]


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _prefix(folder: Path) -> str:
    """What stands before the names in a folder: nothing for the one we are in."""
    return "" if folder == Path() else os.path.join(folder, "")  # noqa: PTH118 (pathlib drops the last separator)


def _sample(above: str, path: str, label: str | None, split: str | None) -> Sample:
    return Sample(path, path.removeprefix(above).replace(os.sep, "/"), label, split)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a table of images: .csv, .tsv or .parquet with columns path, label, split, group (all but path optional).

    Paths are relative to the manifest's folder and may not lead out of it. Raises ManifestError in one sentence that
    names the column, the row or the file at fault.
    """
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 (a pipe would be waited for)
        raise ManifestError(f"The manifest '{printable(path)}' is not an ordinary file. Name a table that is one.")
    rows = list(_read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path))
    if not rows:
        raise ManifestError(f"The manifest '{printable(path)}' has no rows: give it one for each image.")
    samples = tuple(_row_sample(path, number, row) for number, row in enumerate(rows, start=1))
    missing = [sample for sample in samples if not os.path.isfile(sample.path)]  # noqa: PTH113 (hot loop)
    if missing:
        raise ManifestError(
            f"{len(missing)} of the {len(samples)} files named in '{printable(path)}' are not there, "
            f"the first is '{printable(missing[0].name)}'. Correct the manifest or put the files in place."
        )
    return Manifest(path.parent, samples, name=path.stem)


def _read_csv(path: Path) -> Iterator[Mapping[str, str]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            _check_columns(path, reader.fieldnames or [])
            for row in reader:
                yield {key.strip().lower(): value for key, value in row.items() if key is not None and value}
    except (OSError, csv.Error) as error:
        raise ManifestError(
            f"The manifest '{printable(path)}' cannot be read: {_one_line(error)}. Save it as a table in UTF-8."
        ) from error


def _read_parquet(path: Path) -> Iterator[Mapping[str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            names = parquet.schema_arrow.names
            _check_columns(path, names)
            if fault := table_fault(parquet, COLUMNS, path.stat().st_size):
                raise ManifestError(f"The manifest '{printable(path)}' {fault}. Write one text a row, a row an image.")
            table = parquet.read(columns=[name for name in names if name.strip().lower() in COLUMNS])
            rows = table.to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = _one_line(error)
        raise ManifestError(
            f"The manifest '{printable(path)}' cannot be read as Parquet: {reason}. Write it anew, or as .csv."
        ) from error
    for row in rows:
        yield {key.strip().lower(): str(value) for key, value in row.items() if value is not None}


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()).rstrip(". "))


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "path" not in (column.strip().lower() for column in columns):
        found = ", ".join(printable(column) for column in columns) or "none"
        raise ManifestError(
            f"The manifest '{printable(path)}' has no column 'path' (found: {found}). "
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


def merge(manifests: Iterable[Manifest]) -> Manifest:
    """Several data sets as one, in the order given; names are kept as each had them."""
    parts = list(manifests)
    samples = tuple(sample for part in parts for sample in part.samples)
    notes = tuple(note for part in parts for note in part.notes)
    return Manifest(parts[0].root, samples, notes, tuple(folder for part in parts for folder in part.unreadable))
