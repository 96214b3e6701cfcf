"""After an upgrade, and without the backbone's weights, every command finds the features that are there."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from featurecache.base.errors import WeightsMissing
from featurecache.base.exits import DONE, FAILED, REFUSED, USAGE
from featurecache.cli.main import run
from featurecache.extract.cache.shards import ShardRows
from featurecache.extract.cache.store import FeatureCache, read_spec
from featurecache.extract.job import request as requests

ARCHIVE = Path(__file__).parents[1] / "data" / "commit-4e6fd91.tar.xz"


@pytest.fixture
def upgraded(monkeypatch):
    """Nothing that was remembered is about this version, and no weights are here."""

    def missing(*_: object, **__: object) -> None:
        raise WeightsMissing("the weights are not here")

    monkeypatch.setattr(requests, "_code_digest", lambda: "another version")
    # All are imported before the first is patched: one that came later would keep the patch.
    for place in [
        import_module(f"featurecache.extract.backbones.{name}") for name in ("weights", "registry", "own_classifier")
    ]:
        monkeypatch.setattr(place, "find_weights", missing)


@pytest.fixture
def base(digits_folder, cache, tmp_path) -> Path:
    """A run from before the upgrade."""
    words = ["--cache", str(cache), "--heads", "ridge,centroid", "--out", str(tmp_path / "base"), "--quiet"]
    assert run(["classify", str(digits_folder), *words]) == DONE
    return tmp_path / "base"


def test_every_command_that_needs_no_new_features_works(base, digits_folder, cache, tmp_path, upgraded, capsys):
    images, words = str(digits_folder), ["--cache", str(cache), "--quiet"]
    assert run(["extract", images, *words]) == DONE
    assert "90 already there, 0 extracted" in capsys.readouterr().out
    assert run(["classify", images, *words, "--heads", "ridge", "--out", str(tmp_path / "run")]) == DONE
    assert run(["run", images, *words, "--heads", "ridge", "--out", str(tmp_path / "both")]) == DONE
    assert run(["audit", images, *words]) == DONE
    assert run(["predict", str(base), images, *words]) == DONE
    assert run(["cache", "export", images, str(tmp_path / "out.h5"), *words]) == DONE


def test_a_cache_of_an_earlier_version_is_found_without_its_weights(tmp_path, monkeypatch, capsys):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    Path("squeezenet1_1.safetensors").unlink()
    network = ["--backbone", "squeezenet1_1", "--weights", "squeezenet1_1.safetensors", "--size", "64"]
    words = ["--cache", "cache", "--quiet"]
    assert run(["extract", "images", *network, *words]) == DONE
    assert "72 already there, 0 extracted" in capsys.readouterr().out
    assert run(["classify", "images", *network, *words, "--heads", "ridge", "--out", "runs/again"]) == DONE
    assert run(["predict", "runs/network", "images", *words]) == DONE
    assert run(["audit", "images", "--backbone", "pixels", "--size", "4", *words]) in (DONE, REFUSED)


def test_select_measures_what_is_kept(digits_folder, cache, upgraded, capsys):
    command = ["select", str(digits_folder), "--backbone", "efficientnet_lite0", "--sample", "45", "--json"]
    assert run([*command, "--cache", str(cache), "--quiet"]) == DONE
    (found,) = json.loads(capsys.readouterr().out)["candidates"]
    assert found["leep"] is None
    assert found["ridge"] > 0.6


def test_new_images_still_need_the_weights(images, cache, upgraded, capsys):
    shutil.copyfile(next((images / "0").iterdir()), images / "0" / "copy.png")
    assert run(["extract", str(images), "--cache", str(cache), "--quiet"]) == DONE, "a copy is no new image"
    data = bytearray((images / "0" / "copy.png").read_bytes()) + b"more"
    (images / "0" / "copy.png").write_bytes(data)
    assert run(["extract", str(images), "--cache", str(cache), "--quiet"]) == FAILED
    assert "the weights are not here" in capsys.readouterr().err


def test_features_at_another_layer_are_not_those_of_the_default(digits_folder, cache, tmp_path, upgraded, capsys):
    (folder,) = cache.glob("efficientnet_lite0-*")
    spec = read_spec(folder)
    digests = FeatureCache(cache, spec).served()[0].digests
    shutil.rmtree(folder)
    other = replace(spec, layer="_blocks.4", feature_dim=40)
    rows = ShardRows(np.ones((len(digests), 40), np.float32), digests, ["x"] * len(digests))
    FeatureCache(cache, other).add(rows, {"weights": "IMAGENET1K"})
    command = ["classify", str(digits_folder), "--cache", str(cache), "--heads", "ridge", "--quiet"]
    assert run([*command, "--out", str(tmp_path / "run")]) == FAILED
    assert "There are features of efficientnet_lite0 with another layer (_blocks.4" in capsys.readouterr().err


def test_two_caches_that_only_the_weights_tell_apart_are_both_named(digits_folder, cache, tmp_path, upgraded, capsys):
    (folder,) = cache.glob("efficientnet_lite0-*")
    whole = FeatureCache(cache, read_spec(folder))
    digests = whole.served()[0].digests
    other = replace(whole.spec, weights_digest="ab" * 32)
    rows = ShardRows(whole.lookup(digests), digests, ["x"] * len(digests))
    FeatureCache(cache, other).add(rows, {"weights": "mine.pth", "seconds": 1.0})
    command = ["classify", str(digits_folder), "--cache", str(cache), "--heads", "ridge", "--quiet"]
    assert run([*command, "--out", str(tmp_path / "run")]) == FAILED
    said = capsys.readouterr().err
    assert (
        "2 caches hold features of efficientnet_lite0 for these images as they were asked for, and differ in " in said
    )
    assert f"'{folder.name}' (IMAGENET1K, 224 px)" in said
    assert f"'{other.folder_name}' (mine.pth, 224 px)" in said
    assert "name one with --weights" in said
    assert run([*command, "--out", str(tmp_path / "run"), "--weights", "mine.pth"]) == DONE


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--backbone", "resnet51"], "Did you mean resnet50"),
        (["--layer", "_block.4"], "nearest: _blocks.4"),
        (["--weights", "typo.pth"], "There is no file 'typo.pth'"),
    ],
)
@pytest.mark.parametrize("command", ["classify", "audit"])
def test_a_typo_is_wrong_use_where_no_features_are_of_that_name(
    digits_folder, cache, capsys, command, options, sentence
):
    assert run([command, str(digits_folder), "--cache", str(cache), "--quiet", *options]) == USAGE
    assert sentence in capsys.readouterr().err
