"""Classes that weigh the same in training: --class-weight balanced."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from featurecache import FeatureCacheError, FeatureRequest, read_images, train_heads
from featurecache.cli.main import DONE, USAGE, run
from featurecache.report.page import render
from featurecache.report.sections.reproduce import commands

PIXELS = ("--backbone", "pixels", "--size", "8")
FOREST, NEIGHBOURS = "sklearn.ensemble.RandomForestClassifier", "sklearn.neighbors.KNeighborsClassifier"


@pytest.fixture(scope="module")
def words(digits_folder, pixel_cache) -> list[str]:
    return ["classify", str(digits_folder), *PIXELS, "--cache", str(pixel_cache), "--quiet"]


@pytest.fixture(scope="module")
def balanced(words, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("balanced") / "run"
    heads = ["--heads", f"logistic,knn,{FOREST},{NEIGHBOURS}", "--param", f"{FOREST}.n_estimators=10"]
    assert run([*words, *heads, "--class-weight", "balanced", "--shots", "2", "--out", str(out)]) == DONE
    return out


def results_of(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def test_every_head_that_can_weighs_its_classes_and_the_others_are_named(balanced):
    results = results_of(balanced)
    weight = {head["name"]: head["params"].get("class_weight") for head in results["heads"]}
    assert weight == {"logistic": "balanced", "knn": "balanced", FOREST: "balanced", NEIGHBOURS: None}
    said = f"{NEIGHBOURS} has no class_weight: it is trained with every image weighing the same."
    assert said in results["warnings"]
    assert sum("class_weight" in warning for warning in results["warnings"]) == 1


def test_the_run_says_so_and_how_to_do_it_again(balanced, parsed):
    config = json.loads((balanced / "config.json").read_text())
    assert config["class_weight"] == "balanced"
    assert parsed(shlex.split(commands(config)[-1])[1:])["class_weight"] == "balanced"
    assert f"Given with the command: class weight balanced; {FOREST}.n_estimators=10." in render(balanced)


def test_without_it_no_setting_has_a_class_weight(words, tmp_path):
    assert run([*words, "--heads", "ridge,lda", "--out", str(tmp_path / "run")]) == DONE
    results = results_of(tmp_path / "run")
    assert results["config"]["class_weight"] == "none"
    assert not any("class_weight" in head["params"] for head in results["heads"])
    assert "class-weight" not in commands(results["config"])[-1]


def test_the_weight_of_one_head_can_be_given_against_it(words, tmp_path):
    params = ["--param", "ridge.class_weight=none", "--class-weight", "balanced"]
    assert run([*words, "--heads", "ridge,lda", *params, "--out", str(tmp_path / "run")]) == DONE
    weight = {head["name"]: head["params"]["class_weight"] for head in results_of(tmp_path / "run")["heads"]}
    assert weight == {"ridge": None, "lda": "balanced"}


def test_an_unknown_weight_is_a_wrong_command(words, digits_folder, tmp_path, capsys):
    assert run([*words, "--class-weight", "even", "--out", str(tmp_path / "run")]) == USAGE
    assert "balanced" in capsys.readouterr().err
    with pytest.raises(FeatureCacheError, match="There is no class_weight 'even': choose from none, balanced"):
        train_heads(
            read_images(digits_folder),
            [FeatureRequest("pixels", size=8)],
            class_weight="even",
            out=tmp_path / "run",
        )
