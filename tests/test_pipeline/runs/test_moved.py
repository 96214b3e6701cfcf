"""A run, its cache, its images and its weights are found where they are now, and nothing is made where they were."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from featurecache.base.exits import DONE
from featurecache.base.progress import Silent
from featurecache.cli.main import run
from featurecache.extract.cache.memo import Memo
from featurecache.extract.job.request import FeatureRequest
from featurecache.predictor import recorded_cache
from featurecache.report.sections import reproduce
from featurecache.runs import moved
from featurecache.runs.moved import config_of_now, find_images, find_source, weights_by_digest
from featurecache.runs.record_checks import read_results
from featurecache.runs.split_list import read_splits

FEATURES = ("--backbone", "pixels")
RUN = Path("data/runs/first")


@pytest.fixture(scope="module")
def made(tmp_path_factory, digits_folder):
    """A project that was made in one place: photos, a table of them, the cache and a run."""
    home = tmp_path_factory.mktemp("alice") / "project"
    shutil.copytree(digits_folder, home / "photos")
    files = sorted((home / "photos").rglob("*.png"))
    lines = ["file,class", *(f"{path.relative_to(home)},{path.parent.name}" for path in files)]
    (home / "list.csv").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert run(["run", "photos", *FEATURES, "--heads", "centroid", "--out", str(RUN), "--quiet"]) == DONE
        columns = ["--path-column", "file", "--label-column", "class", "--heads", "centroid", "--quiet"]
        assert run(["classify", "list.csv", *FEATURES, *columns, "--out", "data/runs/table"]) == DONE
    return home


@pytest.fixture
def project(made, tmp_path):
    """The project in another place; the old one is away for the time of the test."""
    away = made.with_name("away")
    made.rename(away)
    yield Path(shutil.copytree(away, tmp_path / "mnt" / "project"))
    assert not made.exists()
    away.rename(made)


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def features_of(folder: Path) -> list:
    return read_results(folder)["features"]


@pytest.mark.parametrize("where", [".", "..", "photos"])
def test_a_project_that_moved_predicts_from_its_own_cache(project, monkeypatch, capsys, where):
    monkeypatch.chdir(project / where)
    monkeypatch.setattr("featurecache.features.new_images.extract_features", pytest.fail)
    assert run(["predict", str(project / RUN), str(project / "photos")]) == DONE
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 92
    assert (
        f"is not here: features of the same kind are kept in '{project}/data/cache'. Name another with --cache."
        in said.err
    )


def test_a_cache_that_moved_alone_is_named_or_another_is_begun_with_a_line(
    project, made, monkeypatch, capsys, tmp_path
):
    (project / "data" / "cache").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    words = ["predict", str(project / RUN), str(project / "photos" / "0")]
    assert run([*words, "--cache", str(tmp_path / "elsewhere")]) == DONE
    assert not (tmp_path / "data").exists()
    assert run(words) == DONE
    said = capsys.readouterr().err
    assert f"'{made}/data/cache', is not here: features are kept in 'data/cache' instead." in said
    assert (tmp_path / "data" / "cache").is_dir()


def test_a_run_alone_finds_a_cache_of_its_features_in_the_working_folder_or_beside_it(project, monkeypatch, tmp_path):
    (project / RUN).rename(tmp_path / "sent")
    config, features = config_of(tmp_path / "sent"), features_of(tmp_path / "sent")
    monkeypatch.chdir(project)
    assert recorded_cache(tmp_path / "sent", config, Silent(), features=features) == Path("data/cache")
    (project / "data" / "cache").rename(tmp_path / "cache")
    assert recorded_cache(tmp_path / "sent", config, Silent(), features=features) == tmp_path / "cache"


def test_a_cache_without_the_features_of_the_run_is_not_its_cache(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in (project / "data" / "cache").glob("pixels-*"):
        folder.rename(folder.with_name("pixels-000000000000"))
    config, features = config_of(project / RUN), features_of(project / RUN)
    assert recorded_cache(project / RUN, config, Silent(), features=features) == Path("data/cache")


def test_images_that_moved_with_the_run_are_shown_and_named(project, made, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = [image.path for image in read_splits(project / RUN)]
    config = config_of_now(project / RUN, config_of(project / RUN), features_of(project / RUN), names)
    assert config["images"] == str(project / "photos")
    for line in [*reproduce.commands(config), *reproduce.audit_commands(config, project / RUN)]:
        assert str(made) not in line
    assert shlex.split(reproduce.commands(config)[0])[2] == str(project / "photos")
    assert str(project / "data" / "cache") in shlex.split(reproduce.commands(config)[0])
    assert run(["report", str(project / RUN), "--out", "page.html"]) == DONE
    page = Path("page.html").read_text()
    assert "data:image/" in page
    assert "not where" not in page
    assert str(made) not in page


def test_a_run_from_windows_finds_what_is_near_it(project):
    config = config_of(project / RUN) | {"images_at": "C:\\work\\photos", "cache": "C:\\work\\data\\cache"}
    config["reading"] = {"root": "D:\\share\\photos"}
    names = [image.path for image in read_splits(project / RUN)]
    found = config_of_now(project / RUN, config, features_of(project / RUN), names)
    assert (found["images"], found["cache"]) == (str(project / "photos"), str(project / "data" / "cache"))
    assert found["reading"] == {"root": str(project / "photos")}


def test_a_folder_of_the_same_name_with_other_images_is_not_taken_for_them(project):
    shutil.rmtree(project / "photos")
    (project / "photos" / "0").mkdir(parents=True)
    (project / "photos" / "0" / "other.png").touch()
    names = [image.path for image in read_splits(project / RUN)]
    assert find_images(project / RUN, config_of(project / RUN), names) is None
    config = config_of_now(project / RUN, config_of(project / RUN), features_of(project / RUN), names)
    assert config["images_at"] == config_of(project / RUN)["images_at"]


def test_a_table_with_columns_of_its_own_is_found_and_read_as_the_run_read_it(project, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert config_of(project / "data/runs/table")["reading"] == {"path_column": "file", "label_column": "class"}
    assert run(["report", str(project / "data/runs/table"), "--out", "page.html"]) == DONE
    page = Path("page.html").read_text()
    assert "not where" not in page
    named = f"featurecache classify {project / 'list.csv'} --path-column file --label-column class"
    assert named in page
    assert run(["predict", str(project / "data/runs/table"), str(project / "list.csv")]) == DONE
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 93
    assert " of 90 labelled images right" in said.err


def test_heads_are_trained_again_by_splits_csv_where_the_images_are_not(project, monkeypatch, capsys):
    shutil.rmtree(project / "photos")
    monkeypatch.chdir(project)
    (project / RUN).rename(project / "first")
    words = [*FEATURES, "--heads", "centroid", "--out", "again"]
    assert run(["classify", "first/splits.csv", *words]) == DONE
    said = capsys.readouterr().err
    assert "90 of the 90 files named in 'first/splits.csv' are not there and are known by their digest" in said
    first, again = (read_results(Path(name)) for name in ("first", "again"))
    assert first["heads"][0]["test"] == again["heads"][0]["test"]
    assert run(["extract", "first/splits.csv", *FEATURES, "--quiet"]) == DONE
    assert run(["extract", "first/splits.csv", "--backbone", "pixels", "--size", "16", "--quiet"]) != DONE


def test_the_run_that_a_fine_tune_began_from_is_found_beside_it(project):
    assert find_source(project / "data/runs/table", "/old/data/runs/first") == str(project / RUN)
    assert find_source(project / "data/runs/table", "/old/gone") == "/old/gone"


@pytest.mark.parametrize("place", ["data/runs/first/mine.pth", "data/runs/mine.pth", "mine.pth", "weights/mine.pth"])
def test_a_weights_file_that_moved_is_found_near_the_run(project, place):
    request = FeatureRequest(weights="/old/weights/mine.pth")
    assert moved.with_run_weights(project / RUN, request) == request
    (project / place).parent.mkdir(exist_ok=True)
    (project / place).touch()
    assert os.path.samefile(str(moved.with_run_weights(project / RUN, request).weights), project / place)


TRAINED = SimpleNamespace(weights_digest="ab" * 32)


def remember_weights(cache: Path, path: Path, size: int) -> None:
    """Let the memo know a file of this size with the weights of TRAINED."""
    answer = {"spec": vars(TRAINED), "weights_path": str(path), "state": [size, 0, 0]}
    with Memo(cache) as memo:
        memo.remember_answer("[]", json.dumps(answer))


def test_weights_in_a_closed_folder_are_passed_over(tmp_path, monkeypatch):
    def stopping_at_closed(ask):
        def asked(path):
            if "closed" in path.parts:
                raise PermissionError(13, "Permission denied", str(path))
            return ask(path)

        return asked

    remember_weights(tmp_path, Path("/closed/known.pth"), 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "is_file", stopping_at_closed(os.path.isfile))
    monkeypatch.setattr(Path, "exists", stopping_at_closed(os.path.exists))
    request = FeatureRequest(backbone="squeezenet1_1", weights="/closed/w.pth")
    assert weights_by_digest(tmp_path / "run", request, TRAINED, tmp_path, say=pytest.fail) == request


def test_of_many_files_the_likeliest_are_read_first_and_a_line_is_shown_before(tmp_path, monkeypatch):
    remember_weights(tmp_path, tmp_path / "gone.pth", 7)
    for number in range(40):
        (tmp_path / f"{number:02d}.{('pth', 'bin')[number % 2]}").write_bytes(bytes(7 if number == 39 else 5))
    events = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(moved, "_has_weights", lambda request, *_: events.append(Path(request.weights).name))
    request = FeatureRequest(backbone="squeezenet1_1", weights="/old/w.pth")
    weights_by_digest(tmp_path / "run", request, TRAINED, tmp_path, say=events.append)
    assert events[:2] == ["w.pth", "gone.pth"]
    assert events[2] == "looking for the weights of the run in 16 files near it, by reading them"
    assert events[3:5] == ["39.bin", "00.pth"]
    assert len(events) == 3 + moved.MOST_FILES


def test_another_table_of_the_same_name_is_not_that_of_a_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "labels.csv").write_text("path,label\nother/1.png,x\n")
    config = {"images": "/old/birds/labels.csv"}
    assert find_images(tmp_path / "run", config, ["img/owl.png"]) is None
    (tmp_path / "labels.csv").write_text("path,label\nimg/owl.png,x\n")
    assert find_images(tmp_path / "run", config, ["img/owl.png"]) == str(tmp_path / "labels.csv")
