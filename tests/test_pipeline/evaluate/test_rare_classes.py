"""Rare classes are refused all at once, or left out by --min-per-class, named and counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from featurecache.cli.main import DONE, FAILED, run
from featurecache.cli.text import leaderboard_text
from featurecache.evaluate.rare_classes import left_out_line, rare_classes


def digests_of(*images: int) -> np.ndarray:
    return np.array([np.full(32, image) for image in images], dtype=np.uint8)


def test_copies_and_members_of_a_group_count_once():
    labels = ["a", "a", "b", "b", "c", "c", "d"]
    digests, groups = digests_of(1, 1, 2, 3, 4, 5, 6), [None, None, "p", "p", None, None, None]
    assert rare_classes(labels, digests, groups, 1) == {}
    assert rare_classes(labels, digests, groups, 2) == {"a": 2, "b": 2, "d": 1}
    assert rare_classes(labels, digests, groups, 3) == {"a": 2, "b": 2, "c": 2, "d": 1}
    assert rare_classes([], digests_of()[:0], [], 5) == {}


def test_twenty_classes_are_named_and_the_rest_counted():
    assert left_out_line({"a": 1, "b": 2}, 3) == (
        "2 classes with 3 images are left out, having fewer than 3 images, counting copies and members of a group "
        "once: a (1), b (2)."
    )
    assert left_out_line({f"c{i:02d}": 1 for i in range(25)}, 2).endswith("c19 (1), and 5 more.")


@pytest.fixture(scope="module")
def rare(tmp_path_factory, digits_folder, filled_cache) -> tuple[Path, Path]:
    """The digits with a class of one image and one of an image and its copy; and a cache with all their features."""
    root = tmp_path_factory.mktemp("rare")
    images = Path(shutil.copytree(digits_folder, root / "digits"))
    for name, n in (("lonely", 1), ("copied", 2)):
        (images / name).mkdir()
        source = next((images / "0").iterdir()) if n == 1 else next((images / "1").iterdir())
        for i in range(n):
            shutil.copy(source, images / name / f"{i}.png")
        source.unlink()
    return images, filled_cache


def test_run_refuses_them_before_anything_is_extracted(rare, tmp_path, capsys):
    new = tmp_path / "new"
    assert run(["run", str(rare[0]), "--cache", str(new), "--heads", "centroid", "--quiet"]) == FAILED
    assert "--min-per-class 2" in capsys.readouterr().err
    assert not [path for path in new.iterdir() if path.is_dir()]


def test_all_classes_that_cannot_be_divided_are_refused_at_once_with_the_option_that_helps(rare, tmp_path, capsys):
    images, cache = rare
    command = ["classify", str(images), "--cache", str(cache), "--heads", "centroid", "--out", str(tmp_path / "run")]
    assert run([*command, "--quiet"]) == FAILED
    said = capsys.readouterr().err
    assert "'copied' (2 images), 'lonely' (1 image)" in said
    assert "--min-per-class 2" in said


def test_rare_classes_are_left_out_named_and_counted_and_the_exit_code_is_zero(rare, tmp_path, capsys):
    images, cache = rare
    out = tmp_path / "run"
    command = ["classify", str(images), "--cache", str(cache), "--heads", "centroid", "--min-per-class", "2"]
    assert run([*command, "--out", str(out)]) == DONE
    told = capsys.readouterr()
    said = "2 classes with 3 images are left out, having fewer than 2 images"
    assert said in told.out
    assert said in told.err
    results = json.loads((out / "results.json").read_text())
    assert results["dataset"]["left_out"] == [{"class": "copied", "n_images": 2}, {"class": "lonely", "n_images": 1}]
    assert results["dataset"]["classes"] == ["0", "1", "2"]
    assert results["config"]["min_per_class"] == 2
    assert said in leaderboard_text(results)
    page = (out / "report.html").read_text()
    assert "2 classes with 3 images left out as too rare" in page
    assert "--min-per-class 2" in page


def test_audit_and_export_leave_the_same_classes_out(rare, tmp_path, capsys):
    images, cache = rare
    assert run(["audit", str(images), "--cache", str(cache), "--min-per-class", "2", "--json"]) == DONE
    told = capsys.readouterr()
    assert json.loads(told.out)["n_images"] == 88
    assert "2 classes with 3 images are left out" in told.err
    out = tmp_path / "digits.npz"
    assert run(["cache", "export", str(images), str(out), "--cache", str(cache), "--min-per-class", "2"]) == DONE
    with np.load(out) as table:
        splits = dict(zip(table["paths"].tolist(), table["splits"].tolist(), strict=True))
    assert splits["lonely/0.png"] == splits["copied/1.png"] == ""
    assert {split for path, split in splits.items() if path[0] in "012"} == {"train", "val", "test"}


def test_select_says_which_classes_it_leaves_out(rare, tmp_path, capsys):
    images, _ = rare
    command = ["select", str(images), "--backbone", "pixels", "--sample", "60", "--cache", str(tmp_path / "cache")]
    assert run([*command, "--min-per-class", "3"]) == DONE
    assert "2 classes with 3 images are left out, having fewer than 3 images" in capsys.readouterr().err


def test_a_limit_that_leaves_no_two_classes_is_refused(rare, tmp_path, capsys):
    images, cache = rare
    command = ["classify", str(images), "--cache", str(cache), "--heads", "centroid", "--min-per-class", "500"]
    assert run([*command, "--out", str(tmp_path / "run"), "--quiet"]) == FAILED
    assert "no sample was found" in capsys.readouterr().err
