"""Images of a run get the labels that the run has of them; where they do not, `verify` names what differs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from featurecache.cli.main import DONE, FAILED, USAGE, run
from featurecache.extract.in_memory import alike, network


@pytest.fixture
def verified(run_of_two, capsys):
    """The exit code, the JSON and the lines on stderr of `verify` on the run of cats and dogs."""

    def verify(*options, folder=run_of_two):
        code = run(["verify", str(folder), "--quiet", "--json", *map(str, options)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return verify


def test_a_run_agrees_with_the_serving_path(verified, run_of_two, capsys):
    code, found, _ = verified("--replay", 100)
    assert (code, found["agrees"], found["n_drawn"], found["n_compared"]) == (DONE, True, 24, 24)
    assert list(found["features"]) == ["pixels"]
    assert found["features"]["pixels"]["value"] < 1e-5
    assert found["n_tested"] > 0
    assert max(found["probabilities"]["value"], found["tested"]["value"]) < 1e-5
    assert (found["left_out"], found["other_labels"], found["other_tested"]) == ([], [], [])
    assert run(["verify", str(run_of_two), "--replay", "5", "--quiet"]) == DONE
    out = capsys.readouterr().out
    assert out.startswith("ridge on pixels: 5 images of the run labelled again, of 5 that were drawn\n")
    assert "  labels: 5 of 5 equal to those of the cached features\n" in out
    assert out.endswith("They agree.\n")


def test_the_draw_is_by_the_seed(verified, monkeypatch):
    drawn = []
    whole = network.ImageNetworks.vectors
    monkeypatch.setattr(
        network.ImageNetworks,
        "vectors",
        lambda self, items, **how: drawn.append(b"".join(items)) or whole(self, items, **how),
    )
    for seed in (1, 1, 2):
        assert verified("--replay", 3, "--seed", seed)[0] == DONE
    assert drawn[0] == drawn[1] != drawn[2]


PLANTED = {
    "channels in another order": lambda pixels: pixels[::-1],
    "another resize": lambda pixels: np.roll(pixels, 1, axis=2),
    "no orientation": lambda pixels: pixels.transpose(0, 2, 1),
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_a_planted_difference_is_found_and_named(verified, run_of_two, monkeypatch, capsys, plant):
    read = alike.read_pixels
    monkeypatch.setattr(
        alike, "read_pixels", lambda *a, **k: tuple(np.ascontiguousarray(plant(p)) for p in read(*a, **k))
    )
    code, found, _ = verified("--replay", 24)
    assert (code, found["agrees"]) == (FAILED, False)
    assert found["features"]["pixels"]["value"] > 1e-3
    assert found["features"]["pixels"]["image"].endswith(".png")
    assert run(["verify", str(run_of_two), "--quiet"]) == FAILED
    assert "They do not agree." in capsys.readouterr().out


def test_images_that_are_gone_or_changed_are_counted(verified, cats_and_dogs, save, tmp_path):
    moved = shutil.copytree(cats_and_dogs, tmp_path / "two")
    save(moved / "cat" / "00.png", "dog", 99)
    (moved / "dog" / "03.png").unlink()
    code, found, _ = verified("--replay", 24, "--images", moved)
    assert (code, found["n_compared"]) == (DONE, 22)
    assert {row["path"]: row["reason"] for row in found["left_out"]} == {
        "cat/00.png": "its file has changed since the run",
        "dog/03.png": "its file is not where the run saw it",
    }


def test_without_any_image_or_feature_there_is_one_sentence(verified, tmp_path):
    (tmp_path / "empty").mkdir()
    code, found, err = verified("--images", tmp_path / "gone")
    assert (code, found) == (FAILED, None)
    assert "Name them with --images." in err
    code, found, err = verified("--cache", tmp_path / "empty")
    assert (code, found) == (FAILED, None)
    assert "None of 24 images could be compared" in err
    assert "the cache has no features of it" in err


def test_a_run_on_vectors_has_no_images(verified, tmp_path, capsys):
    X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "v.npz", features=X, labels=np.arange(40) % 2)
    folder = tmp_path / "run"
    command = ["classify", str(tmp_path / "v.npz"), "--heads", "centroid", "--out", str(folder), "--quiet"]
    assert run(command) == DONE
    capsys.readouterr()
    code, _, err = verified(folder=folder)
    assert code == USAGE
    assert "takes vectors" in err


def test_a_model_by_name_is_verified_by_the_images_of_its_run(verified, run_of_two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["promote", str(run_of_two), "pets", "--quiet"]) == DONE
    capsys.readouterr()
    code, found, _ = verified(folder="pets")
    assert (code, found["n_compared"], found["n_tested"]) == (DONE, 24, 0)
