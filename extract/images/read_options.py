"""Options of reading a data set: what the folders mean, the columns of a table, and where its files may be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from featurecache.base.described import described, descriptions, option_name
from featurecache.base.errors import RequestError
from featurecache.base.values import no_such
from featurecache.extract.images.folders.layouts import parse_layout

# The longest value.
LONGEST = 4096
OF_TABLES = ("path_column", "label_column", "group_column", "split_column", "root")
# What a file may be read as: vectors, or a table of images.
VECTORS, MANIFEST = AS = ("vectors", "manifest")
HDF5_SUFFIXES = (".h5", ".hdf5")
# Of files that hold vectors and nothing else.
VECTOR_SUFFIXES = (".npz", *HDF5_SUFFIXES)


@dataclass(frozen=True)
class ReadOptions:
    """How a data set is read; None for the usual way.

    A described field is an option of the command line and is recorded in a run. is_usual: these are the values of a
    run, for another data set: a column that a table lacks is sought under its usual name.
    """

    path_column: str | None = described(
        None, "the column of a table that names the files (default: path)", metavar="NAME"
    )
    label_column: str | None = described(
        None, "the column of a table with the classes (default: label)", metavar="NAME"
    )
    group_column: str | None = described(
        None, "the column of a table with what must stay on one side of the split (default: group)", metavar="NAME"
    )
    split_column: str | None = described(
        None, "the column of a table with train, val and test (default: split)", metavar="NAME"
    )
    root: str | None = described(
        None, "a folder below which the files of a table may be, where that is not the table's own", metavar="DIR"
    )
    layout: str | None = described(
        None,
        "what the levels of folders mean, from the top: class, split/class, class/split, any/class, class/group, leaf "
        "(the whole path is the class), and so on, or flat for no labels (default: found out, where there is one way)",
        metavar="LEVELS",
    )
    as_: str | None = described(
        None,
        "read a file as vectors, or as a table of images (default: vectors where it has a column or data set "
        "'features')",
        choices=AS,
    )
    features_column: str | None = described(
        None,
        "the column or data set with the vectors, or the beginning of the names of their columns (default: features)",
        metavar="NAME",
    )
    is_usual: bool = False

    def __post_init__(self) -> None:
        for name in descriptions(type(self)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and 0 < len(value) <= LONGEST and "\0" not in value):
                raise RequestError(f"The {name.replace('_', ' ')} is {str(value)[:40]!r} and has to be a name.")
        if self.as_ is not None and (wrong := no_such("way to read a file", self.as_, AS)):
            raise RequestError(wrong)
        if self.layout is not None:
            parse_layout(self.layout)

    @classmethod
    def from_dict(cls, values: Any) -> ReadOptions:
        """Return the options with these values, the inverse of `given`. Raises RequestError for any others."""
        if not isinstance(values, dict) or not set(values) <= set(descriptions(cls)):
            raise RequestError("Options of reading have the described fields of ReadOptions and no others.")
        return cls(**values)

    def given(self) -> dict[str, Any]:
        """Return {name: value} of the described fields that differ from their defaults."""
        usual = {each.name: each.default for each in fields(self)}
        return {name: getattr(self, name) for name in descriptions(type(self)) if getattr(self, name) != usual[name]}

    def of_tables(self) -> list[str]:
        """Return the given options that mean something for tables only, as they are written on the command line."""
        return [option_name(name) for name in self.given() if name in OF_TABLES]

    def about(self, *, tables: bool) -> ReadOptions:
        """Return the same without the options that mean something for folders only, or for tables only."""
        kept = {name: value for name, value in self.given().items() if (name in OF_TABLES) == tables}
        return ReadOptions(**{**kept, "is_usual": self.is_usual})

    def from_anywhere(self) -> ReadOptions:
        """Return the same with an absolute path, for commands that are given in another working folder."""
        return self if self.root is None else replace(self, root=str(Path(self.root).absolute()))

    def over(self, usual: ReadOptions) -> ReadOptions:
        """Return these options, or where none is given those of a run but for its root."""
        own = self.given()
        if own or not usual.given():
            return self
        return ReadOptions(**{**asdict(usual), "root": None, "is_usual": True})
