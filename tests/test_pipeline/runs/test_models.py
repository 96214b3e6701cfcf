"""Models by name: a head of a run in data/models, its versions, and commands that take the name."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import click
import pytest

import featurecache
from featurecache import FeatureCacheError, FeatureRequest, Predictor, extract_features, read_images, train_heads
from featurecache.base.errors import PipelineError, SavedHeadError, UsageError
from featurecache.base.exits import DONE, FAILED, USAGE
from featurecache.cli.config_file import resolved_options
from featurecache.cli.main import program, run
from featurecache.runs.models import promotion
from featurecache.runs.models.places import find_run
from featurecache.runs.models.promotion import promote_model, roll_back
from featurecache.runs.models.versions import list_models
from featurecache.runs.record_checks import read_results


def classify(images: str, out: str, size: int = 4, **how: bool) -> None:
    manifest, features, cache = read_images(images), [FeatureRequest("pixels", size=size)], Path("data/cache")
    extract_features(manifest, features, cache)
    train_heads(manifest, features, heads=["ridge", "centroid"], cache_root=cache, out=Path(f"data/runs/{out}"), **how)


@pytest.fixture(scope="module")
def made(tmp_path_factory, digits_folder) -> Path:
    """A project with three runs: `all` (with an ensemble), `two` without the class 2, `large` on other features."""
    root = tmp_path_factory.mktemp("made") / "project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(root)
        shutil.copytree(digits_folder, "photos", ignore=lambda folder, names: sorted(names)[12:])
        shutil.copytree("photos", "fewer", ignore=lambda folder, names: ["2"])
        classify("photos", "all", ensemble=True)
        classify("fewer", "two")
        classify("photos", "large", size=6)
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    """A copy of it to change, the working folder of the test, somewhere else than where the runs were made."""
    root = Path(shutil.copytree(made, tmp_path / "project"))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def read_only(made, monkeypatch) -> Path:
    """The project itself, for what writes nothing."""
    monkeypatch.chdir(made)
    return made


def labels(named: str, capsys, *words: str) -> list[dict]:
    capsys.readouterr()
    assert run(["predict", named, "photos", "--json", *words]) == DONE
    return json.loads(capsys.readouterr().out)["images"]


def heads_of(folder: Path) -> list[str]:
    return [head["name"] for head in json.loads((folder / "results.json").read_text())["heads"]]


def test_a_model_predicts_by_its_name_what_the_run_predicts_also_when_the_run_is_gone(project, capsys):
    expected = labels("data/runs/all", capsys, "--head", "centroid")
    assert run(["promote", "data/runs/all", "digits", "--head", "centroid"]) == DONE
    out, err = capsys.readouterr()
    assert out.startswith("digits v1: centroid on pixels, 3 classes, accuracy ")
    assert err == ""
    assert heads_of(project / "data/models/digits/v1") == ["centroid"]
    shutil.rmtree("data/runs")
    assert labels("digits", capsys) == expected
    assert labels("data/models/digits", capsys) == expected
    assert labels("data/models/digits/v1", capsys) == expected
    assert run(["predict", "digits", "photos", "--head", "ridge"]) == USAGE
    assert "A model has one head, this one centroid: leave --head out" in capsys.readouterr().err


def test_a_model_works_in_a_project_that_was_moved_and_says_which_version_it_is(project, tmp_path, monkeypatch, capsys):
    promote_model("data/runs/all", "digits")
    expected = labels("digits", capsys)
    shutil.rmtree("data/runs")
    moved = project.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(moved)
    monkeypatch.setattr("featurecache.features.new_images.extract_features", pytest.fail)
    assert labels("digits", capsys) == expected
    assert run(["predict", "digits", "photos", "--dry-run"]) == DONE
    assert f"model 'digits', version 1: {Path('data/models/digits/v1')}\n" in capsys.readouterr().err
    assert Predictor.load("digits").classes == ["0", "1", "2"]


def test_an_ensemble_is_promoted_with_its_members_and_stays_the_one_that_is_taken(project, capsys):
    results = json.loads((project / "data/runs/all/results.json").read_text())
    assert "ensemble" in [head["name"] for head in results["heads"]]
    expected = labels("data/runs/all", capsys, "--head", "ensemble")
    found = promote_model("data/runs/all", "digits", head="ensemble")
    assert (found.head, found.version) == ("ensemble", 1)
    assert heads_of(found.folder) == ["ensemble", *sorted(heads_of(found.folder)[1:], key=heads_of(found.folder).index)]
    assert len(heads_of(found.folder)) == 3
    shutil.rmtree("data/runs")
    assert labels("digits", capsys) == expected
    assert Predictor.load("digits").name.startswith("ensemble")


def test_what_differs_from_the_version_before_is_named(project, capsys):
    assert run(["promote", "data/runs/all", "digits", "--head", "ridge"]) == DONE
    assert run(["promote", "data/runs/all", "digits", "--head", "centroid"]) == DONE
    assert capsys.readouterr().err == ""
    assert run(["promote", "data/runs/two", "digits"]) == DONE
    assert capsys.readouterr().err == "The classes differ from those of v2: missing 2.\n"
    assert run(["promote", "data/runs/large", "digits", "--json"]) == DONE
    found = json.loads(capsys.readouterr().out)
    assert found["notes"] == [
        "The classes differ from those of v3: new 2.",
        "The features of pixels differ from those of v3: another transform.resize, transform.crop, feature_dim.",
    ]
    assert (found["version"], found["is_current"], found["source"]) == (4, True, str(project / "data/runs/large"))


def test_another_backbone_is_named(project):
    promote_model("data/runs/all", "digits")
    path = project / "data/models/digits/v1/results.json"
    path.write_text(path.read_text().replace('"pixels"', '"resnet18"'))
    found = promote_model("data/runs/all", "digits")
    assert found.notes == ("The backbone differs from that of v1: pixels instead of resnet18.",)


def test_going_back_takes_the_versions_in_the_order_in_which_they_were_current(project, capsys):
    for name in ("all", "two", "large"):
        promote_model(f"data/runs/{name}", "digits")
    assert run(["promote", "digits", "--rollback"]) == DONE
    out, err = capsys.readouterr()
    assert out.startswith("digits v2: ")
    assert "missing 2" in err
    assert promote_model("data/runs/large", "digits").version == 4  # a number is never given twice
    assert [roll_back("digits").version, roll_back("digits").version] == [2, 1]
    assert run(["promote", "--rollback", "digits"]) == USAGE
    assert "has no version before 1" in capsys.readouterr().err
    assert sorted(path.name for path in (project / "data/models/digits").glob("v*")) == ["v1", "v2", "v3", "v4"]
    assert find_run("digits") == Path("data/models/digits/v1")


def test_models_lists_every_version(project, capsys):
    assert run(["models"]) == DONE
    assert capsys.readouterr().out == "There is no model yet. 'featurecache promote RUN NAME' makes one.\n"
    promote_model("data/runs/all", "digits")
    promote_model("data/runs/two", "digits")
    promote_model("data/runs/two", "b")
    (project / "data/models/b/v1/results.json").write_text("{")
    assert run(["models"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["b", "v1"],
        ["digits", "v1", "ridge"],
        ["digits", "v2", "current"],
    ]
    assert any("Version 1 of the model 'b', the current one, is not whole" in line for line in lines[5:])
    assert run(["models", "--json"]) == DONE
    assert [each["classes"] for each in json.loads(capsys.readouterr().out)] == [0, 3, 2]
    assert [each.is_current for each in list_models()] == [False, False, True]


def test_a_folder_of_that_name_wins_and_that_is_one_line(project, capsys):
    promote_model("data/runs/all", "digits")
    shutil.copytree("data/runs/two", "digits")
    capsys.readouterr()
    assert run(["predict", "digits", "fewer", "--json"]) == DONE
    out, err = capsys.readouterr()
    assert list(json.loads(out)["images"][0]["probabilities"]) == ["0", "1"]
    assert f"'digits' is a folder here and is taken; the model of that name is '{Path('data/models/digits')}'." in err


ODD_NAMES = ["", "a/b", "..", ".a", "-a", "a.onnx", "a b", "ü", "a" * 65, "a\n", "C:\\a", "NUL", "com1"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_is_a_path_or_odd_is_refused(read_only, name):
    with pytest.raises(UsageError, match="A model cannot be called"):
        promote_model("data/runs/all", name)
    assert not (read_only / "data/models").exists()


def test_an_unknown_name_names_the_models_that_are_like_it(project, capsys):
    assert run(["predict", "digits", "photos"]) == USAGE
    assert "There is no folder 'digits'" in capsys.readouterr().err
    promote_model("data/runs/all", "digits")
    assert run(["predict", "digit", "photos"]) == USAGE
    assert "There is neither a folder nor a model 'digit'. Did you mean digits?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["data/runs/all"], ["data/runs/all", "a", "b"], ["a", "b", "--rollback"], ["--rollback"]]
)
def test_too_few_or_many_words_are_refused(read_only, words, capsys):
    assert run(["promote", *words]) == USAGE
    assert not (read_only / "data/models").exists()


def test_a_head_that_is_damaged_is_not_promoted_and_the_model_stays(project):
    promote_model("data/runs/all", "digits")
    with open("data/runs/two/heads/pixels--ridge/head.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(SavedHeadError, match="is damaged"):
        promote_model("data/runs/two", "digits", head="ridge")
    shutil.rmtree("data/runs/large/heads/pixels--ridge")
    with pytest.raises(FeatureCacheError):
        promote_model("data/runs/large", "digits", head="ridge")
    assert find_run("digits") == Path("data/models/digits/v1")
    assert len(list_models()) == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": 1, "versions": []}', '{"format": 1, "versions": ["../v1"]}',
     '{"format": 9, "versions": [1]}', '{"format": 1, "versions": [true]}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_record_is_one_sentence(project, text, capsys):
    promote_model("data/runs/all", "digits")
    (project / "data/models/digits/current.json").write_text(text)
    assert run(["predict", "digits", "photos"]) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not what 'featurecache promote' writes" in line
    assert run(["models"]) == DONE


@pytest.mark.parametrize("step", ["copyfile", "flush_tree", "write_current"])
def test_a_promotion_that_is_cut_short_leaves_the_version_before(project, monkeypatch, step):
    promote_model("data/runs/all", "digits")

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(promotion.shutil if step == "copyfile" else promotion, step, stop)
        patched.setattr(promotion.shutil, "rmtree", lambda *args, **how: None)  # as a kill leaves it
        with pytest.raises(KeyboardInterrupt):
            promote_model("data/runs/two", "digits")
    assert find_run("digits") == Path("data/models/digits/v1")
    assert [each.version for each in list_models()] == [1, 2] if step == "write_current" else [1]
    promote_model("data/runs/two", "digits")
    assert find_run("digits") == Path(f"data/models/digits/v{3 if step == 'write_current' else 2}")
    assert not list((project / "data/models/digits").glob(".*"))


def test_promotions_at_once_lose_nothing(project):
    each = [threading.Thread(target=promote_model, args=(f"data/runs/{name}", "digits")) for name in ("all", "two") * 4]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    assert [found.version for found in list_models()] == list(range(1, 9))
    record = json.loads((project / "data/models/digits/current.json").read_text())
    assert record == {"format": 1, "versions": list(range(1, 9))}


def test_a_model_that_cannot_be_written_is_one_sentence(project):
    (project / "data/models").write_text("")
    with pytest.raises(PipelineError, match="cannot be written: "):
        promote_model("data/runs/all", "digits")


def test_a_link_that_moves_meanwhile_does_not_mix_two_runs(project, monkeypatch):
    link = Path("data/runs/newest")
    link.symlink_to("all")

    def read_then_move(folder):
        results = read_results(folder)
        link.unlink()
        link.symlink_to("two")
        return results

    monkeypatch.setattr(promotion, "read_results", read_then_move)
    assert promote_model(link, "digits").source == str(project / "data/runs/all")
    assert Predictor.load("digits").classes == ["0", "1", "2"]


def test_no_run_replaces_a_version(project, capsys):
    promote_model("data/runs/all", "digits")
    words = ["--backbone", "pixels", "--size", "4", "--heads", "ridge", "--out", "data/models/digits/v1"]
    assert run(["classify", "photos", *words]) == USAGE
    assert "is a version of a model, which no run replaces" in capsys.readouterr().err


def test_weights_that_lie_in_the_run_or_have_moved_come_along(project):
    place = project / "data/runs/all"
    head = next(place.glob("heads/*ridge/head.json"))
    document = json.loads(head.read_text())
    (place / "mine.pth").write_bytes(b"weights")
    for recorded in (str(place / "mine.pth"), "/another/machine/mine.pth"):
        document["meta"]["request"] |= {"weights": recorded}
        head.write_text(json.dumps(document))
        found = promote_model(place, "digits", head="ridge")
        assert (found.folder / "mine.pth").read_bytes() == b"weights"
    outside = project / "mine.pth"
    outside.write_bytes(b"weights")
    document["meta"]["request"] |= {"weights": str(outside)}
    head.write_text(json.dumps(document))
    assert not (promote_model(place, "digits", head="ridge").folder / "mine.pth").exists()


def test_models_are_made_from_python_too(project):
    found = featurecache.promote_model("data/runs/all", "digits", head="ridge")
    assert (found.name, found.version, found.features, found.classes) == ("digits", 1, "pixels", 3)
    assert found in featurecache.list_models()


def test_other_commands_take_the_name_too(project, capsys):
    promote_model("data/runs/all", "digits", head="ridge")
    shutil.rmtree("data/runs")
    capsys.readouterr()
    assert run(["report", "digits"]) == DONE
    page = project / "data/models/digits/v1/report.html"
    assert capsys.readouterr().out == f"{page.relative_to(project)}\n"
    assert "ridge" in page.read_text()
    promote_model("data/models/digits/v1", "digits")  # with its page it is still a run
    assert run(["finetune", "photos", "--from", "digits", "--out", "data/models/digits/v2"]) == USAGE
    assert "model 'digits', version 2" in capsys.readouterr().err
    assert run(["report", "digit"]) == USAGE
    assert "Did you mean digits?" in capsys.readouterr().err


def test_the_options_of_a_fine_tune_name_the_version_that_it_began_from(project):
    promote_model("data/runs/all", "digits", head="ridge")
    context = program.get_command(click.Context(program), "finetune").make_context(
        "finetune", ["photos", "--from", "digits"]
    )
    assert f'from = "{Path("data/models/digits/v1")}"' in resolved_options(context)


def test_a_damaged_version_says_how_to_go_back(project, capsys):
    promote_model("data/runs/all", "digits", head="ridge")
    place = next((project / "data/models/digits/v1").glob("heads/*/head.safetensors"))
    place.write_bytes(b"")
    assert run(["predict", "digits", "photos"]) == FAILED
    assert "rollback" not in capsys.readouterr().err  # there is none before
    promote_model("data/runs/all", "digits", head="ridge")
    next((project / "data/models/digits/v2").glob("heads/*/head.safetensors")).write_bytes(b"")
    assert run(["predict", "digits", "photos"]) == FAILED
    assert capsys.readouterr().err.endswith("Go back by: featurecache promote digits --rollback\n")


def test_a_version_is_compared_by_its_run(project, capsys):
    promote_model("data/runs/all", "digits", head="ridge")
    assert run(["compare", "digits", "data/runs/two"]) == USAGE
    source = project / "data/runs/all"
    assert f"runs are compared by these: name the run that it is from, '{source}'." in capsys.readouterr().err
