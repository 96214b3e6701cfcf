"""Commands that use features as they are say which of them an older version made of images that it read otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from featurecache.base.errors import CacheUnwritable, WeightsMissing
from featurecache.cli.main import DONE, FAILED, REFUSED, run
from featurecache.extract.cache.store import FeatureCache
from featurecache.extract.job import outdated, writer

PIXELS = ["--backbone", "pixels", "--size", "8"]
NOTE = "1 image of 24 has features of pixels by an older version, which read it otherwise"


@pytest.fixture(scope="module")
def old(tmp_path_factory, cats_and_dogs) -> Path:
    """A cache and a run by an older version: its rows record no revision of the decode rules."""
    root, record = tmp_path_factory.mktemp("old"), writer.record_of
    words = ["run", str(cats_and_dogs), *PIXELS, "--heads", "centroid", "--out", str(root / "run"), "--quiet"]
    with pytest.MonkeyPatch.context() as before:
        before.setattr(FeatureCache, "remember_judged", lambda *_: None)
        before.setattr(
            writer,
            "record_of",
            lambda *engine: {k: v for k, v in record(*engine).items() if k != "decode_revision"},
        )
        assert run([*words, "--cache", str(root / "cache")]) == DONE
    return root


@pytest.fixture
def ended(old, cats_and_dogs, tmp_path, monkeypatch, capsys):
    """What a command on these images ends with, where the first cat is read otherwise now."""
    shutil.copytree(old, tmp_path / "old")
    monkeypatch.setattr(outdated, "judge", lambda path, *_: path.endswith("cat/00.png"))

    def end(command, *words):
        run_folder = [str(tmp_path / "old" / "run")] if command == "predict" else []
        code = run([*command.split(), *run_folder, str(cats_and_dogs), *words, "--cache", str(tmp_path / "old/cache")])
        return (code, *capsys.readouterr())

    return end


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("classify", ["--heads", "centroid", "--out", "OUT", "--json"]),
        ("audit", ["--max-leaked", "0.9"]),
        ("cache export", ["OUT.npz"]),
    ],
)
def test_they_are_counted_with_what_to_do(ended, tmp_path, command, words):
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    code, out, err = ended(command, *words, *PIXELS)
    assert code == DONE
    assert f"{NOTE}: extract again with the same options, which computes only this one." in err
    if command == "classify":
        assert NOTE in json.loads(out)["warnings"][0]


def test_those_that_are_refused_are_counted_with_those_that_are_read_otherwise(ended, tmp_path, monkeypatch):
    monkeypatch.setattr(
        outdated, "judge", lambda path, *_: "damaged" if "/dog/" in path else path.endswith("cat/00.png")
    )
    _, _, err = ended("classify", "--heads", "centroid", "--out", str(tmp_path / "out"), *PIXELS)
    assert (
        "13 images of 24 have features of pixels by an older version, which read them otherwise or did not notice that "
        "they are damaged: extract again with the same options, which computes or refuses only these."
    ) in err


def test_after_another_extract_nothing_is_said(ended, tmp_path):
    code, out, _ = ended("extract", *PIXELS)
    assert (code, "1 of them again" in out) == (DONE, True)
    code, _, err = ended("classify", *PIXELS, "--heads", "centroid", "--out", str(tmp_path / "out"))
    assert (code, "older version" in err) == (DONE, False)


def test_predict_computes_them_again(ended):
    code, _, err = ended("predict")
    assert code == DONE
    assert "1 image to extract (1 of them again" in err
    assert "1 image to extract" not in ended("predict")[2]


@pytest.mark.parametrize("error", [WeightsMissing, CacheUnwritable])
def test_predict_uses_them_where_they_cannot_be_computed_again(ended, monkeypatch, error):
    def fail(*_, **__):
        raise error("There are no weights here.")

    monkeypatch.setattr("featurecache.features.new_images.extract_features", fail)
    code, out, err = ended("predict")
    assert (code, len(out.splitlines())) == (DONE, 26)
    assert NOTE in err
    assert "used as they are, since they cannot be computed again here: There are no weights here." in err


def test_predict_refuses_damaged_ones_without_the_backbone(ended, monkeypatch):
    monkeypatch.setattr(outdated, "judge", lambda path, *_: "damaged" if "/dog/" in path else False)
    monkeypatch.setattr("featurecache.features.new_images.extract_features", pytest.fail)
    code, out, err = ended("predict")
    assert (code, len(out.splitlines())) == (REFUSED, 14)
    assert "dog/00.png" in err
    code, _, err = ended("predict", "--on-error", "fail")
    assert (code, "is refused: damaged." in err) == (FAILED, True)
