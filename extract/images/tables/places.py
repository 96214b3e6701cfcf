"""The files of a table: where its paths lead, and how a path that leads nowhere may be meant.

A path is relative to the folder of the table; where no file is there, to the working folder, or to a folder above the
table: one of them for the whole table. A file may only be below the folder of the table, or below the root that the
user names: a table from a stranger cannot make an image of any other file. Paths that lead to no file are then read
with slashes for backslashes and with their percent signs decoded, and sought in each folder by names that are equal but
for their Unicode form, their case or spaces around them, or that are the name of one image with a suffix.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from featurecache.base.errors import ManifestError, UnfitOption
from featurecache.base.quoting import as_command
from featurecache.base.text import count, printable
from featurecache.extract.images.formats import format_of
from featurecache.extract.images.left_out import suffix_of
from featurecache.extract.images.read_options import HDF5_SUFFIXES, ReadOptions

WINDOWS, ADDRESS = re.compile(r"[A-Za-z]:[\\/]|\\\\"), re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
FILE_ADDRESS = re.compile(r"file:(//(localhost)?)?(?=/)")
MOST_ABOVE = 4  # folders above that of the table
MOST_BELOW = 100  # folders in that of the table that are looked at for a file that is not there
SLASHES, UNICODE, CASE = "with / for \\", "in another Unicode form", "in another case, or without spaces around it"
DECODED, SUFFIX = "with % and two digits decoded", "with the suffix of the one image of that name"


@dataclass(frozen=True)
class Files:
    """The path of each of N files, there or not, the rows of those that are not, and notes on how they were found."""

    paths: list[str]
    missing: list[int]
    notes: list[str]


def find_files(table: Path, names: Sequence[str], options: ReadOptions, *, known: Sequence[bool]) -> Files:
    """Return the files that the N cells of a table's column of paths mean; known: those whose digest is known.

    Raises ManifestError for a path that leads out of the folders that are allowed, and where no file is there.
    """
    finder = _Finder(table, _roots(table, options))
    names = [FILE_ADDRESS.sub("", name, count=1) if name.startswith("file:/") else name for name in names]
    if not (table.parent / "~").exists():
        names = [os.path.expanduser(name) if name.startswith("~/") else name for name in names]  # noqa: PTH111
    for number, name in enumerate(names, start=1):
        finder.check(number, name, names)
    base = next((base for base in finder.bases if any(_is_file(finder.at(base, name)) for name in names)), None)
    if base is None:
        base = next((base for base in finder.bases if any(finder.similar(base, name) for name in names)), None)
    if base is None and not all(known):
        raise finder.nothing_there(names, known)
    paths = [finder.find(base or finder.bases[0], i, name) for i, name in enumerate(names)]
    finder.part_rows(base or finder.bases[0], names, paths)
    return Files(
        paths,
        finder.missing,
        [*finder.base_note(base), *finder.found_notes(names, paths), *finder.missing_notes(names, paths, known)],
    )


def _roots(table: Path, options: ReadOptions) -> list[Path]:
    if options.root is None:
        return [table.parent]
    root = Path(options.root)
    if not root.is_dir():
        raise UnfitOption(f"There is no folder '{printable(root)}'. Name the one that holds the files with --root.")
    return [root, table.parent]


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 (hot loop)


@dataclass
class _Finder:
    """The files of one table. roots: the folders that its files may be in, that of the user first."""

    table: Path
    roots: list[Path]
    listed: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    turned: dict[int, str] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inside = tuple(os.path.join(os.path.abspath(root), "") for root in self.roots)  # noqa: PTH100, PTH118
        self.bases = [*self.roots, Path(), *self.table.absolute().parent.parents[:MOST_ABOVE]]

    def at(self, base: Path, name: str) -> str:
        """Return the path that a cell means below a base; empty where it leads out of the folders that are allowed."""
        path = os.path.normpath(os.path.join(base, name))  # noqa: PTH118 (hot loop, and no links followed)
        return path if (base in self.roots and _stays_below(name)) or self._is_allowed(path) else ""

    def _is_allowed(self, path: str) -> bool:
        return os.path.abspath(path).startswith(self.inside)  # noqa: PTH100 (hot loop)

    def check(self, number: int, name: str, names: Sequence[str]) -> None:
        """Raise ManifestError where a cell means no file in any of the folders that are allowed."""
        if _stays_below(name) or any(self.at(base, name) for base in self.bases):
            return
        row = f"Row {number} of '{printable(self.table)}' names '{printable(name)}', which lies outside"
        there = Path(os.path.normpath(self.table.parent / name))
        if len(self.roots) > 1:
            both = f"{row} '{printable(self.roots[0])}' and the manifest's folder"
            if not any(_is_file(os.path.join(root, name)) for root in self.roots):  # noqa: PTH118
                raise ManifestError(f"{both} and is not there. Write paths relative to one of them.")
            raise ManifestError(f"{both}. Name a folder above both with --root.")
        if not _is_file(str(there)):
            raise ManifestError(
                f"{row} the manifest's folder and is not there. Write paths relative to the manifest, or put it into a "
                "folder above its images."
            )
        root = as_command(["--root", printable(self._common(names))])
        raise ManifestError(
            f"{row} the manifest's folder. Allow it with {root}, or put the manifest into a folder above its images."
        )

    def _common(self, names: Sequence[str]) -> str:
        """Return the folder that holds all of the files."""
        folders = {os.path.dirname(os.path.abspath(self.table.parent / name)) for name in names}  # noqa: PTH100, PTH120
        try:
            return os.path.commonpath(folders)
        except ValueError:  # on several drives of Windows
            return min(folders)

    def find(self, base: Path, i: int, name: str) -> str:
        """Return the path of a file, as it is written or as it may be meant; as it is written where it is not there."""
        path = self.at(base, name)
        if path and _is_file(path):
            return path
        similar = self.similar(base, name)
        if similar is None:
            self.missing.append(i)
            return self._as_written(base, name)
        self.turned[i], path = similar
        return path

    def _as_written(self, base: Path, name: str) -> str:
        return self.at(base, name) or self.at(self.roots[0], name) or self.at(self.roots[-1], name)

    def part_rows(self, base: Path, names: Sequence[str], paths: list[str]) -> None:
        """Let rows miss their file that would share one, in another case, with rows that name it in another way."""
        meant: dict[str, set[str]] = {}
        for name, path in zip(names, paths, strict=True):
            meant.setdefault(path, set()).add(name)
        for i in [i for i, how in self.turned.items() if how == CASE and len(meant[paths[i]]) > 1]:
            del self.turned[i]
            paths[i] = self._as_written(base, names[i])
            self.missing.append(i)
        self.missing.sort()

    def similar(self, base: Path, name: str) -> tuple[str, str] | None:
        """Return how a path may be meant, and the file that is there then; None where there is none, or are several."""
        turned = name.replace("\\", "/")
        path = self.at(base, turned)
        if turned != name and path and _is_file(path):
            return SLASHES, path
        decoded = unquote(turned, errors="surrogateescape") if "%" in turned and "%00" not in turned else turned
        path = self.at(base, decoded)
        if decoded != turned and path and _is_file(path):
            return DECODED, path
        for how, key in ((UNICODE, _composed), (CASE, _folded)):
            path = self._walk(base, turned, key)
            if path and _is_file(path) and self._is_allowed(path):
                return how, path
        path = self._with_suffix(base, turned)
        return (SUFFIX, path) if path and _is_file(path) and self._is_allowed(path) else None

    def _with_suffix(self, base: Path, name: str) -> str:
        """Return the path of the one image whose name is this and a suffix; empty where there is not one."""
        path = self.at(base, name)
        folder, _, stem = path.rpartition(os.sep)
        if not stem or _is_named_fully(stem):
            return ""
        found = self._entries(folder or ".", _stem).get(stem, [])
        return os.path.join(folder, found[0]) if len(found) == 1 else ""  # noqa: PTH118

    def _walk(self, base: Path, name: str, key: Callable[[str], str]) -> str:
        """Return the path of the one file that is named so but for what `key` takes away; empty where there is none."""
        root = next((root for root in self.inside if name.startswith(root)), None)
        path = root or os.path.join(base, "")  # noqa: PTH118
        for part in name.removeprefix(root or "").split("/"):
            if part in ("", "."):
                continue
            found = [part] if part == ".." else self._entries(path, key).get(key(part), [])
            if len(found) != 1:
                return ""
            path = os.path.join(path, found[0])  # noqa: PTH118
        return os.path.normpath(path)

    def _entries(self, folder: str, key: Callable[[str], str]) -> dict[str, list[str]]:
        at = f"{key.__name__}:{folder}"
        if at not in self.listed:
            entries: dict[str, list[str]] = {}
            for entry in _names_in(folder):
                entries.setdefault(key(entry), []).append(entry)
            self.listed[at] = entries
        return self.listed[at]

    def nothing_there(self, names: Sequence[str], known: Sequence[bool]) -> ManifestError:
        """Return the error for a table none of whose files is there."""
        name = names[list(known).index(False)]
        likely = self.bases[: len(self.roots) + 1]
        tried = list(dict.fromkeys(os.path.abspath(self.at(base, name)) for base in likely if self.at(base, name)))  # noqa: PTH100
        what = " These are paths of a Windows machine." if WINDOWS.match(name) else ""
        if ADDRESS.match(name):
            what = " These are addresses, from which nothing is fetched: download the files."
        n = len(names) - sum(known)
        places = " and ".join(f"'{printable(place)}'" for place in tried)
        which = f"the first, '{printable(name)}'," if len(names) > 1 else f"'{printable(name)}'"
        return ManifestError(
            f"{n:,} of the {len(names):,} files named in '{printable(self.table)}' are not there: {which} was looked "
            f"for as {places}.{what} {self._advice(name)}"
        )

    def _advice(self, name: str) -> str:
        """Return what to do about a file that is not there; where it is in a folder below, that one is named."""
        for folder in sorted(filter(Path.is_dir, self.roots[0].glob("*")))[:MOST_BELOW]:
            if _is_file(self.at(folder, name)) or self.similar(folder, name):
                root = as_command(["--root", printable(folder)])
                return f"There is one in '{printable(folder)}': name that folder with {root}."
        return "Correct the paths, or name the folder that they are relative to with --root."

    def base_note(self, base: Path | None) -> Iterator[str]:
        """Yield a note where paths are not relative to the folder of the table."""
        if base is not None and os.path.join(base.absolute(), "") not in self.inside:  # noqa: PTH118
            yield (
                f"Paths in '{printable(self.table)}' are relative to '{printable(base.absolute())}': relative to the "
                "folder of the table there are none of its files."
            )

    def found_notes(self, names: Sequence[str], paths: Sequence[str]) -> Iterator[str]:
        """Yield a note for each way in which paths were read otherwise than they are written."""
        for how, n in Counter(self.turned.values()).items():
            first = next(i for i, each in self.turned.items() if each == how)
            example = f"'{printable(names[first])}' is '{printable(paths[first])}'"
            yield f"{count(n, 'path')} of '{printable(self.table)}' read {how}: {example}."

    def missing_notes(self, names: Sequence[str], paths: Sequence[str], known: Sequence[bool]) -> Iterator[str]:
        """Yield a note on the files that are not there, and one on those that are known by their digest."""
        lost = [i for i in self.missing if not known[i]]
        if lost:
            name, at = names[lost[0]], os.path.abspath(paths[lost[0]])  # noqa: PTH100
            yield (
                f"{len(lost):,} of the {len(names):,} files named in '{printable(self.table)}' are not there: "
                f"the first, '{printable(name)}', was looked for as '{printable(at)}'."
            )
        n = len(self.missing) - len(lost)
        if n:
            yield (
                f"{n:,} of the {len(names):,} files named in '{printable(self.table)}' are not there and are known by "
                "their digest: features of them can be found in a cache, not extracted."
            )


def _stays_below(name: str) -> bool:
    """Whether a path leads out of no folder that it is relative to; most do not, and need no further look."""
    return ".." not in name and ":" not in name and name[:1] not in ("/", "\\")


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except (OSError, ValueError):  # ValueError for a zero byte in its name
        return []


def _stem(name: str) -> str:
    """Return the name of an image without its suffix; that of another file, which is none, with a mark."""
    return name[: -len(suffix_of(name))] if _is_named_fully(name) else f"{name}/"


def _is_named_fully(name: str) -> bool:
    """Return whether a name has the suffix of an image, or of a file with vectors."""
    suffix = suffix_of(name)
    return format_of(suffix) is not None or suffix in HDF5_SUFFIXES


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
