"""Patterns match what a shell would match, and say what they could not look into."""

from __future__ import annotations

import os

import pytest

from featurecache.base.errors import NoSuchImages
from featurecache.extract.images.arguments.any_layout import read_any_layout, read_data_sets
from featurecache.extract.images.arguments.patterns import is_pattern, matching_paths

FILES = ["a.jpg", "b.png", "x/c.jpg", "x/y/d.jpg", "x/y/e.JPG", ".hid/f.jpg", "x/.g.jpg", "x/@eaDir/h.jpg", "[k].jpg"]
MATCHES = {
    "*.jpg": ["[k].jpg", "a.jpg"],
    "?.png": ["b.png"],
    "[ab].*": ["a.jpg", "b.png"],
    "*/*.jpg": ["x/c.jpg"],
    "**/*.jpg": ["[k].jpg", "a.jpg", "x/c.jpg", "x/y/d.jpg"],
    "x/**": ["x"],
    "x/**/d.jpg": ["x/y/d.jpg"],
    "**/y/**/*.jpg": ["x/y/d.jpg"],
    "*": ["[k].jpg", "a.jpg", "b.png", "x"],
    ".h*/*.jpg": [".hid/f.jpg"],
    "x/.*": ["x/.g.jpg"],
    "x**/c.jpg": ["x/c.jpg"],
    "./*.png": ["b.png"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("pattern", MATCHES)
def test_a_pattern_matches_what_a_shell_would_match(here, pattern):
    assert matching_paths(pattern) == (MATCHES[pattern], [])
    assert matching_paths(f"{here}/{pattern}")[0] == [str(here / path) for path in MATCHES[pattern]]


def test_any_depth_does_not_go_round_a_link(here):
    (here / "x" / "again").symlink_to(here)
    assert matching_paths("**/d.jpg") == (["x/y/d.jpg"], [])


def test_a_file_that_is_called_like_a_pattern_is_itself(here):
    assert (is_pattern("[k].jpg"), is_pattern("[kl].jpg"), is_pattern("a.jpg")) == (False, True, False)


def test_a_pattern_without_a_match_is_a_sentence(here):
    with pytest.raises(NoSuchImages, match=r"The pattern 'new/\*\.jpg' matches no file or folder\. Check it"):
        matching_paths("new/*.jpg")


def test_a_folder_that_is_closed_to_a_pattern_is_named(here, monkeypatch):
    scandir = os.scandir

    def closed(folder):
        if str(folder).endswith("y"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    assert matching_paths("**/*.jpg") == (["[k].jpg", "a.jpg", "x/c.jpg"], ["x/y"])
    found = read_any_layout(["**/*.jpg"])
    assert [sample.name for sample in found.samples] == ["[k].jpg", "a.jpg", "x/c.jpg"]
    assert found.unreadable == ("x/y",)


def test_samples_of_a_pattern_are_named_by_their_paths(here):
    assert [sample.name for sample in read_any_layout(["x/y/d*"]).samples] == ["x/y/d.jpg"]
    assert [sample.name for sample in read_any_layout(["./a.jpg", "x/*.jpg"]).samples] == ["./a.jpg", "x/c.jpg"]
    assert len(read_any_layout(["a.jpg", "*.jpg"])) == 2


def test_any_depth_alone_is_the_working_folder(here):
    assert matching_paths("**") == (["."], [])


def test_what_a_program_lists_is_no_pattern(here):
    (found,) = read_data_sets(["a[.]jpg", "b.png"], listed=["a[.]jpg", "b.png"])
    assert ([sample.name for sample in found.samples], found.source) == (["b.png"], "-")
    assert [(missed.name, missed.code) for missed in found.left_out.missed] == [("a[.]jpg", "no_file")]
    (found,) = read_data_sets(["a[.]jpg", "b.png"], listed=["b.png"])
    assert ([sample.name for sample in found.samples], found.source) == (["a.jpg", "b.png"], "a[.]jpg -")


def test_one_pattern_of_several_that_matches_nothing_costs_itself_alone(here):
    found = read_any_layout(["nothing/*.jpg", "a.jpg"])
    assert [sample.name for sample in found.samples] == ["a.jpg"]
    (missed,) = found.left_out.missed
    assert (missed.name, missed.code) == ("nothing/*.jpg", "no_file")
    with pytest.raises(NoSuchImages, match="None of the 2 arguments"):
        read_any_layout(["nothing/*.jpg", "*.tif"])
