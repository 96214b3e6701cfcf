"""A run folder holds what DESIGN promises, its numbers follow from its own predictions, and heads re-run cheaply."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from featurecache.cli.main import DONE, FAILED, USAGE, run

HEADS = "logistic,ridge,knn,mlp"
NARROW = ["--param", "mlp.hidden=64"]  # a tenth of the time of the default


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits_folder, filled_cache) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", HEADS, "--out", str(folder)]
    assert run([*command, *NARROW, "--quiet"]) == DONE
    return folder


@pytest.fixture(scope="module")
def results(finished) -> dict:
    return json.loads((finished / "results.json").read_text())


def test_results_json_has_every_field_of_the_contract(results):
    assert set(results) >= {"format", "created", "config", "versions", "dataset", "features", "heads"}
    assert results["format"] == 1
    data = results["dataset"]
    assert (data["name"], data["classes"], data["skipped"]) == ("digits", ["0", "1", "2"], 0)
    assert data["n_train"] + data["n_val"] + data["n_test"] == 90
    (features,) = results["features"]
    assert features["backbone"] == "efficientnet_lite0"
    assert features["dim"] == 1280
    assert len(features["key"]) == 64
    assert features["extract_seconds"] > 0
    for head in results["heads"]:
        assert set(head) >= {"name", "backbone", "params", "grid_size", "fit_seconds", "predict_seconds", "saved"}
        assert set(head["test"]) >= {
            "accuracy",
            "accuracy_ci",
            "balanced_accuracy",
            "macro_f1",
            "log_loss",
            "ece",
            "brier",
        }
        low, high = head["test"]["accuracy_ci"]
        assert 0 <= low <= head["test"]["accuracy"] <= high <= 1
    assert sorted(head["name"] for head in results["heads"]) == sorted(HEADS.split(","))


def test_the_heads_learned_something(results):
    assert results["heads"][0]["test"]["accuracy"] > 0.8


def test_the_best_head_is_tied_with_itself(results):
    assert results["heads"][0]["tied_with_best"] is True
    assert results["heads"][0]["p_vs_best"] == 1.0


def test_the_run_folder_holds_everything_and_nothing_pickled(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {"config.json", "splits.csv", "results.json", "leaderboard.csv", "predictions.parquet", "log.txt"}
    saved = {path.name for path in (finished / "heads").iterdir()}
    assert saved == {f"efficientnet_lite0--{head}" for head in HEADS.split(",")}
    assert {path.suffix for path in finished.rglob("*") if path.is_file()} <= {
        ".json", ".csv", ".parquet", ".txt", ".safetensors", ".skops", ".html", ".toml",
    }  # fmt: skip


def test_no_half_written_run_is_left_beside_it(finished):
    assert {path.name for path in finished.parent.iterdir()} == {"digits"}


def test_the_accuracies_follow_from_the_stored_predictions(finished, results):
    rows = pyarrow.parquet.read_table(finished / "predictions.parquet").to_pylist()
    for head in results["heads"]:
        mine = [row for row in rows if row["head"] == head["name"]]
        assert len(mine) == results["dataset"]["n_test"]
        assert np.mean([row["label"] == row["predicted"] for row in mine]) == head["test"]["accuracy"]
        assert np.allclose([sum(row["probabilities"]) for row in mine], 1, atol=1e-5)


def test_the_splits_are_written_down_and_never_overlap(finished, results):
    with (finished / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 90
    by_digest: dict[str, set[str]] = {}
    for row in rows:
        by_digest.setdefault(row["digest"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in by_digest.values())
    assert sum(row["split"] == "test" for row in rows) == results["dataset"]["n_test"]


def test_the_same_command_gives_the_same_numbers(finished, results, digits_folder, filled_cache, tmp_path):
    again = tmp_path / "again"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", HEADS, "--out", str(again)]
    assert run([*command, *NARROW, "--quiet"]) == DONE
    repeated = json.loads((again / "results.json").read_text())
    assert [head["test"] for head in repeated["heads"]] == [head["test"] for head in results["heads"]]


def test_folders_named_train_and_test_decide_the_split(images, filled_cache, tmp_path):
    for split, keep in (("train", slice(0, 20)), ("test", slice(20, 30))):
        for label in "012":
            for path in sorted((images / label).iterdir())[keep if split == "train" else slice(0, 10)]:
                target = tmp_path / "sorted" / split / label / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
    out = tmp_path / "run"
    command = [
        "classify",
        str(tmp_path / "sorted"),
        "--cache",
        str(filled_cache),
        "--heads",
        "ridge",
        "--out",
        str(out),
    ]
    assert run([*command, "--quiet"]) == DONE
    data = json.loads((out / "results.json").read_text())["dataset"]
    assert data["n_test"] == 30
    assert data["n_train"] + data["n_val"] == 60
    assert data["n_val"] > 0


def test_a_scikit_learn_classifier_is_taken_by_its_dotted_path(digits_folder, filled_cache, tmp_path):
    out, head = tmp_path / "run", "sklearn.ensemble.ExtraTreesClassifier"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", head, "--out", str(out)]
    assert run([*command, "--quiet"]) == DONE
    (row,) = json.loads((out / "results.json").read_text())["heads"]
    assert row["test"]["accuracy"] > 0.7


def test_heads_are_chosen_by_folds_when_asked(digits_folder, filled_cache, tmp_path):
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--out", str(out)]
    assert run([*command, "--folds", "3", "--quiet"]) == DONE
    assert json.loads((out / "results.json").read_text())["config"]["folds"] == 3


def test_probabilities_are_tempered_when_asked_labels_stay_and_the_effect_is_told(
    finished, results, digits_folder, filled_cache, tmp_path, capsys
):
    out = tmp_path / "calibrated"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", HEADS, "--out", str(out)]
    assert run([*command, *NARROW, "--calibrate", "--quiet"]) == DONE
    assert "probabilities tempered on val" in capsys.readouterr().out
    before = {head["name"]: head for head in results["heads"]}
    tempered = {head["name"]: head for head in json.loads((out / "results.json").read_text())["heads"]}
    for name, head in tempered.items():
        effect = head["tempering"]
        assert before[name]["tempering"] is None
        assert head["test"]["accuracy"] == before[name]["test"]["accuracy"]
        assert effect["log_loss_before"] == pytest.approx(before[name]["test"]["log_loss"])
        assert (effect["log_loss_after"], effect["ece_after"]) == pytest.approx(
            (head["test"]["log_loss"], head["test"]["ece"])
        )
    assert any(abs(head["tempering"]["temperature"] - 1) > 0.01 for head in tempered.values())
    assert "Tempered on val" in (out / "report.html").read_text()
    rows = {row["path"]: row for row in pyarrow.parquet.read_table(out / "predictions.parquet").to_pylist()
            if row["head"] == "logistic"}  # fmt: skip
    told = out.parent / "predictions.json"
    words = ["predict", str(out), str(digits_folder), "--head", "logistic", "--out", str(told), "--quiet"]
    assert run([*words, "--cache", str(filled_cache)]) == DONE
    again = {row["path"]: list(row["probabilities"].values()) for row in json.loads(told.read_text())["images"]}
    for path, row in rows.items():
        assert again[path] == pytest.approx(row["probabilities"], rel=1e-5, abs=1e-9)


def test_class_names_are_escaped_wherever_they_are_shown(digits_folder, images, filled_cache, tmp_path, capsys):
    evil = "a\x1b[31mb\nc"
    (images / "0").rename(images / evil)
    out = tmp_path / "run"
    command = ["classify", str(images), "--cache", str(filled_cache), "--heads", "ridge", "--out", str(out)]
    assert run(command) == DONE
    assert "\x1b" not in "".join(capsys.readouterr())
    for path in out.rglob("*"):
        if path.suffix in {".json", ".csv", ".txt"}:
            assert "\x1b" not in path.read_text()
    assert "a\\x1b[31mb\\nc" in json.loads((out / "results.json").read_text())["dataset"]["classes"]


def test_heads_run_without_torchvision_and_without_an_engine(digits_folder, filled_cache, tmp_path):
    program = """
