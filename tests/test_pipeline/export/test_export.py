"""A head as one file: it answers as `predict` does, says what it is, and is not written where it does not agree."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import featurecache
from featurecache.base import files
from featurecache.base.errors import PipelineError, UsageError
from featurecache.cli.main import DONE, FAILED, USAGE, run
from featurecache.export import assembly
from featurecache.export.differences import fitted
from featurecache.export.export import export_model
from featurecache.predictor import Predictor

README = Path(__file__).parents[3] / "pipeline" / "export" / "README.md"


@pytest.fixture(scope="module")
def exported(pixels_run, digits_folder, tmp_path_factory):
    return export_model(pixels_run, tmp_path_factory.mktemp("exported") / "model.onnx", head="logistic")


def answers(path: Path, images: list[np.ndarray]) -> tuple[np.ndarray, list[int]]:
    session = onnxruntime.InferenceSession(path)
    found = [session.run(["probabilities", "label"], {"image": image}) for image in images]
    return np.stack([proba for proba, _ in found]), [int(label) for _, label in found]


def pixels_of(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("*.png"))]


def check_answers(path: Path, predictor: Predictor, images: Path, *, fixed: bool) -> None:
    """The answers of a file, run by ONNX Runtime alone, are those of `predict`."""
    expected = predictor.predict(featurecache.read_images(images))
    pixels = pixels_of(images)
    if fixed:
        pixels = [fitted(image, predictor.spec.transform) for image in pixels]
    proba, labels = answers(path, pixels)
    assert labels == expected.codes.tolist()
    assert np.abs(proba - expected.proba).max() < 1e-5


def test_a_file_answers_as_predict_does(exported, pixels_run, digits_folder):
    check_answers(exported.path, Predictor.load(pixels_run, head="logistic"), digits_folder, fixed=False)
    parity = exported.document["parity"]
    assert parity["run"]["n_same"] == parity["run"]["n"] == 90
    assert parity["odd"]["n_same"] == parity["odd"]["n"] == 21


def test_an_ensemble_is_one_file(pixels_run, digits_folder, tmp_path):
    exported = featurecache.export_model(pixels_run, tmp_path / "model.onnx", head="ensemble")
    check_answers(exported.path, Predictor.load(pixels_run, head="ensemble"), digits_folder, fixed=False)


def test_a_file_says_what_it_is_in_its_metadata_and_next_to_it(exported):
    metadata = onnxruntime.InferenceSession(exported.path).get_modelmeta().custom_metadata_map
    beside = json.loads(exported.described.read_text())
    assert exported.described.name == "model.onnx.json"
    assert beside == exported.document
    for name, value in beside.items():
        kept = metadata[f"featurecache.{name}"]
        assert (kept if isinstance(value, str) else json.loads(kept)) == value
    assert beside["classes"] == ["0", "1", "2"]
    assert beside["input"]["shape"] == ["H", "W", 3]
    (features,) = beside["features"]
    assert (features["backbone"], features["transform"]["resize"]) == ("pixels", 32)
    assert len(features["key"]) == 64
    assert {"onnx", "onnxruntime", "featurecache"} <= beside["versions"].keys()


def test_a_file_has_standard_operators_only(exported):
    import onnx

    model = onnx.load(exported.path)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model, full_check=True)


def test_the_example_of_the_readme_labels_a_photo(exported, digits_folder, tmp_path, monkeypatch, capsys):
    example, _ = re.findall(r"```py\n(.*?)```", README.read_text(), re.DOTALL)
    assert "featurecache." in example
    assert not re.search(r"import (torch|featurecache)", example)
    shutil.copy(exported.path, tmp_path / "model.onnx")
    Image.open(next(iter(sorted((digits_folder / "1").iterdir())))).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(README), "exec"), {})
    label, probability = capsys.readouterr().out.split()
    assert label in ("0", "1", "2")
    assert 1 / 3 < float(probability) <= 1


def test_the_command_prints_how_far_the_file_agrees(pixels_run, digits_folder, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert run(["export", str(pixels_run), "--head", "ridge", "--fixed", "--out", str(out), "--quiet"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*model\.onnx: ridge on pixels, 3 classes, \d\.\d MB, \d+\.\d ms an image here", lines[0])
    assert lines[1] == "  takes uint8 (32, 32, 3)"
    assert lines[2].startswith("  90 of 90 images of the run have the label of predict, the probabilities differ by up")
    assert "of these kinds Pillow alone reads other pixels than featurecache: 16-bits.png" in lines[4]
    check_answers(out, Predictor.load(pixels_run, head="ridge"), digits_folder, fixed=True)


def test_a_program_gets_json(exported):
    assert json.loads(json.dumps(exported.to_dict())) == {
        "path": str(exported.path), "n_bytes": exported.path.stat().st_size, **exported.document,
    }  # fmt: skip


def test_another_name_than_onnx_is_a_usage_error(pixels_run, tmp_path, capsys):
    assert run(["export", str(pixels_run), "--out", str(tmp_path / "model.pt")]) == USAGE
    assert "is no .onnx file: name one by --out." in capsys.readouterr().err


def test_where_the_images_are_gone_a_line_says_so(pixels_run, tmp_path, caplog):
    copy = shutil.copytree(pixels_run, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"images": "gone", "images_at": "/nowhere/gone"}))
    with caplog.at_level("INFO", logger="featurecache"):
        exported = export_model(copy, tmp_path / "model.onnx", head="ridge")
    assert "The file is compared on odd images alone: those of the run are not here" in caplog.text
    assert "run" not in exported.document["parity"]


def test_a_file_that_disagrees_is_not_written_and_the_earlier_one_stays(pixels_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "model.onnx").write_bytes(b"earlier")
    add_transform = assembly.add_transform

    def reversed_channels(nodes, image, spec):
        return nodes.add("Gather", add_transform(nodes, image, spec), nodes.constant([2, 1, 0], np.int64), axis=1)

    monkeypatch.setattr(assembly, "add_transform", reversed_channels)
    command = ["export", str(pixels_run), "--head", "ridge", "--out", str(tmp_path / "model.onnx"), "--quiet"]
    assert run(command) == FAILED
    err = capsys.readouterr().err
    assert "The exported file does not agree with predict, so it is not written." in err
    assert "red and blue are exchanged (BGR in place of RGB)" in err
    assert (tmp_path / "model.onnx").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_file_never_lies_next_to_the_document_of_another(exported, pixels_run, tmp_path, monkeypatch):
    shutil.copy(exported.path, tmp_path / "model.onnx")
    shutil.copy(exported.described, tmp_path / "model.onnx.json")
    publish, published = files.publish, []

    def stopped_at_the_second(temporary, path):
        published.extend([path] if path.parent == tmp_path else [])
        if len(published) == 2:
            raise KeyboardInterrupt
        publish(temporary, path)

    monkeypatch.setattr(files, "publish", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export_model(pixels_run, tmp_path / "model.onnx", head="ridge")
    assert Predictor.load(tmp_path / "model.onnx").name == "ridge on pixels"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_what_is_exported_already_is_not_exported_again(exported, tmp_path):
    with pytest.raises(UsageError, match="is an exported file already"):
        export_model(exported.path, tmp_path / "model.onnx")


@pytest.mark.parametrize("asked", [{"format": "timm", "fixed": True}, {"format": "pickle"}])
def test_what_no_format_has_is_refused(pixels_run, tmp_path, asked):
    with pytest.raises(UsageError, match=r"--fixed is for --format onnx|There is no format 'pickle'"):
        export_model(pixels_run, tmp_path / "out", **asked)


def test_a_head_on_vectors_of_a_file_has_no_network_to_export(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    vectors = random.normal(size=(40, 4)).astype(np.float32) + labels[:, None]
    images = featurecache.read_arrays(vectors, labels.astype(str))
    featurecache.train_heads(images, heads=["ridge"], out=tmp_path / "run")
    with pytest.raises(UsageError, match="takes vectors from a file, so there is no network to export"):
        export_model(tmp_path / "run", tmp_path / "model.onnx")
    with pytest.raises(PipelineError):
        export_model(tmp_path / "nothing", tmp_path / "model.onnx")
