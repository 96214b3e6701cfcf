"""Exit code 3 in every command: it finished, and something that a person would count is not in the result."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from featurecache.base.exits import DONE, FAILED, REFUSED, USAGE
from featurecache.cli.main import run

PIXELS = ["--backbone", "pixels"]
SMALL = ["--size", "64", "--engine", "torch"]
BROKEN = "0/broken.png"


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits_folder) -> Path:
    """A folder with `images`, one of which is broken, their features in `cache`, and `run`, a run on them."""
    folder = tmp_path_factory.mktemp("exits")
    shutil.copytree(digits_folder, folder / "images")
    (folder / "images" / BROKEN).write_bytes(b"nothing")
    words = [*PIXELS, "--cache", str(folder / "cache"), "--quiet"]
    assert run(["extract", str(folder / "images"), *words]) == REFUSED
    words += ["--heads", "ridge", "--out", str(folder / "run")]
    assert (
        run(["classify", str(folder / "images"), *PIXELS, *words, "--heads", "ridge", "--out", str(folder / "run")])
        == 3
    )
    return folder


def command_of(place: Path, name: str, out: Path, images: Path | None = None) -> list[str]:
    images, cache = str(images or place / "images"), ["--cache", str(place / "cache"), "--quiet"]
    return {
        "extract": ["extract", images, *PIXELS, *cache],
        "classify": ["classify", images, *PIXELS, "--heads", "ridge", "--out", str(out), *cache],
        "run": ["run", images, *PIXELS, "--heads", "ridge", "--out", str(out), *cache],
        "predict": ["predict", str(place / "run"), images, *cache],
        "audit": ["audit", images, *PIXELS, *cache],
        "select": ["select", images, "--backbone", "pixels", *cache],
        "export": ["cache", "export", images, str(out.with_suffix(".npz")), *PIXELS, *cache],
    }[name]


COMMANDS = ["extract", "classify", "run", "predict", "audit", "select", "export"]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_image_that_is_refused_is_named_and_exit_code_3(place, tmp_path, capsys, name):
    assert run(command_of(place, name, tmp_path / "out")) == REFUSED
    told = capsys.readouterr()
    where = (tmp_path / "out" / "errors.csv").read_text() if name == "classify" else told.err
    assert BROKEN in where


@pytest.mark.parametrize("name", COMMANDS)
def test_an_image_set_that_is_whole_is_exit_code_0(place, digits_folder, tmp_path, name):
    command = [
        str(digits_folder) if word == str(place / "images") else word
        for word in command_of(place, name, tmp_path / "out")
    ]
    assert run(command) == DONE


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_whose_images_cannot_be_seen_is_exit_code_3(place, digits_folder, tmp_path, monkeypatch, capsys, name):
    shutil.copytree(digits_folder, tmp_path / "digits")
    (tmp_path / "digits" / "0" / "closed").mkdir()
    scandir = os.scandir

    def refused(folder):
        if str(folder).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    command = command_of(place, name, tmp_path / "out", images=tmp_path / "digits")
    command.remove("--quiet")
    assert run(command) == REFUSED
    assert "1 folder that cannot be read is left out: " in capsys.readouterr().err


def test_a_program_reads_which_images_audit_and_select_lack(place, tmp_path, capsys):
    for name in ("audit", "select"):
        assert run([*command_of(place, name, tmp_path), "--json"]) == REFUSED
        (refused,) = json.loads(capsys.readouterr().out)["refused"]
        assert refused["path"] == BROKEN
    assert run([*command_of(place, "audit", tmp_path), "--out", str(tmp_path / "audit")]) == REFUSED
    (refused,) = json.loads((tmp_path / "audit" / "audit.json").read_text())["refused"]
    assert refused["path"] == BROKEN


def test_a_head_that_failed_is_exit_code_3(place, digits_folder, tmp_path, monkeypatch):
    from featurecache.base.errors import HeadFailed
    from featurecache.classify.heads.ridge import RidgeHead

    def fail(*_, **__):
        raise HeadFailed("no.")

    monkeypatch.setattr(RidgeHead, "try_grid", fail)
    words = [
        *PIXELS,
        "--heads",
        "ridge,centroid",
        "--out",
        str(tmp_path / "run"),
        "--cache",
        str(place / "cache"),
        "--quiet",
    ]
    assert run(["classify", str(digits_folder), *words, "--out", str(tmp_path / "run")]) == REFUSED


def test_finetune_counts_what_it_could_not_train_on(place, tmp_path, capsys):
    few = [path for folder in (place / "images").iterdir() for path in sorted(folder.iterdir())[:10]]
    for path in [*few, place / "images" / BROKEN]:
        (tmp_path / "few" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "few" / path.parent.name)
    images, cache = str(tmp_path / "few"), ["--cache", str(tmp_path / "cache"), "--quiet"]
    assert run(["run", images, *SMALL, "--heads", "ridge", "--out", str(tmp_path / "base"), *cache]) == REFUSED
    train = ["--from", str(tmp_path / "base"), "--unfreeze", "1", "--epochs", "1", "--augment", "none", "--out"]
    capsys.readouterr()
    words = [word for word in cache if word != "--quiet"]
    assert run(["finetune", images, *train, str(tmp_path / "tuned"), *SMALL, *words]) == REFUSED
    told = capsys.readouterr().err
    assert f"1 image is refused and left out, all listed in {tmp_path / 'tuned' / 'errors.csv'}." in told
    assert BROKEN in (tmp_path / "tuned" / "errors.csv").read_text()


def test_damage_in_a_cache_is_exit_code_3(place, tmp_path, capsys):
    cache = Path(shutil.copytree(place / "cache", tmp_path / "cache"))
    words = ["--cache", str(cache), "--quiet"]
    assert run(["cache", "verify", *words]) == DONE
    assert run(["cache", "info", "--cache", str(cache)]) == DONE
    (shard,) = cache.glob("pixels-*/shards/*.h5")
    shard.write_bytes(shard.read_bytes()[:5000])
    assert run(["cache", "verify", *words]) == REFUSED
    assert run(["cache", "info", "--cache", str(cache)]) == REFUSED
    assert run(["cache", "compact", "--cache", str(cache)]) == FAILED
    assert run(["cache", "verify", "--repair", *words]) == DONE
    assert run(["cache", "verify", *words]) == DONE


@pytest.mark.parametrize("command", ["extract", "run"])
def test_weights_that_are_neither_a_name_nor_a_file_are_wrong_use(digits_folder, tmp_path, capsys, command):
    words = ["--weights", "typo.pth", "--cache", str(tmp_path / "cache"), "--quiet"]
    assert run([command, str(digits_folder), *words]) == USAGE
    assert "There is no file 'typo.pth', and no weights of efficientnet_lite0 are called so" in capsys.readouterr().err
