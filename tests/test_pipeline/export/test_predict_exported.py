"""An exported file labels images as its run does, without the run."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys

import pyarrow.parquet
import pytest

from featurecache.cli.main import DONE, FAILED, REFUSED, USAGE, run
from featurecache.export.export import export_model
from featurecache.predictions import on_the_way


@pytest.fixture(scope="module")
def exported(pixels_run, digits_folder, tmp_path_factory):
    """Files of images of any size, and of one size."""
    folder = tmp_path_factory.mktemp("exported")
    return {
        fixed: export_model(pixels_run, folder / f"{fixed}.onnx", head="logistic", fixed=fixed).path
        for fixed in (False, True)
    }


def predicted(capsys, *words):
    code = run(["predict", *map(str, words), "--json", "--quiet"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


@pytest.mark.parametrize("fixed", [False, True])
def test_a_file_predicts_as_its_run(exported, pixels_run, digits_folder, capsys, fixed):
    _, expected, _ = predicted(capsys, pixels_run, digits_folder, "--head", "logistic")
    code, found, _ = predicted(capsys, exported[fixed], digits_folder)
    assert code == DONE
    assert [row["path"] for row in found["images"]] == [row["path"] for row in expected["images"]]
    assert [row["label"] for row in found["images"]] == [row["label"] for row in expected["images"]]
    for one, other in zip(found["images"], expected["images"], strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    assert (found["head"], found["labelled"], found["files"]) == (
        expected["head"],
        expected["labelled"],
        expected["files"],
    )


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet", "table"])
def test_where_every_image_of_a_block_is_refused_the_others_are_written(
    exported, digits_folder, tmp_path, capsys, monkeypatch, form
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(on_the_way, "MOST_OF_A_BLOCK", 2)
    (tmp_path / "new").mkdir()
    for name in "abc":
        (tmp_path / "new" / f"{name}.png").write_bytes(b"nothing")
    where = ["--quiet"] if form == "table" else ["--quiet", "--out", str(tmp_path / f"p.{form}")]
    for n in range(2):
        assert run(["predict", str(exported[False]), str(tmp_path / "new"), *where]) == REFUSED
        out = capsys.readouterr().out
        if form == "table":
            assert len(out.splitlines()) == (3 if n else 1)
        elif form == "parquet":
            assert pyarrow.parquet.read_table(tmp_path / "p.parquet").num_rows == n
        shutil.copy(digits_folder / "0" / "000.png", tmp_path / "new" / "d.png")


def test_refused_images_are_listed_and_the_others_get_labels(exported, digits_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_folder / "0", tmp_path / "new")
    (tmp_path / "new" / "broken.png").write_bytes(b"nothing")
    n = len(list((tmp_path / "new").iterdir()))
    code, found, err = predicted(capsys, exported[False], "new")
    assert (code, len(found["images"]), found["files"]["n_used"]) == (REFUSED, n - 1, n - 1)
    assert [row["path"] for row in found["refused"]] == ["broken.png"]
    assert "all listed in errors.csv" in err
    assert run(["predict", str(exported[False]), "new", "--out", "p.csv", "--top", "2", "--quiet"]) == REFUSED
    with open("p.csv", newline="") as file:
        assert list(next(csv.DictReader(file))) == ["path", "label", "probability", "label2", "probability2"]
    assert run(["predict", str(exported[False]), "new", "--on-error", "fail", "--quiet"]) == FAILED


def test_an_image_on_standard_input_is_labelled_by_a_file(exported, digits_folder, capsys, monkeypatch):
    image = sorted((digits_folder / "1").iterdir())[0]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(image.read_bytes())))
    code, found, _ = predicted(capsys, exported[False], "-")
    assert (code, [(row["path"], row["label"]) for row in found["images"]]) == (DONE, [("-", "1")])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--head", "knn"], "--head is about a run"),
        (["--cache", "c"], "--cache is about a run"),
        (["--batch-size", "4"], "--batch-size is about a run"),
    ],
)
def test_options_of_runs_are_refused_with_a_file(exported, digits_folder, capsys, words, sentence):
    code, _, err = predicted(capsys, exported[False], digits_folder, *words)
    assert (code, sentence in err) == (USAGE, True)


def test_a_file_of_another_program_is_refused(tmp_path, digits_folder, capsys):
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "x.onnx")
    code, _, err = predicted(capsys, tmp_path / "x.onnx", digits_folder)
    assert (code, "is no file of featurecache export" in err) == (FAILED, True)
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    assert predicted(capsys, tmp_path / "x.onnx", digits_folder)[0] == FAILED


def test_a_dry_run_shows_how_images_are_read(exported, digits_folder, capsys):
    assert run(["predict", str(exported[False]), str(digits_folder), "--dry-run"]) == DONE
    assert "90 images" in capsys.readouterr().out
