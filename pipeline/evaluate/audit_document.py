"""audit.json as a type, the rows of its lists, and how both are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from featurecache.base.text import printable
from featurecache.evaluate.copies import Copies, NearCopy
from featurecache.evaluate.join import Labelled
from featurecache.extract.images.digests import RefusalDocument
from featurecache.runs.documents import FilesDocument
from featurecache.runs.folder import AUDIT_FILE, AUDIT_TABLE, write_csv, write_json, writing_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Member(TypedDict):
    """One image of a finding."""

    path: str
    split: str
    label: str


class Members(TypedDict):
    """The images of a finding about several, in the same order in each list."""

    paths: list[str]
    splits: list[str]
    labels: list[str]


class CopiesRow(Members):
    """Images that are the same: by "bytes", or by "pixels" in files that differ."""

    same: str
    across_splits: bool


class NearRow(Members):
    """Two images that are nearly the same; correlation: of their thumbnails; cosine: of their features."""

    correlation: float
    cosine: float
    across_splits: bool


class GroupRow(Members):
    """A group with images in several splits."""

    group: str
    n_images: int


class ConflictRow(Members):
    """Images under several labels that are the same by "bytes", by "pixels", or "nearly"."""

    same: str


class DoubtfulLabel(Member):
    """A label that is probably wrong, by the held-out probabilities of it and of the suggested one."""

    suggested: str
    label_probability: float
    suggested_probability: float


class Outlier(Member):
    """An image far from all others; distance: to its tenth neighbour; typical_distance: the median of all images."""

    distance: float
    typical_distance: float


class SmallClass(TypedDict):
    """A class with few test images."""

    label: str
    n_train: int
    n_val: int
    n_test: int


class Findings(TypedDict):
    """The lists of an audit."""

    duplicates: list[CopiesRow]
    near_duplicates: list[NearRow]
    groups_across_splits: list[GroupRow]
    conflicting_labels: list[ConflictRow]
    doubtful_labels: list[DoubtfulLabel]
    outliers: list[Outlier]
    small_classes: list[SmallClass]


class AuditDocument(Findings):
    """audit.json. untrue, why: whether too many test images leaked, and what that means, in a sentence."""

    format: int
    images: str
    backbone: str
    seed: int
    n_images: int
    n_of_split: dict[str, int]
    untrue: bool
    why: str
    n_leaked: int
    share_leaked: float
    n_near_duplicates: int
    refused: list[RefusalDocument]
    files: NotRequired[FilesDocument]


def lists_of(document: Findings) -> dict[str, list[dict[str, Any]]]:
    """Return the lists of findings by name, and of an audit.json also those that were refused."""
    return {name: rows for name, rows in dict(document).items() if isinstance(rows, list)}


def write_audit(document: AuditDocument, folder: Path) -> None:
    """Write audit.json and a CSV table for every list into a folder, which may be that of a run.

    Each file is whole or as it was. Raises OSError, and PipelineError where a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with writing_file(folder / AUDIT_FILE) as file:
        write_json(file, document)
    for name, rows in lists_of(document).items():
        columns = list(rows[0]) if rows else ["nothing_found"]
        with writing_file(folder / AUDIT_TABLE.format(name)) as file:
            write_csv(file, columns, [[_cell(value) for value in row.values()] for row in rows])


def _cell(value: object) -> object:
    return " | ".join(map(str, value)) if isinstance(value, list) else value


def member_row(labelled: Labelled, i: int) -> Member:
    """Return sample i of a finding."""
    sample = labelled.samples[i]
    return {"path": printable(sample.name), "split": str(labelled.splits[i]), "label": printable(str(sample.label))}


def members_row(labelled: Labelled, rows: Sequence[int]) -> Members:
    """Return the samples `rows` of a finding."""
    members = [member_row(labelled, i) for i in rows]
    return {
        "paths": [member["path"] for member in members],
        "splits": [member["split"] for member in members],
        "labels": [member["label"] for member in members],
    }


def copies_row(labelled: Labelled, copies: Copies) -> CopiesRow:
    """Return images that are the same."""
    across = len(set(labelled.splits[list(copies.rows)])) > 1
    return {"same": copies.same, "across_splits": across, **members_row(labelled, copies.rows)}


def near_row(labelled: Labelled, near: NearCopy, X: NDArray[np.float32]) -> NearRow:
    """Return two images that are nearly the same; X (N, D)."""
    from featurecache.classify.evaluation.similarity import unit_rows

    one, other = unit_rows(X[[near.first, near.second]])
    return {
        "correlation": round(near.correlation, 5),
        "cosine": round(float(one @ other), 5),
        "across_splits": bool(labelled.splits[near.first] != labelled.splits[near.second]),
        **members_row(labelled, (near.first, near.second)),
    }


def group_row(labelled: Labelled, name: str, rows: Sequence[int]) -> GroupRow:
    """Return a group with its samples `rows`."""
    return {"group": printable(name), "n_images": len(rows), **members_row(labelled, rows)}
