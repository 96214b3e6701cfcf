"""Features in int8 from extract to predict: the activation ranges are in the cache, and a run keeps them, too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from PIL import Image
from torchvision.models import squeezenet1_1

from featurecache.base.exits import DONE, FAILED, REFUSED, USAGE
from featurecache.cli.main import run
from featurecache.extract.cache import ranges
from featurecache.extract.cache.ranges import RANGES_FILE, Ranges, write_ranges
from featurecache.extract.cache.store import read_spec
from featurecache.extract.engines import int8

SIDE = 32
INT8 = ["--precision", "int8"]


@pytest.fixture(scope="module", autouse=True)
def _small_graph():
    """A convolution of random weights in place of the exported network: exports are tried elsewhere, and take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "export_graph", lambda *_, **__: small_graph())
        yield


def small_graph() -> bytes:
    """A graph uint8 (4, 3, S, S) -> float32 (4, 512) of one convolution."""
    draw = np.random.default_rng(0)
    constants = {
        "half": np.float32(127.5),
        "w": draw.normal(0, 0.2, (512, 3, 4, 4)).astype(np.float32),
        "shape": np.array([4, 512]),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "half"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w"], ["map"], strides=[4, 4], name="conv"),
        helper.make_node("Relu", ["map"], ["positive"], name="relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [4, 3, SIDE, SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 512])
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "small", [x], [y], made)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return shape_inference.infer_shapes(model).SerializeToString()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with `images`, weights, a `cache` in int8 and a `run` on it."""
    root = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    torch.save(squeezenet1_1(weights=None).state_dict(), root / "weights.pth")
    draw = np.random.default_rng(0)
    for i in range(18):
        picture = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) // (1 + i % 2 * 3)
        (root / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(root / "images" / "ab"[i % 2] / f"{i}.png")
    assert run(["run", *words(root), *INT8, "--heads", "ridge", "--out", str(root / "run")]) == DONE
    return root


@pytest.fixture
def own(place, tmp_path) -> Path:
    """A copy of the folder, with a new image in it, to change."""
    root = Path(shutil.copytree(place, tmp_path / "own"))
    Image.fromarray(np.full((SIDE, SIDE, 3), 40, np.uint8)).save(root / "new.png")
    return root


def words(root: Path, cache: str = "cache") -> list[str]:
    network = ["--backbone", "squeezenet1_1", "--weights", str(root / "weights.pth"), "--size", str(SIDE)]
    return [str(root / "images"), *network, "--cache", str(root / cache)]


def predict(root: Path, cache: str = "cache") -> int:
    command = ["predict", str(root / "run"), str(root / "new.png"), "--weights", str(root / "weights.pth")]
    return run([*command, "--cache", str(root / cache), "--out", str(root / f"{cache}.json")])


def folder_of(root: Path, cache: str = "cache") -> Path:
    (found,) = (root / cache).glob(f"*/{RANGES_FILE}")
    return found.parent


def no_measurement(monkeypatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("ranges were measured again")

    monkeypatch.setattr(int8, "measure_ranges", never)


def test_every_command_on_a_cache_in_int8_works_without_measuring_again(own, monkeypatch, capsys):
    no_measurement(monkeypatch)
    assert run(["extract", *words(own), *INT8]) == DONE
    assert "18 already there, 0 extracted" in capsys.readouterr().out
    assert run(["classify", *words(own), *INT8, "--heads", "centroid", "--out", str(own / "again")]) == DONE
    assert run(["audit", *words(own), *INT8]) in (DONE, REFUSED)
    assert run(["compare", str(own / "run"), str(own / "again")]) == DONE
    assert run(["cache", "info", "--cache", str(own / "cache")]) == DONE
    spec = read_spec(folder_of(own))
    assert spec is not None
    assert f"512 numbers, float32, int8, ranges {spec.ranges[:12]}" in capsys.readouterr().out
    assert run(["cache", "verify", "--cache", str(own / "cache")]) == DONE


def test_features_in_int8_are_not_those_in_fp32(own, capsys):
    assert run(["classify", *words(own), "--heads", "ridge", "--out", str(own / "other")]) == FAILED
    error = capsys.readouterr().err
    assert "featurecache extract" in error
    assert "int8" in error


def test_a_run_keeps_the_ranges_of_its_features(place):
    (row,) = json.loads((place / "run" / "results.json").read_text())["features"]
    kept = place / "run" / f"ranges-{row['key'][:12]}.json"
    assert kept.read_bytes() == (folder_of(place) / RANGES_FILE).read_bytes()


def test_predict_takes_the_ranges_of_the_cache_and_where_it_is_gone_those_of_the_run(own, monkeypatch):
    no_measurement(monkeypatch)
    assert predict(own) == DONE
    assert predict(own, "new") == DONE
    assert folder_of(own, "new").name == folder_of(own).name
    assert json.loads((own / "new.json").read_text()) == json.loads((own / "cache.json").read_text())


def test_damaged_ranges_of_a_run_are_measured_again_with_a_sentence(own, capsys):
    (kept,) = (own / "run").glob("ranges-*.json")
    kept.write_text("{")
    assert predict(own, "new") == DONE
    assert (
        f"The activation ranges '{kept}' are measured again: they are damaged (it is no JSON" in capsys.readouterr().err
    )
    assert folder_of(own, "new").name == folder_of(own).name


def test_a_cache_with_other_ranges_than_the_run_is_refused_in_a_sentence(own, capsys):
    spec = read_spec(folder_of(own))
    assert spec is not None
    found = ranges.read_ranges(folder_of(own), spec)
    other = Ranges(tuple(each._replace(high=each.high * 1.25) for each in found.tensors))
    shutil.rmtree(own / "cache")
    write_ranges(own / "cache" / "squeezenet1_1-000000000000", spec, other)
    assert predict(own) == FAILED
    assert "Name by --cache the cache of the run, or a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["gone", "damaged", "hostile"])
def test_ranges_of_a_cache_that_cannot_be_read_are_measured_again_with_a_sentence(fault, own, capsys):
    path = folder_of(own) / RANGES_FILE
    whole = path.read_bytes()
    if fault == "gone":
        path.unlink()
    else:
        path.write_text("{}" if fault == "damaged" else "[" * 100_000)
    shutil.copy(own / "new.png", own / "images" / "a")
    assert run(["extract", *words(own), *INT8]) == DONE
    shown = capsys.readouterr()
    assert f"Activation ranges are measured again, since they cannot be read from '{path}': " in shown.err
    assert "18 already there, 1 extracted" in shown.out
    assert path.read_bytes() == whole


def test_ranges_that_come_out_otherwise_fill_a_new_cache_with_a_sentence(own, monkeypatch, capsys):
    path = folder_of(own) / RANGES_FILE
    spec = read_spec(path.parent)
    assert spec is not None
    other = ranges.read_ranges(path.parent, spec)
    other = Ranges(tuple(each._replace(high=each.high * 1.25) for each in other.tensors))
    path.unlink()
    monkeypatch.setattr(int8, "measure_ranges", lambda *_: other)
    shutil.copy(own / "new.png", own / "images" / "a")
    assert run(["extract", *words(own), *INT8]) == DONE
    shown = capsys.readouterr()
    assert "They are other ones than before, so all images are extracted into a new cache." in shown.err
    assert "0 already there, 19 extracted" in shown.out


def test_two_that_measure_at_once_fill_one_cache(own, monkeypatch):
    folder = folder_of(own)
    spec = read_spec(folder)
    assert spec is not None
    theirs = ranges.read_ranges(folder, spec)
    mine = Ranges(tuple(each._replace(high=each.high * 1.25) for each in theirs.tensors))

    def measure(*_: object) -> Ranges:
        write_ranges(own / "new" / folder.name, spec, theirs)
        return mine

    monkeypatch.setattr(int8, "measure_ranges", measure)
    assert run(["extract", *words(own, "new"), *INT8]) == DONE
    assert folder_of(own, "new").name == folder.name


def test_a_cache_that_cannot_be_written_is_read_and_a_new_one_is_a_sentence(own, monkeypatch, capsys):
    def closed(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(ranges, "replacing_file", closed)
    assert run(["extract", *words(own), *INT8]) == DONE
    assert run(["extract", *words(own, "new"), *INT8]) == FAILED
    assert "cannot be written: Read-only file system. Choose another cache with --cache" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_other_devices_are_refused_in_a_sentence(device, own, capsys):
    assert run(["extract", *words(own, "new"), *INT8, "--device", device]) in (FAILED, USAGE)
    assert f"int8 runs on the CPU, not on {device}. Use --device cpu" in capsys.readouterr().err
    assert not list((own / "new").glob("squeezenet*"))


def test_a_network_that_does_not_export_is_refused_in_a_sentence(own, monkeypatch, capsys):
    def fails(*_: object, **__: object) -> None:
        raise int8.EngineFailed("PyTorch does not export it: no such operator")

    monkeypatch.setattr(int8, "export_graph", fails)
    assert run(["extract", *words(own, "new"), *INT8]) == FAILED
    error = capsys.readouterr().err
    assert (
        "squeezenet1_1 cannot run in int8: PyTorch does not export it: no such operator. Use --precision fp32." in error
    )


def test_finetune_takes_a_head_on_int8_and_trains_in_fp32(own):
    command = ["finetune", str(own / "images"), "--from", str(own / "run"), "--cache", str(own / "cache")]
    quick = ["--unfreeze", "1", "--epochs", "1", "--augment", "none", "--engine", "torch"]
    assert run([*command, *quick, "--out", str(own / "tuned")]) == DONE
    (request,) = json.loads((own / "tuned" / "config.json").read_text())["requests"]
    assert request["precision"] == "fp32"
    assert not list((own / "tuned").glob("ranges-*"))
