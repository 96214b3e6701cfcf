"""A list of refused images says what is so for every set of images, and replaces nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from featurecache.extract.images.digests import Refusal
from featurecache.runs.refusal_list import list_refusals

ONE, OTHER = Refusal("a.png", "00", "empty"), Refusal("b\n.png", "11", "truncated")


def listed(path: Path) -> list[tuple[str, str]]:
    with path.open() as file:
        return [(row["path"], Path(row["images"]).name) for row in csv.DictReader(file)]


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "errors.csv"


def test_each_set_of_images_has_its_rows_and_replaces_only_these(place):
    assert list_refusals(place, [ONE], ["cats"]) == place
    list_refusals(place, [ONE, OTHER], ["dogs"])
    assert listed(place) == [("a.png", "cats"), ("a.png", "dogs"), (r"b\n.png", "dogs")]
    list_refusals(place, [OTHER], ["dogs"])
    assert listed(place) == [("a.png", "cats"), (r"b\n.png", "dogs")]
    list_refusals(place, [], ["birds"])
    list_refusals(place, [], ["cats"])
    assert listed(place) == [(r"b\n.png", "dogs")]
    list_refusals(place, [], ["dogs"])
    assert list(place.parent.iterdir()) == []


def test_the_same_folder_named_in_another_way_is_the_same_set(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list_refusals(place, [ONE], ["cats"])
    list_refusals(place, [], [str(tmp_path / "cats")])
    assert not place.exists()


@pytest.mark.parametrize("content", ["name,error\nx,1\n", "", "a list of errors", b"\xff\xfe\x00", "path,digest\n"])
def test_a_file_that_is_no_such_list_stays(place, content):
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    before = place.read_bytes()
    assert list_refusals(place, [ONE], ["cats"]).name == "errors-2.csv"
    assert list_refusals(place, [ONE], ["dogs"]).name == "errors-2.csv"
    assert place.read_bytes() == before
    assert listed(place.with_name("errors-2.csv")) == [("a.png", "cats"), ("a.png", "dogs")]
    list_refusals(place, [], ["cats"])
    list_refusals(place, [], ["dogs"])
    assert [path.name for path in place.parent.iterdir()] == ["errors.csv"]


def test_a_list_of_a_former_version_is_replaced(place):
    place.write_text("path,digest,reason\nold.png,22,empty\n")
    list_refusals(place, [ONE], ["cats"])
    assert listed(place) == [("a.png", "cats")]


def test_what_is_written_is_there_whole_or_not_at_all(place, monkeypatch):
    list_refusals(place, [ONE], ["cats"])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featurecache.runs.refusal_list.write_csv", full)
    with pytest.raises(OSError, match="No space left"):
        list_refusals(place, [OTHER], ["dogs"])
    assert listed(place) == [("a.png", "cats")]
    assert [path.name for path in place.parent.iterdir()] == ["errors.csv"]