import sys
from featurecache.cli.main import run
code = run(sys.argv[1:])
heavy = "torchvision", "onnxruntime", "featurecache.extract.engines.build", "featurecache.extract.engines.choice"
loaded = [module for module in sys.modules if module.startswith(heavy)]
assert not loaded, loaded
sys.exit(code)
"""
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "logistic,mlp,linear_svm"]
    one = " ".join(
        f"--param {each}" for each in ("mlp.learning_rate=0.01", "mlp.dropout=0", "logistic.C=1", "linear_svm.C=1")
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *command, *NARROW, *one.split(), "--out", str(tmp_path / "run"), "--quiet"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_warm_extract_loads_no_backbone_and_decodes_no_image(digits_folder, filled_cache):
    program = """
import sys
from featurecache.cli.main import run
code = run(sys.argv[1:])
engines = "featurecache.extract.backbones.registry", "featurecache.extract.engines.build"
not_needed = "torch", "torchvision", "sklearn", *engines
heavy = [m for m in not_needed if m in sys.modules]
assert not heavy, heavy
sys.exit(code)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, "extract", str(digits_folder), "--cache", str(filled_cache), "--quiet"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "90 already there, 0 extracted" in ended.stdout


def test_two_backbones_stand_in_one_table(digits_folder, cache, tmp_path):
    both = ["--backbone", "efficientnet_lite0", "--backbone", "pixels", "--cache", str(cache), "--quiet"]
    out = tmp_path / "run"
    assert run(["run", str(digits_folder), *both, "--heads", "ridge", "--out", str(out)]) == DONE
    rows = json.loads((out / "results.json").read_text())["heads"]
    assert {row["backbone"] for row in rows} == {"efficientnet_lite0", "pixels"}


