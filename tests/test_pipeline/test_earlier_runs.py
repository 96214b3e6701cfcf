"""Runs, heads and caches that commit 4e6fd91 wrote go on working: nothing is extracted or trained again."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from featurecache.base.exits import FAILED, USAGE
from featurecache.cli.main import DONE, run

ARCHIVE = Path(__file__).parents[1] / "data" / "commit-4e6fd91.tar.xz"
OWN = ("logistic", "ridge", "linear_svm", "rbf_svm", "lda", "centroid", "naive_bayes", "knn", "mlp")
FOREIGN = (
    "sklearn.tree.DecisionTreeClassifier",
    "sklearn.linear_model.Perceptron",
    "sklearn.neighbors.KNeighborsClassifier",
    "sklearn.ensemble.HistGradientBoostingClassifier",
    "sklearn.svm.SVC",
)
NETWORK = ["--backbone", "squeezenet1_1", "--weights", "squeezenet1_1.safetensors", "--size", "64"]
PIXELS = ["--backbone", "pixels", "--size", "4"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture
def earlier(unpacked, tmp_path, monkeypatch) -> Path:
    """A copy of what the commit wrote, and the working folder of the test."""
    root = Path(shutil.copytree(unpacked, tmp_path / "earlier"))
    monkeypatch.chdir(root)
    return root


def shards(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.glob("cache/*/shards/*.h5"))


def predictions(run_folder: Path, head: str) -> dict[str, dict[str, object]]:
    rows = pyarrow.parquet.read_table(run_folder / "predictions.parquet").to_pylist()
    return {row["path"]: row for row in rows if row["head"] == head}


@pytest.mark.parametrize(
    ("folder", "head"),
    [("heads", head) for head in OWN + FOREIGN] + [("network", "ridge"), ("tuned", "finetuned")],
)
def test_a_saved_head_says_what_it_said(earlier, folder, head):
    before = shards(earlier)
    command = ["predict", f"runs/{folder}", "images", "--head", head, "--cache", "cache", "--out", "said.json"]
    assert run([*command, "--quiet"]) == DONE
    found = {row["path"]: row for row in json.loads(Path("said.json").read_text())["images"]}
    expected = predictions(earlier / "runs" / folder, head)
    assert len(expected) == 13
    for name, row in expected.items():
        assert found[name]["label"] == row["predicted"]
        np.testing.assert_allclose(list(found[name]["probabilities"].values()), row["probabilities"], rtol=1e-4)
    assert shards(earlier) == before


@pytest.mark.parametrize("options", [NETWORK, PIXELS], ids=["squeezenet1_1", "pixels"])
def test_its_features_are_found_and_not_extracted_again(earlier, options, capsys):
    before = shards(earlier)
    assert run(["extract", "images", *options, "--cache", "cache", "--quiet"]) == DONE
    assert "72 images, 72 already there, 0 extracted" in capsys.readouterr().out
    command = ["classify", "images", *options, "--cache", "cache", "--heads", "ridge", "--out", "runs/again"]
    assert run([*command, "--quiet"]) == DONE
    assert shards(earlier) == before


def test_its_cache_holds(earlier):
    assert run(["cache", "verify", "--cache", "cache", "--quiet"]) == DONE


@pytest.mark.usefixtures("whole_pages")
def test_its_runs_are_compared_and_reported(earlier, capsys):
    assert run(["compare", "runs/heads", "runs/network", "runs/tuned"]) == DONE
    told = capsys.readouterr().out
    assert all(name in told for name in ("logistic", "finetuned", "sklearn.svm.SVC"))
    assert run(["report", "runs/heads", "--cache", "cache"]) == DONE
    assert (earlier / "runs" / "heads" / "report.html").stat().st_size > 1_000_000


def test_a_fine_tune_goes_on_from_its_run(earlier):
    command = ["finetune", "images", "--from", "runs/network", "--cache", "cache", "--out", "runs/more", "--quiet"]
    settings = ["--epochs", "1", "--unfreeze", "features.12", "--size", "64", "--augment", "none", "--engine", "torch"]
    assert run([*command, *settings]) == DONE
    assert json.loads(Path("runs/more/results.json").read_text())["finetune"]["unfreeze"] == "features.12"


NEW_IMAGE = "images/digit-0/new.png"


@pytest.fixture
def moved(earlier) -> Path:
    """The weights of the run at another place under another name, and an image that the cache lacks."""
    Image.fromarray(np.full((8, 8), 99, dtype=np.uint8)).save(NEW_IMAGE)
    Path("elsewhere").mkdir()
    return Path("squeezenet1_1.safetensors").rename("elsewhere/mine.safetensors")


def predicted(*options: str) -> int:
    command = ["predict", "runs/network", NEW_IMAGE, "--cache", "cache", "--engine", "torch", "--out", "said.json"]
    return run([*command, *options, "--quiet"])


def test_weights_that_moved_are_asked_for_and_accepted_by_their_digest(moved, capsys):
    assert predicted() == USAGE
    message = capsys.readouterr().err
    assert "There is no file" in message
    assert "next to the run, or name their file by --weights." in message
    assert predicted("--weights", "elsewhere/other.safetensors") == USAGE
    weights = load_file(moved)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in weights.items()}}, "elsewhere/wrapped.pth")
    assert predicted("--weights", "elsewhere/wrapped.pth") == DONE
    assert json.loads(Path("said.json").read_text())["images"][0]["path"] == "new.png"


def test_other_weights_are_refused_before_anything_is_extracted(moved, earlier, capsys):
    save_file({name: 0.5 * tensor for name, tensor in load_file(moved).items()}, "elsewhere/other.safetensors")
    before = shards(earlier)
    assert predicted("--weights", "elsewhere/other.safetensors") == FAILED
    assert "does not hold the weights that the head was trained on: their digest begins with" in capsys.readouterr().err
    assert shards(earlier) == before


@pytest.mark.parametrize("place", ["runs/network", "runs"])
def test_weights_that_moved_with_their_run_are_found(moved, place):
    moved.rename(Path(place) / "squeezenet1_1.safetensors")
    assert predicted() == DONE


@pytest.mark.parametrize(
    "place", ["runs/network/renamed.safetensors", "runs/renamed.safetensors", "renamed.safetensors"]
)
def test_weights_under_another_name_are_found_by_their_digest_past_others(moved, place):
    weights = load_file(moved)
    save_file({name: 0.5 * tensor for name, tensor in weights.items()}, "runs/squeezenet1_1.safetensors")
    Path("a.pth").write_bytes(b"no weights")
    moved.rename(place)
    assert predicted() == DONE
    assert json.loads(Path("said.json").read_text())["images"][0]["path"] == "new.png"


def test_weights_that_the_cache_was_made_with_before_are_found_anywhere(moved):
    network = ["--backbone", "squeezenet1_1", "--weights", str(moved), "--size", "64"]
    assert run(["extract", "images/digit-1", *network, "--cache", "cache", "--quiet"]) == DONE
    assert predicted() == DONE


def test_another_file_by_the_name_of_its_weights_is_not_taken_for_them(earlier, capsys):
    weights = load_file("squeezenet1_1.safetensors")
    save_file({name: 0.5 * tensor for name, tensor in weights.items()}, "squeezenet1_1.safetensors")
    command = ["finetune", "images", "--from", "runs/network", "--cache", "cache", "--out", "runs/more", "--quiet"]
    settings = ["--epochs", "1", "--unfreeze", "features.12", "--size", "64", "--engine", "torch"]
    assert run([*command, *settings]) == FAILED
    assert "with another weights_digest than this machine's squeezenet1_1 gives" in capsys.readouterr().err
    assert not Path("runs/more").exists()
