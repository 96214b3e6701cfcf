"""Whoever works inside the folder of the images finds them unchanged by the caches and runs that come to lie there."""

from __future__ import annotations

import json
import shutil

import pytest

from featurecache.base.exits import DONE
from featurecache.cli.main import run


@pytest.fixture(params=["classes", "splits"])
def inside(tmp_path, digits_folder, monkeypatch, request):
    """The working folder is one of 36 images in three classes, with or without splits above them."""
    for label in "012":
        for i, path in enumerate(sorted((digits_folder / label).iterdir())[:12]):
            split = {"classes": ".", "splits": "train" if i % 3 else "test"}[request.param]
            place = tmp_path / "set" / split / label / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    monkeypatch.chdir(tmp_path / "set")


def test_every_command_works_twice_inside_the_images(inside, capsys):
    features = ["--backbone", "pixels", "--quiet", "--json"]
    for command in (["extract", "."], ["classify", ".", "--heads", "ridge"]) * 2:
        assert run([*command, *features]) == DONE
        found = json.loads(capsys.readouterr().out)
    dataset = found["dataset"]
    assert dataset["classes"] == ["0", "1", "2"]
    assert dataset["n_train"] + dataset["n_val"] + dataset["n_test"] == 36
