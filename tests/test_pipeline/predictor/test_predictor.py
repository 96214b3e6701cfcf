"""A saved head on any images says what it said in its run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from featurecache import FeatureCacheError, Predictor
from featurecache.cli.main import DONE, FAILED, REFUSED, USAGE, run

HEADS = "logistic,ridge,linear_svm,rbf_svm,lda,centroid,naive_bayes,knn,mlp,sklearn.tree.DecisionTreeClassifier"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits_folder, filled_cache) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", HEADS, "--out", str(folder)]
    assert run([*command, "--param", "mlp.hidden=64", "--quiet"]) == DONE
    return folder


@pytest.mark.parametrize("head", HEADS.split(","))
def test_predict_on_the_test_images_repeats_the_run(finished, digits_folder, tmp_path, head):
    rows = pyarrow.parquet.read_table(finished / "predictions.parquet").to_pylist()
    expected = {row["path"]: row for row in rows if row["head"] == head}
    for name in expected:
        target = tmp_path / "test" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(digits_folder / name, target)
    out = tmp_path / "predictions.json"
    command = ["predict", str(finished), str(tmp_path / "test"), "--head", head, "--out", str(out), "--quiet"]
    assert run(command) == DONE
    found = {row["path"]: row for row in json.loads(out.read_text())["images"]}
    assert found.keys() == expected.keys()
    for name, row in found.items():
        assert row["label"] == expected[name]["predicted"]
        assert list(row["probabilities"].values()) == pytest.approx(expected[name]["probabilities"], rel=1e-5, abs=1e-9)


def test_one_new_file_gets_a_label_and_a_probability(finished, digit_images, tmp_path, cache, capsys):
    images, labels = digit_images
    i = int((labels == 0).nonzero()[0][-1])
    Image.fromarray(images[i]).save(tmp_path / "new.png")
    assert run(["predict", str(finished), str(tmp_path / "new.png"), "--cache", str(cache), "--quiet"]) == DONE
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["path", "label", "probability"]
    path, label, probability = row.split()
    assert (path, label) == ("new.png", "0")
    assert 0 < float(probability) <= 1
    assert run(["predict", str(finished), str(tmp_path / "new.png"), "--cache", str(cache), "--head", "knn"]) == DONE
    assert "labelled by the head knn on efficientnet_lite0; --head takes another of the run" in capsys.readouterr().err


def test_predictions_are_written_as_csv(finished, digits_folder, tmp_path):
    out = tmp_path / "predictions.csv"
    assert run(["predict", str(finished), str(digits_folder), "--out", str(out), "--quiet"]) == DONE
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 90
    assert list(rows[0]) == ["path", "label", "probability", "p:0", "p:1", "p:2"]


def test_a_broken_image_is_refused_and_the_others_get_labels(finished, images, cache, capsys):
    (images / "0" / "broken.png").write_bytes(b"nothing")
    assert run(["predict", str(finished), str(images), "--cache", str(cache), "--quiet"]) == REFUSED
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 92
    assert "0/broken.png" in err
    assert f"all listed in {cache / 'errors.csv'}" in err
    assert "0/broken.png" in (cache / "errors.csv").read_text()


@pytest.mark.parametrize("name", ["all.json", "all.csv"])
def test_where_all_images_are_refused_they_are_listed_and_nothing_fails(finished, cache, tmp_path, capsys, name):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a\nb.png").write_bytes(b"nothing")
    out = tmp_path / name
    command = ["predict", str(finished), str(tmp_path / "new"), "--cache", str(cache), "--quiet", "--head", "rbf_svm"]
    assert run([*command, "--out", str(out)]) == REFUSED
    assert f"all listed in {tmp_path / 'errors.csv'}" in capsys.readouterr().err
    with (tmp_path / "errors.csv").open() as file:
        (listed,) = csv.DictReader(file)
    assert listed.pop("images") == str(tmp_path / "new")
    assert listed["path"] == r"a\nb.png"
    if name == "all.json":
        found = json.loads(out.read_text())
        assert (found["images"], found["refused"]) == ([], [listed])
    else:
        assert out.read_text().splitlines() == ["path,label,probability,p:0,p:1,p:2"]
        assert run(command) == REFUSED
        assert capsys.readouterr().out == "No image got a label.\n"


def test_the_refused_images_of_a_run_are_not_replaced_by_those_of_its_predictions(finished, cache, tmp_path, capsys):
    copied = shutil.copytree(finished, tmp_path / "run")
    (copied / "errors.csv").write_text("of the run")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    command = ["predict", str(copied), str(tmp_path / "bad.png"), "--cache", str(cache), "--quiet"]
    assert run([*command, "--out", str(copied / "predictions.csv")]) == REFUSED
    assert (copied / "errors.csv").read_text() == "of the run"
    assert "bad.png" in (cache / "errors.csv").read_text()


def test_several_arguments_are_told_apart_by_name(finished, digits_folder, tmp_path, cache):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(digits_folder / "0" / "000.png", tmp_path / folder / "1.png")
    out, single = tmp_path / "out.json", tmp_path / "b" / "1.png"
    command = ["predict", str(finished), str(tmp_path / "a"), str(tmp_path / "b"), str(single), "--cache", str(cache)]
    assert run([*command, "--out", str(out), "--quiet"]) == DONE
    found = [row["path"] for row in json.loads(out.read_text())["images"]]
    assert found == [str(tmp_path / "a" / "1.png"), str(single)], "an image in two arguments is labelled once"


@pytest.mark.parametrize(
    ("out", "code", "sentence"),
    [("nodir/x.csv", USAGE, "There is no folder"), ("x" * 252 + ".csv", FAILED, "cannot be written")],
)
def test_the_place_is_checked_before_anything_is_extracted(finished, images, tmp_path, capsys, out, code, sentence):
    cache = tmp_path / "new"
    command = ["predict", str(finished), str(images), "--cache", str(cache), "--quiet"]
    assert run([*command, "--out", str(tmp_path / out)]) == code
    assert sentence in capsys.readouterr().err
    assert not cache.exists()


def test_predictions_that_fail_leave_the_older_file_alone(finished, images, tmp_path, cache, capsys):
    out = tmp_path / "kept" / "x.csv"
    out.parent.mkdir()
    out.write_text("older")
    (images / "0" / "broken.png").write_bytes(b"nothing")
    command = ["predict", str(finished), str(images), "--cache", str(cache), "--out", str(out), "--quiet"]
    assert run([*command, "--on-error", "fail"]) == FAILED
    assert out.read_text() == "older"
    assert list(out.parent.iterdir()) == [out]


def test_a_head_that_the_run_does_not_have_is_a_usage_error(finished, digits_folder, capsys):
    assert run(["predict", str(finished), str(digits_folder), "--head", "logistics"]) == USAGE
    assert "Did you mean logistic" in capsys.readouterr().err


def test_a_damaged_head_is_one_sentence(finished, digits_folder, tmp_path, capsys):
    broken = shutil.copytree(finished, tmp_path / "run")
    (broken / "heads" / "efficientnet_lite0--ridge" / "head.safetensors").write_bytes(b"nothing")
    assert run(["predict", str(broken), str(digits_folder), "--head", "ridge", "--quiet"]) == FAILED
    assert capsys.readouterr().err.startswith("featurecache: ")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("results.json", "{}", "'heads' is missing"),
        ("results.json", '{"heads": []}', "'heads' is empty"),
        ("results.json", '{"heads": [{}]}', "'heads[0].name' is missing"),
        ("config.json", "{}", "'cache' is missing"),
    ],
)
def test_a_damaged_run_is_one_sentence(finished, digits_folder, tmp_path, capsys, name, text, reason):
    broken = shutil.copytree(finished, tmp_path / "run")
    (broken / name).write_text(text)
    assert run(["predict", str(broken), str(digits_folder), "--quiet"]) == FAILED
    said = capsys.readouterr().err
    assert said.startswith(f"featurecache: '{broken / name}' is not what 'featurecache classify' writes: {reason}")


def test_the_default_head_is_the_best_on_val_not_on_test(finished):
    from featurecache.runs.head_choice import choose_head

    results = {
        "heads": [
            {"name": "lucky", "backbone": "b", "val": {"accuracy": 0.8, "log_loss": 1}, "test": {"accuracy": 0.99}},
            {"name": "steady", "backbone": "b", "val": {"accuracy": 0.9, "log_loss": 1}, "test": {"accuracy": 0.9}},
        ]
    }
    assert choose_head(results["heads"], None)["name"] == "steady"


@pytest.mark.parametrize("name", ["ru\0n", "half \ud800", "a" * 5000, ""], ids=["NUL", "half", "long", "empty"])
def test_a_run_by_an_impossible_name_is_a_sentence(name):
    with pytest.raises(FeatureCacheError, match=r"^('\.' is not a run|There is no folder|'a+)"):
        Predictor.load(name)
