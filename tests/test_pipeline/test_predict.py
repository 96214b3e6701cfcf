"""A saved head on any images says what it said in its run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from pipeline.cli import DONE, FAILED, REFUSED, USAGE, run

HEADS = "logistic,ridge,linear_svm,rbf_svm,lda,centroid,knn,mlp,sklearn.tree.DecisionTreeClassifier"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits_folder, filled_cache) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    command = ["classify", str(digits_folder), "--cache", str(filled_cache), "--heads", HEADS, "--out", str(folder)]
    assert run([*command, "--quiet"]) == DONE
    return folder


@pytest.mark.parametrize("head", HEADS.split(","))
def test_predict_on_the_test_images_repeats_the_run_exactly(finished, digits_folder, tmp_path, head):
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
        assert list(row["probabilities"].values()) == pytest.approx(expected[name]["probabilities"], rel=1e-6, abs=1e-9)


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


def test_predictions_are_written_as_csv(finished, digits_folder, tmp_path):
    out = tmp_path / "predictions.csv"
    assert run(["predict", str(finished), str(digits_folder), "--out", str(out), "--quiet"]) == DONE
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 90
    assert set(rows[0]) == {"path", "label", "probability"}


def test_a_broken_image_is_refused_and_the_others_get_labels(finished, images, cache, capsys):
    (images / "0" / "broken.png").write_bytes(b"nothing")
    assert run(["predict", str(finished), str(images), "--cache", str(cache), "--quiet"]) == REFUSED
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 92
    assert "0/broken.png" in err


def test_a_head_that_the_run_does_not_have_is_a_usage_error(finished, digits_folder, capsys):
    assert run(["predict", str(finished), str(digits_folder), "--head", "logistics"]) == USAGE
    assert "Did you mean logistic" in capsys.readouterr().err


def test_a_damaged_head_is_one_sentence(finished, digits_folder, tmp_path, capsys):
    broken = shutil.copytree(finished, tmp_path / "run")
    (broken / "heads" / "efficientnet_lite0--ridge" / "head.safetensors").write_bytes(b"nothing")
    assert run(["predict", str(broken), str(digits_folder), "--head", "ridge", "--quiet"]) == FAILED
    assert capsys.readouterr().err.startswith("featurecache: ")


def test_the_default_head_is_the_best_on_val_not_on_test(finished):
    from pipeline.predict import choose_head

    results = {
        "heads": [
            {"name": "lucky", "backbone": "b", "val": {"accuracy": 0.8, "log_loss": 1}, "test": {"accuracy": 0.99}},
            {"name": "steady", "backbone": "b", "val": {"accuracy": 0.9, "log_loss": 1}, "test": {"accuracy": 0.9}},
        ]
    }
    assert choose_head(results, None)["name"] == "steady"
