"""A run from another working folder or another machine: its images, its cache, and the commands that are shown."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from featurecache.base import quoting
from featurecache.base.exits import DONE, USAGE
from featurecache.base.quoting import as_command
from featurecache.cli.console import Console
from featurecache.cli.main import run
from featurecache.extract.images.read import read_images
from featurecache.extract.job.request import FeatureRequest
from featurecache.predictor import recorded_cache
from featurecache.report.page import write_report
from featurecache.report.sections import reproduce
from featurecache.runs.command_lines import extract_commands


@pytest.fixture
def home(tmp_path, digits_folder, cache, monkeypatch) -> Path:
    """A folder with `photos` and a run on them that was made there, by their short name."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copytree(digits_folder, home / "photos")
    monkeypatch.chdir(home)
    words = ["--cache", str(cache), "--heads", "ridge", "--out", "made", "--quiet"]
    assert run(["classify", "photos", *words]) == DONE
    return home


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def test_the_images_of_a_run_are_named_by_a_way_that_works_from_here(home, tmp_path, monkeypatch):
    config = config_of(home / "made")
    assert (config["images"], config["images_at"]) == ("photos", str(home / "photos"))
    assert reproduce.images_of(config) == "photos"
    assert shlex.split(reproduce.commands(config)[0])[:3] == ["featurecache", "extract", "photos"]
    monkeypatch.chdir(tmp_path)
    assert reproduce.images_of(config) == str(home / "photos")
    for line in [*reproduce.commands(config), reproduce.audit_commands(config, Path("home/made"))[0]]:
        assert shlex.split(line)[2] == str(home / "photos")


def test_a_run_from_before_names_its_images_as_they_were_typed(home):
    config = config_of(home / "made")
    del config["images_at"]
    assert reproduce.images_of(config) == "photos"


def test_a_page_that_is_made_elsewhere_has_its_pictures(home, tmp_path, monkeypatch):
    there = write_report(home / "made", out=tmp_path / "there.html").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    elsewhere = write_report(home / "made", out=tmp_path / "elsewhere.html").read_text()
    assert "data:image/" in elsewhere
    assert elsewhere.count("data:image/") == there.count("data:image/")
    assert "not where they were" not in elsewhere


def test_weights_of_the_users_are_named_by_a_way_that_works_from_anywhere(home, tmp_path):
    from featurecache.evaluate.classify_plan import ClassifyPlan
    from featurecache.evaluate.results import _config

    (home / "mine.pth").write_bytes(b"")
    request = FeatureRequest(weights="mine.pth")
    plan = ClassifyPlan((request,), ("ridge",), Path("cache"), Path("out"))
    assert _config(plan, read_images("photos"))["requests"][0]["weights"] == str(home / "mine.pth")


def test_a_report_of_no_run_says_so_before_anything_else(tmp_path, capsys):
    for folder in ("nowhere", "nowhere/run"):
        assert run(["report", str(tmp_path / folder)]) == USAGE
        assert (
            f"There is no folder '{tmp_path / folder}'. 'featurecache classify' writes runs; the last one is"
            in capsys.readouterr().err
        )


def test_a_data_set_is_called_like_its_manifest(home):
    files = sorted((home / "photos").rglob("*.png"))
    lines = ["path,label", *(f"{path.relative_to(home)},{path.parent.name}" for path in files)]
    for name in ("first", "second"):
        (home / f"{name}.csv").write_text("\n".join(lines))
        cache = config_of(home / "made")["cache"]
        words = ["--cache", cache, "--heads", "centroid", "--out", name, "--quiet"]
        assert run(["classify", f"{name}.csv", *words]) == DONE
        assert json.loads((home / name / "results.json").read_text())["dataset"]["name"] == name


def test_the_cache_of_another_machine_is_not_made_here(home, tmp_path, monkeypatch, capsys):
    config = config_of(home / "made")
    near, cache = config["cache"], Path(shutil.copytree(config["cache"], home / "data" / "cache"))
    config["cache"] = str(tmp_path / "alice" / "cache")
    (home / "made" / "config.json").write_text(json.dumps(config))
    assert run(["predict", "made", "photos"]) == DONE
    said = capsys.readouterr().err
    assert (
        f"'{tmp_path / 'alice' / 'cache'}', is not here: features of the same kind are kept in '{near}'. Name another"
        in said
    )
    assert not (tmp_path / "alice").exists()
    console = Console(quiet=True)
    assert recorded_cache(home / "made", config, console) == Path("data/cache")
    config["cache"] = str(cache)
    (home / "made" / "config.json").write_text(json.dumps(config))
    assert recorded_cache(home / "made", config, console) == cache
    assert len(console.lines) == 1


def test_predicting_needs_no_backbone_for_images_that_are_in_the_cache(home, monkeypatch, capsys):
    monkeypatch.setattr("featurecache.extract.backbones.registry.load_layers", pytest.fail)
    monkeypatch.setattr("featurecache.features.new_images.extract_features", pytest.fail)
    assert run(["predict", "made", "photos", "--quiet"]) == DONE
    assert len(capsys.readouterr().out.splitlines()) == 92


def test_images_that_were_predicted_are_among_those_of_the_cache(home, tmp_path, capsys):
    assert run(["predict", "made", "photos/0", "photos/1", "--quiet"]) == DONE
    capsys.readouterr()
    assert run(["cache", "info", "--cache", str(tmp_path / "cache"), "--json"]) == DONE
    (found,) = json.loads(capsys.readouterr().out)["caches"]
    assert {str(home / "photos" / "0"), str(home / "photos" / "1")} <= set(found["images"])


def test_commands_are_quoted_as_the_shell_here_reads_them():
    words = ["featurecache", "extract", "my photos", "it's", "a&b"]
    assert shlex.split(as_command(words, windows=False)) == words
    assert as_command(words, windows=True) == 'featurecache extract "my photos" it\'s a&b'
    assert quoting.as_command(["x"]) == "x"


def test_the_usual_cache_goes_without_saying_however_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for cache in (Path("data/cache"), Path("data") / ".." / "data" / "cache", tmp_path / "data" / "cache"):
        assert extract_commands("photos", [FeatureRequest()], cache) == ["featurecache extract photos"]
    (command,) = extract_commands("photos", [FeatureRequest()], Path("cache"))
    assert command == "featurecache extract photos --cache cache"
