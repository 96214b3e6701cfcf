"""A file of vectors as a Manifest: a sample for each row, with its label, split and group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.base.errors import ManifestError, UnfitOption
from featurecache.base.text import printable
from featurecache.extract.images.class_names import remark_on_alike, remark_on_several
from featurecache.extract.images.manifest import Manifest, Sample
from featurecache.extract.images.read_options import ReadOptions
from featurecache.extract.images.tables.cells import clean_labels, without_missing
from featurecache.extract.images.tables.columns import Column, Columns, no_label_hint, plain_name, unused_note
from featurecache.extract.images.tables.read_table import digests_of, splits_of
from featurecache.extract.images.vectors.choosing import (
    TEXT,
    are_numbered,
    find_fields,
    find_vectors,
    no_vectors,
    row_number_note,
)
from featurecache.extract.images.vectors.opening import open_source
from featurecache.extract.images.vectors.origin import find_origin, name_of
from featurecache.extract.images.vectors.pooled import read_pooled_folder
from featurecache.extract.images.vectors.rows import Rows, digest_rows
from featurecache.extract.images.vectors.vectors import Vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What `featurecache cache export` writes into .npz files besides the columns.
OWN_ARRAYS = frozenset({"classes", "backbone", "weights", "key", "spec", "created"})

ALL_MISSING = (
    "All values of its column of labels are missing: give its rows labels, or name another with --label-column."
)


@dataclass
class VectorTable:
    """N rows of D numbers and the cells of their other columns by field; notes: on how they were read.

    digests: of each row (N, 32). no_labels: what to do where there is no column of labels. columns: see `plain_spec`.
    """

    rows: Rows
    digests: NDArray[np.uint8]
    cells: Mapping[str, Column] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    no_labels: str = ""
    columns: str = ""


def read_vectors(path: Path, options: ReadOptions) -> Manifest:
    """Read a file of vectors, or a folder of .h5 files, as samples. Raises ManifestError in one sentence."""
    if path.is_dir():
        if given := options.of_tables():
            raise UnfitOption(
                f"'{printable(path)}' is a folder of vectors, and {given[0]} is about tables: leave it out."
            )
        return read_pooled_folder(path, options)
    for name in () if options.is_usual else ("layout", "root"):
        if getattr(options, name) is not None:
            raise UnfitOption(f"'{printable(path)}' holds vectors, and --{name} is about images: leave it out.")
    source = open_source(path, options)
    names = list(source.kinds)
    fields = find_fields(path, names, options)
    vectors = find_vectors(path, source.kinds, options, used=fields.values(), is_sure=True)
    if not vectors:
        raise no_vectors(path, names)
    fields = {each: name for each, name in fields.items() if name not in vectors}
    rows = source.rows(vectors)
    others = [name for name in names if name not in vectors and name not in OWN_ARRAYS - set(fields.values())]
    columns = Columns(others, {each: others.index(name) for each, name in fields.items()})
    stated = (_which(vectors), row_number_note(vectors, source.cells), unused_note(columns))
    notes = [note for note in stated if note]
    cells = {each: source.cells(name) for each, name in fields.items()}
    for each, column in cells.items():
        if len(column) != rows.shape[0]:
            raise ManifestError(
                f"'{printable(path)}' has {rows.shape[0]:,} rows in '{printable(vectors[0])}' and {len(column):,} in "
                f"'{printable(fields[each])}'. Give each row one of each."
            )
    attributes = source.attributes()
    if "label" in cells and options.label_column is None:
        is_text = source.kinds[fields["label"]] == TEXT
        if note := unread_classes(path, cells["label"], attributes):
            notes.append(note)
        cells["label"] = named_labels(path, cells["label"], attributes.get("classes"), is_text=is_text)
    hint = no_label_hint(replace(columns, header=others or vectors)) or ALL_MISSING
    table = VectorTable(rows, digest_rows(path, rows), cells, attributes, notes, hint, _own_names(vectors))
    return build_manifest(path, table)


def build_manifest(path: Path, table: VectorTable) -> Manifest:
    """Return the rows of a table as samples with their vectors. Raises ManifestError."""
    n, notes = table.rows.shape[0], table.notes
    stem = printable(path.stem)

    def of(name: str) -> Column:
        return list(table.cells.get(name) or [None] * n)

    labels = clean_labels(of("label"), notes)
    notes += [*remark_on_several(labels), *remark_on_alike(labels)]
    splits = splits_of(path, without_missing(of("split"), "split", notes), notes)
    groups = without_missing(of("group"), "group", notes)
    names = [name or f"{stem}[{i}]" for i, name in enumerate(of("path"))]
    known = digests_of(path, of("digest"))
    digests = _known_digests(path, known, table.digests)
    numbers = table.digests.tobytes() if any(known) else b""
    name, dim = name_of(path.stem), table.rows.shape[1]
    origin = find_origin(name, path.name, dim, table.attributes, columns=table.columns, numbers=numbers)
    samples = tuple(
        Sample(str(path), each, label, split, group, bytes(digest))
        for each, label, split, group, digest in zip(names, labels, splits, groups, digests, strict=True)
    )
    return Manifest(
        path.parent,
        samples,
        remarks=tuple(notes),
        name=path.stem,
        no_labels=table.no_labels,
        vectors=Vectors(name, origin.spec, origin.words, table.rows, digests),
    )


def named_labels(path: Path, labels: Column, classes: Any, *, is_text: bool = False) -> Column:
    """Return the names of labels that are places in a list of classes, -1 being none; others as they are.

    is_text: whether they are texts, which are names themselves where all are in the list. Raises ManifestError for a
    place that there is not.
    """
    if is_text and isinstance(classes, list) and {*labels} - {None} <= {*classes}:
        return labels
    if not isinstance(classes, list) or not all(label is None or _is_place(label) for label in labels):
        return labels
    for number, label in enumerate(labels, start=1):
        if label is not None and int(label) >= len(classes):
            raise ManifestError(
                f"'{printable(path)}' has the label {label} in row {number:,} and {len(classes):,} classes, which are "
                "counted from 0. Correct it, or name another data set with --label-column."
            )
    return [None if label is None or int(label) < 0 else classes[int(label)] for label in labels]


def unread_classes(path: Path, labels: Column, attributes: Mapping[str, Any]) -> str:
    """Return a sentence on labels that are numbers next to classes that are no list of names; empty for others."""
    if "classes" not in attributes or isinstance(attributes["classes"], list):
        return ""
    if not all(label is None or _is_place(label) for label in labels):
        return ""
    return (
        f"The 'classes' of '{printable(path.name)}' are no list of names, so its classes are called by the numbers of "
        "their labels."
    )


def _is_place(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _own_names(vectors: Sequence[str]) -> str:
    """Return what tells columns with names of their own from others; empty for one column and for numbered ones."""
    if len(vectors) == 1 or are_numbered(vectors):
        return ""
    return f"columns {hashlib.sha256(json.dumps([*map(plain_name, vectors)]).encode()).hexdigest()}"


def _which(vectors: Sequence[str]) -> str:
    """Return a sentence on vectors that are many columns."""
    if len(vectors) == 1:
        return ""
    return f"The vectors are {len(vectors):,} columns, '{printable(vectors[0])}' to '{printable(vectors[-1])}'."


def _known_digests(path: Path, known: Sequence[bytes | None], own: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the digests (N, 32) that a table says, those of images, and of rows without one their own.

    Raises ManifestError where two rows share one and are not equal.
    """
    if not any(known):
        return own
    found = own.copy()
    seen: dict[bytes, tuple[int, bytes]] = {}
    for i, digest in enumerate(known):
        if digest is None:
            continue
        first, row = seen.setdefault(digest, (i, bytes(own[i])))
        if row != bytes(own[i]):
            raise ManifestError(
                f"'{printable(path)}' has one digest and different vectors in the rows {first + 1:,} and {i + 1:,}. "
                "Leave out the digests, or correct them."
            )
        found[i] = np.frombuffer(digest, dtype=np.uint8)
    return found
