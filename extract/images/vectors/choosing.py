"""Which columns of a table, or data sets of a file, are the vectors, and which the labels, splits, groups and paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from featurecache.base.errors import ManifestError, UnfitOption
from featurecache.base.quoting import as_command
from featurecache.base.text import count, printable
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.columns import FIELDS, listed_names, plain_name

# What a column or data set holds: vectors, one number for each row, a text for each, or anything else.
MATRIX, NUMBER, TEXT, OTHER = "matrix", "number", "text", "other"
FEATURES = "features"
# Columns of one number each that are a vector together: features_0, features_1; feature 12.
NUMBERED = re.compile(r"features?[ _.-]?\d+")
LAST_NUMBER = re.compile(r"\d+$")
# What pandas writes as a first column.
INDEX = re.compile(r"|index|unnamed: ?\d+|__index_level_\d+__")

# Columns that number the rows, where all are whole numbers and differ.
ROW_NUMBERS = frozenset({"id", "ids", "idx", "row", "row_id", "rowid", "sample_id", "image_id"})
WHOLE = re.compile(r"\s*\d+(\.0*)?\s*")

Kinds = Mapping[str, str]


def find_fields(path: Path, names: Sequence[str], options: ReadOptions) -> dict[str, str]:
    """Return {field: the name of its column or data set} of those that are there, in the singular or the plural.

    Raises UnfitOption where one that the user names is not, ManifestError where there are two of a name.
    """
    found: dict[str, str] = {}
    for each in FIELDS:
        asked = getattr(options, f"{each}_column", None)
        wanted: tuple[str, ...] = (each, f"{each}s") if asked is None else (plain_name(asked),)
        wanted += (each, f"{each}s") if options.is_usual else ()
        own = [name for word in dict.fromkeys(wanted) for name in names if plain_name(name) == word]
        if asked is not None and not own and not options.is_usual:
            raise UnfitOption(
                f"'{printable(path)}' has no column or data set '{printable(asked)}' (found: {listed_names(names)}). "
                f"Name one of these with --{each}-column."
            )
        if len(own) > 1 and plain_name(own[0]) == plain_name(own[1]):
            raise ManifestError(f"'{printable(path)}' has two columns '{printable(own[0])}'. Give each its own name.")
        if own:
            found[each] = own[0]
    return found


def find_vectors(
    path: Path, kinds: Kinds, options: ReadOptions, *, used: Collection[str] = (), is_sure: bool = False
) -> list[str]:
    """Return the names of the columns or data sets that are the vectors; empty where none are by their names.

    kinds: by name. used: those of the labels and so on. is_sure: whether there are vectors for sure, so that the only
    matrix is them, or else all columns of numbers together. Raises UnfitOption where the user names what is not there.
    """
    if options.features_column is not None and (
        found := _asked(path, kinds, options.features_column, is_usual=options.is_usual)
    ):
        return found
    named = [name for name in kinds if plain_name(name) == FEATURES and (is_sure or kinds[name] == MATRIX)]
    if is_sure and len(named) > 1 and options.features_column is None:
        raise same_names(path, named[0], len(named))
    if named:
        return named[:1]
    numbered = [name for name, kind in kinds.items() if kind == NUMBER and NUMBERED.fullmatch(plain_name(name))]
    if len(numbered) > 1:
        return by_number(numbered)
    if not is_sure:
        return []
    matrices = [name for name, kind in kinds.items() if kind == MATRIX and name not in used]
    if len(matrices) == 1:
        return matrices
    if matrices:
        raise ManifestError(
            f"'{printable(path)}' has {count(len(matrices), 'set')} of vectors: {listed_names(matrices)}. Name one "
            "with --features-column."
        )
    return [
        name
        for name, kind in kinds.items()
        if kind == NUMBER and name not in used and not INDEX.fullmatch(plain_name(name))
    ]


def _asked(path: Path, kinds: Kinds, asked: str, *, is_usual: bool) -> list[str]:
    exact = [name for name in kinds if plain_name(name) == plain_name(asked)]
    begun = [name for name in kinds if kinds[name] == NUMBER and plain_name(name).startswith(plain_name(asked))]
    if not exact and not begun and not is_usual:
        raise UnfitOption(
            f"'{printable(path)}' has no column or data set that is called '{printable(asked)}' or begins so (found: "
            f"{listed_names(list(kinds))}). Name one of these with --features-column."
        )
    return exact[:1] or by_number(begun)


def by_number(names: Sequence[str]) -> list[str]:
    """Return columns of one number each by the numbers that their names end in, where they differ in nothing else.

    So the vectors of two tables are the same, whatever the order of their columns. Others stay in that of the file.
    """
    if not are_numbered(names):
        return list(names)
    return sorted(names, key=lambda name: int(LAST_NUMBER.findall(name.strip())[0]))


def are_numbered(names: Sequence[str]) -> bool:
    """Return whether names differ only in the number at their end."""
    starts = {LAST_NUMBER.sub("", plain_name(name)) for name in names}
    return len(starts) == 1 and all(LAST_NUMBER.search(name.strip()) for name in names)


def check_names(path: Path, wanted: Iterable[str], header: Iterable[str]) -> None:
    """Raise ManifestError where several columns have one of the wanted names: which is meant cannot be known."""
    n_of = Counter(header)
    for name in wanted:
        if n_of[name] > 1:
            raise same_names(path, name, n_of[name])


def same_names(path: Path, name: str, n: int) -> ManifestError:
    """Return the error for a name that several columns share."""
    return ManifestError(
        f"'{printable(path)}' has {n} columns '{printable(name)}', and a column is known by its name. Give each its "
        "own name."
    )


def row_number_note(names: Sequence[str], cells_of: Callable[[str], Sequence[str | None]]) -> str:
    """Return a sentence on a column among those of the vectors that looks like the number of each row; empty if none.

    cells_of: returns the N cells of a column.
    """
    for name in names if len(names) > 1 else ():
        if plain_name(name) not in ROW_NUMBERS:
            continue
        cells = cells_of(name)
        if len(set(cells)) == len(cells) > 1 and all(WHOLE.fullmatch(cell or "") for cell in cells):
            return (
                f"'{printable(name)}' is among the vectors and looks like the number of each row: name it with "
                f"--path-column {as_command([printable(name.strip())])} to leave it out."
            )
    return ""


def no_vectors(path: Path, names: Sequence[str]) -> ManifestError:
    """Return the error for a file in which nothing is found to be vectors."""
    return ManifestError(
        f"'{printable(path)}' has no column or data set '{FEATURES}' (found: {listed_names(names)}). Name the one with "
        "the vectors, or the beginning of the names of their columns, with --features-column."
    )
