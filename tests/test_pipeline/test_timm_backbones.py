"""A whole run on a network of timm: extract, classify, report, predict, in a folder that is named relatively."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from featurecache.cli.main import run
from featurecache.runs.folder import REPORT_FILE, RESULTS_FILE

SIDE = 32


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a network and two classes of images: dark and bright ones."""
    timm = pytest.importorskip("timm", reason="timm is an extra")
    root = tmp_path_factory.mktemp("timm run")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", pretrained=False)
    (root / "a network").mkdir()
    save_file(network.state_dict(), root / "a network" / "model.safetensors")
    config = {"architecture": "test_resnet", "license": "mit", "input_size": [3, SIDE, SIDE], "classifier": "fc"}
    (root / "a network" / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 120)):
        (root / "images" / name).mkdir(parents=True)
        for i in range(12):
            pixels = random.integers(low, low + 120, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{i}.png")
    return root


def test_a_run_predicts_from_another_folder_and_a_warm_one_needs_no_timm(place, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(place)
    asked = ["--backbone", "local-dir:a network", "--size", str(SIDE)]
    command = ["run", "images", *asked, "--heads", "ridge,centroid", "--engine", "torch", "--out", "made"]
    assert run(command) == 0
    results = json.loads((place / "made" / RESULTS_FILE).read_text())
    (features,) = results["features"]
    assert (features["backbone"], features["about"]) == ("local-dir:a_network", {"license": "mit"})
    assert "licence mit" in (place / "made" / REPORT_FILE).read_text()
    monkeypatch.chdir(tmp_path)
    shutil.copy(place / "images" / "dark" / "0.png", tmp_path / "copy.png")
    Image.new("RGB", (SIDE, SIDE), (200, 190, 210)).save(tmp_path / "new.png")
    assert run(["predict", str(place / "made"), "copy.png", "new.png", "--engine", "torch"]) == 0
    monkeypatch.chdir(place)
    monkeypatch.setitem(sys.modules, "timm", None)
    capsys.readouterr()
    assert run(["extract", "images", *asked, "--json"]) == 0
    assert run(["classify", "images", *asked, "--heads", "ridge", "--out", "again"]) == 0
    assert run(["extract", "images", "--backbone", "timm/test_resnet"]) != 0
    assert "`pip install 'featurecache[timm]'`" in capsys.readouterr().err


def test_a_choice_is_made_among_networks_of_timm_and_joined_ones(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    name = "local-dir:a network"
    words = ["--sample", "12", "--size", str(SIDE), "--engine", "torch", "--cache", "choice", "--json", "--quiet"]
    assert run(["select", "images", "--backbone", f"{name},pixels,{name}+pixels", *words]) == 0
    found = {each["backbone"]: each for each in json.loads(capsys.readouterr().out)["candidates"]}
    alone, pixels, both = (found[each] for each in (name, "pixels", f"{name}+pixels"))
    assert both["dim"] == alone["dim"] + pixels["dim"]
    assert both["full_bytes"] == alone["full_bytes"] + pixels["full_bytes"]
    seconds = alone["full_seconds"] + pixels["full_seconds"]
    assert both["full_seconds"] == pytest.approx(seconds, abs=0.2)
    assert {each["leep"] for each in found.values()} == {None}
    assert all(0.5 <= each["ridge"] <= 1 for each in found.values())
    assert len(list(Path("choice").glob("*/spec.json"))) == 2


def test_a_folder_that_has_moved_is_named_by_its_weights_file(place, monkeypatch, capsys, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(place, root, ignore=shutil.ignore_patterns("made", "again", "data"))
    monkeypatch.chdir(root)
    asked = ["--backbone", "local-dir:a network", "--size", str(SIDE), "--engine", "torch"]
    assert run(["run", "images", *asked, "--heads", "centroid", "--out", "made"]) == 0
    Image.new("RGB", (SIDE, SIDE), (200, 190, 210)).save("new.png")
    moved, renamed = Path("other/a network"), Path("another network")
    moved.parent.mkdir()
    Path("a network").rename(moved)
    shutil.copytree(moved, renamed)
    capsys.readouterr()
    predict = ["predict", "made", "new.png", "--engine", "torch"]
    assert run(predict) != 0
    assert "to `predict` `--weights FOLDER/model.safetensors`." in capsys.readouterr().err
    assert run([*predict, "--weights", str(renamed / "model.safetensors")]) != 0
    assert "Call it 'a network'." in capsys.readouterr().err
    classify = ["classify", "images", "--heads", "centroid", "--out", "again", "--size"]
    assert run([*classify, str(SIDE), "--backbone", "local-dir:a network"]) != 0
    assert "The folder of local-dir:a network is not there: if it has moved, name" in capsys.readouterr().err
    assert run([*classify, "48", "--backbone", f"local-dir:{moved}"]) != 0
    assert "with another size (32; asked: 48), and" in capsys.readouterr().err
    assert run([*classify, str(SIDE), "--backbone", f"local-dir:{moved}"]) == 0
    assert run([*predict, "--weights", str(moved / "model.safetensors")]) == 0
