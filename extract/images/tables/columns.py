"""The columns of a table: which means what, and those that are not used, with hints where a name looks like one.

A hint is all that a synonym gives: a column `class` beside a column `species` may be either's label.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featurecache.base.errors import ManifestError, UnfitOption
from featurecache.base.quoting import as_command
from featurecache.base.text import printable
from featurecache.extract.images.formats import format_of
from featurecache.extract.images.left_out import suffix_of
from featurecache.extract.images.read_options import ReadOptions

FIELDS = ("path", "label", "split", "group", "digest")
# What people call these columns in English, German, French and Spanish, without accents: words that are alone in a
# name, or that it begins with.
WORDS = {
    "split": ("set", "fold", "subset", "phase", "partition", "usage", "aufteilung", "teilmenge", "jeu", "conjunto"),
    "group": ("patient", "subject", "site", "participant", "individual", "animal", "slide", "video", "session",
              "camera", "location", "scene", "gruppe", "proband", "groupe", "sujet", "grupo", "paciente"),
    "label": ("class", "target", "category", "labels", "lbl", "species", "diagnosis", "breed",
              "klasse", "kategorie", "diagnose", "categorie", "etiquette", "espece", "clase", "categoria", "etiqueta",
              "especie"),
    "path": ("filename", "file", "image", "img", "filepath", "picture", "photo", "paths",
             "datei", "bild", "pfad", "foto", "fichier", "chemin", "archivo", "fichero", "ruta"),
}  # fmt: skip
SHORTEST_BEGINNING = 4  # "set" begins "settings" too
INDEX = re.compile(r"|index|unnamed: ?\d+|__index_level_\d+__")
MOST_NAMED = 8

Column = list[str | None]


@dataclass
class Columns:
    """The columns of a table that are read: places in its header by field, and N cells for each.

    note: on those that are not used.
    """

    header: list[str]
    places: dict[str, int]
    cells: dict[str, Column] = field(default_factory=dict)
    note: str = ""

    def of(self, name: str) -> Column:
        """Return the N cells of a field, None for each where the table lacks it."""
        return self.cells.get(name) or [None] * len(self.cells.get("path", []))


def find_columns(header: Sequence[str], options: ReadOptions) -> dict[str, list[int]]:
    """Return the places in the header of each field that is there."""
    by_name: dict[str, list[int]] = {}
    for place, name in enumerate(header):
        by_name.setdefault(plain_name(name), []).append(place)
    found = {}
    for each in FIELDS:
        places = by_name.get(plain_name(_wanted(each, options)))
        if not places and options.is_usual:
            places = by_name.get(each)
        if places:
            found[each] = places
    return found


def choose_columns(
    path: Path, header: Sequence[str], options: ReadOptions, *, rows: Iterable[Sequence[str]] = ()
) -> Columns:
    """Return the columns to read. Raises ManifestError where one is not there or is there twice.

    rows: the first ones, read only where no column is that of the paths, to find out which has the names of files.
    """
    found = find_columns(header, options)
    for each in FIELDS:
        asked = getattr(options, f"{each}_column", None)
        if asked is not None and each not in found and not options.is_usual:
            raise UnfitOption(
                f"The manifest '{printable(path)}' has no column '{printable(asked)}' (found: {listed_names(header)}). "
                f"Name one of these with --{each}-column."
            )
        if len(found.get(each, [])) > 1:
            column = printable(_wanted(each, options))
            raise ManifestError(
                f"The manifest '{printable(path)}' has {len(found[each])} columns '{column}'. Give each its own name."
            )
    if "path" not in found:
        lack = _without_path(header, _with_files(path, header, options, rows=rows))
        raise ManifestError(f"The manifest '{printable(path)}' {lack}")
    columns = Columns(list(header), {each: places[0] for each, places in found.items()})
    columns.note = unused_note(columns)
    return columns


def no_label_hint(columns: Columns) -> str:
    """Return what to do about a table without a column of labels; empty for one that has it."""
    if "label" in columns.places:
        return ""
    hints = _hints(columns.header, {"label"})
    say = f"{hints}." if hints else "Name the column of classes with --label-column."
    return f"The table has no column 'label' (found: {listed_names(columns.header)}). {say[:1].upper()}{say[1:]}"


def _wanted(name: str, options: ReadOptions) -> str:
    return getattr(options, f"{name}_column", None) or name


def plain_name(name: str) -> str:
    """Return the name of a column as it is compared with others."""
    return name.strip().strip("\ufeff").lower()


def listed_names(header: Sequence[str]) -> str:
    """Return the first names of a header with commas between them."""
    names = [printable(name) or "''" for name in header]
    more = [f"and {len(names) - MOST_NAMED:,} more"] if len(names) > MOST_NAMED + 1 else []
    return ", ".join([*names[: MOST_NAMED if more else None], *more]) or "none"


def _with_files(path: Path, header: Sequence[str], options: ReadOptions, *, rows: Iterable[Sequence[str]]) -> str:
    """Return the name of the first column with a cell that is the name of a file; empty where none has one."""
    bases = [path.parent, Path(), *([Path(options.root)] if options.root else [])]
    for cells in rows:
        for name, cell in zip(header, cells, strict=False):
            if name.strip() and cell.strip() and any(os.path.isfile(base / cell.strip()) for base in bases):  # noqa: PTH113
                return name
    return ""


def _without_path(header: Sequence[str], with_files: str) -> str:
    """Return what a table without a column of paths lacks, and what to do.

    with_files: the column that has names of files; empty where none is known.
    """
    if "".join(header[:1]).strip().startswith(("{", "[")):
        return "is JSON, which is not read. Write it as a table with a header, such as: path,label"
    first = next((name for name in header if _is_image_name(name)), None)
    if first is not None:
        return (
            f"has no header: its first line is a row already ('{printable(first[:80])}'). Write a line with the names "
            f"of the columns above it, such as: path,label"
        )
    lacking = set(WORDS) - set(map(plain_name, header))
    if _hints(header, {"path"}, with_files):
        advice = f"{_hints(header, lacking, with_files)}."
    elif len(header) == 1 and "path" in header[0].lower().split():
        advice = "Put a comma, semicolon, tab or | between the columns: spaces do not part them."
    else:
        advice = (
            f"Its first line names the columns: {', '.join(FIELDS)}; all but path may be left out. "
            "Where another column has the files, name it with --path-column. Where its numbers are vectors, add "
            "--as vectors, or name their columns with --features-column."
        )
    return f"has no column 'path' (found: {listed_names(header)}). {advice}"


def _is_image_name(text: str) -> bool:
    """Whether a cell is the name of an image, or begins with one, as where the delimiter is a space."""
    names = (text.strip("'\" "), text.split(" ")[0])
    return any(format_of(suffix_of(name)) is not None for name in names)


def unused_note(columns: Columns) -> str:
    """Return a sentence on the columns that are not used, with hints; empty where all are."""
    used = set(columns.places.values())
    unused = [
        name for i, name in enumerate(columns.header) if i not in used and not INDEX.fullmatch(name.strip().lower())
    ]
    if not unused:
        return ""
    hints = _hints(unused, set(WORDS) - set(columns.places))
    which = "One column is not used" if len(unused) == 1 else f"{len(unused):,} columns are not used"
    return f"{which}: {listed_names(unused)}.{f' {hints}.' if hints else ''}"


def _hints(names: Sequence[str], lacking: set[str], with_files: str = "") -> str:
    """Return a clause for each field that is lacking and that a name looks like; with_files: that of paths, if any."""
    clauses = []
    found = {"path": with_files} if with_files else {}
    for each in ("path", "label", "group", "split"):
        if each not in lacking:
            continue
        name = found.get(each) or next((name for name in names if looks_like(name, each)), None)
        if name is not None:
            clauses.append(f"'{printable(name)}' looks like the {each}: name it with --{each}-column {_word(name)}")
    return "; ".join(clauses)


def looks_like(name: str, field_name: str) -> bool:
    """Whether people call the column of a field so."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    tokens = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", plain)
    whole = "".join(tokens).lower()
    words = WORDS[field_name]
    begins = any(whole.startswith(word) for word in words if len(word) >= SHORTEST_BEGINNING)
    return begins or any(token.lower() in words for token in tokens)


def _word(name: str) -> str:
    """Return a name as a word of a command line."""
    return as_command([printable(name.strip())])
