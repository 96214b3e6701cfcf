"""Commands on tables: what they say, which options they take, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from featurecache.cli.main import DONE, FAILED, REFUSED, run

FEATURES = ("--backbone", "pixels")


@pytest.fixture
def photos(tmp_path, digits_folder, monkeypatch) -> Path:
    """A folder to write tables into, with digits in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "img").symlink_to(digits_folder)
    return tmp_path


def table(photos, header, *more, name="list.csv"):
    """A row of path and label for every digit, and the rows `more`."""
    files = sorted(photos.glob("img/*/*.png"))
    lines = [header, *(f"{path.relative_to(photos)},{path.parent.name}" for path in files), *more]
    (photos / name).write_text("\n".join(lines))
    return name


def test_labels_under_another_name_are_asked_for_before_anything_is_extracted(photos, capsys):
    assert run(["run", table(photos, "path,digit class"), *FEATURES]) == FAILED
    said = capsys.readouterr().err
    assert (
        "None of the 90 images in 'list.csv' has a label. The table has no column 'label' (found: path, digit " in said
    )
    assert "name it with --label-column 'digit class'." in said
    assert not list(photos.glob("data/cache/pixels-*"))


def test_missing_files_of_a_table_end_with_exit_code_3_and_the_rest_is_used(photos, capsys):
    lost = ["img/0/lost.png,0", "img/1/gone.png,1"]
    words = ["run", table(photos, "path,label", *lost), *FEATURES, "--heads", "centroid", "--out", "made"]
    assert run(words) == REFUSED
    assert (
        "2 of the 92 files named in 'list.csv' are not there: the first, 'img/0/lost.png', was"
        in capsys.readouterr().err
    )
    dataset = json.loads((photos / "made" / "results.json").read_text())["dataset"]
    assert sum(dataset[f"n_{split}"] for split in ("train", "val", "test")) == 90


def test_an_image_under_two_labels_is_in_the_warnings_of_a_run(photos, capsys):
    first = sorted(photos.glob("img/0/*.png"))[0].relative_to(photos)
    words = [*FEATURES, "--heads", "centroid", "--out", "made", "--quiet"]
    assert run(["run", table(photos, "path,label", f"{first},1"), *words]) == DONE
    warnings = json.loads((photos / "made" / "results.json").read_text())["warnings"]
    assert f"1 image is in the data under several labels, the first, '{first}', under 0 and 1: " in warnings[-1]
    assert "featurecache audit list.csv --backbone pixels" in warnings[-1]


def test_commands_that_are_shown_name_the_columns(photos, capsys):
    columns = ["--path-column", "file name", "--label-column", "class"]
    name = table(photos, "file name,class")
    assert run(["classify", name, *FEATURES, *columns, "--heads", "centroid"]) == FAILED
    shown = "featurecache extract list.csv --path-column 'file name' --label-column class --backbone pixels"
    assert shown in capsys.readouterr().err
    assert run(["extract", name, *FEATURES, *columns, "--quiet"]) == DONE


def test_prune_drops_nothing_while_files_of_a_table_are_missing(photos, capsys):
    assert run(["extract", "img", *FEATURES, "--quiet"]) == DONE
    name = table(photos, "path,label", "img/0/lost.png,0")
    assert run(["cache", "prune", name, "--yes"]) == FAILED
    assert (
        "1 file of a table cannot be found, so which rows they use is not known; the first is"
        in capsys.readouterr().err
    )
