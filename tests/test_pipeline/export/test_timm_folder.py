"""A linear head and its network as a folder that timm loads by itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from featurecache.base.errors import PipelineError, UsageError
from featurecache.cli.main import run
from featurecache.export.differences import fitted
from featurecache.export.export import export_model
from featurecache.export.timm_folder import agreement
from featurecache.export.timm_folder.config import crop_share
from featurecache.extract.cache.transform_spec import TransformSpec
from featurecache.extract.images.read import read_images
from featurecache.extract.images.transform import fit_pixels
from featurecache.predictor import Predictor

SIDE = 48
timm = pytest.importorskip("timm", reason="timm is an extra")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of linear and other heads on a tiny network of timm, with random tensors."""
    root = tmp_path_factory.mktemp("timm folder")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", pretrained=False)
    (root / "net").mkdir()
    save_file(network.state_dict(), root / "net" / "model.safetensors")
    config = {
        "architecture": "test_resnet", "input_size": [3, SIDE, SIDE], "classifier": "fc", "first_conv": "conv1",
        "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25],
    }  # fmt: skip
    (root / "net" / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    for name, low in (("dark", 0), ("middle", 40), ("b & <right>", 90)):
        (root / "images" / name).mkdir(parents=True)
        for i in range(14):
            pixels = random.integers(low, low + 120, (60, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{i}.png")
    words = [str(root / "images"), "--backbone", f"local-dir:{root / 'net'}", "--cache", str(root / "cache"), "--quiet"]
    heads = ["--heads", "logistic,ridge,knn", "--ensemble", "--out", str(root / "run")]
    assert run(["run", *words, "--engine", "torch", *heads]) == 0
    return root


@pytest.fixture(scope="module")
def exported(place):
    return export_model(place / "run", place / "folder", head="logistic", format="timm")


def test_timm_loads_the_folder_and_its_labels_are_those_of_predict(place, exported):
    model = timm.create_model(f"local-dir:{exported.path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    predictor = Predictor.load(place / "run", head="logistic")
    found = predictor.predict(read_images(str(place / "images")))
    images = [np.array(Image.open(sample.path)) for sample in found.samples]
    spec = predictor.spec.transform
    pixels = torch.stack([torch.from_numpy(fit_pixels(image.transpose(2, 0, 1), spec)) for image in images])
    with torch.inference_mode():
        ours = model(agreement.normalised(pixels, spec)).softmax(dim=1).numpy()
        theirs = model(torch.stack([transform(Image.fromarray(image)) for image in images])).argmax(dim=1).numpy()
    assert (ours.argmax(axis=1) == found.codes).all()
    np.testing.assert_allclose(ours, found.proba, atol=1e-5)
    assert (theirs == found.codes).mean() >= 0.97
    assert model.pretrained_cfg["label_names"] == found.classes
    assert exported.agreement.same == exported.agreement.n == 42


def test_the_folder_has_three_files_and_none_of_them_is_a_pickle(exported):
    assert sorted(path.name for path in exported.path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert exported.n_bytes == sum(path.stat().st_size for path in exported.path.iterdir())


def test_the_transform_of_the_folder_is_that_of_the_run(place, exported):
    model = timm.create_model(f"local-dir:{exported.path}", pretrained=True)
    values = timm.data.resolve_data_config({}, model=model)
    spec = Predictor.load(place / "run", head="logistic").spec.transform
    assert (list(values["input_size"]), values["interpolation"]) == ([3, SIDE, SIDE], "bicubic")
    assert (tuple(values["mean"]), tuple(values["std"])) == (spec.mean, spec.std)
    assert int(SIDE / values["crop_pct"]) == spec.resize == 53


@pytest.mark.parametrize(("crop", "resize"), [(224, 256), (224, 235), (288, 303), (49, 52), (160, 160), (300, 331)])
def test_timm_computes_the_same_resize(crop, resize):
    spec = TransformSpec(resize, crop, "bilinear", True, (0.5,) * 3, (0.5,) * 3)
    assert int(np.floor(crop / crop_share(spec))) == resize


def test_the_card_has_the_numbers_of_the_run_in_its_metadata(place, exported):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard.load(exported.path / "README.md")
    results = json.loads((place / "run" / "results.json").read_text())
    (row,) = [each for each in results["heads"] if each["name"] == "logistic"]
    found = {each.metric_type: each for each in card.data.eval_results}
    assert found["accuracy"].metric_value == row["test"]["accuracy"]
    low, high = row["test"]["accuracy_ci"]
    assert found["accuracy"].metric_name == f"Accuracy (95 % interval {low:.4f} to {high:.4f})"
    assert found["accuracy"].metric_args["confidence_interval"] == [low, high]
    assert card.data.library_name == "timm"
    assert r"b \& \<right\>" in card.text


def test_the_example_of_the_readme_labels_a_photo(place, exported, tmp_path, monkeypatch, capsys):
    readme = Path(__file__).parents[3] / "pipeline" / "export" / "README.md"
    _, example = re.findall(r"```py\n(.*?)```", readme.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").symlink_to(exported.path)
    Image.open(place / "images" / "dark" / "0.png").save("photo.jpg", quality=95)
    exec(compile(example, str(readme), "exec"), {})
    assert capsys.readouterr().out == "dark\n"


def test_featurecache_takes_the_folder_as_a_backbone(place, exported):
    from featurecache.extract.backbones.registry import load_backbone

    assert load_backbone(f"local-dir:{exported.path}").transform == Predictor.load(place / "run").spec.transform


def test_heads_that_are_not_linear_are_refused(place, tmp_path):
    with pytest.raises(UsageError, match=r"the head knn on .* is not\. Name a linear one by --head, such as logistic"):
        export_model(place / "run", tmp_path / "out", head="knn", format="timm")
    with pytest.raises(UsageError, match="is made of several heads or networks"):
        export_model(place / "run", tmp_path / "out", head="ensemble", format="timm")
    assert not list(tmp_path.iterdir())


def test_features_that_are_not_those_of_the_last_layer_are_refused(place, tmp_path):
    words = [
        str(place / "images"),
        "--backbone",
        f"local-dir:{place / 'net'}",
        "--cache",
        str(place / "cache"),
        "--quiet",
    ]
    asked = ["--pooling", "max", "--engine", "torch", "--heads", "ridge", "--out", str(tmp_path / "run")]
    assert run(["run", *words, *asked]) == 0
    with pytest.raises(UsageError, match=r"takes other numbers than the features of .*, pooled by max\."):
        export_model(tmp_path / "run", tmp_path / "out", format="timm")


def test_a_folder_that_disagrees_is_not_written_and_the_one_before_stays(place, exported, monkeypatch):
    before = (exported.path / "README.md").read_bytes()
    monkeypatch.setattr(agreement, "fitted", lambda image, spec: 255 - fitted(image, spec))
    with pytest.raises(PipelineError, match=r"^The folder does not agree with predict, so it is not written: \d+ of"):
        export_model(place / "run", exported.path, head="logistic", format="timm")
    assert (exported.path / "README.md").read_bytes() == before


def test_a_folder_with_other_files_is_not_replaced(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("text")
    with pytest.raises(UsageError, match="holds other files, and the exported one would replace them"):
        export_model(place / "run", tmp_path / "mine", head="ridge", format="timm")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_network_that_timm_does_not_have_is_refused(pixels_run, tmp_path):
    with pytest.raises(UsageError, match="timm has no network like pixels"):
        export_model(pixels_run, Path(tmp_path / "out"), head="logistic", format="timm")


def test_the_command_prints_how_far_each_format_agrees(place, tmp_path, capsys):
    words = ["export", str(place / "run"), "--head", "ridge", "--quiet"]
    assert run([*words, "--format", "timm", "--out", str(tmp_path / "folder")]) == 0
    text = capsys.readouterr().out
    assert "a folder of timm" in text
    assert "42 of 42 images of the run have the label of predict" in text
    assert run([*words, "--format", "torch", "--out", str(tmp_path / "model.pt2"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["format"], document["same"], document["n"]) == ("torch", 42, 42)
    assert run([*words, "--format", "torch", "--out", str(tmp_path / "model.onnx")]) == 2
    assert "is no .pt2 file" in capsys.readouterr().err
    assert run([*words, "--format", "timm", "--fixed", "--out", str(tmp_path / "other")]) == 2
    assert "--fixed is for --format onnx" in capsys.readouterr().err
