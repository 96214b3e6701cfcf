"""The columns of predictions by hand: every class, the K best, and labels that are not sure."""

from __future__ import annotations

import csv
import io
import json
import weakref

import numpy as np
import pyarrow.parquet
import pytest

from featurecache.base.progress import Silent
from featurecache.extract.images.manifest import Sample
from featurecache.predictions.columns import Listing
from featurecache.predictions.formats import TEXTS, write_file
from featurecache.predictions.labelled import Labelled, Predictions
from featurecache.predictions.writing import begin_writing
from featurecache.runs.file_counts import FileCounts

CLASSES = ["label", "b", "path"]
PROBA = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.3, 0.4, 0.3]])
CODES = np.array([0, 1, 2])  # the last head says another class than the most probable
SAMPLES = tuple(Sample(f"/{name}", name, label) for name, label in [("x", "label"), ("y", "path"), ("z\n", "owl")])


def answers(rows):
    return CODES[rows], PROBA[rows]


LABELLED = Labelled("h", CLASSES, SAMPLES, FileCounts(3), answers)

CASES = {
    "all": (
        Listing(CLASSES),
        "path label probability p:label p:b p:path",
        [("x", "label", 0.5, 0.5, 0.3, 0.2), ("y", "b", 0.6, 0.1, 0.6, 0.3), ("z\\n", "path", 0.3, 0.3, 0.4, 0.3)],
    ),
    "the two best": (
        Listing(CLASSES, top=2),
        "path label probability label2 probability2",
        [("x", "label", 0.5, "b", 0.3), ("y", "b", 0.6, "path", 0.3), ("z\\n", "path", 0.3, "b", 0.4)],
    ),
    "the best": (
        Listing(CLASSES, top=1),
        "path label probability",
        [("x", "label", 0.5), ("y", "b", 0.6), ("z\\n", "path", 0.3)],
    ),
    "sure ones": (
        Listing(CLASSES, least=0.5),
        "path label probability p:label p:b p:path",
        [("x", "label", 0.5, 0.5, 0.3, 0.2), ("y", "b", 0.6, 0.1, 0.6, 0.3), ("z\\n", "", 0.3, 0.3, 0.4, 0.3)],
    ),
    "the best, which are named also where the label is empty": (
        Listing(CLASSES, top=1, least=0.55),
        "path label probability label1 probability1",
        [("x", "", 0.5, "label", 0.5), ("y", "b", 0.6, "b", 0.6), ("z\\n", "", 0.3, "path", 0.3)],
    ),
}


def written(listing: Listing, form: str, block_images: int = 2) -> str:
    file = io.StringIO()
    TEXTS[form](file, begin_writing([LABELLED], listing, Silent(), block_images=block_images))
    return file.getvalue()


@pytest.mark.parametrize(("listing", "names", "rows"), CASES.values(), ids=CASES)
def test_csv_and_parquet_have_the_same_columns(listing, names, rows, tmp_path):
    header, *found = csv.reader(io.StringIO(written(listing, "csv")))
    assert header == names.split()
    assert found == [[str(cell) for cell in row] for row in rows]
    for name in ("p.parquet", "p.CSV"):
        write_file(tmp_path / name, begin_writing([LABELLED], listing, Silent(), block_images=2))
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    assert table.column_names == names.split()
    values = zip(*table.to_pydict().values(), strict=True)
    assert [tuple("" if cell is None else cell for cell in row) for row in values] == rows
    assert (tmp_path / "p.CSV").read_bytes() == written(listing, "csv").replace("\n", "\r\n").encode()


@pytest.mark.parametrize(("listing", "names", "rows"), CASES.values(), ids=CASES)
def test_json_has_an_object_an_image(listing, names, rows):
    lines = [json.loads(line) for line in written(listing, "jsonl").splitlines()]
    assert [(row["path"], row["label"] or "", row["probability"]) for row in lines] == [row[:3] for row in rows]
    if listing.top is None:
        assert lines[1]["probabilities"] == {"label": 0.1, "b": 0.6, "path": 0.3}
    else:
        assert lines[2]["top"][0] == {"label": "path", "probability": 0.3}
        assert all(len(row["top"]) == listing.top and "probabilities" not in row for row in lines)
    whole = json.loads(written(listing, "json"))
    assert whole["images"] == lines
    assert (whole["head"], whole["files"]["n_used"]) == ("h", 3)
    n_unsure = sum(row["label"] is None for row in lines)
    n_known = sum(row["label"] is not None for row in lines[:2])
    assert whole["labelled"] == {"right": max(n_known - 1, 0), "known": n_known, "unknown": {"owl": 1}}
    assert whole.get("unsure") == (None if listing.least is None else n_unsure)


def test_a_table_is_as_wide_as_its_cells():
    assert written(Listing(CLASSES), "table", 3).splitlines() == [
        "path    label      probability",
        "------  -------  -------------",
        "x       label            0.500",
        "y       b                0.600",
        "z\\n     path             0.300",
    ]
    assert written(Listing(CLASSES, top=2), "table", 1).splitlines()[-1].split() == [
        "z\\n",
        "path",
        "0.300",
        "b",
        "0.400",
    ]


def test_more_best_classes_than_there_are_is_all_of_them():
    assert Listing(CLASSES, top=9).names()[-1] == "probability3"


def test_without_an_image_there_is_a_header_and_no_row(tmp_path):
    none = Labelled("h", CLASSES, (), FileCounts(), answers)
    for name in ("p.csv", "p.json", "p.jsonl", "p.parquet"):
        write_file(tmp_path / name, begin_writing([none], Listing(CLASSES), Silent()))
    assert (tmp_path / "p.csv").read_text() == "path,label,probability,p:label,p:b,p:path\n"
    assert json.loads((tmp_path / "p.json").read_text())["images"] == []
    assert (tmp_path / "p.jsonl").read_text() == ""
    assert pyarrow.parquet.read_table(tmp_path / "p.parquet").num_rows == 0
    file = io.StringIO()
    TEXTS["table"](file, begin_writing([none], Listing(CLASSES), Silent()))
    assert file.getvalue() == "No image got a label.\n"


class Counting(Silent):
    """What was reported of the blocks."""

    def __init__(self) -> None:
        self.reported: list[tuple[str, str, int, int]] = []

    def counting(self, what, unit, done, total):
        self.reported.append((what, unit, done, total))


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.jsonl", "p.parquet"])
def test_no_more_than_a_block_is_in_memory_whatever_the_number_of_images(name, tmp_path):
    """While a block is made, the one before it may be alive, and none before that."""
    n, most, made = 400, 0, []

    def counted(rows):
        nonlocal most
        places = np.arange(n)[rows]
        proba = np.full((len(places), 3), 1 / 3)
        made.append(weakref.ref(proba))
        most = max(most, sum(len(each()) for each in made if each() is not None))
        return places % 3, proba

    progress = Counting()
    samples = tuple(Sample(f"/{i}", str(i)) for i in range(n))
    labelled = Labelled("h", CLASSES, samples, FileCounts(n), counted)
    write_file(tmp_path / name, begin_writing([labelled], Listing(CLASSES), progress, block_images=10))
    assert len(made) == 40
    assert most <= 20
    assert progress.reported == [("predicting", "images", done, n) for done in range(10, n + 1, 10)]


def test_predictions_of_a_block_are_those_of_its_images():
    first, last = LABELLED.blocks(2)
    assert isinstance(first, Predictions)
    assert ([s.name for s in last.samples], last.codes.tolist()) == (["z\n"], [2])
    assert LABELLED.block(slice(None)).rows()[1] == ("y", "b", 0.6)