def test_two_runs_in_the_same_second_are_both_kept(digits_folder, filled_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("featurecache.cli.commands.classify.default_run_folder", lambda _: Path("data/runs/digits-now"))
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--quiet"]
    assert [run(command), run(command)] == [DONE, DONE]
    runs = tmp_path / "data" / "runs"
    assert {path.name for path in runs.iterdir()} == {"digits-now", "digits-now-2", "latest"}
    assert (runs / "latest").resolve().name == "digits-now-2"


@pytest.mark.parametrize("name", ["file/run", "x" * 300])
def test_no_head_is_tried_where_the_run_cannot_be_written(
    digits_folder, filled_cache, tmp_path, monkeypatch, capsys, name
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("featurecache.classify.selection.sweep.sweep", lambda *_, **__: pytest.fail("a head was tried"))
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--quiet"]
    assert run([*command, "--out", str(tmp_path / name)]) == FAILED
    assert "cannot be written" in capsys.readouterr().err


def test_what_is_no_runs_is_never_replaced(digits_folder, filled_cache, tmp_path, monkeypatch, capsys):
    mine = {"results.json": '{"accuracy": 0.9}', "thesis.txt": "mine", "src/main.py": "mine"}
    for name, text in mine.items():
        (tmp_path / "exp" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "exp" / name).write_text(text)
    monkeypatch.setattr("featurecache.classify.selection.sweep.sweep", lambda *_, **__: pytest.fail("a head was tried"))
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--quiet"]
    assert run([*command, "--out", str(tmp_path / "exp")]) == USAGE
    assert "is not empty and not a run ('src', 'thesis.txt')" in capsys.readouterr().err
    assert {name: (tmp_path / "exp" / name).read_text() for name in mine} == mine


@pytest.mark.parametrize("kind", ["the working folder", "a mounted volume"])
def test_a_run_goes_into_a_folder_that_cannot_be_renamed(
    digits_folder, filled_cache, tmp_path, monkeypatch, capsys, kind
):
    out = tmp_path / "out"
    out.mkdir()
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--quiet", "--out"]
    if kind == "a mounted volume":
        monkeypatch.setattr("featurecache.runs.placing._can_move", lambda folder, into: False)
    else:
        monkeypatch.chdir(out)
    inode = out.stat().st_ino
    for _ in range(2):
        assert run([*command, "." if kind == "the working folder" else str(out)]) == DONE
        assert out.stat().st_ino == inode
        assert {path.name for path in out.iterdir()} >= {"results.json", "report.html", "heads"}
        assert not [path.name for path in [*out.iterdir(), *tmp_path.iterdir()] if path.name.startswith(".")]


def test_a_run_elsewhere_moves_no_link_called_latest(digits_folder, filled_cache, tmp_path):
    (tmp_path / "prod").mkdir()
    (tmp_path / "latest").symlink_to("prod")
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--quiet"]
    assert run([*command, "--out", str(tmp_path / "new")]) == DONE
    assert (tmp_path / "latest").readlink() == Path("prod")


def test_a_file_of_the_users_in_a_run_keeps_it_from_being_replaced(digits_folder, filled_cache, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", "ridge", "--quiet"]
    assert run([*command, "--out", str(out)]) == DONE
    assert run(["audit", str(digits_folder), "--cache", str(filled_cache), "--out", str(out), "--quiet"]) in (0, 3)
    assert run([*command, "--out", str(out)]) == DONE
    assert not (out / "audit.json").exists()
    (out / "heads" / "notes.txt").write_text("mine")
    assert run([*command, "--out", str(out)]) == USAGE
    assert "what is no run's ('heads/notes.txt'). Move that away" in capsys.readouterr().err
    assert (out / "heads" / "notes.txt").read_text() == "mine"


def test_who_is_about_to_replace_a_run_is_told(digits_folder, filled_cache, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--out", str(out), "--heads"]
    assert run([*command, "ridge"]) == DONE
    assert "holds a run" not in capsys.readouterr().err
    assert run([*command, "centroid"]) == DONE
    assert f"'{out}' holds a run: this one replaces it, heads and all, when it is done." in capsys.readouterr().err
    assert [path.name for path in (out / "heads").iterdir()] == ["efficientnet_lite0--centroid"]
